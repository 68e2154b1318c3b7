"""The standard streams as the system knows them: file descriptors 0, 1 and 2."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO


def open_closed() -> None:
    """Put the null device in the place of every standard stream that was closed before the program began.

    The next file that is opened would else be file 2, and what TensorFlow writes to file 2 would go into a checkpoint.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8", closefd=False))  # noqa: SIM115


def discard(number: int) -> None:
    """Let all that is still written to the file descriptor ``number`` go nowhere, from now on."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)


@contextmanager
def redirected(number: int, target: int | None) -> Iterator[None]:
    """Inside the block, what any code writes to a standard stream goes elsewhere.

    Args:
        number: The stream: 1 or 2.
        target: The file descriptor that it goes to; None for nowhere.
    """
    stream = sys.stdout if number == 1 else sys.stderr
    _flush(stream)
    real = os.dup(number)
    try:
        if target is None:
            discard(number)
        else:
            os.dup2(target, number)
        yield
    finally:
        _flush(stream)
        os.dup2(real, number)
        os.close(real)


def _flush(stream: TextIO | None) -> None:
    if stream is not None:
        with suppress(OSError):  # a closed pipe: nobody reads it
            stream.flush()
