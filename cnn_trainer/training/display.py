"""What the user sees while a run trains: a live line on a terminal, and one line per epoch."""

from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, TextIO

from cnn_trainer.machine import terminal

if TYPE_CHECKING:
    from rich.progress import Progress

_LOSS_COLUMNS, _RATE_COLUMNS = 80, 100  # the width of a terminal from which these are shown too


class Display:
    """Shows the progress of training. Epochs and steps count from 1; rates are those of the last half minute.

    Args:
        say: Called with one line of text for each finished epoch.
        drawn_on: The terminal, ``sys.stderr``, on which the live line is drawn; None for none. What ``say`` and others
            write to ``sys.stderr`` in the meantime appears above the line.
    """

    def __init__(self, say: Callable[[str], None] = lambda _: None, drawn_on: TextIO | None = None) -> None:
        self._say, self._terminal = say, drawn_on
        self._line: Progress | None = None
        self._until_end = ExitStack()

    def begin(self, epoch: int, step: int, epochs: int, steps_per_epoch: int, batch_size: int) -> None:
        """Training begins in epoch ``epoch`` of ``epochs``, after ``step`` of its steps."""
        self._epochs, self._steps_per_epoch, self._batch_size = epochs, steps_per_epoch, batch_size
        if self._terminal is not None:
            from rich.progress import TextColumn  # 60 ms

            words = TextColumn("{task.fields[words]}")
            self._line = terminal.progress_bar(self._terminal, "{task.percentage:.0f}%", words)
            done, total = (epoch - 1) * steps_per_epoch + step, epochs * steps_per_epoch
            self._line.add_task(f"epoch {epoch}/{epochs}", completed=done, total=total, words="starting")
            self._until_end.enter_context(terminal.cursor_shown_when_stopped(self._terminal))
            draw_in_foreground(self._line)

    def step(self, epoch: int, step: int, loss: float, accuracy: float) -> None:
        """``step`` steps of ``epoch`` are done; ``loss`` and ``accuracy`` are their means."""
        if self._line is None:
            return
        width, speed = self._line.console.width, self._line.tasks[0].speed
        words = f"loss {loss:.4f} " if width >= _LOSS_COLUMNS else ""
        words += f"accuracy [figure]{accuracy:.2%}[/]"
        words += f" {speed * self._batch_size:,.0f} images/s" if speed and width >= _RATE_COLUMNS else ""
        done = (epoch - 1) * self._steps_per_epoch + step
        self._line.update(
            self._line.task_ids[0], description=f"epoch {epoch}/{self._epochs}", completed=done, words=words
        )
        draw_in_foreground(self._line)

    def epoch(self, epoch: int, words: str) -> None:
        """``epoch`` is done; ``words`` summarizes it."""
        self._say(f"epoch {epoch}/{self._epochs}  {words}")

    def end(self) -> None:
        """Training has ended, in whatever way; remove the live line."""
        if self._line is not None:
            with suppress(OSError):  # the terminal is gone
                self._line.stop()
            self._line = None
        self._until_end.close()


def draw_in_foreground(line: "Progress") -> None:
    """Draw the line as long as this process has the terminal; in the background, leave it to the shell."""
    with suppress(OSError):  # the terminal is gone
        if terminal.in_foreground(line.console.file):
            line.start()  # changes nothing about a line that is drawn already
        else:
            line.console.quiet = True  # stopping moves the cursor
            line.stop()
            line.console.quiet = False


def format_seconds(seconds: float) -> str:
    """42 s, 3 min 05 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
