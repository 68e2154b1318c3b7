"""Reads what a comparison needs of a run: its config, its score, and which images it got right, without TensorFlow."""

import gc
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cnn_trainer.analysis.difference import Losses, Right
from cnn_trainer.errors import RunDirectoryError, raised_as
from cnn_trainer.evaluation.predictions import evaluate_command, read_predictions
from cnn_trainer.runs import paths, store
from cnn_trainer.runs.records import EvaluationRecord
from cnn_trainer.runs.store import Run
from cnn_trainer.storage import files

if TYPE_CHECKING:
    from cnn_trainer.data.splits import SplitName

_MAX_PREDICTIONS_BYTES = 1024 * 1024 * 1024


@dataclass(frozen=True)
class ScoredRun:
    """A run with its score on a split."""

    run: Run
    evaluation: EvaluationRecord
    right: Right
    """Whether each image was classified correctly: (1, images)."""
    losses: Losses | None
    """The loss of each image, of the kind that the run minimised: (1, images). None for runs of earlier versions."""


@contextmanager
def without_collection() -> Iterator[None]:
    """Pause garbage collection, which would walk again and again through what hundreds of runs leave in memory."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def read_scored_run(run_dir: Path, split: "SplitName") -> ScoredRun:
    """Read a run with its saved score on ``split``.

    Raises:
        RunDirectoryError: if the run has no such score, or the score is not of its present weights, or the predictions
            are missing or belong to another score.
    """
    run = store.open_run(run_dir)
    store.require_result(run)
    remedy = f"score it with: {evaluate_command(run_dir, split)}"
    evaluation = store.read_evaluation(run_dir, split)
    if evaluation is None:
        raise RunDirectoryError(f"has no score on its {split} split", place=run_dir, remedy=remedy)
    if evaluation.weights_sha256 != run.record.weights_sha256:
        place = run_dir / paths.evaluation_file(split)
        raise RunDirectoryError("is the score of weights that the run no longer has", place=place, remedy=remedy)
    losses = None
    if evaluation.probabilities_sha256 is None:
        path = run_dir / paths.predictions_file(split)
        right = _read_right(path, evaluation)
    else:
        path = run_dir / paths.probabilities_file(split)
        found = read_predictions(run_dir, evaluation)
        right = found.predictions == found.labels
        losses = _losses(found.labels, found.probabilities, run.experiment.training.loss)[np.newaxis]
    if len(right) != evaluation.num_examples or int(right.sum()) != round(evaluation.accuracy * len(right)):
        raise RunDirectoryError("does not belong to the run's score", place=path, remedy=remedy)
    return ScoredRun(run, evaluation, right[np.newaxis], losses)


def has_score(run_dir: Path, split: "SplitName") -> bool:
    """Whether the run has a file with its score on ``split``."""
    return os.path.lexists(run_dir / paths.evaluation_file(split))


@raised_as(RunDirectoryError)
def _read_right(path: Path, evaluation: EvaluationRecord) -> NDArray[np.bool_]:
    """Whether each prediction in the CSV file is correct, (images,); empty if it is not the file of ``evaluation``."""
    heading, _, rows = files.read_bounded(path, _MAX_PREDICTIONS_BYTES).decode(errors="replace").partition("\n")
    names, _, body = rows.partition("\n")
    if heading != f"# images sha256 {evaluation.images_sha256}" or not names.startswith("index,label,prediction,"):
        return np.zeros(0, bool)
    try:  # the names of the classes, in quotes, may contain commas and line breaks
        cells = np.loadtxt(
            io.StringIO(body or "\n"), np.int64, comments=None, delimiter=",", quotechar='"', usecols=(0, 1, 2), ndmin=2
        )
    except ValueError:
        return np.zeros(0, bool)
    is_whole = np.array_equal(cells[:, 0], np.arange(evaluation.num_examples))
    return cells[:, 1] == cells[:, 2] if is_whole else np.zeros(0, bool)


def _losses(labels: NDArray[np.int32], probabilities: NDArray[np.float32], loss: str) -> NDArray[np.float32]:
    """The loss of each example, (examples,); a probability of 0 counts as the smallest number above it."""
    chosen = probabilities[np.arange(len(labels)), labels]
    if loss == "cross_entropy":
        return -np.log(np.maximum(chosen, np.finfo(np.float32).smallest_subnormal))
    squares = np.square(probabilities).sum(axis=1) + 1 - 2 * chosen
    return np.maximum(squares, 0.0) / np.float32(probabilities.shape[1])
