"""The section of what the run was: its config, data, machine, versions and times, and how to repeat it."""

import shlex
from collections.abc import Iterator
from operator import attrgetter

from cnn_trainer.analysis.compare import MACHINE_KEYS
from cnn_trainer.config.load import dump_config
from cnn_trainer.config.schema import Experiment
from cnn_trainer.config.schema.section import Section, one_for_all
from cnn_trainer.errors import count
from cnn_trainer.report.context import Context
from cnn_trainer.report.page import PageSection, fill
from cnn_trainer.runs.paths import CONFIG_FILE
from cnn_trainer.storage.strict_json import format_json
from cnn_trainer.training.display import format_seconds


def about_section(context: Context) -> PageSection:
    """Every fact that the run has recorded."""
    run, evaluation = context.run, context.evaluation
    differences = [
        row for row in _differences(run.experiment, "") if row[0] not in MACHINE_KEYS
    ]  # shown with the machine
    digests = [("training images", run.record.data.train_sha256)]
    if run.record.data.validation_sha256:
        digests.append(("validation images", run.record.data.validation_sha256))
    if evaluation:
        digests.append((f"{evaluation.split} images", evaluation.images_sha256))
    if run.record.weights_sha256:
        digests.append(("weights", run.record.weights_sha256))
    html = fill(
        "about.html",
        command=f"cnn-train train {shlex.quote(str(run.dir / CONFIG_FILE))}",
        differences=differences,
        config=dump_config(run.experiment),
        facts=list(_facts(context)),
        digests=digests,
    )
    return PageSection("about", "The run", html)


def _differences(section: Section, prefix: str) -> Iterator[tuple[str, str, str]]:
    """The keys that differ from their defaults, with value and default, as JSON; a dash if there is no default."""
    standard = Experiment()
    for name, field in type(section).model_fields.items():
        value, key = getattr(section, name), f"{prefix}{name}"
        if isinstance(value, Section):
            yield from _differences(value, f"{key}.")
            continue
        default = field.get_default(call_default_factory=True)
        if field.is_required():  # such as the kind of a section: that of a new config is the default
            default = _value_at(standard, key)
        repeated = name in one_for_all(type(section)) and default is not None and value == default * len(value)
        if value != default and not repeated:
            yield key, format_json(value), "–" if default is None and field.is_required() else format_json(default)


def _value_at(experiment: Experiment, key: str) -> object:
    try:
        return attrgetter(key)(experiment)
    except AttributeError:
        return None


def _facts(context: Context) -> Iterator[tuple[str, str]]:
    """What run.json and evaluation.json say, in words."""
    record, evaluation = context.run.record, context.evaluation
    data = record.data
    used = data.source if data.source == data.requested else f"{data.source}, as {data.requested} was not at hand"
    yield "Data", f"{used}, from {data.location}"
    examples = count(data.num_train, "training image")
    examples += f" and {count(data.num_validation, 'validation image')}" if data.num_validation else ""
    shape, classes = "x".join(map(str, data.image_shape)), count(len(data.class_names), "class", "classes")
    yield "Examples", f"{examples} of {shape}, {classes}"
    if (data.pixel_dtype, data.white) != ("uint8", 255):
        yield "Pixels", f"converted from {data.pixel_dtype}, 0 to {data.white}"
    yield "Network", f"{context.run.experiment.model.builder}, {count(record.num_parameters, 'parameter')}"
    best = f"; the result is that of epoch {record.best_epoch}" if record.best_epoch else ""
    took = format_seconds(record.train_seconds)
    yield "Trained", f"{count(record.epochs_done, 'epoch')} in {took}{best}; seed {record.seed}"
    yield "Times", f"created {record.created_at}, updated {record.updated_at}"
    if evaluation:
        yield "Scored", evaluation.evaluated_at
    threads = f"{count(record.intra_op_threads, 'thread')} in an operation, {record.inter_op_threads} at a time"
    yield "Device", f"{record.device}; {count(record.towers, 'tower')}, {threads}"
    yield "Machine", "; ".join(f"{name} {value}" for name, value in record.machine.items())
    yield "Versions", ", ".join(f"{name} {version}" for name, version in record.versions.items())
    if record.environment:
        yield "Environment", ", ".join(f"{name}={value}" for name, value in record.environment.items())
    if record.git_commit:
        yield "Git commit", record.git_commit
