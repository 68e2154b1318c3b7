"""What the user sees while a group of runs trains: one live bar for the group, and one for each run."""

from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, TextIO

from cnn_trainer.errors import count
from cnn_trainer.machine import terminal
from cnn_trainer.training.display import draw_in_foreground

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from cnn_trainer.seeds.worker import News

_EPOCH_COLUMNS = 60  # the width of a terminal from which the epoch is shown too


class SeedsDisplay:
    """Shows the progress of a group.

    Args:
        num_runs: Number of runs in the group.
        drawn_on: The terminal, ``sys.stderr``, on which the bars are drawn; None for none. What others write to
            ``sys.stderr`` in the meantime appears above them.
    """

    def __init__(self, num_runs: int, drawn_on: TextIO | None = None) -> None:
        self._num_runs, self._terminal = num_runs, drawn_on
        self._bars: Progress | None = None
        self._runs: dict[int, TaskID] = {}
        self._steps: dict[int, int] = {}
        self._num_ended = 0
        self._until_end = ExitStack()

    def step(self, seed: int, news: "News") -> None:
        """The run with this seed has done some steps."""
        if self._terminal is None or news.total is None:
            return
        bars = self._bars or self._begin(self._terminal, news.total)
        if seed not in self._runs:
            self._runs[seed] = bars.add_task(f"seed {seed}", total=news.total, words="")
        words = f"epoch {news.epoch} " if bars.console.width >= _EPOCH_COLUMNS else ""
        words += f"accuracy [figure]{news.accuracy:.2%}[/]"
        bars.update(self._runs[seed], completed=news.done, words=words)
        self._steps[seed] = news.done
        self._update(bars)

    def end_run(self, seed: int) -> None:
        """The run with this seed has finished or failed."""
        self._num_ended += 1
        if self._bars is not None:
            if seed in self._runs:
                self._bars.remove_task(self._runs.pop(seed))
            self._steps[seed] = self._total  # also if it ended early
            self._update(self._bars)

    def draw(self) -> None:
        """Draw the bars if this process has the terminal. Call it often."""
        if self._bars is not None:
            draw_in_foreground(self._bars)

    def end(self) -> None:
        """All work has ended, in whatever way; remove the bars."""
        if self._bars is not None:
            with suppress(OSError):  # the terminal is gone
                self._bars.stop()
            self._bars = None
        self._until_end.close()

    def _begin(self, stream: TextIO, total: int) -> "Progress":
        from rich.progress import TextColumn  # 60 ms

        self._total = total
        self._bars = terminal.progress_bar(stream, "{task.percentage:.0f}%", TextColumn("{task.fields[words]}"))
        self._group = self._bars.add_task(self._progress(), total=total * self._num_runs, words="")
        self._until_end.enter_context(terminal.cursor_shown_when_stopped(stream))
        return self._bars

    def _update(self, bars: "Progress") -> None:
        bars.update(self._group, description=self._progress(), completed=sum(self._steps.values()))

    def _progress(self) -> str:
        return f"{self._num_ended} of {count(self._num_runs, 'run')}"
