"""The standard streams at the level of the system: file descriptors 0, 1 and 2."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO


def open_closed() -> None:
    """Open the null device for every standard stream that was closed before the program started.

    Otherwise the next file to be opened could get descriptor 2, and TensorFlow's messages would go into a checkpoint.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8", closefd=False))  # noqa: SIM115


def discard(number: int) -> None:
    """Discard everything that is written to file descriptor ``number`` from now on."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)


@contextmanager
def redirected(number: int, target: int | None) -> Iterator[None]:
    """Redirect everything that any code writes to a standard stream in the block.

    Args:
        number: The stream, 1 or 2.
        target: The file descriptor to write to instead; None to discard the output.
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
