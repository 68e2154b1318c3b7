"""The first half of the recipe: everything that can be refused is checked, and everything is built, in memory.

Modules that import TensorFlow are imported here only after ``backend.start``, which keeps TensorFlow quiet and sets
its threads.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cnn_trainer import data
from cnn_trainer.config.expand import expand_path, literal_path
from cnn_trainer.config.load import Config, change_experiment
from cnn_trainer.config.schema import Experiment
from cnn_trainer.data.splits import counts_per_class
from cnn_trainer.errors import ConfigError, DataError
from cnn_trainer.machine import backend, facts
from cnn_trainer.machine.backend import Backend
from cnn_trainer.network.fits import check_fits
from cnn_trainer.network.shapes import ImageShape
from cnn_trainer.runs.records import DataRecord
from cnn_trainer.runs.store import Run
from cnn_trainer.training import tensorboard
from cnn_trainer.training.balance import describe_imbalance, first_ten
from cnn_trainer.training.display import Display

if TYPE_CHECKING:
    from cnn_trainer.training.session import Session

# The fields of the backend that are recorded, under the same names.
BACKEND_FACTS = ("device", "towers", "intra_op_threads", "inter_op_threads")


@dataclass(frozen=True)
class Prepared:
    """Everything that training needs, checked and in memory; nothing has been written yet."""

    experiment: Experiment
    """The resolved experiment: the data that is actually used, the device, threads and towers are filled in."""
    data: DataRecord
    backend: Backend
    session: Session

    @property
    def tower_images(self) -> int:
        """Number of images of a batch that one tower computes."""
        return self.experiment.training.batch_size // self.backend.towers


@dataclass(frozen=True)
class Feedback:
    """Callbacks for what the recipe does. By default, only warnings are reported, as Python warnings."""

    warn: Callable[[str], None] = lambda line: warnings.warn(line, stacklevel=3)
    """Called with a line that the user should read."""
    download: data.DownloadProgress = data.no_progress
    prepared: Callable[[Prepared], None] = lambda _: None
    """Called when everything is checked and built; nothing has been written yet."""
    created: Callable[[Run], None] = lambda _: None
    """Called when the run directory exists and is locked, and training begins."""
    display: Display = field(default_factory=Display)


def prepare(
    config: Config, feedback: Feedback, check_test: bool = True, trained_on: DataRecord | None = None
) -> Prepared:
    """Read the training data, check that the network fits it, start TensorFlow and build everything. Writes nothing.

    Args:
        config: The experiment to train.
        feedback: The callbacks to use.
        check_test: Whether to read the test split too, to find its faults early; nothing is scored.
        trained_on: The data of the run, if one is resumed.

    Raises ConfigError, DataError or DeviceError.
    """
    experiment = config.experiment
    for line in config.notes:
        feedback.warn(line)
    if experiment.runtime.tensorboard and not tensorboard.is_installed():
        remedy = f"install it with: {facts.install_command('tensorboard')}, or set false"
        raise ConfigError(config.fault("runtime.tensorboard", "got true, but TensorBoard is not installed", remedy))
    training_data = data.load_training(
        experiment.data,
        experiment.seed,
        feedback.warn,
        feedback.download,
        trained_on=trained_on,
        check_test=check_test,
    )
    record = training_data.record
    try:
        record.location.encode()
    except UnicodeEncodeError:
        problem, remedy = "this path must be recorded, but is not valid Unicode", "rename it, or move the data"
        raise DataError(problem, place=record.location, remedy=remedy) from None
    for line in _class_warnings(experiment, training_data):
        feedback.warn(line)
    if record.validation_from == "own" and experiment.data.validation_fraction:
        feedback.warn(data.unused_fraction(record.location, record.num_validation))
    experiment = with_data_used(experiment, record)
    placed, shape = Config(experiment, config.file, config.places), ImageShape(*record.image_shape)
    check_fits(placed, shape, record.num_whole_train, record.validation_from == "own")
    started = backend.start(experiment)
    from cnn_trainer.network import precision
    from cnn_trainer.training.session import build_session

    resolved = {f"runtime.{name}": getattr(started, name) for name in BACKEND_FACTS}
    experiment = change_experiment(experiment, resolved | {"runtime.device": started.device.split()[0]})
    prepared = Prepared(experiment, record, started, build_session(experiment, training_data, started))
    chosen = experiment.runtime.precision
    if started.device == "cpu" and chosen in ("bfloat16", "float16"):
        gain = precision.measure_gain(prepared.session.model, chosen, prepared.tower_images)
        if warning := precision.slow_warning(chosen, gain):
            feedback.warn(warning)
    feedback.prepared(prepared)
    return prepared


def _class_warnings(experiment: Experiment, found: data.TrainingData) -> Iterator[str]:
    """Warnings about the sizes of the classes, for the user to see before the first step."""
    names = found.record.class_names
    imbalance = describe_imbalance(counts_per_class(found.train.labels, len(names)), names)
    if imbalance and experiment.training.class_weights is None:
        remedy = "set training.class_weights: balanced, or else the rare class may hardly ever be predicted"
        yield f"the training split has {imbalance}; {remedy}"
    validation = found.validation and counts_per_class(found.validation.labels, len(names))
    for split, counts in ("validation", validation), ("test", found.test_counts):
        if missing := [name for name, count in zip(names, counts, strict=True) if not count] if counts else []:
            yield f"the {split} score will not cover classes that have no {split} image: {first_ten(missing)}"


def with_data_used(experiment: Experiment, record: DataRecord) -> Experiment:
    """The experiment as it is actually run, valid whatever the working folder of the next command.

    Paths are absolute; if the fallback was used, the data and the name say so. If the data has its own validation
    split, no fraction of the training split is set aside.
    """
    if record.source == record.requested:
        section = experiment.data.model_dump(exclude_none=True)
        changes: dict[str, object] = {"data.path": literal_path(Path(record.location))} if "path" in section else {}
        if record.validation_from == "own":
            changes["data.validation_fraction"] = 0.0
        tables = {
            key: literal_path(expand_path(section[key])) for key in ("test_path", "validation_path") if key in section
        }
        return change_experiment(experiment, changes | {f"data.{key}": path for key, path in tables.items()})
    name = f"{experiment.name[: 63 - len(record.source)]}-{record.source}"
    return change_experiment(experiment, {"name": name, "data": data.data_used(experiment.data, record).model_dump()})
