"""The steps of a search: carry out the jobs of the schedule, record the results, and score the winner.

The test split is opened only here, once, after the winner has been chosen.
"""

from collections.abc import Callable
from dataclasses import dataclass

from cnn_trainer import data
from cnn_trainer.errors import RunDirectoryError
from cnn_trainer.evaluation.evaluate import evaluate_result, load_result
from cnn_trainer.runs import store
from cnn_trainer.search import journal
from cnn_trainer.search.display import SearchDisplay
from cnn_trainer.search.journal import OpenSearch, trial_dir
from cnn_trainer.search.records import SearchSummary
from cnn_trainer.search.results import summarize_search, winning_final, write_best
from cnn_trainer.search.spec import identity


@dataclass(frozen=True)
class SearchFeedback:
    """Where a search reports its warnings and progress."""

    warn: Callable[[str], None]
    """Called with each warning."""
    display: SearchDisplay


CarryOut = Callable[[OpenSearch, SearchFeedback], None]
"""Does all jobs of a locked search and adds each result to its journal. Raises StoppedError if a signal stops it."""


def run_search(opened: OpenSearch, feedback: SearchFeedback, carry_out: CarryOut) -> SearchSummary:
    """Continue the search from where the journal ends until it is finished, and score the winner on the test split.

    A finished search is not changed.

    Raises:
        RunDirectoryError: if another process works on the search, or its folder cannot be read or written.
        StoppedError: if a signal asked to stop; the search can be resumed.
        CheckFailedError: if every trial diverged.
    """
    if opened.record.status == "finished":
        return summarize_search(opened, journal.read_results(opened.dir))
    with journal.lock_search(opened):
        feedback.display.begin(journal.read_results(opened.dir))
        try:
            carry_out(opened, feedback)
        finally:
            feedback.display.end()
        results = journal.read_results(opened.dir)
        write_best(opened, results)
        if (winner := winning_final(opened.search, results)) is not None:
            run = store.open_run(trial_dir(opened.dir, opened.search, winner))
            if store.read_evaluation(run.dir) is None:  # not None if killed before the next line
                evaluate_result(run, load_result(run), warn=feedback.warn)
        journal.update_search_record(opened, status="finished", identity_sha256=identity(results))
    return summarize_search(opened, results)


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
