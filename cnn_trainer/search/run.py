"""The recipe of a search: carry out what the schedule issues, note what came of it, and score the winner.

Only here is the test split opened, once, when all is decided.
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
    """Whom the recipe tells what it does."""

    warn: Callable[[str], None]
    """A line that a person should read."""
    display: SearchDisplay


CarryOut = Callable[[OpenSearch, SearchFeedback], None]
"""Does all jobs of a locked search, and adds each result to its journal. Raises StoppedError if asked to stop."""


def run_search(opened: OpenSearch, feedback: SearchFeedback, carry_out: CarryOut) -> SearchSummary:
    """Search from where the journal ends to the end, and score the winner on the test split.

    A search that is finished is left as it is.

    Raises:
        RunDirectoryError: if another process works on the search, or its folder cannot be read or written.
        StoppedError: if a signal asked to stop; the search can be resumed.
        CheckFailedError: if no trial is left that did not diverge.
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
            if store.read_evaluation(run.dir) is None:  # or a kill came between it and the next line
                evaluate_result(run, load_result(run), warn=feedback.warn)
        journal.update_search_record(opened, status="finished", identity_sha256=identity(results))
    return summarize_search(opened, results)


def require_same_data(opened: OpenSearch, warn: Callable[[str], None], progress: data.DownloadProgress) -> None:
    """Refuse to go on with other images than the search was begun with. Raises DataError or RunDirectoryError."""
    experiment = opened.search.base.experiment
    found = data.load_training(experiment.data, experiment.seed, warn, progress).record
    if found.train_sha256 != opened.record.data.train_sha256:
        digests = f"digest {found.train_sha256[:12]}…, the search has {opened.record.data.train_sha256[:12]}…"
        problem = f"these are not the images that the search was begun with ({digests})"
        raise RunDirectoryError(problem, place=found.location)
