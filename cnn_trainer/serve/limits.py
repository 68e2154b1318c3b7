"""Bounds on what comes in: how much, how fast, how many at a time, and for whom.

``guard`` stands before the application, and ``BoundedProtocol`` before that, where the web server itself has no bounds.
"""

import asyncio
import json
from collections.abc import Collection, Mapping
from time import perf_counter
from typing import Any, Final

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from cnn_trainer.serve.traces import Traces

MAX_BODY_BYTES: Final = 2**20
BODY_SECONDS: Final = 10.0
MAX_HEAD_BYTES: Final = 2**14
HEAD_SECONDS: Final = 10.0
RETRY_SECONDS: Final = 1

# A body that is too large is read up to here and forgotten: where a connection is closed while the client still sends,
# it is reset, and the client never reads why.
_MAX_FORGOTTEN_BYTES = 2**24

_TOO_SLOW = "too_slow"  # stands in the scope of a request whose body was not there in time

DEFECT: Final = "a defect of the server; its log says more"

_CLIENT_GONE = 499  # in log and metrics alone, for there is nobody to answer; nginx's number for it


class RefusedError(Exception):
    """A request that is not answered as asked, for a reason that its client can act on."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class _ClientGoneError(Exception):
    pass


def error_response(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """The answer to a request that is refused or failed: ``{"error": message}``."""
    content = json.dumps({"error": message}).encode()
    return Response(content, status, headers, "application/json")


def guard(
    app: ASGIApp, direct: Mapping[str, APIRoute], hosts: Collection[str] | None, max_in_flight: int, traces: Traces
) -> ASGIApp:
    """Let only bounded requests through to ``app``, each with its whole body in ``scope["body"]``, and log them all.

    Args:
        app: gets what ``direct`` does not.
        direct: by path, the routes of ``app`` that answer a POST and are called without its routing, which takes longer
            than a small network.
        hosts: names that a request may give as its host; None for any. A page that a name of the attacker's leads to
            could else read the answers of a server on the visitor's own machine (DNS rebinding).
        max_in_flight: of POST requests. The others do no work worth counting, and a health check is always answered.
        traces: is told of every request.
    """

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        started, status, num_bytes = perf_counter(), 0, 0
        response: Response | None = None

        async def watched(message: Message) -> None:
            nonlocal status, num_bytes
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                num_bytes += len(message["body"])
            await send(message)

        works = scope["method"] == "POST"
        traces.in_flight += works
        try:
            headers = dict(scope["headers"])
            is_free = not works or traces.in_flight <= max_in_flight
            scope["body"] = await _read_body(headers, scope, receive, MAX_BODY_BYTES if is_free else 0)
            _check_host(headers, hosts)
            if not is_free:
                busy = f"{max_in_flight} requests are in flight already; try again later"
                raise RefusedError(503, busy, retry_after=str(RETRY_SECONDS))
            if works and scope["path"] in direct:
                scope["route"] = direct[scope["path"]]
                response = await scope["route"].endpoint(Request(scope))
            else:
                await app(scope, receive, watched)
        except RefusedError as refusal:
            response = error_response(refusal.status, str(refusal), refusal.headers)
        except _ClientGoneError:
            status = _CLIENT_GONE
        except asyncio.CancelledError:  # the time to finish in is over
            response = error_response(503, "the server is stopping", {"connection": "close"})
        except Exception as error:
            traces.log_failure(scope, error)
            response = error_response(500, DEFECT)
        finally:
            if response is not None and not status:
                await response(scope, receive, watched)
            traces.in_flight -= works
            traces.record(scope, status, num_bytes, perf_counter() - started)

    return guarded


async def _read_body(headers: Mapping[bytes, bytes], scope: Scope, receive: Receive, limit: int) -> bytes:
    """The whole body, or nothing where ``limit`` is 0. Raises RefusedError for one of more than MAX_BODY_BYTES."""
    too_large = f"the body is larger than {MAX_BODY_BYTES} bytes; send fewer or smaller images in a request"
    if b"expect" in headers and b"content-length" in headers and int(headers[b"content-length"]) > MAX_BODY_BYTES:
        raise RefusedError(413, too_large, connection="close")  # it waits for a word before it sends the body
    parts, size = [], 0
    more = True
    while more and size <= _MAX_FORGOTTEN_BYTES:
        message = await receive()
        if _TOO_SLOW in scope:
            raise RefusedError(408, f"the body was not there within {BODY_SECONDS:g} seconds", connection="close")
        if message["type"] == "http.disconnect":
            raise _ClientGoneError
        more, size = message["more_body"], size + len(message["body"])
        if size <= limit:
            parts.append(message["body"])
        else:
            parts.clear()
    if size > MAX_BODY_BYTES:
        raise RefusedError(413, too_large, **({"connection": "close"} if more else {}))
    return b"".join(parts)


def _check_host(headers: Mapping[bytes, bytes], hosts: Collection[str] | None) -> None:
    if hosts is None or b"host" not in headers:
        return
    name = headers[b"host"].decode("latin-1").lower()
    name = name[: name.find("]") + 1] if name.startswith("[") else name.partition(":")[0]
    if name not in hosts:
        remedy = "start the server with --host to be reached under other names"
        raise RefusedError(421, f"this server answers to {', '.join(sorted(hosts))} alone; {remedy}")


class _Joining:
    """A transport that writes in one system call what one turn of the event loop has for it: an answer's head and body.

    uvicorn writes them one after the other, and so sends two packets, each of which wakes the client.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._parts: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self._parts.append(data)
        if len(self._parts) == 1:
            self._loop.call_soon(self._flush)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._parts:
            parts, self._parts = self._parts, []
            self._transport.write(b"".join(parts))


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP with bounds on the time that a request takes to arrive and on the size of its head.

    A request that arrives whole, as nearly all do, sets no timer.
    """

    def __init__(self, *arguments: Any, traces: Traces, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._traces = traces
        self._awaited: str | None = "head"  # or body; a connection that never says anything is not kept either
        self._timed: str | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first head."""
        super().connection_made(_Joining(transport, self.loop))  # type: ignore[arg-type]
        self._set_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._awaited = None
        self._set_timer()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """A head begins."""
        self._awaited, self._head_bytes = "head", 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A body begins, which may be empty."""
        self._awaited = "body"
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """A request is whole."""
        self._awaited = None
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        """Parse what came, and wait for the rest."""
        super().data_received(data)
        if self._awaited == "head":
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(431, f"the head of the request is larger than {MAX_HEAD_BYTES} bytes")
        if self._awaited != self._timed:
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timed = self._awaited
        seconds = HEAD_SECONDS if self._awaited == "head" else BODY_SECONDS
        self._timer = self.loop.call_later(seconds, self._end_wait) if self._awaited else None

    def _end_wait(self) -> None:
        if self._awaited == "head":
            self._refuse(408, f"the head of the request was not there within {HEAD_SECONDS:g} seconds")
        elif self.cycle.response_complete:  # refused, but sent on
            self.transport.close()
        else:
            self.scope[_TOO_SLOW] = True  # type: ignore[literal-required]
            self.cycle.message_event.set()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._refuse(400, msg)

    def _refuse(self, status: int, message: str) -> None:
        if self.transport.is_closing():
            return
        content = json.dumps({"error": message}).encode()
        head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(content)
        self.transport.write(STATUS_LINE[status] + head + content)
        self.transport.close()
        self._traces.record({"method": "", "path": "", "client": self.client}, status, len(content), 0.0)
