"""Checks that a network fits the images that it is given."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from cnn_trainer.config.expand import expand_path
from cnn_trainer.config.faults import in_order
from cnn_trainer.config.load import Config, Overrides, load_config
from cnn_trainer.config.schema.model import Cnn, Mlp
from cnn_trainer.config.schema.training import Training
from cnn_trainer.config.strict_yaml import KeyPath
from cnn_trainer.errors import ConfigError, DataError, Fault, count
from cnn_trainer.network.shapes import DoesNotFitError, ImageShape, layer_sizes

# Shape of the images, and number of training images before any are set aside for validation, from the data sets'
# documentation; mnist-5k trains on 4,000 of its 5,000 images.
_KNOWN_DATA = {
    "mnist": (ImageShape(28, 28, 1), 60_000),
    "fashion-mnist": (ImageShape(28, 28, 1), 60_000),
    "kmnist": (ImageShape(28, 28, 1), 60_000),
    "qmnist": (ImageShape(28, 28, 1), 60_000),
    "emnist-digits": (ImageShape(28, 28, 1), 240_000),
    "emnist-letters": (ImageShape(28, 28, 1), 124_800),
    "emnist-balanced": (ImageShape(28, 28, 1), 112_800),
    "mnist-5k": (ImageShape(28, 28, 1), 4_000),
}

# No config may bring a machine down. For comparison, VGG-16 has 138 million parameters, and computes
# 15 million values for an image of 224x224.
MAX_PARAMETERS: Final = 150_000_000
MAX_IMAGE_VALUES: Final = 50_000_000

_Problem = tuple[str, str, str | None]  # key, problem, remedy


def load_checked(path: Path, overrides: Overrides = ()) -> Config:
    """Load a config, check its paths, and call ``check_fits`` if the shape of its data is known in advance."""
    config = load_config(path, overrides)
    known = _KNOWN_DATA.get(config.experiment.data.source)
    _refuse(config, [*_paths_not_known(config), *(_misfits(config, *known) if known else [])])
    return config


def _paths_not_known(config: Config) -> Iterator[_Problem]:
    """Paths that cannot be expanded, because a variable is not set or there is no such home folder."""
    for name, text in vars(config.experiment.data).items():
        if name.endswith("path") and text is not None:
            try:
                path = expand_path(text)
            except DataError as error:
                yield f"data.{name}", f"got {text!r}, and {error.problem}", error.remedy
            else:
                if os.path.lexists(path):
                    continue
                if "{{" in text:
                    yield f"data.{name}", f"got {text!r}, and {{{{…}}}} is not filled in here", "write the path out"
                elif text.lower() in ("none", "null"):
                    yield f"data.{name}", f"got {text!r}, and there is no such file", "write null for no path"


def check_fits(config: Config, shape: ImageShape, num_examples: int, own_validation: bool = False) -> None:
    """Refuse a config that cannot train on ``num_examples`` images of ``shape``, before any work is done.

    Args:
        config: The experiment to train.
        shape: The shape of the training images.
        num_examples: Size of the whole training split, including what ``data.validation_fraction`` takes out of it.
        own_validation: Whether the data has a validation split of its own.

    Raises:
        ConfigError: if a kernel or a pool is larger than the image that reaches it, if a batch is larger than the
            training split, if the validation split would be empty, if one is needed but missing, or if the network has
            more than ``MAX_PARAMETERS`` parameters or ``MAX_IMAGE_VALUES`` values for one image, not counting its
            output layer.
    """
    _refuse(config, _misfits(config, shape, num_examples, own_validation))


def _misfits(config: Config, shape: ImageShape, num_examples: int, own_validation: bool = False) -> list[_Problem]:
    experiment = config.experiment
    found = [*_splits_too_small(config, num_examples), *_layers_that_do_not_fit(experiment.model, shape)]
    if not own_validation and not experiment.data.validation_fraction:
        found += _needs_validation(experiment.training)
    return found


def _refuse(config: Config, found: Sequence[_Problem]) -> None:
    """Raise ConfigError with all problems found, if any, in the order of the file."""
    faults: list[tuple[KeyPath, Fault]] = [(tuple(problem[0].split(".")), config.fault(*problem)) for problem in found]
    if faults:
        raise ConfigError(*(fault for _, fault in in_order(faults, config.places)))


def _needs_validation(training: Training) -> Iterator[_Problem]:
    if training.early_stopping:
        yield "training.early_stopping", "needs a validation split", "set data.validation_fraction"
    if training.schedule.name == "plateau":
        yield "training.schedule", "plateau needs a validation split", "set data.validation_fraction"


def _splits_too_small(config: Config, num_examples: int) -> Iterator[_Problem]:
    fraction, batch_size = config.experiment.data.validation_fraction, config.experiment.training.batch_size
    num_validation = round(num_examples * fraction)  # the same formula as in data/splits.py
    if fraction and not num_validation:
        problem = f"got {fraction}, which leaves no validation example out of {count(num_examples, 'example')}"
        yield "data.validation_fraction", problem, "use a larger fraction, or 0 for no validation"
    if batch_size > num_examples - num_validation:
        allowed = f"at most {num_examples - num_validation}, the size of the training split"
        yield "training.batch_size", f"got {batch_size}", allowed


def _layers_that_do_not_fit(model: Cnn | Mlp, shape: ImageShape) -> list[_Problem]:
    """The first block that does not fit, or else the first layer at which the network exceeds a limit."""
    try:
        layers = list(layer_sizes(model, shape))
    except DoesNotFitError as error:
        return [(error.key, str(error), error.remedy)]
    parameters, values = 0, shape.height * shape.width * shape.channels
    for layer in layers:
        parameters, values = parameters + layer.weights, values + layer.values
        if parameters > MAX_PARAMETERS:
            problem = f"the network has {parameters:,} parameters up to this layer"
            return [(layer.key, problem, f"at most {MAX_PARAMETERS:,}")]
        if values > MAX_IMAGE_VALUES:
            problem = f"an image of {shape} takes {values:,} values up to this layer"
            return [(layer.key, problem, f"at most {MAX_IMAGE_VALUES:,}")]
    return []
