"""The section of the classes: precision, recall and F1 of each."""

from cnn_trainer.evaluation.scores import wilson_interval
from cnn_trainer.report.context import Context
from cnn_trainer.report.page import PageSection, fill


def classes_section(context: Context) -> PageSection | None:
    """Every class with its scores and the interval of its recall; None without a score."""
    if context.evaluation is None:
        return None
    rows = []
    for label, score in enumerate(context.evaluation.classes):
        right = context.evaluation.confusion_matrix[label][label]
        rows.append((score, wilson_interval(right, score.support) if score.support else None))
    return PageSection("classes", "Classes", fill("classes.html", rows=rows, split=context.evaluation.split))
