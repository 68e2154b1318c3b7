"""Where a command's output goes: words to stderr, what a program reads to stdout.

Text from files, names and the system is escaped here, and nowhere else: whatever is passed in as one line is printed as
one line, without control characters.

If the reader closes the pipe (``| head``), the command prints no more, but its work and its exit code stay the same. If
stdout cannot be written to for another reason, such as a full disk, ``print_lines``, ``print_verbatim``, ``print_json``
and ``flush`` raise CnnTrainError.
"""

import json
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO

import typer

from cnn_trainer.errors import CnnTrainError
from cnn_trainer.machine import streams, terminal

# The parts of a line that are coloured on a terminal: words before a message, states as cells of a table, accuracies.
_MARKS = re.compile(
    r"(?P<bad>^error:|(?<=  )(?:broken|failed|diverged)(?=  |$))"
    r"|(?P<caution>^WARNING:|(?<=  )interrupted(?=  |$))"
    r"|(?P<good>(?<=: )ok(?=:)|(?<=  )finished(?=  |$))"
    r"|(?P<figure>(?<=accuracy )\d+\.\d\d%|(?<=  )\d+\.\d\d%(?=  |$))"
)
_COLOURS = {"bad": terminal.BAD, "caution": terminal.CAUTION, "good": terminal.GOOD, "figure": terminal.FIGURE}


def say(*lines: str) -> None:
    """Print lines of words, for people, to stderr."""
    _write_lines(sys.stderr, lines)


def say_drawn(lines: Iterable[str]) -> None:
    """Print lines that we drew ourselves to the terminal of stderr, with their escape sequences."""
    _write(sys.stderr, "".join(f"{line}\n" for line in lines))


def warn(line: str) -> None:
    """Print a line that a person should not miss to stderr."""
    say(f"WARNING: {line}")


def next_step(*words: str | Path) -> None:
    """Name the next command worth typing: ``next_step("train", path)`` prints ``next: cnn-train train PATH``.

    Nothing is printed if a word is ``-``, since standard input can be read only once.
    """
    if "-" in map(str, words):
        return
    say(f"next: cnn-train {shlex.join(map(str, words))}")


def with_overrides(overrides: Iterable[str] | None) -> list[str]:
    """The words that repeat the ``--set`` options of this command in the next one."""
    return [word for override in overrides or () for word in ("--set", override)]


def print_lines(lines: Iterable[str]) -> None:
    """Print lines to stdout."""
    _write_lines(sys.stdout, lines)


def print_verbatim(text: str) -> None:
    """Print a text that we wrote ourselves, such as YAML, to stdout. It has no control characters."""
    _write(sys.stdout, text)


def print_json(value: dict[str, Any]) -> None:
    """Print the one JSON object of a command to stdout, in ASCII. ``value`` must not contain NaN or infinity."""
    print_verbatim(json.dumps(value, indent=2, allow_nan=False) + "\n")


@contextmanager
def shown_download(quiet: bool = False) -> Iterator[Callable[[int, int | None], None]]:
    """Yield a ``data.DownloadProgress`` that draws a bar on a terminal, and prints a line for each file that is done.

    Nothing is shown, and nothing is loaded, before the first bytes arrive.
    """
    bar: Any = None

    def progress(done_bytes: int, total_bytes: int | None) -> None:
        nonlocal bar
        if quiet:
            return
        if bar is None and terminal.can_draw(sys.stderr):
            bar = drawn.enter_context(_bar())
        if bar is not None:
            bar.update(0, completed=done_bytes, total=total_bytes)
        if done_bytes == total_bytes:
            drawn.close()
            bar = None
            say(f"downloaded {done_bytes / 2**20:.1f} MiB")

    with ExitStack() as drawn:
        yield progress


@contextmanager
def _bar() -> Iterator[Any]:
    from rich.progress import DownloadColumn
    from rich.table import Column

    column = DownloadColumn(table_column=Column(no_wrap=True))
    with terminal.cursor_shown_when_stopped(sys.stderr), terminal.progress_bar(sys.stderr, column) as bar:
        bar.add_task("downloading", total=None)
        yield bar


def flush() -> None:
    """Write out what is left, so that nothing can fail when the interpreter exits."""
    for stream in (sys.stdout, sys.stderr):
        _write(stream, "")


def _write_lines(stream: TextIO | None, lines: Iterable[str]) -> None:
    shown = [terminal.printable(line) for line in lines]
    if terminal.takes_colour(stream):
        shown = [_MARKS.sub(_coloured, line) for line in shown]
    _write(stream, "".join(f"{line}\n" for line in shown))


def _coloured(mark: re.Match[str]) -> str:
    return typer.style(mark[0], fg=_COLOURS[str(mark.lastgroup)], bold=True)


def _write(stream: TextIO | None, text: str) -> None:
    if stream is None:  # closed before the program began
        return
    try:
        stream.write(text)
        stream.flush()
    except OSError as error:
        streams.discard(stream.fileno())  # also what the interpreter flushes when it exits
        if stream is sys.stdout and not isinstance(error, BrokenPipeError):
            raise CnnTrainError(f"the output cannot be written: {error.strerror or error}") from None
