"""The section of the probabilities: whether they can be relied on, and what leaving out the unsure images gains."""

from cnn_trainer.report.charts import error_coverage, reliability_chart
from cnn_trainer.report.context import Context
from cnn_trainer.report.page import PageSection, fill


def reliability_section(context: Context) -> PageSection | None:
    """The reliability diagram with its figures; None without a score, or for a score of an earlier version."""
    evaluation = context.evaluation
    if evaluation is None or evaluation.calibration is None:
        return None
    found = evaluation.calibration
    charts = [
        ("Accuracy over confidence", reliability_chart(found.bins)),
        ("Error if the least sure are left out", error_coverage(found.coverage)),
    ]
    html = fill("reliability.html", found=found, evaluation=evaluation, charts=charts)
    return PageSection("reliability", "Reliability", html)
