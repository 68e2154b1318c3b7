"""All that a run directory tells about its run, read without trusting any of it, and as far as it can be read."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from cnn_trainer import run_dirs, runs
from cnn_trainer.errors import RunDirectoryError
from cnn_trainer.records import EpochMetrics, EvaluationRecord
from cnn_trainer.runs import RunSummary
from cnn_trainer.schema import Experiment

Part = TypeVar("Part")


@dataclass(frozen=True)
class RunDetails:
    """What ``runs show`` shows. Text in it is as the files hold it: show it through ``files.printable``."""

    summary: RunSummary
    experiment: Experiment | None
    """None where the run is broken."""
    metrics: list[EpochMetrics]
    evaluation: EvaluationRecord | None
    files: list[tuple[str, int]]
    """Names and bytes, as ``run_dirs.list_files`` gives them."""
    is_locked: bool
    """Whether a process works on the run now."""
    faults: list[str]
    """What could not be read, and why, printable; empty for a sound run."""


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

    run = read(lambda: runs.open_run(real))
    return RunDetails(
        summary=replace(runs.summarize(real), dir=run_dir),
        experiment=run.experiment if run else None,
        metrics=(run and read(lambda: runs.read_metrics(run))) or [],
        evaluation=read(lambda: runs.read_evaluation(real)),
        files=run_dirs.list_files(real),
        is_locked=runs.is_locked(real),
        faults=faults,
    )
