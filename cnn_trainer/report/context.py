"""What the page of one run is made from, read from its directory without trusting it."""

from dataclasses import dataclass
from pathlib import Path

from cnn_trainer.runs import details, store
from cnn_trainer.runs.records import EpochMetrics, EvaluationRecord
from cnn_trainer.runs.store import Run


@dataclass(frozen=True)
class Context:
    """One run. Text in it is exactly as in the files, not escaped."""

    run: Run
    status: details.ShownStatus
    metrics: list[EpochMetrics]
    evaluation: EvaluationRecord | None
    """The score on the test split; None if there is none of the run's present weights."""


def read_context(run_dir: Path) -> Context:
    """Read a run. Raises RunDirectoryError if one of its files is broken."""
    run = store.open_run(run_dir)
    evaluation = store.read_evaluation(run_dir)
    if evaluation and evaluation.weights_sha256 != run.record.weights_sha256:
        evaluation = None
    return Context(run, details.summarize(run_dir.resolve()).status, store.read_metrics(run), evaluation)
