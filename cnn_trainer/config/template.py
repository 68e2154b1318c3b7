"""Help for writing a config, generated from the schema: a JSON Schema, and a commented file to start from."""

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from cnn_trainer.config.schema import Experiment
from cnn_trainer.errors import CnnTrainError, UsageError

_SCHEMA_FILE = "experiment.schema.json"
# What editors with the YAML language server look for in the first lines:
# https://github.com/redhat-developer/yaml-language-server#using-inlined-schema
MODELINE = f"# yaml-language-server: $schema={_SCHEMA_FILE}"

JsonSchema: TypeAlias = dict[str, Any]


def json_schema() -> JsonSchema:
    """The schema of an experiment as JSON Schema, draft 2020-12."""
    schema = Experiment.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "cnn-train experiment"}


def write_new(path: Path, builder: str) -> list[Path]:
    """Write a commented config to ``path``, and the JSON Schema next to it if there is none.

    Args:
        path: The file to write; it must not exist yet.
        builder: Which network it describes: ``cnn`` or ``mlp``.

    Returns:
        The files that were written.

    Raises:
        UsageError: if ``path`` exists; it is not changed.
        CnnTrainError: if the system refuses to write.
    """
    schema_path = path.with_name(_SCHEMA_FILE)
    if not _created(path, template(builder)):
        raise UsageError("already exists, and is not changed", place=path, remedy="name another file")
    return [path, schema_path] if _created(schema_path, json.dumps(json_schema(), indent=2) + "\n") else [path]


def _created(path: Path, text: str) -> bool:
    """Whether a file with ``text`` was created; False if something was there before."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    except OSError as error:
        remedy = "name a file in an existing folder that you can write to"
        raise CnnTrainError(f"cannot be written: {error.strerror or error}", place=path, remedy=remedy) from error
    return True


def template(builder: str) -> str:
    """A config with all defaults, on MNIST with the network ``builder`` (``cnn`` or ``mlp``), every key explained."""
    schema = json_schema()
    kinds = {"data": "mnist", "model": builder, "schedule": "constant"}
    head = [
        MODELINE,
        "# An experiment for cnn-train, with every key at its default: keep what you want to change, delete the rest.",
        "# Check it with cnn-train config check FILE; train it with cnn-train train FILE.",
    ]
    return "\n".join([*head, *_section(schema, schema, kinds, "")]) + "\n"


def _section(section: JsonSchema, schema: JsonSchema, kinds: dict[str, str], indent: str) -> Iterator[str]:
    """The lines of one section; ``kinds`` names the kind of each section that can be of several kinds."""
    for name, key in section["properties"].items():
        if "const" in key:  # names the kind of this section; explained at the section's head
            yield f"{indent}{name}: {key['const']}"
            continue
        inner = _inner_section(name, key, schema, kinds)
        if inner or not indent:
            yield ""
        yield from _comment(f"{key['description']} {_allowed(key)}", indent)
        if "discriminator" in key:
            yield from _explained_kinds(key, schema, indent)
        if inner:
            yield f"{indent}{name}:"
            yield from _section(inner, schema, kinds, f"{indent}  ")
        else:
            yield f"{indent}{name}: {_scalar(key['default'] if 'default' in key else key['examples'][0])}"
        for choice in key["anyOf"] if "anyOf" in key else []:
            if "$ref" in choice:  # null unless it is asked for
                yield f"{indent}# {name}:"
                yield from _section(_definition(choice["$ref"], schema), schema, kinds, f"{indent}#   ")


def _inner_section(name: str, key: JsonSchema, schema: JsonSchema, kinds: dict[str, str]) -> JsonSchema | None:
    """The section that a key opens, of the kind asked for; None if the key has a plain value."""
    if "discriminator" in key:
        return _definition(key["discriminator"]["mapping"][kinds[name]], schema)
    return _definition(key["$ref"], schema) if "$ref" in key else None


def _definition(reference: str, schema: JsonSchema) -> JsonSchema:
    return schema["$defs"][reference.rpartition("/")[2]]


def _explained_kinds(key: JsonSchema, schema: JsonSchema, indent: str) -> Iterator[str]:
    """A comment on each kind that a section can be, with the keys of that kind and their defaults."""
    tag = key["discriminator"]["propertyName"]
    for choice in key["oneOf"]:
        definition = _definition(choice["$ref"], schema)
        properties = dict(definition["properties"])
        kinds = properties.pop(tag)
        kind = ", ".join(kinds["enum"]) if "enum" in kinds else kinds["const"]
        kind += " (default)" if "default" in kinds else ""
        keys = ", ".join(
            f"{name} ({_scalar(other['default']) if 'default' in other else 'required'})"
            for name, other in properties.items()
        )
        yield from _comment(f"{tag}: {kind}. {definition['description']} Keys: {keys}.", indent, "- ")


def _comment(text: str, indent: str, bullet: str = "") -> list[str]:
    return textwrap.wrap(
        text.strip(),
        110,
        initial_indent=f"{indent}# {bullet}",
        subsequent_indent=f"{indent}# {' ' * len(bullet)}",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _scalar(value: Any) -> str:
    """``value`` as YAML, on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).strip().removesuffix("\n...")


def _allowed(key: JsonSchema) -> str:
    """The values that a key allows, in brackets; empty if its description says it all."""
    if "anyOf" in key:  # a value or null, or one value instead of a list
        return _allowed(key["anyOf"][0])
    if "items" in key:
        return _allowed(key["items"])
    if "enum" in key or "const" in key:
        return f"({', '.join(key['enum'] if 'enum' in key else [key['const']])})"
    if "type" in key and key["type"] == "boolean":
        return "(true or false)"
    bounds = "".join(text.format(f"{key[name]:.15g}") for name, text in _BOUNDS.items() if name in key)
    return f"({bounds})" if bounds else ""


_BOUNDS = {"minimum": "from {}", "exclusiveMinimum": "above {}", "maximum": " to {}", "exclusiveMaximum": ", below {}"}
