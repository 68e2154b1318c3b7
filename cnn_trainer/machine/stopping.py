"""What SIGTERM, SIGHUP and Ctrl-C do: they are noted, so that work stops where it can be resumed, or end it at once."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import NoReturn

from cnn_trainer.machine import terminal

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # SIGHUP: the terminal was closed


@dataclass
class StopRequest:
    """The signal that asked the program to stop; None if none has arrived yet."""

    signal_number: int | None = None


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Note the first signal in the block; a second Ctrl-C exits at once (every file is written atomically).

    Process 1 of a container receives SIGTERM only if it has a handler, which this also provides.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():  # Python does not allow handlers to be set here
        yield request
        return

    outer = signal.getsignal(signal.SIGINT)
    leave = outer if isinstance(outer, partial) and outer.func is _leave else _leave

    def note(number: int, _: FrameType | None) -> None:
        if request.signal_number is not None and number == signal.SIGINT:
            leave(number)
        request.signal_number = number

    with _handled_by(note):
        yield request


@contextmanager
def leaving_at_once(last_words: str) -> Iterator[None]:
    """End the process at the first signal in the block, with ``last_words`` as a line on stderr.

    For work that can be killed at any time. ``stop_requests`` inside the block takes its place; there, the last words
    are those of a second Ctrl-C.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    stderr = os.dup(2)  # file descriptor 2 is redirected while TensorFlow starts
    try:
        with _handled_by(partial(_leave, stderr=stderr, last_words=f"{last_words}\n")):
            yield
    finally:
        os.close(stderr)


def _leave(number: int, _: FrameType | None = None, *, stderr: int = 2, last_words: str = "") -> NoReturn:
    before = terminal.SHOW_CURSOR + b"\n" if os.isatty(stderr) else b""  # the live line hides the cursor
    with suppress(OSError):  # nobody reads it
        os.write(stderr, before + last_words.encode(errors="backslashreplace"))
    os._exit(128 + number)


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    # Signals that the parent ignores stay ignored: Ctrl-C in the foreground must not stop a shell's background job.
    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in heard}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
