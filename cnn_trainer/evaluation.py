"""The score of a run's result on one split: loss, accuracy with its interval, and the rest, class by class."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import keras
import numpy as np
from numpy.typing import NDArray

from cnn_trainer import checkpoint, data, files, runs
from cnn_trainer.data import Split
from cnn_trainer.engine import build_logits
from cnn_trainer.errors import DataError, DivergedError, RunDirectoryError
from cnn_trainer.model import build_model
from cnn_trainer.records import ClassScore, DataRecord, EvaluationRecord, utc_now
from cnn_trainer.run_dirs import EVALUATION_FILE, WEIGHTS_FILE
from cnn_trainer.runs import Run

SplitName = Literal["train", "validation", "test"]

# Quantile 0.975 of the normal distribution: a two-sided interval of 95 %.
_Z = 1.959963984540054


@dataclass(frozen=True)
class Score:
    """Loss and accuracy over a split, and what they were made of."""

    loss: float
    accuracy: float
    predictions: NDArray[np.int64]
    """Class ids, (examples,)."""
    probabilities: NDArray[np.floating]
    """(examples, classes)."""


def score(logits: NDArray[np.floating], labels: NDArray[np.integer], loss: str) -> Score:
    """Score logits (examples, classes) against labels (examples,), in float64."""
    log_probabilities = log_softmax(logits)
    probabilities = np.exp(log_probabilities)
    rows = np.arange(len(labels))
    if loss == "cross_entropy":
        losses = -log_probabilities[rows, labels]
    else:
        targets = np.zeros_like(probabilities)
        targets[rows, labels] = 1
        losses = np.square(probabilities - targets).mean(axis=1)
    predictions = logits.argmax(axis=1)
    return Score(float(losses.mean()), float((predictions == labels).mean()), predictions, probabilities)


def log_softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Logarithms of the probabilities that logits (examples, classes) stand for."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))


def wilson_interval(num_right: int, num_examples: int) -> tuple[float, float]:
    """The 95 % interval of a share of ``num_right`` in ``num_examples``.

    E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference (1927).
    """
    share, square = num_right / num_examples, _Z * _Z / num_examples
    middle = share + square / 2
    reach = _Z * math.sqrt(share * (1 - share) / num_examples + square / (4 * num_examples))
    return max(0.0, (middle - reach) / (1 + square)), min(1.0, (middle + reach) / (1 + square))


def confusion_matrix(
    labels: NDArray[np.integer], predictions: NDArray[np.integer], num_classes: int
) -> NDArray[np.int64]:
    """Counts (true class, predicted class)."""
    matrix = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(matrix, (labels, predictions), 1)
    return matrix


def class_scores(matrix: NDArray[np.int64], names: Sequence[str]) -> list[ClassScore]:
    """Precision, recall and F1 of every class, from its row and column of the confusion matrix."""
    scores = []
    for label, name in enumerate(names):
        right, support, predicted = int(matrix[label, label]), int(matrix[label].sum()), int(matrix[:, label].sum())
        precision = right / predicted if predicted else None
        recall = right / support if support else None
        f1 = 2 * precision * recall / (precision + recall) if precision and recall else None
        scores.append(ClassScore(name=name, support=support, precision=precision, recall=recall, f1=f1))
    return scores


def load_result(run: Run) -> tuple[keras.Sequential, str]:
    """The model of a finished run, built from its config, with the weights that are its result, and their digest.

    Raises:
        RunDirectoryError: where the run has no result yet, or the weights are not the ones that run.json names.
    """
    runs.require_result(run)
    height, width, channels = run.record.data.image_shape
    model = build_model(run.experiment, (height, width, channels), len(run.record.data.class_names))
    path = run.dir / WEIGHTS_FILE
    expected = {variable.path: (np.dtype(variable.dtype), tuple(variable.shape)) for variable in model.weights}
    arrays = checkpoint.read_weights(path, expected)
    digest = checkpoint.weights_digest(arrays[variable.path] for variable in model.weights)
    if digest != run.record.weights_sha256:
        finished = run.record.status == "finished"
        remedy = "take them from a backup" if finished else f"go on with: cnn-train resume {shlex.quote(str(run.dir))}"
        raise RunDirectoryError(f"{path}: these are not the weights that run.json names; {remedy}")
    for variable in model.weights:
        variable.assign(arrays[variable.path])
    return model, digest


def evaluate(
    run: Run,
    model: keras.Sequential,
    digest: str,
    towers: int,
    split_name: SplitName = "test",
    path: Path | None = None,
) -> tuple[EvaluationRecord, Score, Split]:
    """Score the result of a run on one split of its data.

    Args:
        run: The run; its config and its record say which data.
        model: The model with the weights that are the result.
        digest: Of those weights.
        towers: Parts of a batch that run side by side.
        split_name: Which split.
        path: Where to read the data; None where the run's config says.

    Raises:
        DataError: where the data cannot be read, or does not fit the model.
        DivergedError: where the loss is not finite.
    """
    experiment, record = run.experiment, run.record.data
    split = data.load_split(experiment.data, experiment.seed, split_name, path, class_names=record.class_names)
    _check_fits(split, record, split_name)
    logits = build_logits(model, towers)(model.trainable_variables, split.images)
    result = score(logits, split.labels, experiment.training.loss)
    if not math.isfinite(result.loss):  # weights that the very last steps made too large
        raise DivergedError(f"the {split_name} loss is not a finite number; lower training.learning_rate")
    matrix = confusion_matrix(split.labels, result.predictions, len(record.class_names))
    evaluation = EvaluationRecord(
        split=split_name,
        source=record.source,
        requested=record.requested,
        location=str(path) if path else record.location,
        images_sha256=data.split_digest(split),
        num_examples=len(split.labels),
        loss=result.loss,
        accuracy=result.accuracy,
        accuracy_interval=list(wilson_interval(int(matrix.trace()), len(split.labels))),
        classes=class_scores(matrix, record.class_names),
        confusion_matrix=matrix.tolist(),
        weights_sha256=digest,
        evaluated_at=utc_now(),
    )
    return evaluation, result, split


def _check_fits(split: Split, record: DataRecord, split_name: str) -> None:
    if list(split.images.shape[1:]) != record.image_shape:
        found, wanted = ("x".join(map(str, shape)) for shape in (split.images.shape[1:], record.image_shape))
        raise DataError(f"the {split_name} split has images of {found}; the run was trained on {wanted}")


def write_evaluation(run: Run, evaluation: EvaluationRecord, result: Score, split: Split) -> None:
    """Write evaluation.json and predictions.csv, or for another split than test evaluation-train.json and so on.

    predictions.csv has a line for each image, in the order of the split: index, label, prediction and its probability.
    """
    suffix = "" if evaluation.split == "test" else f"-{evaluation.split}"
    chosen = result.probabilities.max(axis=1)
    lines = [f"# images sha256 {evaluation.images_sha256}", "index,label,prediction,probability"]
    rows = zip(split.labels.tolist(), result.predictions.tolist(), chosen.tolist(), strict=True)
    lines += [f"{index},{label},{guess},{sure:.6f}" for index, (label, guess, sure) in enumerate(rows)]
    files.write_atomic(run.dir / f"predictions{suffix}.csv", ("\n".join(lines) + "\n").encode())
    name = EVALUATION_FILE if not suffix else f"evaluation{suffix}.json"
    files.write_atomic(run.dir / name, runs.to_json(evaluation))
