"""What the user sees while a search runs: a live table on a terminal, and one line per job."""

import math
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, TextIO

from cnn_trainer.errors import count
from cnn_trainer.machine import terminal
from cnn_trainer.search.records import JobResult
from cnn_trainer.search.results import epochs_spent, seen_trials, value_of
from cnn_trainer.search.schedule import Job, expected_epochs, label, ranking
from cnn_trainer.search.spec import Search, final_epochs, num_proposals, rung_epochs, score
from cnn_trainer.training.display import format_seconds

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

_DRAW_SECONDS = 0.2


class SearchDisplay:
    """Shows the progress of a search. The time left is estimated from the epochs of this session.

    Args:
        search: The search.
        say: Called with one line of text for each finished job.
        drawn_on: The terminal, ``sys.stderr``, on which the live table is drawn; None for none. What ``say`` and others
            write to ``sys.stderr`` in the meantime appears above the table.
    """

    def __init__(
        self, search: Search, say: Callable[[str], None] = lambda _: None, drawn_on: TextIO | None = None
    ) -> None:
        self._search, self._say, self._terminal = search, say, drawn_on
        self._live: Live | None = None
        self._drawn = -math.inf
        self._was_stopped = False
        self._until_end = ExitStack()
        self._results: list[JobResult] = []
        self._running: dict[str, Job] = {}
        self._expected = expected_epochs(search)
        self._began, self._epochs_before = time.monotonic(), 0

    def begin(self, results: Iterable[JobResult]) -> None:
        """Work begins; ``results`` are the results so far."""
        self._results = list(results)
        self._began, self._epochs_before = time.monotonic(), epochs_spent(self._results)
        if self._terminal is not None:
            self._until_end.enter_context(terminal.cursor_shown_when_stopped(self._terminal, self._note_stop))
        self.draw()

    def _note_stop(self) -> None:
        self._was_stopped = True

    def draw(self) -> None:
        """Draw the table anew if that was some time ago, and if this process has the terminal. Call it often."""
        if self._terminal is None or time.monotonic() - self._drawn < _DRAW_SECONDS:
            return
        self._drawn = time.monotonic()
        with suppress(OSError):  # the terminal is gone
            is_ours = terminal.in_foreground(self._terminal)
            if self._live is not None and (self._was_stopped or not is_ours):
                self._live.console.quiet = True  # the table stays where it is, because the shell has written below it
                self._live.stop()
                self._live = None
            self._was_stopped = False
            if is_ours:
                self._live = self._live or self._new_live(self._terminal)
                self._live.refresh()

    def _new_live(self, stream: TextIO) -> "Live":
        from rich.console import Console  # importing it takes 60 ms
        from rich.live import Live

        live = Live(
            console=Console(file=stream),
            get_renderable=self._table,
            transient=True,
            auto_refresh=False,
            redirect_stdout=terminal.can_draw(sys.stdout),  # otherwise a result meant for a file would be drawn
        )
        live.start()
        return live

    def start(self, job: Job) -> None:
        """A worker has started ``job``."""
        self._running[job.label] = job

    def finish(self, result: JobResult) -> None:
        """The result of a job is in the journal."""
        self._results.append(result)
        self._running.pop(label(result.trial, result.final), None)
        words = job_words(result, self._search)
        self._say(words if self._terminal is not None else "  ".join([words, *self._figures()[1:]]))

    def end(self) -> None:
        """Work has ended, in whatever way; remove the live table."""
        if self._live is not None:
            with suppress(OSError):  # the terminal is gone
                self._live.stop()
            self._live = None
        self._until_end.close()

    def _figures(self) -> list[str]:
        """Short texts: trials by state, the best so far, epochs, time left."""
        trials = seen_trials(self._search, self._results)
        last = len(rung_epochs(self._search))
        running = {job.trial for job in self._running.values() if job.final is None}
        states = {
            "running": len(running),
            "at the last rung": sum(len(seen.scores) == last and seen.trial not in running for seen in trials),
            "diverged": sum(math.inf in seen.scores for seen in trials),
        }
        words = ", ".join(f"{number} {state}" for state, number in states.items() if number)
        best = ranking(trials)[:1]
        found = f"best {value_words(self._search, best[0].scores[-1])} (trial {best[0].trial})" if best else "best -"
        spent, total = epochs_spent(self._results), self._total_epochs()
        finals = sum(result.final is not None for result in self._results)
        return [
            f"{len(trials)} of {num_proposals(self._search)} trials" + (f": {words}" if words else ""),
            found + (f", {finals} retrained" if finals else ""),
            f"{spent:,} of about {total:,} epochs",
            self._time_left(spent, total),
        ]

    def _time_left(self, spent: int, total: int) -> str:
        done = spent - self._epochs_before
        if not done:
            return "time left unknown"
        seconds = (time.monotonic() - self._began) / done * (total - spent)
        return f"about {format_seconds(seconds)} left"

    def _total_epochs(self) -> int:
        """Epochs of the whole search, as far as known: those of the finals are, those of the trials when these end."""
        trials = epochs_spent([result for result in self._results if result.final is None])
        if not any(result.final for result in self._results):
            trials = max(trials, self._expected)
        return trials + final_epochs(self._search)

    def _table(self) -> "Table":
        from rich.table import Table

        grid = Table.grid()
        grid.add_column(no_wrap=True)
        for words in self._figures():
            grid.add_row(words)
        for job in self._running.values():
            grid.add_row(f"{job.label}: to epoch {job.last_epoch}")
        return grid


def value_words(search: Search, found: float) -> str:
    """A score in words, such as ``validation loss 0.0412``."""
    value = value_of(search, found)
    name = search.spec.goal.replace("_", " ")
    if value is None:
        return "diverged"
    return f"{name} {value:.4f}" if search.spec.goal == "validation_loss" else f"{name} {value:.2%}"


def job_words(result: JobResult, search: Search) -> str:
    """A line about one finished job."""
    who = f"trial {result.trial}" + (f", fresh seed {result.final}" if result.final else "")
    return f"{who}  {count(result.epochs, 'epoch')}  {value_words(search, score(search, result))}"
