"""The page of one run."""

import shlex
from collections.abc import Callable, Iterator

from cnn_trainer.errors import count
from cnn_trainer.report import about, classes, confusion, curves, galleries, layers, reliability
from cnn_trainer.report.context import Context
from cnn_trainer.report.page import KeyFigure, PageSection, build_page, percent
from cnn_trainer.training.display import format_seconds

SECTIONS: tuple[Callable[[Context], PageSection | None], ...] = (
    curves.curves_section,
    confusion.confusion_section,
    galleries.worst_section,
    galleries.uncertain_section,
    reliability.reliability_section,
    classes.classes_section,
    layers.layers_section,
    about.about_section,
)
"""The sections in their order; each function returns None if the run has nothing for it."""


def build_run_page(context: Context, reload_seconds: int | None = None) -> bytes:
    """The page of a run as an HTML file."""
    sections = [section for make in SECTIONS if (section := make(context))]
    images = context.examples.sprite.html() if context.examples else None
    return build_page(
        title=f"{context.run.record.name}, seed {context.run.record.seed}",
        verdict=_verdict(context),
        sections=sections,
        hidden=images,
        figures=list(_figures(context)),
        reload_seconds=reload_seconds,
    )


def _verdict(context: Context) -> str:
    found = context.evaluation
    if found is None:
        return _without_score(context)
    low, high = map(percent, found.accuracy_interval)
    num_right = sum(row[label] for label, row in enumerate(found.confusion_matrix))
    right = f"{num_right:,} of {count(found.num_examples, f'{found.split} image')} of {found.source}"
    kind = "convolutional" if context.run.experiment.model.builder == "cnn" else "fully connected"
    accuracy = f"{percent(found.accuracy)}, with a 95 % interval of {low} to {high}"
    return f"A {kind} network that classifies {right} correctly: {accuracy}."


def _without_score(context: Context) -> str:
    record, place = context.run.record, shlex.quote(str(context.run.dir))
    state = f"{context.status}, {count(len(context.metrics), 'epoch')} done"
    if record.weights_sha256:
        return f"A run ({state}) without a test score of its weights. To score it: cnn-train evaluate {place}"
    words = f"An unfinished run ({state}), which has no test score"
    words += f": {record.error}" if record.error else "."
    can_continue = context.status not in ("training", "diverged")
    return f"{words} To continue it: cnn-train resume {place}" if can_continue else words


def _figures(context: Context) -> Iterator[KeyFigure]:
    record, found = context.run.record, context.evaluation
    if found:
        low, high = found.accuracy_interval
        yield KeyFigure("Accuracy", percent(found.accuracy), f"{percent(low)} to {percent(high)}")
        wrong = found.num_examples - sum(row[label] for label, row in enumerate(found.confusion_matrix))
        yield KeyFigure("Wrong", f"{wrong:,}", f"of {count(found.num_examples, f'{found.split} image')}")
        yield KeyFigure("Loss", f"{found.loss:.4f}", context.run.experiment.training.loss.replace("_", " "))
        if found.calibration:
            error = found.calibration.calibration_error
            yield KeyFigure("Calibration error", percent(error.error), f"{percent(error.chance_mean)} by chance")
    yield KeyFigure("Parameters", f"{record.num_parameters:,}", context.run.experiment.model.builder)
    yield KeyFigure("Trained", format_seconds(record.train_seconds), count(record.epochs_done, "epoch"))
