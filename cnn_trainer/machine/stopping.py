"""Hears SIGTERM, SIGHUP and Ctrl-C, and lets the training loop stop where it can be taken up again."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from cnn_trainer.machine import terminal

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the last: the terminal was closed


@dataclass
class StopRequest:
    """The signal that asked to stop; None as long as none has come."""

    signal_number: int | None = None


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Inside the block, the first signal is noted; a second Ctrl-C leaves at once (every file is written atomically).

    Having a handler also is what makes Python hear SIGTERM as process 1 of a container.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():  # where Python lets nobody set a handler
        yield request
        return

    def note(number: int, _: FrameType | None) -> None:
        if request.signal_number is not None and number == signal.SIGINT:
            if os.isatty(2):
                os.write(2, terminal.SHOW_CURSOR + b"\n")  # shows the cursor again, which the live line hides
            os._exit(128 + number)
        request.signal_number = number

    # What the parent ignores stays ignored: a shell's background job is not to hear the Ctrl-C of the foreground.
    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in heard}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
