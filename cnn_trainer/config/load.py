"""Turns a YAML file into a checked, frozen experiment, or lists everything that is wrong with it.

``load_config`` reads an experiment and ``dump_config`` writes one; ``load_config`` reads what ``dump_config`` writes as
the same experiment. ``change_experiment`` is the only way to change one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from cnn_trainer.config import faults, shipped, strict_yaml
from cnn_trainer.config.schema import Experiment
from cnn_trainer.config.schema.section import one_for_all
from cnn_trainer.config.strict_yaml import KeyPath, Value
from cnn_trainer.errors import ConfigError, Fault, count

Overrides = Sequence[str] | Mapping[str, Any]
"""Values for dotted keys: a mapping, or words of the form ``training.epochs=3`` whose values are read as YAML."""


@dataclass(frozen=True)
class Config:
    """An experiment, and the place where each of its keys was written, for messages."""

    experiment: Experiment
    file: str
    places: dict[KeyPath, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """Lines to show to the user: which keys of the file were dropped because an override chose another kind."""

    def fault(self, key: str, problem: str, remedy: str | None = None) -> Fault:
        """What is wrong with the dotted ``key``, at the file and line that set it."""
        return Fault(faults.place_of(tuple(key.split(".")), self.places, self.file), problem, remedy, key)


def load_config(path: Path, overrides: Overrides = ()) -> Config:
    """Read the experiment at ``path``: a file, a shipped config, or ``-`` for standard input; and apply ``overrides``.

    Raises:
        ConfigError: with every fault of the file and of the overrides, in the order of the file.
    """
    path = shipped.find_config(path)
    document, file = strict_yaml.read_file(path), strict_yaml.place_name(path)
    if not isinstance(document.value, dict):
        raise ConfigError(Fault(f"{file}:1", "a config is a mapping of keys", "start one with: cnn-train config init"))
    places = {key: f"{file}:{line}" for key, line in sorted(document.lines.items(), key=itemgetter(1))}
    only_reused = document.reused - Experiment.model_fields.keys()  # only for use elsewhere, such as defaults: &name
    tree = {key: value for key, value in document.value.items() if key not in only_reused}
    return _check(tree, places, file, overrides)


def documented_config(overrides: Overrides = ()) -> Config:
    """The documented network on MNIST, with every other key at its default, with ``overrides`` on top.

    Raises:
        ConfigError: with every fault of the overrides.
    """
    return _check({"name": "mnist-cnn", "data": {"fallback": "mnist-5k"}}, {}, "defaults", overrides)


def change_experiment(experiment: Experiment, changes: Mapping[str, Any], file: str = "config") -> Experiment:
    """The experiment with other values for some dotted keys, checked like one that was read from a file.

    Args:
        experiment: The experiment to start from; it is not changed. A value that is the same for all its blocks or
            layers serves any number of them.
        changes: Values by dotted key, such as ``{"training.epochs": 3}``; a section is given as a mapping.
        file: Where the experiment was written, for messages.

    Raises:
        ConfigError: if the result is not a valid experiment.
    """
    tree = experiment.model_dump()
    for key in one_for_all(type(experiment.model)):  # so that the changed network can have more blocks, or fewer
        values = tree["model"].pop(key)
        if values:
            tree["model"][key] = values[:1] if len(set(values)) == 1 else values
    return _check(tree, {}, file, changes).experiment


def _check(tree: dict[str, Value], places: dict[KeyPath, str], file: str, overrides: Overrides) -> Config:
    override_faults: list[Fault] = []
    kinds_before = {path: faults.kind_at(path, tree) for path in faults.KINDS}
    set_paths: list[KeyPath] = []
    for override in overrides.items() if isinstance(overrides, Mapping) else overrides:
        try:
            set_paths.append(_override(tree, places, override))
        except ConfigError as error:
            override_faults += error.faults
    notes = [
        note for path in kinds_before for note in _drop_old_kind(tree, path, kinds_before[path], set_paths, places)
    ]
    try:
        experiment = Experiment.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(*faults.describe(error, tree, places, file), *override_faults) from None
    override_faults = [*faults.not_filled_in(experiment, places, file), *override_faults]
    if override_faults:
        raise ConfigError(*override_faults)
    return Config(experiment, file, places, notes)


def _drop_old_kind(
    tree: dict[str, Value], path: KeyPath, old: str, set_paths: list[KeyPath], places: Mapping[KeyPath, str]
) -> Iterator[str]:
    """If an override makes the section at ``path`` another kind than ``old``, drop the keys that belong to ``old``.

    These are the keys that only ``old`` has; lists of several values, which are one for each of its layers; and the
    path of its data, unless the new kind needs a path. Keys below one of ``set_paths``, which overrides set, stay.
    Yields a line that names what was dropped.
    """
    tag = (*path, faults.KINDS[path])
    new, section = faults.value_at(tree, tag), faults.value_at(tree, path)
    kinds = faults.section_kinds(path)
    if tag not in set_paths or not isinstance(section, dict) or new == old or new not in list(kinds):
        return
    fields = kinds[str(new)].model_fields

    def goes(key: str, value: Value) -> bool:
        if key not in fields:
            return True
        if key == "path":
            return value is not None and not fields[key].is_required()
        return isinstance(value, list) and len(value) > 1

    stay = {changed[len(path)] for changed in set_paths if changed[: len(path)] == path and len(changed) > len(path)}
    known = kinds[old].model_fields.keys() - stay
    dropped = [key for key, value in section.items() if key in known and goes(key, value)]
    for key in dropped:
        del section[key]
    if dropped:
        names = ", ".join(".".join(map(str, (*path, key))) for key in dropped)
        yield f"{places[tag]}: dropped {names}, which {'goes' if len(dropped) == 1 else 'go'} with {tag[-1]}: {old}"


def _override(tree: dict[str, Value], places: dict[KeyPath, str], override: str | tuple[str, Value]) -> KeyPath:
    """Set one dotted key in ``tree``, given as ``key=value`` or as key and value, and return its path."""
    if isinstance(override, str):
        place = f"--set {override}"
        key, equals, text = override.partition("=")
        value = strict_yaml.read_text(text, place).value
    else:
        (key, value), equals = override, "="
        place = f"{key}={value}"
    path = tuple(key.split("."))
    if not equals or not all(path):
        raise ConfigError(Fault(place, "not of the form key=value, such as training.epochs=3"))
    if len(path) > strict_yaml.MAX_DEPTH:
        raise ConfigError(Fault(place, f"nested more than {strict_yaml.MAX_DEPTH} levels deep"))
    section = tree
    for word in path[:-1]:
        child = section[word] = {} if section.get(word) is None else section[word]
        if not isinstance(child, dict):
            raise ConfigError(Fault(place, f"{word} is a value, not a section"))
        section = child
    section[path[-1]] = value
    for old in [known for known in places if known[: len(path)] == path]:
        del places[old]
    places[path] = place
    return path


class _Dumper(yaml.SafeDumper):
    """Writes equal lists out each time, instead of aliases, which are hard to read and to edit."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 -- PyYAML's signature
        """Never an alias."""
        return True


def dump_config(experiment: Experiment) -> str:
    """The whole experiment as YAML, every default written out. ``load_config`` reads it as the same experiment."""
    texts = (
        yaml.dump(experiment.model_dump(), Dumper=_Dumper, sort_keys=False, allow_unicode=unescaped, width=110)
        for unescaped in (True, False)
    )
    # PyYAML leaves some characters that control a terminal unescaped, such as those that reverse the writing direction.
    return next(text for text in texts if text.replace("\n", "").isprintable())


def summarize_config(experiment: Experiment) -> str:
    """The experiment in a few words: ``mnist-cnn: cnn on mnist, adam, 10 epochs in batches of 128``."""
    training = experiment.training
    network = f"{experiment.name}: {experiment.model.builder} on {experiment.data.source}"
    epochs = count(training.epochs, "epoch")
    return f"{network}, {training.optimizer}, {epochs} in batches of {training.batch_size}"
