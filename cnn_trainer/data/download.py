"""Downloads a file: with limits on its size and on time, and tries again if that can help."""

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import BinaryIO

from cnn_trainer.errors import DataError, count

STALL_SECONDS = (
    8.0  # without a byte, or until an address of the host answers; the system limits the look-up of the host
)
TOTAL_SECONDS = 600.0  # for all tries of one file, plus a second for each 250,000 bytes that it may have
NUM_TRIES = 3
PAUSE_SECONDS = 0.5  # before the second try; twice that before the third

_SLOWEST = 250_000  # bytes a second
_CHUNK_BYTES = 2**16
_PASSING_STATUS = frozenset({408, 429, 500, 502, 503, 504})

DownloadProgress = Callable[[int, int | None], None]


def no_progress(done_bytes: int, total_bytes: int | None) -> None:
    """Reports nothing."""


def download(url: str, max_bytes: int, file: BinaryIO, progress: DownloadProgress = no_progress) -> None:
    """Write the content at ``url`` into ``file``, which is empty, without checking it: at most ``max_bytes``.

    ``progress`` is called with the bytes done, and the total if the server gives it.

    Raises:
        DataError: if it cannot be downloaded (no connection, a server error, too large, too slow) or written.
    """
    deadline = time.monotonic() + TOTAL_SECONDS + max_bytes / _SLOWEST
    for attempt in range(NUM_TRIES):
        try:
            return _try_once(url, max_bytes, deadline, file, progress)
        except (OSError, http.client.HTTPException) as error:
            problem, may_pass = _describe(error)
            if attempt == NUM_TRIES - 1 or not may_pass:
                tries = f" in {attempt + 1} tries" if attempt else ""
                raise DataError(f"cannot be downloaded{tries}: {problem}", place=url) from None
        time.sleep(PAUSE_SECONDS * 2**attempt)
    raise AssertionError("the last try returns or raises")


def _try_once(url: str, max_bytes: int, deadline: float, file: BinaryIO, progress: DownloadProgress) -> None:
    file.seek(0)
    file.truncate()
    done = 0
    with urllib.request.urlopen(url, timeout=STALL_SECONDS) as response:  # noqa: S310 -- BASE_URL is https
        total = response.length
        while part := response.read1(_CHUNK_BYTES):
            done += len(part)
            if max(done, total or 0) > max_bytes:
                raise DataError(f"is larger than the {max_bytes} bytes that it may take", place=url)
            if time.monotonic() > deadline:
                problem = f"took more than {TOTAL_SECONDS + max_bytes / _SLOWEST:.0f} seconds"
                raise DataError(problem, place=url, remedy="fetch it with another program")
            _write(file, part)
            progress(done, total)
        if total is not None and done < total:
            raise ConnectionResetError(f"the connection ended after {done} of {count(total, 'byte')}")


def _write(file: BinaryIO, part: bytes) -> None:
    try:
        file.write(part)
    except OSError as error:  # otherwise it would be taken for a network error
        raise DataError(f"cannot be written: {error.strerror}", place="the downloaded file") from None


def _describe(error: Exception) -> tuple[str, bool]:
    """The error in words, and whether a second try may succeed: not for an unknown host or a network that is down."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()  # it holds the connection
        return f"the server answers {error.code} {error.reason}", error.code in _PASSING_STATUS
    if isinstance(error, urllib.error.URLError):
        problem = str(getattr(error.reason, "strerror", None) or error.reason)
        return problem, isinstance(error.reason, ConnectionError)
    if isinstance(error, TimeoutError):
        return f"nothing came for {STALL_SECONDS:.0f} seconds", True
    return str(error) or type(error).__name__, isinstance(error, ConnectionError | http.client.HTTPException)
