"""Reads everything that a run directory says about its run, as far as it is readable, without trusting any of it."""

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
    """One line of ``runs list``. Text in ``record`` is exactly as in the file, not escaped."""

    dir: Path
    name: str  # name of the directory
    status: ShownStatus
    reason: str | None  # why the run is broken or failed, or why its status differs from its record
    record: RunRecord | None  # None if the run is broken
    epochs_done: int | None  # during training, the number of lines of metrics.jsonl; None if broken
    test_accuracy: float | None  # a fraction from 0 to 1


def list_runs(
    runs_dir: Path, order: Order = "newest", status: ShownStatus | None = None, limit: int | None = None
) -> list[RunSummary]:
    """List the runs under ``runs_dir``, including broken ones; empty if there is no such folder.

    Only run.json and evaluation.json are read, so faults in other files do not make a run broken. A run whose record
    says ``training``, but which no process holds, is ``interrupted``. If the file system cannot lock files, this cannot
    be known, and the run stays ``training``.

    Args:
        runs_dir: The folder that contains the runs.
        order: ``newest`` first, ``name`` from A to Z, highest ``accuracy`` on the test split first, or shortest
            training ``time`` first. Ties are sorted newest first; runs without the value come last.
        status: List only runs with this status.
        limit: List at most this many, the first in this order.

    Raises:
        RunDirectoryError: if ``runs_dir`` itself cannot be read, but never because of its content.
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
    """Summarize the run in ``run_dir``. Never raises. A symbolic link counts as broken, so resolve a user's path."""
    name = run_dir.name
    try:
        files.require_folder(run_dir)
        record = store.read_run_record(run_dir)
        locked = record.status != "training" or store.is_locked(run_dir)
        if locked is False:  # it may have finished since the record was read
            record = store.read_run_record(run_dir)
            locked = record.status != "training"
    except (RunDirectoryError, StorageError) as error:
        return RunSummary(run_dir, name, "broken", str(error), None, None, None)
    epochs, accuracy = record.epochs_done, _test_accuracy(run_dir)
    if record.status == "training":  # only metrics.jsonl is updated during training
        with suppress(StorageError):
            epochs = files.read_bounded(run_dir / METRICS_FILE, store.MAX_METRICS_BYTES).count(b"\n")
    shown, reason = record.status, record.error
    if locked is False:
        shown, reason = "interrupted", f"its process ended without a message; continue with: cnn-train resume {name}"
    elif locked is None:
        reason = "it may have been interrupted; this cannot be known, because the file system cannot lock files"
    return RunSummary(run_dir, name, shown, reason, record, epochs, accuracy)


def _test_accuracy(run_dir: Path) -> float | None:
    """The accuracy in evaluation.json, if it was measured on the test split.

    The rest of the file is not checked, which would make a list of 1,000 runs a tenth slower.
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
    """What ``runs show`` shows. Text is exactly as in the files, not escaped."""

    summary: RunSummary
    experiment: "Experiment | None"
    """None if the run is broken."""
    metrics: list[EpochMetrics]
    evaluation: EvaluationRecord | None
    files: list[tuple[str, int]]
    """Names and sizes in bytes, as ``paths.list_files`` returns them."""
    is_locked: bool | None
    """Whether a process is working on the run; None if this is unknown because the file system cannot lock files."""
    faults: list[str]
    """What could not be read, and why; empty for an intact run."""


def read_details(run_dir: Path) -> RunDetails:
    """Read whatever can be read of the run in ``run_dir``. Never raises RunDirectoryError."""
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
