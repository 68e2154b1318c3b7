"""Turns a space file into a checked search, or reports everything that is wrong with it."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from cnn_trainer.config import faults, strict_yaml
from cnn_trainer.config.load import Config, change_experiment, load_config
from cnn_trainer.config.schema import Experiment
from cnn_trainer.config.strict_yaml import Document, KeyPath, Value
from cnn_trainer.errors import ConfigError, DataError, Fault
from cnn_trainer.network.fits import check_fits, known_size
from cnn_trainer.network.shapes import ImageShape
from cnn_trainer.runs.records import DataRecord
from cnn_trainer.search.spec import Dimension, Search, SearchSpec
from cnn_trainer.storage import strict_json

MAX_CORNERS = 20_000  # checking one takes 0.1 ms

# Keys and sections that must be the same in all trials, each with the problem and the remedy to report.
_SAME_FOR_ALL = {
    "name": ("cannot be searched", "remove it"),
    "seed": ("cannot be searched", "set final.seeds to retrain the best trials on fresh seeds"),
    "data": ("all trials train and validate on the same images", "set it in the experiment"),
    "runtime": ("changes how fast a trial is, not what it learns", "set it in the experiment"),
    "training.epochs": ("trials are compared after the same epochs", "set rungs.last, or set it in the experiment"),
}
# Keys of the experiment that the space file sets, each with its key there, for messages.
_DECIDES: dict[str, KeyPath] = {
    "data.validation_fraction": ("validation_fraction",),
    "training.epochs": ("rungs", "last"),
    "runtime.towers": ("trial_towers",),
}

_Corner = Mapping[str, tuple[KeyPath, Value]]
"""Values for some keys of the experiment, each with its place in the space file."""
_Size = tuple[ImageShape, int, bool]
"""The image shape, the size of the whole training split, and whether the data has its own validation split."""


@dataclass(frozen=True)
class _SpaceFile:
    path: Path
    tree: dict[str, Value]
    places: dict[KeyPath, str]

    def fault(self, key: KeyPath, problem: str, remedy: str | None = None) -> Fault:
        place = faults.place_of(key, self.places, str(self.path))
        return Fault(place, problem, remedy, faults.key_name(key))


@dataclass(frozen=True)
class _Parts:
    """The valid parts of a space file, with all its faults."""

    spec: SearchSpec | None
    space: dict[str, Dimension]
    found: list[Fault]


def load_search(
    path: Path, warn: Callable[[str], None], progress: Callable[[int, int | None], None]
) -> tuple[Search, DataRecord]:
    """The search that the space file at ``path`` describes, and its data.

    Args:
        path: The space file.
        warn: Called with each warning, such as that a fallback was used.
        progress: Called during a download with the bytes done and the bytes in total.

    Raises:
        ConfigError: with every fault of the file, of its experiment, and of every corner of the space.
        DataError: if the training data cannot be read.
    """
    from cnn_trainer.data import load_training, unused_fraction
    from cnn_trainer.training.prepare import with_data_used

    file = _read(path)
    parts = _parts(file)
    try:
        base = _base(file, parts.spec)
    except ConfigError as error:
        raise ConfigError(*_in_order(file, [*parts.found, *error.faults])) from None
    experiment, base = base.experiment, _validating(base, parts.spec)
    known = known_size(base.experiment.data.source)
    size = (*known, False) if known else None  # none of these sources has a validation split of its own
    spec = _require(file, parts, _corner_faults(file, base, parts, size))
    try:
        data = load_training(base.experiment.data, base.experiment.seed, warn, progress).record
    except DataError as error:
        own_fraction = error.place == "data.validation_fraction" and not experiment.data.validation_fraction
        raise (error.at(file.fault(("validation_fraction",), "").place) if own_fraction else error) from None
    if data.validation_from == "own" and experiment.data.validation_fraction:
        warn(unused_fraction(data.location, data.num_validation))
    base = replace(base, experiment=with_data_used(base.experiment, data))
    read = (ImageShape(*data.image_shape), data.num_whole_train, data.validation_from == "own")
    if read != size:
        _require(file, parts, _corner_faults(file, base, parts, read))
    return _search(spec, parts.space, base, data), data


def restore_search(space_path: Path, experiment_path: Path, data: DataRecord) -> Search:
    """The search that began with this space file, resolved experiment and data. Raises ConfigError."""
    file = _read(space_path)
    parts = _parts(file)
    return _search(_require(file, parts, []), parts.space, load_config(experiment_path), data)


def _search(spec: SearchSpec, space: Mapping[str, Dimension], base: Config, data: DataRecord) -> Search:
    whole = frozenset(key for key in space if _takes_whole_numbers(key, base.experiment))
    return Search(spec, base, space, whole, ImageShape(*data.image_shape), data.num_train)


def _read(path: Path) -> _SpaceFile:
    example = "configs/searches/mnist.yaml is an example"
    document: Document = strict_yaml.read_file(path, example)
    if not isinstance(document.value, dict):
        raise ConfigError(Fault(f"{path}:1", "a space file is a mapping of keys", example))
    return _SpaceFile(path, document.value, {key: f"{path}:{line}" for key, line in document.lines.items()})


def _parts(file: _SpaceFile) -> _Parts:
    """The valid parts of the file, each checked on its own."""
    found: list[Fault] = []
    spec: SearchSpec | None = _validated(file, SearchSpec, (), file.tree, found)
    given = file.tree["space"] if "space" in file.tree else None
    given = given if isinstance(given, dict) else {}
    space = {}
    for key, value in given.items():
        dimension = _validated(file, Dimension, ("space", key), value, found)
        if dimension is not None:
            space[key] = dimension
        found += _key_faults(file, key, given)
    if spec is not None:
        found += _spec_faults(file, spec, space)
    return _Parts(spec, space, found)


def _validated(file: _SpaceFile, kind: type[BaseModel], key: KeyPath, value: Value, found: list[Fault]) -> Any:
    """The value at ``key`` as a section of this kind; or None, and its faults are added to ``found``."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        places = {path[len(key) :]: place for path, place in file.places.items() if path[: len(key)] == key}
        for fault in faults.describe(error, value, places, str(file.path), kind):
            name = ".".join(filter(None, (faults.key_name(key), fault.key)))
            found.append(replace(fault, key=name or None))
        return None


def _key_faults(file: _SpaceFile, key: str, space: Iterable[str]) -> list[Fault]:
    """The reasons why ``key`` cannot be searched, whatever its values are."""
    place = ("space", key)
    found = [
        file.fault(place, problem, remedy)
        for fixed, (problem, remedy) in _SAME_FOR_ALL.items()
        if fixed in (key, key.partition(".")[0])
    ]
    found += [
        file.fault(place, f"{fixed} is a part of it and is the same for all trials", "name its other parts instead")
        for fixed in _SAME_FOR_ALL
        if fixed.startswith(f"{key}.")
    ]
    found += [
        file.fault(place, f"{other} is a part of it and is also in the space", "remove one of them")
        for other in space
        if other.startswith(f"{key}.")
    ]
    return found


def _spec_faults(file: _SpaceFile, spec: SearchSpec, space: Mapping[str, Dimension]) -> list[Fault]:
    """Settings that contradict each other."""
    found = []
    if spec.goal == "validation_loss" and "training.loss" in space:
        remedy = "remove it, or set goal: validation_accuracy"
        found.append(file.fault(("space", "training.loss"), "values of different losses cannot be compared", remedy))
    if spec.final.trials > spec.trials:
        remedy = f"must be at most trials, {spec.trials}"
        found.append(file.fault(("final", "trials"), f"got {spec.final.trials}", remedy))
    if spec.method == "grid":
        for key, dimension in space.items():
            if dimension.choices is None:
                found.append(
                    file.fault(("space", key), "a grid cannot have a range", "give choices, or set method: tpe")
                )
        size = math.prod(len(dimension.choices or [None]) for dimension in space.values())
        if size > spec.trials:
            remedy = f"set trials: {size}, or method: random"
            found.append(file.fault(("trials",), f"got {spec.trials}, but the grid has {size:,} points", remedy))
    return found


def _base(file: _SpaceFile, spec: SearchSpec | None) -> Config:
    """The experiment that the space file names, with the keys that the space file sets. Raises ConfigError."""
    named = file.tree["experiment"] if "experiment" in file.tree else None
    if not isinstance(named, str):
        raise ConfigError()  # reported as a fault of the file itself
    path = file.path.parent / named
    if not path.is_file():
        remedy = "give a path relative to the folder of this file"
        raise ConfigError(file.fault(("experiment",), f"there is no file {path}", remedy))
    base = load_config(path)
    if spec is None:
        return base
    runtime, data = base.experiment.runtime, base.experiment.data
    changes: dict[str, Value] = {
        "data.split_seed": base.experiment.seed if data.split_seed is None else data.split_seed,
        "runtime.towers": spec.trial_towers,
        "runtime.intra_op_threads": runtime.intra_op_threads or 1,
        "runtime.inter_op_threads": runtime.inter_op_threads or spec.trial_towers,
    }
    if spec.rungs is not None:
        changes["training.epochs"] = spec.rungs.last
    try:
        return replace(base, experiment=change_experiment(base.experiment, changes))
    except ConfigError as error:
        found = [file.fault(_DECIDES.get(str(one.key), ()), one.problem, one.remedy) for one in error.faults]
        raise ConfigError(*found) from None


def _validating(base: Config, spec: SearchSpec | None) -> Config:
    """``base``, with a share of the training split set aside for validation if it sets none aside itself."""
    if spec is None or base.experiment.data.validation_fraction:
        return base
    changes = {"data.validation_fraction": spec.validation_fraction}
    return replace(base, experiment=change_experiment(base.experiment, changes))


def _takes_whole_numbers(key: str, experiment: Experiment) -> bool:
    def types(annotation: Any) -> Iterator[Any]:
        yield annotation
        for part in get_args(annotation):
            yield from types(part)

    found = set(filter(lambda one: isinstance(one, type), types(faults.annotation_of(key, experiment.model_dump()))))
    return int in found and float not in found


def _corner_faults(file: _SpaceFile, base: Config, parts: _Parts, size: _Size | None) -> list[Fault]:
    """What ``config check`` would report for the corners of the space: first each value alone, then combinations."""
    ends: dict[str, list[tuple[KeyPath, Value]]] = {}
    found: list[Fault] = []
    for key, dimension in parts.space.items():
        ends[key] = _ends(file, base, key, dimension, found)
        for end in ends[key]:
            found += _faults_at(file, base, {key: end}, size)
    if found or parts.found:
        return found
    for corners in _products(ends):
        if (number := math.prod(map(len, corners.values()))) > MAX_CORNERS:
            problem = f"has {number:,} corners to check, more than the limit of {MAX_CORNERS:,}"
            return [file.fault(("space",), problem, "use fewer keys or fewer choices")]
        for values in itertools.product(*corners.values()):
            if found := _faults_at(file, base, dict(zip(corners, values, strict=True)), size):
                return found
    return []


def _ends(
    file: _SpaceFile, base: Config, key: str, dimension: Dimension, found: list[Fault]
) -> list[tuple[KeyPath, Value]]:
    """The choices, or the two ends of a range, each with its place in the file."""
    if dimension.choices is not None:
        return [(("space", key, "choices", number), value) for number, value in enumerate(dimension.choices)]
    ends: list[tuple[KeyPath, Value]] = []
    for name, value in zip(("low", "high"), dimension.bounds(), strict=True):
        path = ("space", key, name)
        if not _takes_whole_numbers(key, base.experiment):
            ends.append((path, value))
        elif value.is_integer():
            ends.append((path, int(value)))
        else:
            found.append(file.fault(path, f"got {value}", "expected a whole number"))
    return ends


def _products(ends: dict[str, list[tuple[KeyPath, Value]]]) -> list[dict[str, list[tuple[KeyPath, Value]]]]:
    """The groups of keys to check together: all keys, or one group per section if those are too many.

    Keys that must fit together are in the same section, or in one that trials cannot change.
    """
    if math.prod(map(len, ends.values())) <= MAX_CORNERS:
        return [ends]
    sections = dict.fromkeys(key.partition(".")[0] for key in ends)
    return [{key: values for key, values in ends.items() if key.partition(".")[0] == section} for section in sections]


def _faults_at(file: _SpaceFile, base: Config, corner: _Corner, size: _Size | None) -> list[Fault]:
    """The faults of one corner, each at the place in the space file that gives the value."""
    changes = {key: value for key, (_, value) in corner.items()}
    try:
        experiment = change_experiment(base.experiment, changes)
        if size is not None:
            check_fits(Config(experiment, base.file), *size)
    except ConfigError as error:
        found = []
        for fault in error.faults:
            owner = next((key for key in corner if f"{fault.key}.".startswith((f"{key}.", f"{key}["))), None)
            path = corner[owner or next(iter(corner))][0]
            others = [f"{key} {strict_json.format_json(value)}" for key, value in changes.items() if key != owner]
            words = f"with {', '.join(others)[:200]}: " if len(changes) > 1 else ""
            problem = fault.problem if owner else f"{fault.key}: {fault.problem}"
            found.append(file.fault(path, f"{words}{problem}", fault.remedy))
        return found
    return []


def _in_order(file: _SpaceFile, found: Iterable[Fault]) -> list[Fault]:
    """The faults without repetitions, in the order of the file, with those of other files last."""
    positions = {place: position for position, place in enumerate(dict.fromkeys(file.places.values()))}
    return sorted(dict.fromkeys(found), key=lambda fault: positions.get(fault.place, len(positions)))


def _require(file: _SpaceFile, parts: _Parts, more: list[Fault]) -> SearchSpec:
    """The contents of the file if it has no faults. Raises ConfigError if it has any."""
    found = _in_order(file, [*parts.found, *more])
    if parts.spec is None or found:
        raise ConfigError(*found)
    return parts.spec
