"""A file from the net into memory: bounded in bytes and in time, tried again where that can help."""

import http.client
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable

from cnn_trainer.errors import DataError

# Where Keras downloads its data sets from (keras/src/datasets/mnist.py).
BASE_URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"

ANSWER_SECONDS = 8.0  # until the server begins to answer; looking up and trying all of its addresses included
STALL_SECONDS = 10.0  # without a byte
TOTAL_SECONDS = 600.0  # for one file, all tries together
NUM_TRIES = 3
PAUSE_SECONDS = 0.5  # before the second try; twice that before the third

_CHUNK_BYTES = 2**16
_PASSING_STATUS = frozenset({408, 429, 500, 502, 503, 504})

DownloadProgress = Callable[[int, int | None], None]


def no_progress(done_bytes: int, total_bytes: int | None) -> None:
    """Tells nobody."""


class _NoAnswerError(OSError):
    """The server did not begin to answer in time; it is not asked again, so that being offline costs seconds."""


def download(name: str, max_bytes: int, progress: DownloadProgress = no_progress) -> bytes:
    """The content of the file ``name`` under ``BASE_URL``. What it holds is not checked.

    Args:
        name: of the file.
        max_bytes: what it may take at most.
        progress: called with the bytes done, and the bytes in all where the server says so.

    Raises:
        DataError: where it cannot be had: no connection, an error of the server, too large, too slow.
    """
    url = BASE_URL + name
    deadline = time.monotonic() + TOTAL_SECONDS
    for attempt in range(NUM_TRIES):
        try:
            return _try_once(url, max_bytes, deadline, progress)
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()  # it holds the connection
            if attempt == NUM_TRIES - 1 or not _may_pass(error):
                tries = f" in {attempt + 1} tries" if attempt else ""
                raise DataError(f"cannot be downloaded{tries}: {_describe(error)}", place=url) from None
        time.sleep(PAUSE_SECONDS * 2**attempt)
    raise AssertionError("the last try returns or raises")


def _try_once(url: str, max_bytes: int, deadline: float, progress: DownloadProgress) -> bytes:
    with _open(url) as response:
        total = response.length
        content = bytearray()
        while part := response.read1(_CHUNK_BYTES):
            content += part
            if max(len(content), total or 0) > max_bytes:
                raise DataError(f"is larger than the {max_bytes} bytes that it may take", place=url)
            if time.monotonic() > deadline:
                raise DataError(
                    f"took more than {TOTAL_SECONDS:.0f} seconds", place=url, remedy="fetch it with another program"
                )
            progress(len(content), total)
        if total is not None and len(content) < total:
            raise ConnectionResetError(f"the connection ended after {len(content)} of {total} bytes")
        return bytes(content)


def _open(url: str) -> http.client.HTTPResponse:
    """Ask for ``url``, and wait ``ANSWER_SECONDS`` for the answer to begin.

    It is asked for in a thread, as looking up a name knows no time limit, and the limit of a connection counts for
    each address of a host alone.
    """
    answers: queue.SimpleQueue[http.client.HTTPResponse | Exception] = queue.SimpleQueue()
    given_up = threading.Event()

    def ask() -> None:
        try:
            response = urllib.request.urlopen(url, timeout=STALL_SECONDS)  # noqa: S310 -- BASE_URL is https
        except Exception as error:
            answers.put(error)
            return
        answers.put(response)
        if given_up.is_set():
            response.close()

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=ANSWER_SECONDS)
    except queue.Empty:
        given_up.set()
        raise _NoAnswerError(f"no answer within {ANSWER_SECONDS:.0f} seconds") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _may_pass(error: Exception) -> bool:
    """Whether a second try a moment later may succeed. Not for an unknown host or a network that is down."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code in _PASSING_STATUS
    if isinstance(error, urllib.error.URLError):
        return isinstance(error.reason, ConnectionError)
    return isinstance(error, ConnectionError | TimeoutError | http.client.HTTPException)


def _describe(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return str(getattr(error.reason, "strerror", None) or error.reason)
    if isinstance(error, TimeoutError):
        return f"nothing came for {STALL_SECONDS:.0f} seconds"
    return str(error) or type(error).__name__
