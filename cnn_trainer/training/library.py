"""The program as a library: what ``import cnn_trainer`` offers. It prints nothing; warnings are Python warnings."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnn_trainer.config.load import Overrides
from cnn_trainer.config.schema import Experiment
from cnn_trainer.data.splits import SplitName
from cnn_trainer.errors import DataError
from cnn_trainer.evaluation.evaluate import Result, evaluate_result, load_result
from cnn_trainer.network.fits import load_checked
from cnn_trainer.runs import paths, store
from cnn_trainer.runs.records import EpochMetrics, EvaluationRecord, RunRecord
from cnn_trainer.training.run import resume_run, train_config


class TrainedRun:
    """A run with a result: its directory ``dir``, its resolved config ``experiment`` and its run.json, ``record``."""

    def __init__(self, run_dir: Path) -> None:
        run = store.open_run(run_dir)
        store.require_result(run)
        self._run = run
        self.dir: Path = run.dir
        self.experiment: Experiment = run.experiment
        self.record: RunRecord = run.record

    def __repr__(self) -> str:
        return f"TrainedRun({str(self.dir)!r})"

    @property
    def class_names(self) -> Sequence[str]:
        """One name for each class, in the order of the labels."""
        return self.record.data.class_names

    @cached_property
    def metrics(self) -> list[EpochMetrics]:
        """The loss, accuracy and speed of every epoch."""
        return store.read_metrics(self._run)

    @cached_property
    def _result(self) -> Result:
        return load_result(self._run)

    def evaluate(self, split: SplitName = "test", data: str | Path | None = None) -> EvaluationRecord:
        """Score the run on a split of its data, and save the score in the run directory.

        The score is not saved if ``data`` names another place to read the data from than the config does. If the run
        directory cannot be written to, it is not saved either, and there is a warning. Raises DataError if the data
        cannot be read or does not fit the run, and RunDirectoryError if the run has been trained further since it was
        loaded.
        """
        evaluation = evaluate_result(self._run, self._result, split, None if data is None else Path(data))
        self.record = store.read_run_record(self.dir)
        return evaluation

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Compute probabilities, float64 (examples, classes), for images.

        Images are uint8 (examples, height, width, channels), 0 to 255, with the shape that the run was trained on; the
        last axis may be left out if there is one channel. Raises DataError if they have another dtype or shape.
        """
        shape = tuple(self.record.data.image_shape)
        whole = images[..., np.newaxis] if shape[-1] == 1 and images.ndim == 3 else images
        if images.dtype != np.uint8 or whole.shape[1:] != shape:
            sides = ", ".join(map(str, shape))
            problem = f"got {images.dtype} {images.shape}, but the run takes uint8 (examples, {sides})"
            raise DataError(problem, place="images", remedy="convert them to values from 0 to 255")
        return self._result.probabilities(whole) if len(whole) else np.empty((0, len(self.class_names)))

    def resume(self, epochs: int, data: str | Path | None = None) -> "TrainedRun":
        """Train the run up to ``epochs`` epochs in all, and return it anew; this object keeps its old weights.

        If the data has moved, ``data`` is its new place, which the run records. Raises what ``train`` raises, and
        RunDirectoryError if it is not the data that the run was trained on.
        """
        resume_run(store.open_run(self.dir), epochs, data_path=None if data is None else Path(data))
        return TrainedRun(self.dir)


def train(
    config: str | Path, overrides: Overrides = (), *, runs_dir: str | Path = "runs", evaluate: bool = True
) -> TrainedRun:
    """Train an experiment, as ``cnn-train train`` does, in a new run directory.

    Args:
        config: A YAML file, or the name of a shipped config, such as ``mnist``.
        overrides: Values by dotted key, such as ``{"training.epochs": 3}``.
        runs_dir: Where the run directory is created.
        evaluate: Whether to score the result on the test split at the end.

    Raises:
        ConfigError: with every fault of the config.
        DataError: if the data is missing or broken.
        DeviceError: if the device is not available, or TensorFlow already runs in this process with other settings.
        RunDirectoryError: if the run directory cannot be written.
        DivergedError: if the loss is no longer finite.
        StoppedError: on Ctrl-C, after a checkpoint was written; continue with ``cnn-train resume``.
    """
    outcome = train_config(load_checked(Path(config), overrides), Path(runs_dir), evaluate=evaluate)
    return TrainedRun(Path(outcome.run))


def load_run(run: str | Path, runs_dir: str | Path = "runs") -> TrainedRun:
    """Load a trained run, given its directory, its name under ``runs_dir``, or ``latest``.

    Raises RunDirectoryError if there is no such run, or if it is broken or has no result yet.
    """
    return TrainedRun(paths.resolve_run(str(run), Path(runs_dir)))
