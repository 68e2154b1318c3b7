"""From a YAML file and ``--set`` words to a checked, frozen experiment, or to the list of all that is wrong.

``load`` is the way in, ``dump`` the way out: what ``dump`` writes, ``load`` takes and gives back the same experiment.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from cnn_trainer import config_faults, strict_yaml
from cnn_trainer.errors import ConfigError
from cnn_trainer.schema import Experiment
from cnn_trainer.schema.model import Cnn, Mlp
from cnn_trainer.strict_yaml import KeyPath, Value


@dataclass(frozen=True)
class ImageShape:
    """Height, width and channels of the images, in pixels."""

    height: int
    width: int
    channels: int

    def __str__(self) -> str:
        return f"{self.height}x{self.width}x{self.channels}"


# Shape of the images and number of training images, before validation is set aside. MNIST and Fashion-MNIST: their
# own documentation; mnist-5k: 4,000 of the 5,000 images.
_KNOWN_DATA = {
    "mnist": (ImageShape(28, 28, 1), 60_000),
    "fashion-mnist": (ImageShape(28, 28, 1), 60_000),
    "mnist-5k": (ImageShape(28, 28, 1), 4_000),
}


# So that no config, be it a stranger's, takes a machine down: VGG-16 has 138 million parameters, and takes 15 million
# values an image of 224x224.
MAX_PARAMETERS = 150_000_000
MAX_VALUES = 50_000_000


@dataclass(frozen=True)
class Config:
    """An experiment together with where each of its keys was written, for messages."""

    experiment: Experiment
    file: str
    places: dict[KeyPath, str] = field(default_factory=dict)

    def fault(self, key: str, problem: str) -> str:
        """One line about the dotted ``key``, opened by the file and line that set it."""
        return f"{config_faults.place_of(tuple(key.split('.')), self.places, self.file)}: {key}: {problem}"


def load(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read the experiment at ``path``, with ``key=value`` overrides on top.

    Raises:
        ConfigError: with every fault of the file and of the overrides, one line each, in the order of the file.
    """
    document = strict_yaml.read_file(path)
    if not isinstance(document.value, dict):
        raise ConfigError(f"{path}:1: a config is a mapping of keys; start one with: cnn-train config init")
    places = {key: f"{path}:{line}" for key, line in document.lines.items()}
    return _check(document.value, places, str(path), overrides)


def documented(overrides: Sequence[str] = ()) -> Config:
    """The documented network on MNIST, with every other key at its default, with ``key=value`` overrides on top.

    Raises:
        ConfigError: with every fault of the overrides.
    """
    data: dict[str, Value] = {"source": "mnist", "fallback": "mnist-5k"}
    return _check({"name": "mnist-cnn", "data": data, "model": {"builder": "cnn"}}, {}, "defaults", overrides)


def _check(tree: dict[str, Value], places: dict[KeyPath, str], file: str, overrides: Sequence[str]) -> Config:
    override_faults: list[str] = []
    for override in overrides:
        try:
            _override(tree, places, override)
        except ConfigError as error:
            override_faults += error.faults
    try:
        experiment = Experiment.model_validate(tree)
    except ValidationError as error:
        faults = config_faults.describe(error, tree, places, file)
        raise ConfigError(*faults, *override_faults) from None
    if override_faults:
        raise ConfigError(*override_faults)
    config = Config(experiment, file, places)
    known = _KNOWN_DATA.get(config.experiment.data.source)
    if known:
        check_fits(config, *known)
    return config


def _override(tree: dict[str, Value], places: dict[KeyPath, str], override: str) -> None:
    """Set one dotted key in ``tree`` to a value that is read as YAML."""
    key, equals, text = override.partition("=")
    place = f"--set {override}"
    path = tuple(key.split("."))
    if not equals or not all(path):
        raise ConfigError(f"{place}: not of the form key=value, such as training.epochs=3")
    if len(path) > strict_yaml.MAX_DEPTH:
        raise ConfigError(f"{place}: nested more than {strict_yaml.MAX_DEPTH} levels deep")
    value = strict_yaml.read_text(text, place).value
    section = tree
    for word in path[:-1]:
        child = section.setdefault(word, {})
        if not isinstance(child, dict):
            raise ConfigError(f"{place}: {word} is a value, not a section")
        section = child
    section[path[-1]] = value
    for old in [known for known in places if known[: len(path)] == path]:
        del places[old]
    places[path] = place


def check_fits(config: Config, shape: ImageShape, num_examples: int) -> None:
    """Refuse what cannot work on ``num_examples`` training images of ``shape``, before any work is done.

    Raises:
        ConfigError: where a kernel or a pool is larger than the image that is left, a batch than the split, or where
            the validation split would be empty, or where the network has more than ``MAX_PARAMETERS`` parameters, or
            more than ``MAX_VALUES`` values for one image, its output layer not counted.
    """
    experiment = config.experiment
    faults: list[tuple[str, str]] = []
    fraction = experiment.data.validation_fraction
    num_validation = round(num_examples * fraction)  # as data/splits.py counts
    left = num_examples - num_validation
    if fraction and not num_validation:
        problem = (
            f"got {fraction}, which is none of {num_examples} examples; use a larger share, or 0 for no validation"
        )
        faults.append(("data.validation_fraction", problem))
    if experiment.training.batch_size > left:
        problem = f"got {experiment.training.batch_size}; at most {left}, the examples of the training split"
        faults.append(("training.batch_size", problem))
    blocks = [*_blocks_that_do_not_fit(experiment.model, shape)] if experiment.model.builder == "cnn" else []
    faults += blocks or _layers_too_large(experiment.model, shape)
    if faults:
        ordered = config_faults.in_order([(tuple(key.split(".")), problem) for key, problem in faults], config.places)
        raise ConfigError(*(config.fault(".".join(map(str, path)), problem) for path, problem in ordered))


def _blocks_that_do_not_fit(model: Cnn, shape: ImageShape) -> Iterator[tuple[str, str]]:
    """The first block whose kernel or pool is larger than the image that the blocks before it leave."""
    height, width = shape.height, shape.width
    for block, (kernel, pool) in enumerate(zip(model.kernel_size, model.pool_size, strict=True), start=1):
        if model.padding == "valid":
            if kernel > min(height, width):
                problem = f"got {kernel} for block {block}, where the image that is left is {height}x{width}"
                yield "model.kernel_size", f"{problem}; use padding: same or fewer blocks"
                return
            height, width = height - kernel + 1, width - kernel + 1
        if pool > min(height, width):
            problem = f"got {pool} for block {block}, where the image that is left is {height}x{width}"
            yield "model.pool_size", f"{problem}; use a smaller pool or fewer blocks"
            return
        height, width = height // pool, width // pool


def _layers_too_large(model: Cnn | Mlp, shape: ImageShape) -> Iterator[tuple[str, str]]:
    """The first layer with which the network grows beyond a limit."""
    parameters, values = 0, shape.height * shape.width * shape.channels
    for key, more_parameters, more_values in _layer_sizes(model, shape):
        parameters, values = parameters + more_parameters, values + more_values
        if parameters > MAX_PARAMETERS:
            yield key, f"the network has {parameters:,} parameters up to this layer; at most {MAX_PARAMETERS:,}"
            return
        if values > MAX_VALUES:
            yield key, f"an image of {shape} takes {values:,} values up to this layer; at most {MAX_VALUES:,}"
            return


def count_weights(model: Cnn | Mlp, shape: ImageShape) -> int:
    """The weights that the network has at least: biases, normalisation and the output layer are not counted.

    The network must fit images of ``shape``, as ``check_fits`` finds out.
    """
    return sum(weights for _, weights, _ in _layer_sizes(model, shape))


def _layer_sizes(model: Cnn | Mlp, shape: ImageShape) -> Iterator[tuple[str, int, int]]:
    """Key, weights and values for one image of every layer but the last; all blocks fit."""
    height, width, channels = shape.height, shape.width, shape.channels
    if model.builder == "cnn":
        for filters, kernel, pool in zip(model.filters, model.kernel_size, model.pool_size, strict=True):
            if model.padding == "valid":
                height, width = height - kernel + 1, width - kernel + 1
            yield "model.filters", kernel * kernel * channels * filters, height * width * filters
            height, width, channels = height // pool, width // pool, filters
    size = height * width * channels
    key, units = ("dense_units", model.dense_units) if model.builder == "cnn" else ("hidden_units", model.hidden_units)
    for count in units:
        yield f"model.{key}", size * count, count
        size = count


class _Dumper(yaml.SafeDumper):
    """Writes equal lists out again and again: an alias would be refused on the way back."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 -- PyYAML's signature
        """Never an alias."""
        return True


def dump(experiment: Experiment) -> str:
    """The whole experiment as YAML, every default written out. ``load`` gives back the same experiment."""
    return yaml.dump(experiment.model_dump(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def summary(experiment: Experiment) -> str:
    """The experiment in a few words: ``mnist-cnn: cnn on mnist, adam, 10 epochs in batches of 128``."""
    training = experiment.training
    network = f"{experiment.name}: {experiment.model.builder} on {experiment.data.source}"
    return f"{network}, {training.optimizer}, {training.epochs} epochs in batches of {training.batch_size}"
