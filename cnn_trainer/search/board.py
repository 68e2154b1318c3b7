"""Where a supervisor takes jobs and leaves results: the journal in its folder, or a database (``shared.py``)."""

from collections.abc import Callable, Sequence
from typing import Protocol

from cnn_trainer.search import journal
from cnn_trainer.search.journal import OpenSearch
from cnn_trainer.search.records import JobResult, WinnerScore
from cnn_trainer.search.schedule import Job


class Board(Protocol):
    """What the supervisors of a search share. No call waits for anything slow, except ``score_once``."""

    def notify(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` from any thread whenever there may be new results, or jobs to start."""

    def results(self) -> Sequence[JobResult]:
        """All results so far, of all supervisors. Later calls return the same ones first."""

    def claim(self, jobs: Sequence[Job], number: int) -> list[Job]:
        """Those of ``jobs`` that no other supervisor does, at most ``number``, to start now.

        A job is claimed until its result is added. More jobs may be ready a little later.
        """

    def add(self, result: JobResult) -> None:
        """Add the result of a claimed job."""

    def score_once(self, winner: JobResult, score: Callable[[], WinnerScore]) -> WinnerScore:
        """The winner's score on the test split, which only one of the supervisors computes with ``score``."""

    def close(self) -> None:
        """Give back the jobs without a result. Takes less than half a second."""


class JournalBoard:
    """The journal of a locked search, which has one supervisor.

    Args:
        opened: The search.
        results: All results so far, if they are not in the journal; then new ones are not added to it either.
    """

    def __init__(self, opened: OpenSearch, results: Sequence[JobResult] | None = None) -> None:
        self._dir = opened.dir if results is None else None
        self._results = list(journal.read_results(opened.dir) if results is None else results)

    def notify(self, wake: Callable[[], None]) -> None:
        """Nobody else adds anything."""

    def results(self) -> Sequence[JobResult]:
        """The results in the journal."""
        return self._results

    def claim(self, jobs: Sequence[Job], number: int) -> list[Job]:
        """The first ``number`` jobs."""
        return list(jobs[:number])

    def add(self, result: JobResult) -> None:
        """Add a line to the journal. Raises RunDirectoryError."""
        if self._dir is not None:
            journal.add_result(self._dir, result)
        self._results.append(result)

    def score_once(self, winner: JobResult, score: Callable[[], WinnerScore]) -> WinnerScore:  # noqa: ARG002
        """The score, computed here."""
        return score()

    def close(self) -> None:
        """There is nothing to give back."""
