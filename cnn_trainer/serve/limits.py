"""Bounds on requests that the web server does not set: how much, how fast, how many at a time, and from whom."""

import asyncio
import gzip
import io
import json
import re
import zlib
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cnn_trainer.errors import UsageError, count
from cnn_trainer.serve.traces import Traces

BODY_SECONDS: Final = 10.0

# A body that is too large is read up to this size and dropped. If a connection is closed while its client still sends,
# it is reset, and the client never learns why.
_MAX_FORGOTTEN_BYTES = 2**24

_MAX_HELD_BYTES = 2**23  # by the bodies of all requests together, whether they still arrive or are worked on

_HOST = re.compile(rb"(\[[0-9a-f:.]+\]|[a-z0-9._~%-]+)(?::[0-9]*)?", re.IGNORECASE)

_ORIGIN = re.compile(r"https?://[a-z0-9._-]+(:[0-9]+)?|https?://\[[0-9a-f:.]+\](:[0-9]+)?")  # as browsers write it


@dataclass(frozen=True)
class Limits:
    """What a server accepts, and from whom."""

    max_body_bytes: int
    """The size of a body, both as sent and decompressed."""
    max_in_flight: int
    """POST requests at a time. GET requests are not counted, so a health check is always answered."""
    hosts: Collection[str] | None
    """Names that a request may give as its host, in lower case; None for any. Without this check, a web page whose
    owner points its name to 127.0.0.1 could read the answers of a server on the visitor's machine (DNS rebinding)."""
    origins: Collection[str]
    """Pages from elsewhere that may read the answers, such as ``https://digits.example``."""


def check_names(hosts: Collection[str], origins: Collection[str]) -> None:
    """Raise UsageError for a host or an origin that no request can have."""
    for host in hosts:
        if (found := _HOST.fullmatch(host.encode())) is None or found[1] != host.encode():
            remedy = "give a name or an address without a port, such as digits.example or [::1]"
            raise UsageError("is not a host name", place=f"--allow-host {host}", remedy=remedy)
    for origin in origins:
        if origin != "*" and _ORIGIN.fullmatch(origin) is None:
            remedy = "give scheme and host, and the port if there is one, such as https://page.example"
            raise UsageError("is not an origin", place=f"--allow-origin {origin}", remedy=remedy)


class RefusedError(Exception):
    """A request is refused, for a reason that its client can act on."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def response(self) -> Response:
        """The answer to the client: ``{"error": message}``."""
        return Response(json.dumps({"error": str(self)}), self.status, self.headers, "application/json")


class Guard:
    """Lets only bounded requests through to the application, each with its whole body in ``scope["body"]``.

    If the application raises, this answers: a RefusedError with its status, any other exception as a defect.
    """

    def __init__(self, answer: Callable[[Scope], Awaitable[Response]], limits: Limits, traces: Traces) -> None:
        self._answer, self._limits, self._traces = answer, limits, traces
        self._working: set[asyncio.Timeout] = set()
        self._arriving: dict[asyncio.Timeout, int] = {}  # the bytes received of each body, the oldest first
        self._held_bytes = 0
        self._max_held_bytes = max(_MAX_HELD_BYTES, 4 * limits.max_body_bytes)
        # Deadlines on the event loop's clock once the server stops: for the last body and for the last answer.
        self._end = float("inf")
        self._work_end: float | None = None

    def stop(self, body_seconds: float, answer_seconds: float) -> None:
        """Wait for bodies that have not arrived yet and for answers, for at most this long."""
        now = asyncio.get_running_loop().time()
        self._end, self._work_end = now + body_seconds, now + answer_seconds
        for timeout in self._arriving:
            _hasten(timeout, self._end)
        for timeout in self._working:
            _hasten(timeout, self._work_end)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        num_bytes, headers = 0, dict(scope["headers"])
        try:
            body = await self._read_body(headers, receive)
            num_bytes = len(body)
            self._held_bytes += num_bytes
            _check_host(scope, self._limits.hosts)
            scope["body"] = body = _decompress(headers, body, self._limits.max_body_bytes)
            self._held_bytes += len(body) - num_bytes
            num_bytes = len(body)
            response = await self._work(scope)
        except RefusedError as refusal:
            response = refusal.response()
        except Exception as error:
            self._traces.log_failure(scope, error)
            response = RefusedError(500, "a defect of the server; its log says more").response()
        finally:
            self._held_bytes -= num_bytes
        await response(scope, receive, send)

    async def _work(self, scope: Scope) -> Response:
        """The answer. Also raises RefusedError if the server is too busy or is stopping."""
        works, timeout = scope["method"] == "POST", asyncio.timeout_at(self._work_end)
        if works and self._traces.in_flight >= self._limits.max_in_flight:
            raise _busy(f"busy with {count(self._limits.max_in_flight, 'request')} already")
        self._traces.in_flight += works
        self._working.add(timeout)
        try:
            async with timeout:
                return await self._answer(scope)
        except TimeoutError:
            if not timeout.expired():
                raise
            raise stopping() from None
        finally:
            self._working.discard(timeout)
            self._traces.in_flight -= works

    async def _read_body(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        """The whole body. Raises RefusedError if it is too large, too slow or incomplete."""
        if b"content-length" not in headers and b"transfer-encoding" not in headers:
            return b""
        max_bytes = self._limits.max_body_bytes
        length = int(headers[b"content-length"]) if b"content-length" in headers else -1
        remedy = "send fewer or smaller images in a request, or start the server with a larger --max-body-bytes"
        too_large = f"the body is larger than {count(max_bytes, 'byte')}; {remedy}"
        if b"expect" in headers and length > max_bytes:
            raise RefusedError(
                413, too_large, connection="close"
            )  # the client waits for 100 Continue before it sends the body
        parts: list[bytes] = []
        size, more = 0, True
        timeout = asyncio.timeout_at(min(asyncio.get_running_loop().time() + BODY_SECONDS, self._end))
        self._arriving[timeout] = 0
        try:
            async with timeout:
                while more and size <= max(max_bytes, _MAX_FORGOTTEN_BYTES):
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise RefusedError(400, "the body broke off or is malformed; send it again", connection="close")
                    part = message["body"]
                    size += len(part)
                    more = message["more_body"] and size != length
                    if size <= max_bytes:
                        self._make_room(timeout, len(part))
                        parts.append(part)
                    else:
                        parts.clear()
                        if timeout in self._arriving:
                            self._held_bytes -= self._arriving[timeout]
                            self._arriving[timeout] = 0
        except TimeoutError:
            raise self._too_slow(timeout) from None
        finally:
            self._held_bytes -= self._arriving.pop(timeout, 0)
        if size > max_bytes:
            raise RefusedError(413, too_large, **({"connection": "close"} if more else {}))
        return b"".join(parts)

    def _make_room(self, timeout: asyncio.Timeout, num_bytes: int) -> None:
        """Count ``num_bytes`` for the body with this timeout; the bodies that have taken longest are dropped for it."""
        while self._held_bytes + num_bytes > self._max_held_bytes and self._arriving:
            oldest = next(iter(self._arriving))
            self._held_bytes -= self._arriving.pop(oldest)
            _hasten(oldest, 0)
        if timeout in self._arriving:
            self._arriving[timeout] += num_bytes
            self._held_bytes += num_bytes

    def _too_slow(self, timeout: asyncio.Timeout) -> RefusedError:
        if self._end < float("inf"):
            return stopping()
        if timeout not in self._arriving:
            return _busy("too many request bodies are in memory; try again later", connection="close")
        problem = f"the body did not arrive within {BODY_SECONDS:g} seconds"
        return RefusedError(408, f"{problem}; send a smaller one", connection="close")


def _hasten(timeout: asyncio.Timeout, when: float) -> None:
    """Let it end at ``when`` at the latest. A timeout that has just ended cannot be changed."""
    if not timeout.expired():
        timeout.reschedule(min(timeout.when() or when, when))


def stopping() -> RefusedError:
    """The answer to a request that the stopping server cuts off."""
    return RefusedError(503, "the server is stopping; try again later", connection="close")


def _busy(problem: str, **headers: str) -> RefusedError:
    return RefusedError(503, f"{problem}; try again later", retry_after="1", **headers)


def _check_host(scope: Scope, hosts: Collection[str] | None) -> None:
    given = [value for name, value in scope["headers"] if name == b"host"]
    if scope["http_version"] != "1.1" and not any(given):
        return  # HTTP/1.0 has no Host header; browsers, which DNS rebinding targets, do not use it
    found = _HOST.fullmatch(given[0]) if len(given) == 1 else None
    if found is None:
        raise RefusedError(400, "host: expected one name or address, with or without a port", connection="close")
    name = found[1].decode("latin-1").lower()
    if hosts is not None and name not in hosts:
        remedy = f"start the server with --allow-host {name} to be reached under this name"
        raise RefusedError(421, f"host: this server answers only to {', '.join(sorted(hosts))}; {remedy}")


def _decompress(headers: Mapping[bytes, bytes], body: bytes, max_bytes: int) -> bytes:
    coding = headers[b"content-encoding"].lower() if b"content-encoding" in headers else b"identity"
    if coding == b"identity":
        return body
    if coding not in (b"gzip", b"x-gzip"):
        problem = f"content-encoding: got {coding.decode('latin-1')[:60]}; send gzip, or no coding"
        raise RefusedError(415, problem, accept_encoding="gzip")
    try:
        content = gzip.GzipFile(fileobj=io.BytesIO(body)).read(max_bytes + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise RefusedError(400, f"the body is not valid gzip: {error}") from None
    if len(content) > max_bytes:
        raise RefusedError(
            413, f"the body is larger than {count(max_bytes, 'byte')} once it is decompressed; send fewer images"
        )
    return content
