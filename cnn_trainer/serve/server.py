"""The server's process: its socket, its signals, its end."""

import asyncio
import contextlib
import functools
import gc
import ipaddress
import signal
import socket
import warnings
from collections.abc import Callable

import uvicorn

from cnn_trainer.errors import UsageError
from cnn_trainer.machine.stopping import SIGNALS
from cnn_trainer.serve.app import build_app
from cnn_trainer.serve.limits import BoundedProtocol
from cnn_trainer.serve.model import Served
from cnn_trainer.serve.traces import Traces

STOP_SECONDS = 4  # for the requests in flight; with what comes before and after, the process ends within 5
_KEEP_ALIVE_SECONDS = 20  # longer than clients keep an idle connection, so that none is closed as it is taken up again


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at ``host`` and ``port``; 0 takes a free one. Raises UsageError where it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError, UnicodeError) as error:
        problem = f"--host {host} --port {port}: cannot be listened at: {error}"
        raise UsageError(problem, remedy="choose another one") from None


def address(listener: socket.socket) -> str:
    """Where a browser finds what listens there."""
    host, port, *_ = listener.getsockname()
    name = "localhost" if ipaddress.ip_address(host).is_unspecified else host
    return f"http://{f'[{name}]' if ':' in name else name}:{port}/"


def is_loopback(listener: socket.socket) -> bool:
    """Whether only this machine reaches what listens there."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def run(served: Served, listener: socket.socket, max_in_flight: int, write: Callable[..., None]) -> None:
    """Serve until SIGTERM or Ctrl-C, then let the requests in flight finish, for ``STOP_SECONDS`` at most.

    It returns then, for the command to end with exit code 0: a signal is how a server is told that its work is done.

    Args:
        served: what is served.
        listener: from ``listen``.
        max_in_flight: how many requests may be worked on at a time.
        write: gets lines of the log, one or more.
    """
    warnings.simplefilter("ignore")  # Pillow warns of harmless flaws in pictures, once for each place in its code
    host = listener.getsockname()[0]
    own_names = {"localhost", "127.0.0.1", "[::1]", f"[{host}]" if ":" in host else host}
    hosts = own_names if is_loopback(listener) else None
    traces = Traces(served.manifest, served.exported.format, write)
    config = uvicorn.Config(
        build_app(served, traces, hosts, max_in_flight),
        http=functools.partial(BoundedProtocol, traces=traces),  # type: ignore[arg-type]
        loop="uvloop",
        ws="none",
        lifespan="off",
        workers=1,
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[assignment]  # it would end with the signal again

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # a shell's background job ignores Ctrl-C
                loop.add_signal_handler(number, server.handle_exit, number, None)
        await server.serve([listener])

    gc.collect()
    gc.freeze()  # what is there now stays: there is no use in looking through it for garbage
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(serve())
    served.close()
