"""The server process: socket, signals and shutdown. granian does HTTP."""

import asyncio
import gc
import ipaddress
import json
import logging
import resource
import signal
import socket
import warnings
from collections.abc import Callable, Collection
from typing import Any, Final

import uvloop
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.net import SocketHolder  # type: ignore[attr-defined]  # granian has incomplete types
from granian.server import embed

from cnn_trainer.errors import UsageError
from cnn_trainer.machine.stopping import SIGNALS
from cnn_trainer.serve.app import build_app
from cnn_trainer.serve.limits import Limits
from cnn_trainer.serve.model import Served
from cnn_trainer.serve.traces import Traces, log_time

MAX_HEAD_BYTES: Final = 2**14
HEAD_SECONDS: Final = 10.0  # a connection without a request is closed after that, too
STOP_SECONDS: Final = 4.0  # for the requests in flight; the whole process ends within 5
_ARRIVE_SECONDS: Final = 3.0  # of these, for bodies to arrive
_ANSWER_SECONDS: Final = 3.7  # and for answers; requests still open then are refused

_UNREAD_SECONDS: Final = 10  # that a client may leave its answer unread
_MAX_CONNECTIONS: Final = 2048
_BACKLOG: Final = 2048


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at ``host``, a name or an address, and ``port``; 0 picks a free port.

    ``::`` is every address of this machine, including IPv4. Raises UsageError if it cannot listen there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    is_both = host == "::" and socket.has_dualstack_ipv6()
    try:
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=is_both)
    except (OSError, OverflowError, UnicodeError) as error:
        place = f"--host {host} --port {port}"
        raise UsageError(f"cannot listen there: {error}", place=place, remedy="choose another one") from None
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; every connection inherits it, and the kernel keeps it
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD_SECONDS * 1000)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def address(listener: socket.socket) -> str:
    """The URL of the socket, for a browser."""
    host, port, *_ = listener.getsockname()
    name = "localhost" if ipaddress.ip_address(host).is_unspecified else host
    return f"http://{f'[{name}]' if ':' in name else name}:{port}/"


def is_loopback(listener: socket.socket) -> bool:
    """Whether only this machine can reach the socket."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def answered_hosts(listener: socket.socket, allowed: Collection[str]) -> frozenset[str] | None:
    """Names that a request may give as its host: this machine's own and those ``allowed``.

    None, for any, if others reach the server too and no name is ``allowed``.
    """
    if not is_loopback(listener) and not allowed:
        return None
    host = listener.getsockname()[0]
    own = {"localhost", "127.0.0.1", "[::1]", f"[{host}]" if ":" in host else host}
    return frozenset(own | {name.lower() for name in allowed})


class _Granian(embed.Server):
    """granian with a socket that is already open, so that a port in use is found before a model is announced."""

    def __init__(self, listener: socket.socket, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._listener = listener

    def _init_shared_socket(self) -> None:  # private: pyproject.toml bounds the version
        holder: Any = SocketHolder  # its types lack the arguments
        self._shd = holder(self._listener.fileno(), False, _BACKLOG)


class _JsonLog(logging.Handler):
    """The messages of granian and other packages, as lines of JSON."""

    def __init__(self, write: Callable[..., None]) -> None:
        super().__init__()
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        self._write(json.dumps({"time": log_time(), "error": self.format(record)}))


def run(served: Served, listener: socket.socket, limits: Limits, write: Callable[..., None]) -> None:
    """Serve until SIGTERM or Ctrl-C, then let the requests in flight finish, for at most ``STOP_SECONDS``.

    Then it returns, and the command ends with exit code 0: a signal is the ordinary way to stop a server.
    ``write`` gets one or more lines of the log.
    """
    warnings.simplefilter("ignore")  # Pillow warns about harmless flaws in pictures
    traces = Traces(served.manifest, served.exported.format, write)
    app, guard = build_app(served, traces, limits)
    log = {
        "handlers": {"json": {"()": lambda: _JsonLog(write)}},
        "formatters": {},
        "root": {"handlers": ["json"]},
        # It warns about malformed forms, and the client is told about those anyway.
        "loggers": {"python_multipart": {"level": "CRITICAL"}},
    }
    max_files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    async def serve() -> None:
        server = _Granian(
            listener,
            app,
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            websockets=False,
            backlog=_BACKLOG,
            backpressure=min(_MAX_CONNECTIONS, max_files // 2) if max_files > 0 else _MAX_CONNECTIONS,
            http1_settings=HTTP1Settings(header_read_timeout=int(HEAD_SECONDS * 1000), max_buffer_size=MAX_HEAD_BYTES),
            log_level=LogLevels.error,
            log_dictconfig=log,
        )
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # a shell's background job ignores Ctrl-C
                loop.add_signal_handler(number, stopped.set)
        serving = asyncio.ensure_future(server.serve())
        serving.add_done_callback(lambda _: stopped.set())
        await stopped.wait()
        if serving.done():
            serving.result()  # raises what it ended with
            raise RuntimeError("the web server stopped by itself; see its log")
        guard.stop(_ARRIVE_SECONDS, _ANSWER_SECONDS)
        server.stop()  # type: ignore[no-untyped-call]
        await asyncio.wait({serving}, timeout=STOP_SECONDS)

    gc.collect()
    gc.freeze()  # these objects stay: there is no garbage to find among them
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve())
    finally:
        served.close()
