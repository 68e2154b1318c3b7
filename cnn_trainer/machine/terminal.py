"""The terminal, which a process shares with the shell that started it: what can be drawn, the cursor, and Ctrl-Z."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import IO, TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

# Numbers of the 256 colours, each with a contrast of about 4 or more on white and on black.
GOOD, FIGURE, CAUTION, BAD, _GREY = 28, 31, 130, 196, 243

SHOW_CURSOR = b"\x1b[?25h"
_HIDE_CURSOR = b"\x1b[?25l"
_ERASE_LINE = b"\r\x1b[2K"


def printable(text: str) -> str:
    """``text`` with control characters and undecodable bytes as backslash escapes, fit to be shown and for UTF-8."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


def can_draw(stream: TextIO | None) -> bool:
    """Whether ``stream`` is a terminal that understands escape sequences."""
    return stream is not None and stream.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown")


def takes_colour(stream: TextIO | None) -> bool:
    """Whether to write colours to ``stream``: a terminal, unless the user wants none (https://no-color.org)."""
    return can_draw(stream) and not os.environ.get("NO_COLOR")


def progress_bar(stream: TextIO, *middle: "str | ProgressColumn") -> "Progress":
    """Rich's progress bar on the terminal ``stream``, removed at the end: description, bar, ``middle``, time left.

    Output of others to the terminal appears above it. Only the bar itself, 40 columns wide, shrinks if there is not
    enough room. Its colours are visible on any background.
    """
    from rich.console import Console  # 60 ms
    from rich.progress import BarColumn, Progress, TimeRemainingColumn
    from rich.table import Column
    from rich.theme import Theme

    bar = {"bar.back": _GREY, "bar.complete": GOOD, "bar.finished": GOOD, "bar.pulse": GOOD, "figure": FIGURE}
    styles = {name: f"color({number})" for name, number in bar.items()}
    styles |= {f"progress.{name}": "none" for name in ("remaining", "download")}
    return Progress(
        "{task.description}",
        BarColumn(),
        *middle,
        TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
        "left",
        console=Console(file=stream, theme=Theme(styles)),
        transient=True,
        refresh_per_second=5,
        redirect_stdout=can_draw(sys.stdout),  # otherwise a result meant for a file would be drawn
    )


def in_foreground(stream: IO[str]) -> bool:
    """Whether this process has the terminal, rather than the shell that put it into the background."""
    try:
        return os.tcgetpgrp(stream.fileno()) == os.getpgrp()
    except OSError:  # not the controlling terminal of this process
        return True


@contextmanager
def cursor_shown_when_stopped(stream: TextIO, continued: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Use around code that draws on ``stream`` and hides the cursor: Ctrl-Z shows it before it stops the process.

    When the process continues in the foreground, the cursor is hidden again. ``continued`` is called whenever it
    continues, possibly between any two steps of the code in the block.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()  # handlers can be set only there
    is_heard = signal.getsignal(signal.SIGTSTP) is not signal.SIG_IGN  # what the parent ignores stays ignored
    if not (can_draw(stream) and in_main_thread and is_heard):
        yield
        return

    def write(codes: bytes) -> None:
        with suppress(OSError):  # the terminal is gone
            os.write(stream.fileno(), codes)

    def stop(number: int, _: FrameType | None) -> None:
        write(_ERASE_LINE + SHOW_CURSOR)
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)  # returns when the process continues
        signal.signal(number, stop)
        if in_foreground(stream):
            write(_HIDE_CURSOR)
        continued()

    before = signal.signal(signal.SIGTSTP, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTSTP, before)
