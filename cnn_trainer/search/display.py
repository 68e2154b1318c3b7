"""Progress of a running search: a live table on a terminal, or else one plain line per job."""

import math
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TextIO

from cnn_trainer.errors import count
from cnn_trainer.search.records import JobResult
from cnn_trainer.search.results import epochs_spent, seen_trials, value_of
from cnn_trainer.search.schedule import Job, label, ranking
from cnn_trainer.search.spec import Search, num_proposals, rung_epochs, score
from cnn_trainer.training.display import format_seconds

Mode = Literal["quiet", "lines", "live"]


class SearchDisplay:
    """Shows the progress of a search on ``stream``. The time left is estimated from the epochs of this session."""

    def __init__(self, search: Search, stream: TextIO = sys.stderr, mode: Mode = "quiet") -> None:
        self._search, self._stream, self._mode = search, stream, mode
        self._live: Any = None
        self._results: list[JobResult] = []
        self._running: dict[str, Job] = {}

    def begin(self, results: Iterable[JobResult]) -> None:
        """Work begins; ``results`` are the results so far."""
        self._results = list(results)
        self._began, self._epochs_before = time.monotonic(), epochs_spent(self._results)
        if self._mode == "live":
            from rich.console import Console  # importing it takes 60 ms
            from rich.live import Live

            console = Console(file=self._stream)
            self._live = Live(console=console, transient=True, refresh_per_second=4, get_renderable=self._table)
            with self._unless_nobody_looks():
                self._live.start()

    @contextmanager
    def _unless_nobody_looks(self) -> Iterator[None]:
        """Stop showing progress if the stream cannot be written to; the search continues."""
        try:
            yield
        except OSError:
            self._live, self._mode = None, "quiet"

    def start(self, job: Job) -> None:
        """A worker has started ``job``."""
        self._running[job.label] = job
        if self._live is not None:
            with self._unless_nobody_looks():
                self._live.refresh()

    def finish(self, result: JobResult) -> None:
        """The result of a job is in the journal."""
        self._results.append(result)
        self._running.pop(label(result.trial, result.final), None)
        words = job_words(result, self._search)
        with self._unless_nobody_looks():
            if self._live is not None:
                self._live.console.print(words, highlight=False, markup=False)
            elif self._mode == "lines":
                print("  ".join([words, *self._figures()[1:]]), file=self._stream, flush=True)

    def end(self) -> None:
        """Work has ended, with or without an error; the live table is removed."""
        if self._live is not None:
            with self._unless_nobody_looks():
                self._live.stop()
            self._live = None

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
        spent, total = epochs_spent(self._results), expected_epochs(self._search)
        finals = sum(result.final is not None for result in self._results)
        return [
            f"{len(trials)} of {num_proposals(self._search)} trials" + (f": {words}" if words else ""),
            found + (f", {finals} retrained" if finals else ""),
            f"{spent:,} of about {max(spent, total):,} epochs",
            self._time_left(spent, total),
        ]

    def _time_left(self, spent: int, total: int) -> str:
        done = spent - self._epochs_before
        if not done:
            return "time left unknown"
        seconds = (time.monotonic() - self._began) / done * max(0, total - spent)
        return f"about {format_seconds(seconds)} left"

    def _table(self) -> Any:
        from rich.table import Table

        grid = Table.grid()
        for words in self._figures():
            grid.add_row(words)
        for job in list(self._running.values()):
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


def expected_epochs(search: Search) -> int:
    """The number of epochs in a whole search, if each rung promotes its share and no trial stops early."""
    epochs, number = rung_epochs(search), num_proposals(search)
    factor = search.spec.rungs.factor if search.spec.rungs else 1
    total = 0
    for before, here in zip((0, *epochs), epochs, strict=False):
        total += number * (here - before)
        number //= factor
    return total + search.spec.final.trials * search.spec.final.seeds * epochs[-1]
