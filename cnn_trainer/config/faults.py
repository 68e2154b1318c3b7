"""Turns pydantic's errors into one line each: the place, the key, its value, what is allowed, the nearest known key."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from cnn_trainer.config import hints
from cnn_trainer.config.nearest import did_you_mean, nearest
from cnn_trainer.config.schema import Experiment
from cnn_trainer.config.schema.section import KeyProblem
from cnn_trainer.config.strict_yaml import KeyPath, Value
from cnn_trainer.errors import Fault, count

_Item = TypeVar("_Item")

_PLACEHOLDER = re.compile(r"\$\{|\{\{|^\$[A-Za-z_]\w*$")  # of other programs: ${oc.env:X}, {{ x }}; or $X

MAX_FAULTS = 20  # more are counted, not shown: nobody reads them, and finding near names takes a millisecond each

KINDS: dict[KeyPath, str] = {("data",): "source", ("model",): "builder", ("training", "schedule"): "name"}
"""Sections whose first key names the kind of section; pydantic puts that kind into the path of an error."""


def place_of(path: KeyPath, places: Mapping[KeyPath, str], file: str) -> str:
    """Where ``path``, or else the nearest section around it, was written: ``file:line``, or an override."""
    return places.get(_written(path, places), file)


def in_order(faults: list[tuple[KeyPath, _Item]], places: Mapping[KeyPath, str]) -> list[tuple[KeyPath, _Item]]:
    """``faults`` in the order in which their paths were written, overrides last."""
    positions = {path: position for position, path in enumerate(places)}
    return sorted(faults, key=lambda fault: positions.get(_written(fault[0], places), -1))


def _written(path: KeyPath, places: Mapping[KeyPath, str]) -> KeyPath:
    while path and path not in places:
        path = path[:-1]
    return path


def describe(
    error: ValidationError,
    tree: Value,
    places: Mapping[KeyPath, str],
    file: str,
    root: type[BaseModel] = Experiment,
) -> list[Fault]:
    """Each fault that pydantic found in ``tree``, checked as a ``root``, in the order of the file, overrides last."""
    details: list[Any] = error.errors(include_url=False, include_input=False)
    details += [more for fault in details if fault["type"] == "union_tag_invalid" for more in _others(fault, tree)]
    found = in_order([(_path_in_file(fault, tree), fault) for fault in details], places)
    shown = [_fault(fault, path, tree, place_of(path, places, file), root) for path, fault in found[:MAX_FAULTS]]
    more = [Fault(file, f"and {count(len(found) - MAX_FAULTS, 'more fault')}")] if len(found) > MAX_FAULTS else []
    return [*dict.fromkeys(shown), *more]


def not_filled_in(experiment: Experiment, places: Mapping[KeyPath, str], file: str) -> Iterator[Fault]:
    """A fault for each value, except for paths, that contains a placeholder of another program."""
    left: list[tuple[KeyPath, Any]] = [((), experiment.model_dump())]
    while left:
        path, value = left.pop()
        if isinstance(value, dict):
            left += [((*path, key), inner) for key, inner in value.items()]
        elif isinstance(value, str) and _PLACEHOLDER.search(value) and not str(path[-1]).endswith("path"):
            yield Fault(place_of(path, places, file), *_placeholder(value), ".".join(map(str, path)))


def _placeholder(value: str) -> tuple[str, str]:
    return f"got {_short(value)}", "placeholders are not filled in: write the value, or give it with --set"


def _others(fault: dict[str, Any], tree: Value) -> list[dict[str, Any]]:
    """What else is wrong with a section whose kind does not exist, if it is read as the kind that was meant."""
    path, section = fault["loc"], value_at(tree, fault["loc"])
    kinds = section_kinds(path)
    kind = kind_at(path, tree)
    known = {name for model in kinds.values() for name in model.model_fields}
    try:
        kinds[kind].model_validate({**section, KINDS[path]: kind} if isinstance(section, dict) else section)
    except ValidationError as error:
        details: list[Any] = error.errors(include_url=False, include_input=False)
        others = [other for other in details if other["type"] != "extra_forbidden" or other["loc"][-1] not in known]
        return [{**other, "loc": (*path, kind, *other["loc"])} for other in others]
    return []


def _path_in_file(fault: dict[str, Any], tree: Value) -> KeyPath:
    """The path in the file of the key that is at fault."""
    path: list[str | int] = []
    skip = False
    for word in fault["loc"]:
        if not skip:
            path.append(word)
        skip = not skip and tuple(path) in KINDS
    if path and isinstance(path[-1], int) and not isinstance(value_at(tree, path[:-1]), list):
        path.pop()  # a single value that is read as a list
    if fault["type"] == "union_tag_invalid":
        path.append(KINDS[tuple(path)])
    if isinstance(rule := _rule(fault), KeyProblem):
        path.extend(rule.key.split("."))
    return tuple(path)


def _rule(fault: dict[str, Any]) -> ValueError | None:
    """The schema's own exception, if one of its rules found the fault."""
    return fault["ctx"]["error"] if fault["type"] == "value_error" else None


def _fault(fault: dict[str, Any], path: KeyPath, tree: Value, place: str, root: type[BaseModel]) -> Fault:
    problem, remedy = _problem(fault, path, tree, root)
    return Fault(place, problem, remedy, key_name(path) or None)


def key_name(path: KeyPath) -> str:
    """A key as messages write it: ``model.filters[1]``."""
    return "".join(f"[{word}]" if isinstance(word, int) else f".{word}" for word in path).lstrip(".")


def _problem(fault: dict[str, Any], path: KeyPath, tree: Value, root: type[BaseModel]) -> tuple[str, str | None]:
    """What is wrong, and the remedy."""
    kind: str = fault["type"]
    value = value_at(tree, path)
    if kind == "extra_forbidden":
        return "unknown key", _nearest_key(path, tree, root)
    if kind == "missing":
        return "this key is required", None
    if isinstance(rule := _rule(fault), KeyProblem):
        return rule.problem, rule.remedy
    if rule is not None:
        return str(rule), None
    if isinstance(value, str) and _PLACEHOLDER.search(value):
        return _placeholder(value)
    expected = _expected(fault, path, value, root)
    meant = hints.meant(kind, value, field_at(path, tree, root))
    return f"got {_short(value)}", f"{expected}; {meant}" if meant else expected


def _expected(fault: dict[str, Any], path: KeyPath, value: Value, root: type[BaseModel]) -> str:
    """What is allowed instead of ``value``."""
    kind: str = fault["type"]
    context: dict[str, Any] = fault.get("ctx", {})
    if kind == "union_tag_invalid":
        return _choices(value, list(section_kinds(path[:-1])))
    if kind == "literal_error":
        return _choices(value, context["expected"].replace(" or ", ", ").replace("'", "").split(", "))
    if kind in _SECTION_EXPECTED:
        example = _first_key(path, value, root)
        return "expected a section of keys" + (f", such as {example}" if example else "")
    if kind == "string_type" and isinstance(value, bool | int | float):
        return "expected text; put it in quotes"
    if kind in _EXPECTED:
        bounds = {name: f"{bound:.15g}" for name, bound in context.items() if isinstance(bound, int | float)}
        return _EXPECTED[kind].format(**bounds)
    return f"{fault['msg'][0].lower()}{fault['msg'][1:]}"


_SECTION_EXPECTED = {"model_type", "model_attributes_type", "dict_type"}
_EXPECTED = {
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "bool_type": "expected true or false",
    "string_type": "expected text",
    "list_type": "expected a list, such as [32, 64]",
    "finite_number": "must be a finite number",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "too_short": "expected at least {min_length} value",
    "too_long": "expected at most {max_length} values",
    "string_too_short": "must not be empty",
    "string_pattern_mismatch": "expected 1 to 64 letters, digits, dots, hyphens and underscores, "
    "the first a letter or a digit",
}


def _first_key(path: KeyPath, value: Value, root: type[BaseModel]) -> str | None:
    """The first key of the section at ``path`` with an example value: ``value`` if that names a kind of the section.

    None if the section takes any keys.
    """
    if path in KINDS and isinstance(value, str) and value in section_kinds(path):
        return f"{KINDS[path]}: {value}"
    field_of_path = field_at(path, None, root)
    if field_of_path is not None and not _sections_of(field_of_path.annotation):
        return None
    name, field = next(iter(_section_at(path, None, root).model_fields.items()))
    return f"{name}: {field.examples[0] if field.examples else field.default}"


def value_at(tree: Value, path: Sequence[str | int]) -> Value:
    """The value that is written at ``path``; None if there is none."""
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
    return f"allowed: {', '.join(names)}{did_you_mean(str(value), names)}"


def _nearest_key(path: KeyPath, tree: Value, root: type[BaseModel]) -> str:
    """The nearest key of the same section, else of another kind of that section, else of the whole file."""
    name, section, value = str(path[-1])[:64], path[:-1], value_at(tree, path)
    here = list(_section_at(section, tree, root).model_fields)
    kinds = section_kinds(section) if section in KINDS else {}
    if owners := [kind for kind, model in kinds.items() if name in model.model_fields]:
        *others, last = owners
        which = f"{', '.join(others)} or {last}" if others else last
        return f"it goes with {KINDS[section]}: {which}; known keys here: {', '.join(here)}"
    kind_is_missing = kinds and value_at(tree, (*section, KINDS[section])) is None
    if kind_is_missing and (name in _WORDS_FOR_KIND or str(value) in kinds):
        return f"did you mean {KINDS[section]}?"
    if name in _OTHER_WORDS and _OTHER_WORDS[name] in here:
        return f"did you mean {_OTHER_WORDS[name]}?"
    if near := nearest(name, here, 0.7):
        return f"did you mean {near}?"
    elsewhere = {key.rpartition(".")[2]: key for key in reversed(all_keys(tree, root=root))}
    if near := nearest(_OTHER_WORDS.get(name, name), elsewhere, 0.8):
        return f"did you mean {elsewhere[near]}?"
    return f"known keys here: {', '.join(here)}"


# What other programs call these keys.
_WORDS_FOR_KIND = {"dataset", "kind", "type", "name", "arch", "architecture", "network"}
_OTHER_WORDS = {
    **dict.fromkeys(("lr", "rate", "step_size"), "learning_rate"),
    **dict.fromkeys(("val_split", "validation_split", "val_fraction"), "validation_fraction"),
    "test_split": "test_fraction",
    **dict.fromkeys(("limit", "max_examples", "num_train", "subset", "train_size"), "train_subset"),
    **dict.fromkeys(("dir", "data_dir", "directory", "file", "filename", "folder", "root"), "path"),
    "wd": "weight_decay",
    "bs": "batch_size",
    "criterion": "loss",
}


def _sections_of(annotation: Any) -> list[type[BaseModel]]:
    """The schema's sections that an annotation allows, such as the kinds of ``data``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for part in get_args(annotation) for section in _sections_of(part)]


@cache
def section_kinds(path: KeyPath) -> dict[str, type[BaseModel]]:
    """The kinds of the section at ``path``, one of ``KINDS``, by name."""
    kinds = _sections_of(_section_at(path[:-1], None).model_fields[str(path[-1])].annotation)
    return {name: kind for kind in kinds for name in get_args(kind.model_fields[KINDS[path]].annotation)}


def annotation_of(key: str, tree: Value) -> Any:
    """What the schema of an experiment says the dotted ``key`` takes; None if there is no such key."""
    *section, name = key.split(".")
    try:
        return _section_at(tuple(section), tree).model_fields[name].annotation
    except (KeyError, IndexError):
        return None


def _section_at(path: KeyPath, tree: Value, root: type[BaseModel] = Experiment) -> type[BaseModel]:
    """The section of the schema at ``path``, of the kind that the file asks for, else of the kind that was meant."""
    if not path:
        return root
    if path in KINDS:
        return section_kinds(path)[kind_at(path, tree)]
    return _sections_of(_section_at(path[:-1], tree, root).model_fields[str(path[-1])].annotation)[0]


def kind_at(path: KeyPath, tree: Value) -> str:
    """The kind of the section at ``path``: the one that is written, else the one that was meant, else the default."""
    kinds, written = list(section_kinds(path)), value_at(tree, (*path, KINDS[path]))
    if written is None:
        return kinds[0]
    return str(written) if str(written) in kinds else nearest(str(written), kinds) or kinds[0]


def field_at(path: KeyPath, tree: Value, root: type[BaseModel] = Experiment) -> FieldInfo | None:
    """The field of the schema at ``path``; None for an item of a list."""
    is_key = path and isinstance(path[-1], str)
    return _section_at(path[:-1], tree, root).model_fields.get(str(path[-1])) if is_key else None


def all_keys(tree: Value, path: tuple[str, ...] = (), root: type[BaseModel] = Experiment) -> list[str]:
    """Every dotted key below ``path``, in the kinds of section that ``tree`` asks for."""
    keys = []
    for name, info in _section_at(path, tree, root).model_fields.items():
        here = (*path, name)
        keys.append(".".join(here))
        if _sections_of(info.annotation):
            keys += all_keys(tree, here, root)
    return keys
