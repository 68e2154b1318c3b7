"""The section of the curves: loss, accuracy and learning rate of each epoch."""

from cnn_trainer.report.context import Context
from cnn_trainer.report.page import PageSection, fill


def curves_section(context: Context) -> PageSection | None:
    """Every epoch; None before the end of the first one."""
    if not context.metrics:
        return None
    return PageSection("curves", "Training", fill("curves.html", metrics=context.metrics))
