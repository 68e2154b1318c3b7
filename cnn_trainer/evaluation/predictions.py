"""The probabilities of every example of a split: written with a run's score, and read back. Loads no TensorFlow."""

import hashlib
import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnn_trainer.errors import RunDirectoryError, StorageError, raised_as
from cnn_trainer.runs import checkpoint, paths
from cnn_trainer.runs.checkpoint import MAX_HEADER_BYTES, Checkpoint
from cnn_trainer.runs.records import EvaluationRecord
from cnn_trainer.storage import files


@dataclass(frozen=True)
class Predictions:
    """What a run says about every example of a split, in the order of the split.

    Attributes:
        labels: Class ids, int32 (examples,).
        probabilities: float32 (examples, classes). The largest of a row, the first if several are equal, is that of
            the prediction.
        images_sha256: Digest of the images and labels, as in the score.
    """

    labels: NDArray[np.int32]
    probabilities: NDArray[np.float32]
    images_sha256: str

    @property
    def predictions(self) -> NDArray[np.int64]:
        """Class ids, (examples,)."""
        return self.probabilities.argmax(axis=1)


def rounded(probabilities: NDArray[np.floating], predictions: NDArray[np.integer]) -> NDArray[np.float32]:
    """Probabilities (examples, classes) as float32, in which the prediction of each row (examples,) stays the largest.

    Rounding can make two probabilities equal; that of the prediction then gets the next larger number.
    """
    narrow = probabilities.astype(np.float32)
    [rows] = (narrow.argmax(axis=1) != predictions).nonzero()
    largest = narrow[rows].max(axis=1)
    narrow[rows, predictions[rows]] = np.nextafter(largest, np.float32(np.inf))
    return narrow


def encode_predictions(predictions: Predictions) -> bytes:
    """The content of probabilities.safetensors. Equal predictions give equal bytes."""
    arrays = {"labels": predictions.labels, "probabilities": predictions.probabilities}
    return checkpoint.encode(Checkpoint(arrays, {"images_sha256": predictions.images_sha256}))


def evaluate_command(run_dir: Path, split: str) -> str:
    """The command that scores a run on ``split``."""
    option = "" if split == "test" else f" --split {split}"
    return f"cnn-train evaluate {shlex.quote(str(run_dir))}{option}"


@raised_as(RunDirectoryError)
def read_predictions(run_dir: Path, evaluation: EvaluationRecord) -> Predictions:
    """Read the predictions that a run's score was computed from.

    Raises:
        RunDirectoryError: if the score is older than this file, or the file is missing, damaged or belongs to another
            score; the remedy is to score the run again.
    """
    path = run_dir / paths.probabilities_file(evaluation.split)
    remedy = f"score the run again: {evaluate_command(run_dir, evaluation.split)}"
    if evaluation.probabilities_sha256 is None:
        problem = f"its {evaluation.split} score was saved without the probabilities, by an earlier version"
        raise RunDirectoryError(problem, place=run_dir, remedy=remedy)
    shape = (evaluation.num_examples, len(evaluation.classes))
    expected = {
        "labels": (np.dtype(np.int32), shape[:1]),
        "probabilities": (np.dtype(np.float32), shape),
    }
    try:
        data = files.read_bounded(path, 8 + MAX_HEADER_BYTES + 4 * shape[0] * (shape[1] + 1))
        if hashlib.sha256(data).hexdigest() != evaluation.probabilities_sha256:
            raise StorageError("does not belong to the run's score, or is damaged")
        found = checkpoint.decode(data, expected, is_intact=True)
        labels, probabilities = found.arrays["labels"], found.arrays["probabilities"]
        possible = (
            labels.min() >= 0 and labels.max() < shape[1] and probabilities.min() >= 0 and probabilities.max() < 2
        )
        if not possible or found.state != {"images_sha256": evaluation.images_sha256}:
            raise StorageError("holds what this program does not write")
    except StorageError as error:
        raise StorageError(error.problem, place=path, remedy=remedy) from None
    return Predictions(labels, probabilities, evaluation.images_sha256)


def worst_first(predictions: Predictions) -> NDArray[np.int64]:
    """Indexes of all examples, (examples,), that with the largest loss first.

    The loss is the negative log likelihood, whatever the run minimised: the least probable label comes first. Examples
    with equal losses are in the order of the split.
    """
    rows = np.arange(len(predictions.labels))
    return predictions.probabilities[rows, predictions.labels].argsort(kind="stable")
