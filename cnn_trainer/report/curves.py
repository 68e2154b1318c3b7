"""The section of the curves: loss, accuracy and learning rate of each epoch."""

from collections.abc import Sequence

from cnn_trainer.report.charts import Series, learning_curves
from cnn_trainer.report.context import Context
from cnn_trainer.report.page import PageSection, fill
from cnn_trainer.runs.records import EpochMetrics

_MAX_ROWS = 200  # epochs in the table


def curves_section(context: Context) -> PageSection | None:
    """Every epoch; None before the end of the first one."""
    metrics, best = context.metrics, context.run.record.best_epoch
    if not metrics:
        return None
    is_validated = metrics[0].validation_loss is not None
    rates = Series("learning rate", (tuple(each.learning_rate for each in metrics),))
    charts = [
        ("Loss", learning_curves(_series(metrics, "loss"), "loss", result_epoch=best)),
        ("Accuracy", learning_curves(_series(metrics, "accuracy"), "accuracy", result_epoch=best)),
        ("Learning rate", learning_curves([rates], "learning rate")),
    ]
    html = fill(
        "curves.html", metrics=metrics[-_MAX_ROWS:], total=len(metrics), charts=charts, is_validated=is_validated
    )
    return PageSection("curves", "Training", html)


def _series(metrics: Sequence[EpochMetrics], measure: str) -> list[Series]:
    """The curve of training, and that of validation if there is one."""
    found = []
    for name, field in ("training", f"train_{measure}"), ("validation", f"validation_{measure}"):
        values = tuple(value for each in metrics if (value := getattr(each, field)) is not None)
        found += [Series(name, (values,))] if values else []
    return found
