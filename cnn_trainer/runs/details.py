"""All that a run directory tells about its run, read without trusting any of it, and as far as it can be read."""

import json
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from cnn_trainer.errors import RunDirectoryError, StorageError
from cnn_trainer.runs import paths, store
from cnn_trainer.runs.paths import EVALUATION_FILE, METRICS_FILE
from cnn_trainer.runs.records import EpochMetrics, EvaluationRecord, RunRecord, RunStatus
from cnn_trainer.storage import files

if TYPE_CHECKING:
    from cnn_trainer.config.schema import Experiment

Part = TypeVar("Part")
ShownStatus = RunStatus | Literal["broken"]
Order = Literal["newest", "name", "accuracy", "time"]


@dataclass(frozen=True)
class RunSummary:
    """One line of ``runs list``. Text in ``record`` is as the file holds it."""

    dir: Path
    name: str  # of the directory
    status: ShownStatus
    reason: str | None  # why the run is broken, failed, or is not what its record says
    record: RunRecord | None  # None if the run is broken
    epochs_done: int | None  # while it trains, as many as metrics.jsonl has lines; None if the run is broken
    test_accuracy: float | None  # a fraction from 0 to 1


def list_runs(
    runs_dir: Path, order: Order = "newest", status: ShownStatus | None = None, limit: int | None = None
) -> list[RunSummary]:
    """The runs under ``runs_dir``, broken ones too; empty if there is no such folder.

    Only run.json and evaluation.json are read, so a run is not found broken because of its other files. A run whose
    record says ``training``, but which no process holds, is ``interrupted``. If the file system cannot lock files,
    that cannot be told, and it stays ``training``.

    Args:
        runs_dir: The folder that holds the runs.
        order: newest first; name from A to Z; accuracy on the test split, the highest first; time that training took,
            the shortest first. Runs that are equal in that are sorted newest first; those without the value come last.
        status: List only runs of this status.
        limit: List at most this many, the first of the order.

    Raises:
        RunDirectoryError: if ``runs_dir`` itself cannot be read; never for what stands in it.
    """
    run_dirs = paths.run_dirs(runs_dir)
    if order == "newest" and status is None:
        run_dirs = run_dirs[:limit]
    found = [summary for summary in map(summarize, run_dirs) if status in (None, summary.status)]
    if order != "newest":
        found.sort(key=_SORT_KEYS[order])
    return found[:limit]


_SORT_KEYS: dict[Order, Callable[[RunSummary], Any]] = {
    "name": lambda run: (run.record is None, run.record and run.record.name),
    "accuracy": lambda run: (run.test_accuracy is None, -(run.test_accuracy or 0.0)),
    "time": lambda run: run.record.train_seconds if run.record and run.record.train_seconds else math.inf,
}


def summarize(run_dir: Path) -> RunSummary:
    """What became of the run in ``run_dir``. Never raises; a symbolic link is broken, so resolve the user's own."""
    name = run_dir.name
    try:
        files.require_folder(run_dir)
        record = store.read_run_record(run_dir)
        locked = record.status != "training" or store.is_locked(run_dir)
        if locked is False:  # or finished since the record was read
            record = store.read_run_record(run_dir)
            locked = record.status != "training"
    except (RunDirectoryError, StorageError) as error:
        return RunSummary(run_dir, name, "broken", str(error), None, None, None)
    epochs, accuracy = record.epochs_done, _test_accuracy(run_dir)
    if record.status == "training":  # run.json is as old as the session of training; metrics.jsonl grows with it
        with suppress(StorageError):
            epochs = files.read_bounded(run_dir / METRICS_FILE, store.MAX_METRICS_BYTES).count(b"\n")
    shown, reason = record.status, record.error
    if locked is False:
        shown, reason = "interrupted", f"its process ended without a message; continue with: cnn-train resume {name}"
    elif locked is None:
        reason = "it may have been interrupted; the file system cannot lock files, which would show it"
    return RunSummary(run_dir, name, shown, reason, record, epochs, accuracy)


def _test_accuracy(run_dir: Path) -> float | None:
    """The accuracy in evaluation.json, if there is one that was measured on the test split.

    The rest of the file is not checked: that would take a list of 1,000 runs a tenth longer.
    """
    try:
        scores = json.loads(files.read_bounded(run_dir / EVALUATION_FILE, store.MAX_EVALUATION_BYTES))
    except (StorageError, ValueError, RecursionError):
        return None
    if not isinstance(scores, dict) or not scores.keys() >= {"split", "accuracy"} or scores["split"] != "test":
        return None
    accuracy = scores["accuracy"]
    return float(accuracy) if type(accuracy) in (int, float) and 0 <= accuracy <= 1 else None


@dataclass(frozen=True)
class RunDetails:
    """What ``runs show`` shows. Text in it is as the files hold it."""

    summary: RunSummary
    experiment: "Experiment | None"
    """None if the run is broken."""
    metrics: list[EpochMetrics]
    evaluation: EvaluationRecord | None
    files: list[tuple[str, int]]
    """Names and bytes, as ``paths.list_files`` gives them."""
    is_locked: bool | None
    """Whether a process works on the run now; None if the file system cannot lock files, and so cannot tell."""
    faults: list[str]
    """What could not be read, and why; empty for a sound run."""


def read_details(run_dir: Path) -> RunDetails:
    """Read what can be read of the run in ``run_dir``. Never raises RunDirectoryError."""
    real = run_dir.resolve() if run_dir.is_symlink() or run_dir.name in ("", "..") else run_dir
    faults: list[str] = []

    def read(part: Callable[[], Part]) -> Part | None:
        try:
            return part()
        except RunDirectoryError as error:
            faults.append(str(error))
            return None

    run = read(lambda: store.open_run(real))
    summary = replace(summarize(real), dir=run_dir)
    return RunDetails(
        summary=summary if run else replace(summary, status="broken", reason=faults[0]),
        experiment=run.experiment if run else None,
        metrics=(run and read(lambda: store.read_metrics(run))) or [],
        evaluation=read(lambda: store.read_evaluation(real)),
        files=paths.list_files(real),
        is_locked=store.is_locked(real),
        faults=faults,
    )
