"""The section of what the run was: its config, data, machine, versions and times."""

from cnn_trainer.report.context import Context
from cnn_trainer.report.page import PageSection, fill


def about_section(context: Context) -> PageSection:
    """Every fact that the run has recorded."""
    return PageSection("about", "The run", fill("about.html", record=context.run.record, status=context.status))
