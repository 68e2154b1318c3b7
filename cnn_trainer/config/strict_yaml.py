"""A strict reader for small YAML files that remembers the line of every key.

Only plain data comes through: mappings with text keys, sequences and scalars. Scalars follow the YAML 1.2 core schema
(https://yaml.org/spec/1.2.2/#103-core-schema) with decimal integers only, so ``1e-3`` is a number and ``no`` is a
word. Aliases, anchors, tags, tabs, duplicate keys, several documents, nesting beyond ``MAX_DEPTH``, more values than
``MAX_VALUES`` and text beyond ``MAX_BYTES`` are refused with a line number.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from cnn_trainer.errors import ConfigError, Fault

MAX_DEPTH = 20
MAX_BYTES = 64 * 1024
MAX_VALUES = 2_000  # a config has about a hundred; each takes 20 microseconds to read and more to find fault with
MAX_YAML_DIGITS = 18  # what every 64-bit integer type holds

Value: TypeAlias = bool | int | float | str | list["Value"] | dict[str, "Value"] | None
KeyPath: TypeAlias = tuple[str | int, ...]

# Tabs, and what YAML 1.1 takes for line breaks but no editor counts as lines.
_REFUSED = re.compile(r"[\t\x85\u2028\u2029]")
_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, bool | float | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}


@dataclass
class Document:
    """What a YAML text says, and where: ``lines`` has the 1-based line of every key and list item."""

    value: Value
    lines: dict[KeyPath, int] = field(default_factory=dict)


def read_file(path: Path) -> Document:
    """Read the YAML file at ``path``. Raises ConfigError naming the file, and the line if there is one."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(Fault(str(path), "there is no such file", "start one with: cnn-train config init")) from None
    except OSError as error:
        raise ConfigError(Fault(str(path), f"cannot be read: {error.strerror or error}")) from None
    if len(data) > MAX_BYTES:
        line = data.count(b"\n") + 1
        raise ConfigError(
            _at(str(path), line, f"the file is larger than {MAX_BYTES // 1024} KiB", "a config is a short text")
        )
    return read_document(data, str(path))


def read_document(data: bytes, place: str) -> Document:
    """Read UTF-8 YAML text; ``place`` opens every message."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(_at(place, line, f"not UTF-8 text (byte {data[error.start]:#04x})")) from None
    return read_text(text, place)


def read_text(text: str, place: str) -> Document:
    """Read YAML text; ``place`` opens every message. Raises ConfigError with the first fault of the text."""
    refused = _REFUSED.search(text)
    if refused:
        line = text.count("\n", 0, refused.start()) + 1
        if refused[0] == "	":
            raise ConfigError(_at(place, line, "tab character", "use spaces"))
        raise ConfigError(_at(place, line, f"line break U+{ord(refused[0]):04X}", "end lines with a newline"))
    reader = _Reader(place)
    try:
        return reader.document(yaml.SafeLoader(text))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise ConfigError(_at(place, line, f"not valid YAML: {error.problem or error.context}")) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(_at(place, line, f"character {error.character:#06x} is not allowed in YAML")) from None


def read_scalar(text: str) -> Value:
    """The value of a plain (unquoted) scalar. Raises ValueError for an integer beyond 64 bits."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        if len(text.lstrip("+-0")) > MAX_YAML_DIGITS:
            raise ValueError(f"the number has more than {MAX_YAML_DIGITS} digits")
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


class _Reader:
    """Builds one document from PyYAML's parse events (PyYAML's own constructors are never used)."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.lines: dict[KeyPath, int] = {}

    def document(self, loader: Any) -> Document:
        loader.get_event()  # stream start
        if loader.check_event(yaml.StreamEndEvent):
            return Document(None, {})
        loader.get_event()  # document start
        value = self.node(loader, (), 1)
        loader.get_event()  # document end
        if not loader.check_event(yaml.StreamEndEvent):
            raise self.fault(loader.get_event(), "a second document begins here", "one file holds one experiment")
        return Document(value, self.lines)

    def node(self, loader: Any, path: KeyPath, depth: int) -> Value:
        event = loader.get_event()
        if isinstance(event, yaml.AliasEvent):
            raise self.fault(event, f"alias *{str(event.anchor)[:60]} is not allowed", "write the value out")
        if event.anchor is not None:
            raise self.fault(event, f"anchor &{str(event.anchor)[:60]} is not allowed", "write the value out")
        if event.tag is not None:
            raise self.fault(event, f"tag {event.tag[:60]} is not allowed", "only plain data is read")
        self.lines.setdefault(path, event.start_mark.line + 1)
        if len(self.lines) > MAX_VALUES:
            raise self.fault(event, f"more than {MAX_VALUES} values", "a config is a short text")
        if isinstance(event, yaml.ScalarEvent):
            return self.scalar(event)
        if depth > MAX_DEPTH:
            raise self.fault(event, f"nested more than {MAX_DEPTH} levels deep")
        if isinstance(event, yaml.SequenceStartEvent):
            return self.sequence(loader, path, depth)
        return self.mapping(loader, path, depth)

    def scalar(self, event: Any) -> Value:
        text: str = event.value
        if not event.implicit[0]:  # quoted or a block: always text
            return text
        try:
            return read_scalar(text)
        except ValueError as error:
            raise self.fault(event, str(error)) from None

    def sequence(self, loader: Any, path: KeyPath, depth: int) -> list[Value]:
        items: list[Value] = []
        while not loader.check_event(yaml.SequenceEndEvent):
            items.append(self.node(loader, (*path, len(items)), depth + 1))
        loader.get_event()
        return items

    def mapping(self, loader: Any, path: KeyPath, depth: int) -> dict[str, Value]:
        items: dict[str, Value] = {}
        while not loader.check_event(yaml.MappingEndEvent):
            event = loader.peek_event()
            line = event.start_mark.line + 1
            if not isinstance(event, yaml.ScalarEvent | yaml.AliasEvent) or getattr(event, "tag", None):
                raise self.fault(event, "a key must be a plain word")
            if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
                raise self.fault(event, f"alias or anchor {str(event.anchor)[:60]} is not allowed", "write the key out")
            loader.get_event()
            key: str = event.value
            if key in items:
                first = self.lines[(*path, key)]
                raise self.fault(event, f"duplicate key {key[:60]}", f"it stands in line {first} already")
            self.lines[(*path, key)] = line
            items[key] = self.node(loader, (*path, key), depth + 1)
        loader.get_event()
        return items

    def fault(self, event: Any, problem: str, remedy: str | None = None) -> ConfigError:
        return ConfigError(_at(self.place, event.start_mark.line + 1, problem, remedy))


def _at(place: str, line: int, problem: str, remedy: str | None = None) -> Fault:
    return Fault(f"{place}:{line}", problem, remedy)
