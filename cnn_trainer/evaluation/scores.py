"""Computes scores: loss, accuracy with its interval, and the scores of each class. Needs only NumPy."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cnn_trainer.runs.records import ClassScore

Z_975 = 1.959963984540054
"""The 0.975 quantile of the normal distribution, for a two-sided interval of 95 %."""


@dataclass(frozen=True)
class Score:
    """Loss and accuracy over a split, with the predictions and probabilities of its examples."""

    loss: float
    accuracy: float
    predictions: NDArray[np.int64]
    """Class ids, (examples,)."""
    probabilities: NDArray[np.floating]
    """(examples, classes)."""
    log_probabilities: NDArray[np.float64]
    """Their logarithms, (examples, classes); finite even if a probability is too small for a number."""


def score_logits(logits: NDArray[np.floating], labels: NDArray[np.integer], loss: str) -> Score:
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
    accuracy = float((predictions == labels).mean())
    return Score(float(losses.mean()), accuracy, predictions, probabilities, log_probabilities)


def log_softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Logarithms of the probabilities, (examples, classes), computed from logits of the same shape."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))


def wilson_interval(num_right: int, num_examples: int) -> tuple[float, float]:
    """The 95 % confidence interval of the fraction ``num_right / num_examples``.

    E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference (1927).
    """
    share, square = num_right / num_examples, Z_975 * Z_975 / num_examples
    middle = share + square / 2
    reach = Z_975 * math.sqrt(share * (1 - share) / num_examples + square / (4 * num_examples))
    return max(0.0, (middle - reach) / (1 + square)), min(1.0, (middle + reach) / (1 + square))


def confusion_matrix(
    labels: NDArray[np.integer], predictions: NDArray[np.integer], num_classes: int
) -> NDArray[np.int64]:
    """Counts of examples, (true class, predicted class)."""
    matrix = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(matrix, (labels, predictions), 1)
    return matrix


def class_scores(matrix: NDArray[np.int64], names: Sequence[str]) -> list[ClassScore]:
    """Precision, recall and F1 of every class, from its row and column in the confusion matrix."""
    scores = []
    for label, name in enumerate(names):
        right, support, predicted = int(matrix[label, label]), int(matrix[label].sum()), int(matrix[:, label].sum())
        precision = right / predicted if predicted else None
        recall = right / support if support else None
        f1 = 2 * precision * recall / (precision + recall) if precision and recall else None
        scores.append(ClassScore(name=name, support=support, precision=precision, recall=recall, f1=f1))
    return scores
