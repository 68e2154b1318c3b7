"""From pydantic's errors to one line each: where, the key, its value, what is allowed, and the nearest known key."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from cnn_trainer.config.schema import Experiment
from cnn_trainer.config.schema.section import KeyProblem
from cnn_trainer.config.strict_yaml import KeyPath, Value
from cnn_trainer.errors import Fault, count

_Item = TypeVar("_Item")

MAX_FAULTS = 20  # more are counted, not shown: nobody reads them, and finding near names takes a millisecond each

# Sections whose first key says which kind of section it is; pydantic puts that kind into the path of an error.
_KINDS: dict[KeyPath, str] = {("data",): "source", ("model",): "builder", ("training", "schedule"): "name"}


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


def describe(error: ValidationError, tree: Value, places: Mapping[KeyPath, str], file: str) -> list[Fault]:
    """Each fault that pydantic found in ``tree``, in the order of the file, overrides last."""
    details: list[Any] = error.errors(include_url=False, include_input=False)
    found = in_order([(_path_in_file(fault, tree), fault) for fault in details], places)
    shown = [_fault(fault, path, tree, place_of(path, places, file)) for path, fault in found[:MAX_FAULTS]]
    more = [Fault(file, f"and {count(len(found) - MAX_FAULTS, 'more fault')}")] if len(found) > MAX_FAULTS else []
    return [*dict.fromkeys(shown), *more]


def _path_in_file(fault: dict[str, Any], tree: Value) -> KeyPath:
    """The path of the key that is at fault, as it stands in the file."""
    path: list[str | int] = []
    skip = False
    for word in fault["loc"]:
        if not skip:
            path.append(word)
        skip = not skip and tuple(path) in _KINDS
    if path and isinstance(path[-1], int) and not isinstance(_value_at(tree, path[:-1]), list):
        path.pop()  # a single value that stands for a list
    if fault["type"] in {"union_tag_invalid", "union_tag_not_found"}:
        path.append(_KINDS[tuple(path)])
    if isinstance(rule := _rule(fault), KeyProblem):
        path.extend(rule.key.split("."))
    return tuple(path)


def _rule(fault: dict[str, Any]) -> ValueError | None:
    """The schema's own exception, if one of its rules found the fault."""
    return fault["ctx"]["error"] if fault["type"] == "value_error" else None


def _fault(fault: dict[str, Any], path: KeyPath, tree: Value, place: str) -> Fault:
    key = "".join(f"[{word}]" if isinstance(word, int) else f".{word}" for word in path).lstrip(".")
    problem, remedy = _problem(fault, path, tree)
    return Fault(place, problem, remedy, key or None)


def _problem(fault: dict[str, Any], path: KeyPath, tree: Value) -> tuple[str, str | None]:
    """What is wrong, and the remedy."""
    kind: str = fault["type"]
    context: dict[str, Any] = fault.get("ctx", {})
    value = _value_at(tree, path)
    got = f"got {_short(value)}"
    if kind == "extra_forbidden":
        return "unknown key", _nearest_key(path, tree)
    if kind == "missing":
        return "this key is required", None
    if kind == "union_tag_not_found":
        return f"this key is required, one of: {', '.join(_section_kinds(path[:-1]))}", None
    if kind == "union_tag_invalid":
        return got, _choices(value, list(_section_kinds(path[:-1])))
    if kind == "literal_error":
        return got, _choices(value, context["expected"].replace(" or ", ", ").replace("'", "").split(", "))
    if isinstance(rule := _rule(fault), KeyProblem):
        return rule.problem, rule.remedy
    if rule is not None:
        return str(rule), None
    if kind in _SECTION_EXPECTED:
        first = f", such as {_KINDS[path]}: {next(iter(_section_kinds(path)))}" if path in _KINDS else ""
        return got, f"expected a section of keys{first}"
    if kind == "string_type" and isinstance(value, bool | int | float):
        return got, "expected text; put it in quotes"
    if kind in _EXPECTED:
        bounds = {name: f"{bound:.15g}" for name, bound in context.items() if isinstance(bound, int | float)}
        return got, _EXPECTED[kind].format(**bounds)
    return got, f"{fault['msg'][0].lower()}{fault['msg'][1:]}"


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


def _value_at(tree: Value, path: Sequence[str | int]) -> Value:
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
    near = difflib.get_close_matches(str(value)[:64], names, n=1)
    return f"allowed: {', '.join(names)}" + (f"; did you mean {near[0]}?" if near else "")


def _nearest_key(path: KeyPath, tree: Value) -> str:
    """The nearest key of the same section, else of another kind of that section, else of the whole file."""
    name, section = str(path[-1])[:64], path[:-1]
    here = list(_section_at(section, tree).model_fields)
    kinds = _section_kinds(section) if section in _KINDS else {}
    if owners := [kind for kind, model in kinds.items() if name in model.model_fields]:
        return f"it goes with {_KINDS[section]}: {' or '.join(owners)}; known keys here: {', '.join(here)}"
    if near := difflib.get_close_matches(name, here, n=1, cutoff=0.7):
        return f"did you mean {near[0]}?"
    elsewhere = {key.rpartition(".")[2]: key for key in reversed(_all_keys(Experiment, tree))}
    if near := difflib.get_close_matches(name, list(elsewhere), n=1, cutoff=0.8):
        return f"did you mean {elsewhere[near[0]]}?"
    return f"known keys here: {', '.join(here)}"


def _sections_of(annotation: Any) -> list[type[BaseModel]]:
    """The schema's sections that an annotation admits, such as the kinds of ``data``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for part in get_args(annotation) for section in _sections_of(part)]


def _section_kinds(path: KeyPath) -> dict[str, type[BaseModel]]:
    """The kinds of the section at ``path``, one of ``_KINDS``, by name."""
    kinds = _sections_of(_section_at(path[:-1], None).model_fields[str(path[-1])].annotation)
    return {name: kind for kind in kinds for name in get_args(kind.model_fields[_KINDS[path]].annotation)}


def _section_at(path: KeyPath, tree: Value) -> type[BaseModel]:
    """The section of the schema at ``path``, of the kind that the file asks for, else of the first kind."""
    if not path:
        return Experiment
    if path in _KINDS and (chosen := _value_at(tree, (*path, _KINDS[path]))):
        return _section_kinds(path)[str(chosen)]
    return _sections_of(_section_at(path[:-1], tree).model_fields[str(path[-1])].annotation)[0]


def _all_keys(model: type[BaseModel], tree: Value, path: tuple[str, ...] = ()) -> list[str]:
    """Every dotted key below ``path``, in the kinds of section that the file asks for."""
    keys = []
    for name, info in model.model_fields.items():
        here = (*path, name)
        keys.append(".".join(here))
        if not _sections_of(info.annotation):
            continue
        if here not in _KINDS or _value_at(tree, (*here, _KINDS[here])) in _section_kinds(here):
            keys += _all_keys(_section_at(here, tree), tree, here)
    return keys
