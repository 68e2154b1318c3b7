"""The program: ``cnn-train``, or ``python -m cnn_trainer``."""

import gc
import io
import os
import signal
import sys
import threading
from types import FrameType

from cnn_trainer.machine import streams


def main() -> None:
    """Run the command line and exit with its exit code.

    Raises:
        SystemExit: always, unless this program has a defect, which keeps its traceback.
    """
    gc.set_threshold(100_000)  # imports make many objects and little garbage
    # Process 1 of a container receives SIGTERM only if it has a handler. Training has its own, which stops at a step.
    signal.signal(signal.SIGTERM, _leave)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        signal.signal(signal.SIGHUP, _leave)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if the parent ignores it, we would not learn how our children end
    streams.open_closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # do not fail if the terminal lacks a character
    try:
        sys.exit(_exit_code())
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        gc.freeze()  # skips the final garbage collection, a tenth of the time of a short command


def _leave(number: int, _: FrameType | None) -> None:
    # Python ignores exceptions in some places, such as the callback of a weak reference. There, it would report the
    # exit as an error, and only a timer ends the process.
    sys.unraisablehook = lambda _: None
    last_resort = threading.Timer(1.0, os._exit, (128 + number,))
    last_resort.daemon = True
    last_resort.start()
    sys.exit(128 + number)


def _exit_code() -> int:
    """Run the requested command and return its exit code; each expected failure becomes one line."""
    from cnn_trainer.cli import app, output
    from cnn_trainer.errors import CnnTrainError, StoppedError

    try:
        try:
            app(prog_name="cnn-train")
        finally:
            output.flush()
    except (CnnTrainError, ImportError) as error:
        if stop := _stop_within_import(error):
            raise stop from None
        if isinstance(error, ImportError):
            raise
        prefix = "" if isinstance(error, StoppedError) else "error: "
        output.say(*(f"{prefix}{line}" for line in error.lines()))
        return error.exit_code
    return 0


def _stop_within_import(error: BaseException | None) -> BaseException | None:
    """The Ctrl-C or exit that led to ``error``: a compiled module that was being imported made an ImportError of it.

    None if something else led to it.
    """
    while error is not None:
        cause = error.__cause__ or error.__context__
        if isinstance(error, ImportError) and isinstance(cause, KeyboardInterrupt | SystemExit):
            return cause
        error = cause
    return None


if __name__ == "__main__":
    main()
