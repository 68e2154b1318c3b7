"""What the user sees while a run trains: a live line on a terminal, one plain line per epoch elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, TextIO

Mode = Literal["live", "lines", "quiet"]


def choose_mode(stream: TextIO, quiet: bool) -> Mode:
    """Choose live on a terminal, lines if output is piped, and quiet if requested."""
    return "quiet" if quiet else "live" if stream.isatty() else "lines"


class Display:
    """Shows the progress of training on ``stream``. Epochs and steps count from 1; rates are those of this session."""

    def __init__(self, stream: TextIO = sys.stderr, mode: Mode = "quiet") -> None:
        self._stream, self._mode = stream, mode
        self._live: Any = None

    def begin(self, epoch: int, step: int, epochs: int, steps_per_epoch: int, batch_size: int) -> None:
        """Training begins in epoch ``epoch`` of ``epochs``, after ``step`` of its steps."""
        self._epochs, self._steps_per_epoch, self._batch_size = epochs, steps_per_epoch, batch_size
        self._began, self._first_step = time.monotonic(), (epoch - 1) * steps_per_epoch + step
        if self._mode == "live":
            from rich.console import Console  # importing it takes 60 ms
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            bar, words = BarColumn(bar_width=20), TextColumn("{task.fields[words]}")
            columns = TextColumn("{task.description}"), bar, MofNCompleteColumn(), words
            console = Console(file=self._stream)
            self._live = Progress(*columns, console=console, transient=True, refresh_per_second=5)
            self._task = self._live.add_task(f"epoch {epoch}/{epochs}", total=steps_per_epoch, words="starting")
            self._live.start()

    @contextmanager
    def _unless_nobody_looks(self) -> Iterator[None]:
        """Stop writing if the stream fails: a closed pipe must not stop training."""
        try:
            yield
        except OSError:
            self._live, self._mode = None, "quiet"

    def step(self, epoch: int, step: int, loss: float, accuracy: float) -> None:
        """``step`` steps of ``epoch`` are done; ``loss`` and ``accuracy`` are their means."""
        if self._live is None:
            return
        done = (epoch - 1) * self._steps_per_epoch + step
        seconds_a_step = (time.monotonic() - self._began) / max(1, done - self._first_step)
        left = seconds_a_step * (self._epochs * self._steps_per_epoch - done)
        rate = self._batch_size / max(1e-9, seconds_a_step)
        words = f"loss {loss:.4f}  accuracy {accuracy:.2%}  {rate:,.0f} images/s  {format_seconds(left)} left"
        with self._unless_nobody_looks():
            self._live.update(self._task, description=f"epoch {epoch}/{self._epochs}", completed=step, words=words)

    def epoch(self, epoch: int, words: str) -> None:
        """``epoch`` is done; ``words`` summarizes it."""
        line = f"epoch {epoch}/{self._epochs}  {words}"
        with self._unless_nobody_looks():
            if self._live is not None:
                self._live.console.print(line, highlight=False, markup=False)
            elif self._mode == "lines":
                print(line, file=self._stream, flush=True)

    def end(self) -> None:
        """Training has ended, in whatever way; remove the live line."""
        if self._live is not None:
            with self._unless_nobody_looks():
                self._live.stop()
            self._live = None


def format_seconds(seconds: float) -> str:
    """42 s, 3 min 05 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
