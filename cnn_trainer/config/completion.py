"""Shell completion of a half-typed ``--set``: keys of the schema, and the values of keys that have only a few."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

from cnn_trainer.config import faults, shipped, strict_yaml
from cnn_trainer.errors import ConfigError


def overrides_starting(incomplete: str, config_file: Path | None) -> list[str]:
    """``KEY=`` for each key that begins with ``incomplete``; ``KEY=VALUE`` once it has its equals sign.

    Args:
        incomplete: What has been typed so far.
        config_file: The file that decides the kinds of the sections. If it is None or cannot be read, they have their
            default kinds.
    """
    tree: strict_yaml.Value = None
    if config_file is not None:
        with suppress(ConfigError):
            tree = strict_yaml.read_file(shipped.find_config(config_file)).value
    key, equals, _ = incomplete.partition("=")
    offers = [f"{key}={value}" for value in _values(key, tree)] if equals else [f"{key}=" for key in _leaves(tree)]
    return [offer for offer in offers if offer.startswith(incomplete)]


def _leaves(tree: strict_yaml.Value) -> list[str]:
    keys = faults.all_keys(tree)
    return [key for key in keys if not any(other.startswith(f"{key}.") for other in keys)]


def _values(key: str, tree: strict_yaml.Value) -> Iterator[str]:
    if key not in _leaves(tree):
        return
    *words, name = key.split(".")
    if faults.KINDS.get(tuple(words)) == name:
        yield from faults.section_kinds(tuple(words))
    else:
        yield from _choices(getattr(faults.field_at((*words, name), tree), "annotation", None))


def _choices(annotation: Any) -> Iterator[str]:
    if annotation is bool:
        yield from ("true", "false")
    for part in get_args(annotation):
        if isinstance(part, str):
            yield part
        elif part is type(None):
            yield "null"
        else:
            yield from _choices(part)
