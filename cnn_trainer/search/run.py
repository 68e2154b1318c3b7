"""The recipe of a search: carry out what the schedule issues, note what came of it, and score the winner.

Only here is the test split opened, once, when all is decided.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from cnn_trainer import data
from cnn_trainer.config.load import change_experiment
from cnn_trainer.errors import DivergedError, RunDirectoryError, StoppedError
from cnn_trainer.evaluation.evaluate import evaluate_result, load_result
from cnn_trainer.machine import stopping
from cnn_trainer.runs import store
from cnn_trainer.runs.records import EpochMetrics
from cnn_trainer.search import journal
from cnn_trainer.search.display import SearchDisplay
from cnn_trainer.search.journal import OpenSearch, trial_dir
from cnn_trainer.search.proposals import new_schedule
from cnn_trainer.search.records import JobResult, SearchSummary
from cnn_trainer.search.results import summarize_search, winning_final, write_best
from cnn_trainer.search.schedule import Job
from cnn_trainer.search.spec import identity
from cnn_trainer.training.prepare import Feedback
from cnn_trainer.training.run import train_until


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


def work_alone(opened: OpenSearch, feedback: SearchFeedback) -> None:
    """Do one job after the other in this process."""
    schedule, results = new_schedule(opened.search), journal.read_results(opened.dir)
    with stopping.stop_requests() as stop:
        while not (found := schedule.plan(results)).is_done:
            if stop.signal_number is not None:  # one that came between two jobs; in a job, training hears it
                raise StoppedError("stopped between two trials", stop.signal_number)
            feedback.display.start(found.jobs[0])
            result = train_job(opened, found.jobs[0], feedback.warn)
            journal.add_result(opened.dir, result)
            results.append(result)
            feedback.display.finish(result)


def train_job(opened: OpenSearch, job: Job, warn: Callable[[str], None]) -> JobResult:
    """Train a trial up to its next rung, from wherever it was left. Raises what ``train_until`` raises."""
    began = time.monotonic()
    base = opened.search.base
    run_dir = trial_dir(opened.dir, opened.search, job)
    config = replace(base, experiment=change_experiment(base.experiment, job.changes))
    digest: str | None = None
    with suppress(DivergedError):
        digest = train_until(config, run_dir, job.last_epoch, Feedback(warn=warn)).weights_sha256
    run = store.open_run(run_dir)
    metrics = store.read_metrics(run)
    best = next((line for line in metrics if line.epoch == run.record.best_epoch), None)
    is_sound = digest is not None and best is not None and best.validation_loss is not None
    return JobResult(
        trial=job.trial,
        final=job.final,
        rung=job.rung,
        changes=dict(job.changes),
        status="ok" if is_sound else "diverged",
        epochs=len(metrics),
        best_epoch=best.epoch if is_sound and best else None,
        validation_loss=best.validation_loss if is_sound and best else None,
        validation_accuracy=best.validation_accuracy if is_sound and best else None,
        weights_sha256=digest if is_sound else None,
        seconds=time.monotonic() - began,
        step_seconds=_step_seconds(opened.search.num_train, metrics[job.first_epoch - 1 :]),
    )


def _step_seconds(num_train: int, metrics: list[EpochMetrics]) -> float:
    return sum(num_train / line.images_per_second for line in metrics if line.images_per_second)
