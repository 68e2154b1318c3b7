"""The first half of the recipe: everything that can be refused is checked, and everything is built, in memory.

Modules that import TensorFlow are imported here only after ``backend.start``, which keeps TensorFlow quiet and sets
its threads.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cnn_trainer import data
from cnn_trainer.config.load import Config, change_experiment
from cnn_trainer.config.schema import Experiment
from cnn_trainer.data.splits import counts_per_class
from cnn_trainer.data.table_files import expand
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

# What is recorded of the backend, under the same names.
BACKEND_FACTS = ("device", "towers", "intra_op_threads", "inter_op_threads")


@dataclass(frozen=True)
class Prepared:
    """All that training needs, checked and in memory; nothing is written yet."""

    experiment: Experiment
    """Resolved: the data that is really used, device, threads and towers are filled in."""
    data: DataRecord
    backend: Backend
    session: Session

    @property
    def tower_images(self) -> int:
        """The images of a batch that one tower computes."""
        return self.experiment.training.batch_size // self.backend.towers


@dataclass(frozen=True)
class Feedback:
    """Whom the recipe tells what it does. By default only warnings are heard, as Python's."""

    warn: Callable[[str], None] = lambda line: warnings.warn(line, stacklevel=3)
    """A line that a person should read."""
    download: data.DownloadProgress = data.no_progress
    prepared: Callable[[Prepared], None] = lambda _: None
    """All is checked and built; nothing is written yet."""
    created: Callable[[Run], None] = lambda _: None
    """The run directory is there and locked, and training begins."""
    display: Display = field(default_factory=Display)


def prepare(
    config: Config, feedback: Feedback, check_test: bool = True, trained_on: DataRecord | None = None
) -> Prepared:
    """Read the training data, check that the network fits it, start TensorFlow and build everything. Writes nothing.

    Args:
        config: What to train.
        feedback: Who is told.
        check_test: Whether to read the test split too, to find out now what is wrong with it; nothing is scored.
        trained_on: The data of the run that is resumed.

    Raises ConfigError, DataError or DeviceError.
    """
    for note in config.notes:
        feedback.warn(note)
    experiment = config.experiment
    if experiment.runtime.tensorboard and not tensorboard.is_installed():
        remedy = f"install it with: {facts.install_command('tensorboard')}, or set false"
        raise ConfigError(config.fault("runtime.tensorboard", "got true, and TensorBoard is not installed", remedy))
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
        problem, remedy = "a run records this path, which is not Unicode text", "rename what is not, or move the data"
        raise DataError(problem, place=record.location, remedy=remedy) from None
    for line in _class_warnings(experiment, training_data):
        feedback.warn(line)
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
    """What a person should know of the sizes of the classes before the first step."""
    names = found.record.class_names
    imbalance = describe_imbalance(counts_per_class(found.train.labels, len(names)), names)
    if imbalance and experiment.training.class_weights is None:
        remedy = "set training.class_weights: balanced, or the rare class may hardly ever be predicted"
        yield f"the training split has {imbalance}; {remedy}"
    validation = found.validation and counts_per_class(found.validation.labels, len(names))
    for split, counts in ("validation", validation), ("test", found.test_counts):
        if missing := [name for name, count in zip(names, counts, strict=True) if not count] if counts else []:
            yield f"the {split} score will not cover classes that have no {split} image: {first_ten(missing)}"


def with_data_used(experiment: Experiment, record: DataRecord) -> Experiment:
    """The experiment as it is really run, from whatever folder the next command is started.

    Paths are absolute; if the fallback was taken, data and name say so.
    """
    if record.source == record.requested:
        section = experiment.data.model_dump(exclude_none=True)
        changes = {"data.path": record.location} if "path" in section else {}
        tables = {key: str(expand(section[key])) for key in ("test_path", "validation_path") if key in section}
        return change_experiment(experiment, changes | {f"data.{key}": path for key, path in tables.items()})
    name = f"{experiment.name[: 63 - len(record.source)]}-{record.source}"
    return change_experiment(experiment, {"name": name, "data": data.data_used(experiment.data, record).model_dump()})
