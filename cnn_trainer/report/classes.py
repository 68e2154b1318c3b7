"""The section of the classes: precision, recall and F1 of each."""

import numpy as np

from cnn_trainer.evaluation.scores import wilson_interval
from cnn_trainer.report.context import Context
from cnn_trainer.report.page import PageSection, fill


def classes_section(context: Context) -> PageSection | None:
    """Every class with its scores and their intervals; None without a score."""
    evaluation = context.evaluation
    if evaluation is None:
        return None
    matrix = np.array(evaluation.confusion_matrix)
    totals = zip(matrix.diagonal().tolist(), matrix.sum(axis=1).tolist(), matrix.sum(axis=0).tolist(), strict=True)
    rows = [
        (score, _interval(right, labelled), _interval(right, predicted))
        for score, (right, labelled, predicted) in zip(evaluation.classes, totals, strict=True)
    ]
    html = fill("classes.html", rows=rows, split=evaluation.split, balanced=evaluation.balanced_accuracy)
    return PageSection("classes", "Classes", html)


def _interval(right: int, total: int) -> tuple[float, float] | None:
    return wilson_interval(right, total) if total else None
