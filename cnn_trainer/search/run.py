"""The steps of a search: carry out the jobs of the schedule, record the results, and score the winner.

The test split is opened only here, once, after the winner has been chosen.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

from cnn_trainer import data
from cnn_trainer.errors import RunDirectoryError
from cnn_trainer.evaluation.evaluate import evaluate_result, load_result
from cnn_trainer.runs import store
from cnn_trainer.search import journal
from cnn_trainer.search.board import Board, JournalBoard
from cnn_trainer.search.display import SearchDisplay
from cnn_trainer.search.journal import OpenSearch, has_result, trial_dir
from cnn_trainer.search.records import JobResult, SearchSummary, WinnerScore
from cnn_trainer.search.results import summarize_search, winning_final, write_best
from cnn_trainer.search.spec import identity


@dataclass(frozen=True)
class SearchFeedback:
    """Where a search reports its warnings and progress."""

    warn: Callable[[str], None]
    """Called with each warning."""
    display: SearchDisplay


CarryOut = Callable[[OpenSearch, SearchFeedback, Board], None]
"""Does the jobs of a search until the board has all results. Raises StoppedError if a signal stops it."""


def run_search(
    opened: OpenSearch, feedback: SearchFeedback, carry_out: CarryOut, shared: Board | None = None
) -> SearchSummary:
    """Continue the search until it is finished, and score the winner on the test split.

    A finished search is not changed. ``shared`` is a board that other supervisors share; it is closed at the end. If it
    is None, the search is in its journal, and has only this supervisor.

    Raises:
        RunDirectoryError: if another process works on the search, or its folder cannot be read or written.
        StoppedError: if a signal asked to stop; the search can be resumed.
        CheckFailedError: if every trial diverged.
    """
    if opened.record.status == "finished":
        if shared is not None:
            shared.close()
        return summarize_search(opened, journal.read_results(opened.dir))
    with journal.lock_search(opened, is_shared=shared is not None), closing(shared or JournalBoard(opened)) as board:
        feedback.display.begin(board.results())
        try:
            carry_out(opened, feedback, board)
        finally:
            feedback.display.end()
        results = board.results()
        if shared is not None:
            journal.write_results(opened.dir, results)
        write_best(opened, results)
        test = None
        if (winner := winning_final(opened.search, results)) is not None:
            others = [result for result in results if result is not winner]
            test = board.score_once(winner, lambda: _score(opened, feedback, carry_out, winner, others))
        journal.update_search_record(opened, status="finished", identity_sha256=identity(results), test=test)
    return summarize_search(opened, results)


def _score(
    opened: OpenSearch, feedback: SearchFeedback, carry_out: CarryOut, winner: JobResult, others: Sequence[JobResult]
) -> WinnerScore:
    """The winner's score on the test split. A run that only another machine had is trained again."""
    run_dir = trial_dir(opened.dir, opened.search, winner)
    if not has_result(run_dir, winner):
        carry_out(opened, feedback, JournalBoard(opened, list(others)))
    run = store.open_run(run_dir)
    found = store.read_evaluation(run.dir)  # not None if killed before the result was recorded
    if found is None:
        found = evaluate_result(run, load_result(run), warn=feedback.warn)
    interval = found.accuracy_interval
    return WinnerScore(accuracy=found.accuracy, accuracy_interval=interval, num_examples=found.num_examples)


def require_same_data(opened: OpenSearch, warn: Callable[[str], None], progress: data.DownloadProgress) -> None:
    """Check that the images are those that the search began with. Raises DataError or RunDirectoryError."""
    experiment = opened.search.base.experiment
    found = data.load_training(experiment.data, experiment.seed, warn, progress).record
    begun = opened.record.data
    for split, now, before in (
        ("training", found.train_sha256, begun.train_sha256),
        ("validation", found.validation_sha256, begun.validation_sha256),
    ):
        if now != before:
            digests = f"digest {str(now)[:12]}…, the search has {str(before)[:12]}…"
            problem = f"these are not the {split} images that the search began with ({digests})"
            raise RunDirectoryError(problem, place=found.location)
