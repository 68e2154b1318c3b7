"""The page of one run."""

from collections.abc import Callable

from cnn_trainer.errors import count
from cnn_trainer.report import about, classes, confusion, curves, galleries
from cnn_trainer.report.context import Context
from cnn_trainer.report.page import PageSection, build_page, percent

SECTIONS: tuple[Callable[[Context], PageSection | None], ...] = (
    curves.curves_section,
    confusion.confusion_section,
    galleries.worst_section,
    galleries.uncertain_section,
    classes.classes_section,
    about.about_section,
)
"""The sections in their order; each function returns None if the run has nothing for it."""


def build_run_page(context: Context, reload_seconds: int | None = None) -> bytes:
    """The page of a run as an HTML file."""
    sections = [section for make in SECTIONS if (section := make(context))]
    images = context.examples.sprite.html() if context.examples else None
    return build_page(context.run.record.name, _verdict(context), sections, images, reload_seconds)


def _verdict(context: Context) -> str:
    record, found = context.run.record, context.evaluation
    if found is None:
        return f"The run is {context.status} after {count(record.epochs_done, 'epoch')}, and it has no test score."
    low, high = found.accuracy_interval
    right = f"{percent(found.accuracy)} of {count(found.num_examples, f'{found.split} image')}"
    return f"It classifies {right} of {found.source} correctly (95 % interval {percent(low)} to {percent(high)})."
