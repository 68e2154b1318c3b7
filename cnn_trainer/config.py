"""From a YAML file and ``--set`` words to a checked, frozen experiment, or to the list of all that is wrong.

``load`` is the way in, ``dump`` the way out: what ``dump`` writes, ``load`` takes and gives back the same experiment.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from cnn_trainer import strict_yaml
from cnn_trainer.errors import ConfigError
from cnn_trainer.schema import Experiment
from cnn_trainer.strict_yaml import KeyPath, Value

# Sections whose first key says which kind of section it is; pydantic puts that kind into the path of an error.
_KINDS: dict[KeyPath, str] = {("data",): "source", ("model",): "builder", ("training", "schedule"): "name"}


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


@dataclass(frozen=True)
class Config:
    """An experiment together with where each of its keys was written, for messages."""

    experiment: Experiment
    file: str
    places: dict[KeyPath, str] = field(default_factory=dict)

    def fault(self, key: str, problem: str) -> str:
        """One line about the dotted ``key``, opened by the file and line that set it."""
        return f"{_place(self.places, tuple(key.split('.')), self.file)}: {key}: {problem}"


def load(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read the experiment at ``path``, with ``key=value`` overrides on top.

    Raises:
        ConfigError: with every fault of the file and of the overrides, one line each.
    """
    document = strict_yaml.read_file(path)
    if not isinstance(document.value, dict):
        raise ConfigError(f"{path}:1: a config is a mapping of keys; start one with: cnn-train config init")
    places = {key: f"{path}:{line}" for key, line in document.lines.items()}
    for override in overrides:
        _override(document.value, places, override)
    config = Config(_validate(document.value, places, str(path)), str(path), places)
    known = _KNOWN_DATA.get(config.experiment.data.source)
    if known:
        check_fits(config, *known)
    return config


def _override(tree: dict[str, Value], places: dict[KeyPath, str], override: str) -> None:
    """Set one dotted key in ``tree`` to a value that is read as YAML."""
    key, equals, text = override.partition("=")
    place = f"--set {override}"
    if not equals or not all(key.split(".")):
        raise ConfigError(f"{place}: not of the form key=value, such as training.epochs=3")
    path = tuple(key.split("."))
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


def _validate(tree: Value, places: dict[KeyPath, str], file: str) -> Experiment:
    try:
        return Experiment.model_validate(tree)
    except ValidationError as error:
        faults = [_describe(dict(fault), tree, places, file) for fault in error.errors(include_url=False)]
        raise ConfigError(*dict.fromkeys(faults)) from None


def _place(places: dict[KeyPath, str], path: KeyPath, file: str) -> str:
    """Where ``path``, or the nearest section around it, was written."""
    for length in range(len(path), 0, -1):
        if path[:length] in places:
            return places[path[:length]]
    return file


def _without_kinds(location: KeyPath) -> KeyPath:
    """The path of a key as it stands in the file."""
    path: list[str | int] = []
    skip = False
    for word in location:
        if not skip:
            path.append(word)
        skip = not skip and tuple(path) in _KINDS
    return tuple(path)


def _describe(fault: dict[str, Any], tree: Value, places: dict[KeyPath, str], file: str) -> str:
    """One line for one of pydantic's errors."""
    path = _without_kinds(fault["loc"])
    if path and isinstance(path[-1], int) and not isinstance(_value_at(tree, path[:-1]), list):
        path = path[:-1]  # a single value that stands for a list
    place = _place(places, path, file)
    key = "".join(f"[{word}]" if isinstance(word, int) else f".{word}" for word in path).lstrip(".")
    problem = _problem(fault, path, tree)
    return f"{place}: {key}: {problem}" if key else f"{place}: {problem}"


def _problem(fault: dict[str, Any], path: KeyPath, tree: Value) -> str:
    kind: str = fault["type"]
    context: dict[str, Any] = fault.get("ctx", {})
    got = f"got {_short(_value_at(tree, path))}"
    if kind == "extra_forbidden":
        return f"unknown key; {_nearest_key(path, tree)}"
    if kind == "missing":
        return "this key is required"
    if kind == "union_tag_not_found":
        return f"the key {_KINDS[path]} is required, one of: {', '.join(_kinds_of(path))}"
    if kind == "union_tag_invalid":
        value = _value_at(tree, (*path, _KINDS[path]))
        return f"{_KINDS[path]} is {_short(value)}; {_choices(value, _kinds_of(path))}"
    if kind == "literal_error":
        names = context["expected"].replace(" or ", ", ").replace("'", "").split(", ")
        return f"{got}; {_choices(_value_at(tree, path), names)}"
    if kind == "value_error":
        return str(context["error"])
    return f"{got}; {_EXPECTED.get(kind) or fault['msg'][0].lower() + fault['msg'][1:]}"


_EXPECTED = {
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "bool_type": "expected true or false",
    "string_type": "expected text; put it in quotes if it looks like a number",
    "list_type": "expected a list, such as [32, 64]",
    "model_type": "expected a section of keys",
    "model_attributes_type": "expected a section of keys",
    "dict_type": "expected a section of keys",
    "finite_number": "expected a finite number",
    "string_pattern_mismatch": "expected 1 to 64 letters, digits, dots, hyphens and underscores, "
    "the first a letter or a digit",
}


def _value_at(tree: Value, path: KeyPath) -> Value:
    for word in path:
        if isinstance(tree, dict) and isinstance(word, str):
            tree = tree.get(word)
        elif isinstance(tree, list) and isinstance(word, int) and word < len(tree):
            tree = tree[word]
        else:
            return None
    return tree


def _short(value: Value) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _choices(value: Value, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(str(value), names, n=1)
    return f"allowed: {', '.join(names)}" + (f"; did you mean {near[0]}?" if near else "")


def _nearest_key(path: KeyPath, tree: Value) -> str:
    """The nearest key of the same section, else the same or nearly the same key of another section."""
    name = str(path[-1])
    here = list(_section_at(path[:-1], tree).model_fields)
    near = difflib.get_close_matches(name, here, n=1, cutoff=0.7)
    if near:
        return f"did you mean {near[0]}?"
    elsewhere = {key.rpartition(".")[2]: key for key in reversed(_all_keys(Experiment, tree))}
    near = difflib.get_close_matches(name, list(elsewhere), n=1, cutoff=0.8)
    if near:
        return f"did you mean {elsewhere[near[0]]}?"
    return f"known keys here: {', '.join(here)}"


def sections_of(annotation: Any) -> list[type[BaseModel]]:
    """The schema's sections that an annotation admits, such as the kinds of ``data``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for part in getattr(annotation, "__args__", ()) for section in sections_of(part)]


def _kinds_of(path: KeyPath) -> list[str]:
    model: type[BaseModel] = Experiment
    for word in path[:-1]:
        model = sections_of(model.model_fields[str(word)].annotation)[0]
    kinds = sections_of(model.model_fields[str(path[-1])].annotation)
    return [kind.model_fields[_KINDS[path]].annotation.__args__[0] for kind in kinds]  # type: ignore[union-attr]


def _section_at(path: KeyPath, tree: Value) -> type[BaseModel]:
    """The section of the schema at ``path``, of the kind that the file asks for."""
    model: type[BaseModel] = Experiment
    for length, word in enumerate(path, start=1):
        kinds = sections_of(model.model_fields[str(word)].annotation)
        here = path[:length]
        chosen = _value_at(tree, (*here, _KINDS[here])) if here in _KINDS else None
        model = kinds[_kinds_of(here).index(str(chosen))] if chosen else kinds[0]
    return model


def _all_keys(model: type[BaseModel], tree: Value, path: tuple[str, ...] = ()) -> list[str]:
    keys = []
    for name, info in model.model_fields.items():
        keys.append(".".join((*path, name)))
        if sections_of(info.annotation):
            here = (*path, name)
            chosen = _value_at(tree, (*here, _KINDS[here])) if here in _KINDS else None
            if here not in _KINDS or chosen in _kinds_of(here):
                keys += _all_keys(_section_at(here, tree), tree, here)
    return keys


def check_fits(config: Config, shape: ImageShape, num_examples: int) -> None:
    """Refuse what cannot work on ``num_examples`` training images of ``shape``, before any work is done.

    Raises:
        ConfigError: where a kernel or a pool is larger than the image that is left, or a batch than the split.
    """
    experiment, faults = config.experiment, []
    fraction = experiment.data.validation_fraction
    left = num_examples - round(num_examples * fraction)
    if experiment.training.batch_size > left:
        size = f"got {experiment.training.batch_size}; at most {left}, the examples of the training split"
        faults.append(config.fault("training.batch_size", size))
    if experiment.model.builder == "cnn":
        model = experiment.model
        height, width = shape.height, shape.width
        for block, (kernel, pool) in enumerate(zip(model.kernel_size, model.pool_size, strict=True), start=1):
            side = min(height, width)
            if model.padding == "valid":
                if kernel > side:
                    problem = f"got {kernel} for block {block}, where the image that is left is {height}x{width}"
                    faults.append(config.fault("model.kernel_size", f"{problem}; use padding: same or fewer blocks"))
                    break
                height, width = height - kernel + 1, width - kernel + 1
            if pool > min(height, width):
                problem = f"got {pool} for block {block}, where the image that is left is {height}x{width}"
                faults.append(config.fault("model.pool_size", f"{problem}; use a smaller pool or fewer blocks"))
                break
            height, width = height // pool, width // pool
    if faults:
        raise ConfigError(*faults)


class _Dumper(yaml.SafeDumper):
    """Writes equal lists out again and again: an alias would be refused on the way back."""

    def ignore_aliases(self, data: Any) -> bool:
        """Never an alias."""
        return True


def dump(experiment: Experiment) -> str:
    """The whole experiment as YAML, every default written out. ``load`` gives back the same experiment."""
    return yaml.dump(experiment.model_dump(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
