"""Every failure that a user can cause, each with its exit code.

Raise one of these if the user, the data or the machine is at fault; the command line turns it into one line (or a
short list) and the exit code. Anything else is a defect of this program and keeps its traceback.

Text in an error is exactly as the user, the file or the system gave it. The command line escapes it when it prints it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self


class CnnTrainError(Exception):
    """Base class of all expected failures; ``str(error)`` is ``place: problem; remedy``.

    Attributes:
        place: Where the problem is: a file, a line of it, a key or an option; None if the problem says so itself.
        problem: What is wrong, with the value that was found.
        remedy: What to do about it; None if the problem says so itself.
    """

    exit_code = 1

    def __init__(self, problem: str, *, place: object = None, remedy: str | None = None) -> None:
        super().__init__(problem)
        self.place = None if place is None else str(place)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return _in_words(self.place, self.problem, self.remedy)

    def at(self, place: object) -> Self:
        """The same failure with another place."""
        return type(self)(self.problem, place=place, remedy=self.remedy)

    def lines(self) -> list[str]:
        """The failure in words, one line for each fault."""
        return [str(self)]


def _in_words(place: str | None, problem: str, remedy: str | None) -> str:
    head = "" if place is None else f"{place}: "
    return f"{head}{problem}" + ("" if remedy is None else f"; {remedy}")


class UsageError(CnnTrainError):
    """The command line asks for something that does not exist, or combines options that do not go together."""

    exit_code = 2


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a config; ``str(fault)`` is one line."""

    place: str
    """The file and line, or the option that set the key."""
    problem: str
    remedy: str | None = None
    key: str | None = None
    """The dotted key; None if the fault does not concern a single key."""

    def __str__(self) -> str:
        return _in_words(self.place if self.key is None else f"{self.place}: {self.key}", self.problem, self.remedy)


class ConfigError(CnnTrainError):
    """An experiment config is wrong. Holds all faults of the config in ``faults``, one or more."""

    exit_code = 3

    def __init__(self, *faults: Fault) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = faults

    def lines(self) -> list[str]:
        """The faults in words, one line each."""
        return list(map(str, self.faults))


class DataError(CnnTrainError):
    """Images or labels are missing, broken or not what they claim to be."""

    exit_code = 4


class DeviceError(CnnTrainError):
    """The requested device is not available, or TensorFlow cannot run on this machine."""

    exit_code = 5


class RunDirectoryError(CnnTrainError):
    """A run directory or a file in it cannot be found, created, locked, read or written."""

    exit_code = 6


class CheckFailedError(CnnTrainError):
    """A check that the user asked for failed, such as a minimum accuracy."""

    exit_code = 7


class DivergedError(CnnTrainError):
    """The training loss is no longer a finite number."""

    exit_code = 8


class StoppedError(CnnTrainError):
    """A signal asked the program to stop, and it stopped cleanly; the run can be resumed."""

    def __init__(self, problem: str, signal_number: int, *, remedy: str | None = None) -> None:
        super().__init__(problem, remedy=remedy)
        self.exit_code = 128 + signal_number


class StorageError(CnnTrainError):
    """A file cannot be read or written, or is not as it should be. Callers turn it into their own: ``raised_as``."""


@contextmanager
def raised_as(kind: type[CnnTrainError]) -> Iterator[None]:
    """Turn a StorageError from the block, or the decorated function, into a ``kind`` with the same fields."""
    try:
        yield
    except StorageError as error:
        raise kind(error.problem, place=error.place, remedy=error.remedy) from error


def count(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: 1 epoch, 2 epochs.

    Args:
        number: From 0.
        noun: In the singular.
        plural: Give it if it is not ``noun`` with an s.
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
