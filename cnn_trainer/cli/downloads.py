"""What a person sees of a download: a bar on a terminal, elsewhere one plain line a file."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cnn_trainer.cli.output import say

_MEBIBYTE = 2**20


@contextmanager
def shown_download(quiet: bool = False) -> Iterator[Callable[[int, int | None], None]]:
    """Give a ``data.DownloadProgress`` that shows on stderr what it is told, until the block ends, however it ends.

    Nothing is shown, and nothing loaded, before the first bytes come.
    """
    if quiet:
        yield lambda *_: None
    elif sys.stderr is not None and sys.stderr.isatty():
        with _bar() as progress:
            yield progress
    else:
        yield _lines()


def _lines() -> Callable[[int, int | None], None]:
    """A line when a file is done; it is told of one file after the other."""

    def progress(done_bytes: int, total_bytes: int | None) -> None:
        if done_bytes == total_bytes:
            say(f"downloaded {done_bytes / _MEBIBYTE:.1f} MiB")

    return progress


@contextmanager
def _bar() -> Iterator[Callable[[int, int | None], None]]:
    bar: Any = None

    def progress(done_bytes: int, total_bytes: int | None) -> None:
        nonlocal bar
        if bar is None:
            bar = _start_bar()
        bar.update(0, completed=done_bytes, total=total_bytes)
        if done_bytes == total_bytes:
            bar.stop()
            bar = None

    try:
        yield progress
    finally:
        if bar is not None:
            bar.stop()


def _start_bar() -> Any:
    from rich.console import Console  # imported only if there is a terminal: 60 ms
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = ("downloading", BarColumn(bar_width=20), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(file=sys.stderr))
    bar.add_task("download", total=None)
    bar.start()
    return bar
