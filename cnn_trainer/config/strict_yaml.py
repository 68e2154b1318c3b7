"""A strict reader for small YAML files that remembers the line of every key.

Only plain data comes through: mappings with text keys, sequences and scalars. Scalars follow the YAML 1.2 core schema
(https://yaml.org/spec/1.2.2/#103-core-schema) with decimal integers only, so ``1e-3`` is a number and ``no`` is a
word. Aliases, anchors, tags, tabs, duplicate keys, several documents, nesting beyond ``MAX_DEPTH``, more values than
``MAX_VALUES`` and text beyond ``MAX_BYTES`` are refused with a line number.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from cnn_trainer.config import shipped
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


@dataclass(frozen=True)
class Document:
    """What a YAML text says, and where: ``lines`` has the 1-based line of every key and list item."""

    value: Value
    lines: dict[KeyPath, int]


def read_file(path: Path) -> Document:
    """Read the YAML file at ``path``. Raises ConfigError naming the file, and the line if there is one."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(Fault(str(path), "there is no such file", shipped.remedy_for_missing(path))) from None
    except OSError as error:
        raise ConfigError(Fault(str(path), f"cannot be read: {error.strerror or error}")) from None
    if len(data) > MAX_BYTES:
        problem = f"the file is larger than {MAX_BYTES // 1024} KiB"
        raise _error(str(path), data.count(b"\n"), problem, "a config is a short text")
    return read_document(data, str(path))


def read_document(data: bytes, place: str) -> Document:
    """Read UTF-8 YAML text; ``place`` opens every message."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problem = f"not UTF-8 text (byte {data[error.start]:#04x})"
        raise _error(place, data.count(b"\n", 0, error.start), problem) from None
    return read_text(text, place)


def read_text(text: str, place: str) -> Document:
    """Read YAML text; ``place`` opens every message. Raises ConfigError with the first fault of the text."""
    if refused := _REFUSED.search(text):
        line = text.count("\n", 0, refused.start())
        if refused[0] == "\t":
            raise _error(place, line, "tab character", "use spaces")
        raise _error(place, line, f"line break U+{ord(refused[0]):04X}", "end lines with a newline")
    try:
        return _Reader(yaml.SafeLoader(text), place).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _error(place, mark.line if mark else 0, f"not valid YAML: {error.problem or error.context}") from None
    except yaml.reader.ReaderError as error:
        problem = f"character {error.character:#06x} is not allowed in YAML"
        raise _error(place, text.count("\n", 0, error.position), problem) from None


def _error(place: str, line: int, problem: str, remedy: str | None = None) -> ConfigError:
    """A fault in the line after ``line`` others."""
    return ConfigError(Fault(f"{place}:{line + 1}", problem, remedy))


class _Reader:
    """Builds one document from PyYAML's parse events (PyYAML's own constructors are never used)."""

    def __init__(self, loader: Any, place: str) -> None:
        self.loader, self.place = loader, place
        self.lines: dict[KeyPath, int] = {}

    def document(self) -> Document:
        self.loader.get_event()  # stream start
        if self.loader.check_event(yaml.StreamEndEvent):
            return Document(None, {})
        self.loader.get_event()  # document start
        value = self.node((), 1)
        self.loader.get_event()  # document end
        event = self.loader.get_event()
        if not isinstance(event, yaml.StreamEndEvent):
            raise self.fault(event, "a second document begins here", "one file holds one experiment")
        return Document(value, self.lines)

    def node(self, path: KeyPath, depth: int) -> Value:
        event = self.loader.get_event()
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
        read = self.sequence if isinstance(event, yaml.SequenceStartEvent) else self.mapping
        value = read(path, depth + 1)
        self.loader.get_event()  # its end
        return value

    def scalar(self, event: Any) -> Value:
        text: str = event.value
        if not event.implicit[0]:  # quoted or a block: always text
            return text
        if text in _WORDS:
            return _WORDS[text]
        if _INTEGER.fullmatch(text):
            if len(text.lstrip("+-0")) > MAX_YAML_DIGITS:
                raise self.fault(event, f"the number has more than {MAX_YAML_DIGITS} digits")
            return int(text)
        return float(text) if _FLOAT.fullmatch(text) else text

    def sequence(self, path: KeyPath, depth: int) -> list[Value]:
        items: list[Value] = []
        while not self.loader.check_event(yaml.SequenceEndEvent):
            items.append(self.node((*path, len(items)), depth))
        return items

    def mapping(self, path: KeyPath, depth: int) -> dict[str, Value]:
        items: dict[str, Value] = {}
        while not self.loader.check_event(yaml.MappingEndEvent):
            event = self.loader.get_event()
            line = event.start_mark.line + 1
            if not isinstance(event, yaml.ScalarEvent | yaml.AliasEvent) or getattr(event, "tag", None):
                raise self.fault(event, "a key must be a plain word")
            if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
                raise self.fault(event, f"alias or anchor {str(event.anchor)[:60]} is not allowed", "write the key out")
            key: str = event.value
            if key in items:
                first = self.lines[(*path, key)]
                raise self.fault(event, f"duplicate key {key[:60]}", f"it stands in line {first} already")
            self.lines[(*path, key)] = line
            items[key] = self.node((*path, key), depth)
        return items

    def fault(self, event: Any, problem: str, remedy: str | None = None) -> ConfigError:
        return _error(self.place, event.start_mark.line, problem, remedy)
