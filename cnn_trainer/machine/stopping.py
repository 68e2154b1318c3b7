"""Notes SIGTERM, SIGHUP and Ctrl-C, so that the training loop can stop where it can be resumed."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

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

    def note(number: int, _: FrameType | None) -> None:
        if request.signal_number is not None and number == signal.SIGINT:
            if os.isatty(2):
                os.write(2, terminal.SHOW_CURSOR + b"\n")  # shows the cursor again, which the live line hides
            os._exit(128 + number)
        request.signal_number = number

    # Signals that the parent ignores stay ignored: Ctrl-C in the foreground must not stop a shell's background job.
    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in heard}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
