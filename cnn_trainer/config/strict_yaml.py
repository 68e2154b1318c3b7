"""A strict reader for small YAML files that remembers the line of every key.

Only plain data is accepted: mappings with text keys, sequences and scalars. Scalars follow the YAML 1.2 core schema
(https://yaml.org/spec/1.2.2/#103-core-schema) with decimal integers only, so ``1e-3`` is a number and ``no`` is a
word. An alias stands for the value of its anchor, and the merge key ``<<`` (https://yaml.org/type/merge.html) for the
keys of one or several mappings. Tags, tabs, duplicate keys and anchors, several documents, nesting beyond
``MAX_DEPTH``, more values than ``MAX_VALUES`` once every alias is written out, and text beyond ``MAX_BYTES`` are
refused with a line number.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from cnn_trainer.config import shipped
from cnn_trainer.errors import ConfigError, Fault

STANDARD_INPUT = Path("-")
MAX_DEPTH = 20
MAX_BYTES = 64 * 1024
MAX_VALUES = 2_000  # a config has about a hundred; each takes 20 microseconds to read and longer to check
MAX_YAML_DIGITS = 18  # what every 64-bit integer type holds

Value: TypeAlias = bool | int | float | str | list["Value"] | dict[str, "Value"] | None
KeyPath: TypeAlias = tuple[str | int, ...]

_MERGE = "<<"

# Text of which every line is a comment, a plain key, an item or both with a plain word or number behind it, as
# ``dump_config`` writes nearly always. libyaml reads it 50 times as fast as PyYAML's own parser and, as a test checks,
# never differently.
_SIMPLE_WORD = r"(?:[A-Za-z_][A-Za-z0-9_./-]*|[-+]?[0-9][0-9.]*(?:[eE][-+]?[0-9]+)?)"
_SIMPLE = re.compile(rf"(?:(?:#[ -~]*| *(?:- )?[A-Za-z_][A-Za-z0-9_]*:(?: {_SIMPLE_WORD})?| *- {_SIMPLE_WORD})?\n)*")

# Tabs, and what YAML 1.1 takes for line breaks but no editor counts as lines.
_REFUSED = re.compile(r"[\t\x85\u2028\u2029]")
_PLACEHOLDER = re.compile(r"\$\{.*|\{\{.*")  # of other programs; without quotes YAML reads the braces itself
_NOT_FILLED_IN = "${…} and {{…}} are not filled in: write the value, or put a path with a variable in quotes"
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
    """What a YAML text says, and where.

    Attributes:
        value: The data, every alias written out.
        lines: The 1-based line of every key and list item; for what an alias brings in, the line where it is written.
        reused: The top-level keys that hold an anchor which an alias outside that key refers to.
    """

    value: Value
    lines: dict[KeyPath, int]
    reused: set[str] = field(default_factory=set)


def read_file(path: Path, remedy: str | None = None) -> Document:
    """Read the YAML file at ``path``, or standard input if it is ``-``.

    Raises ConfigError naming the file, and the line if there is one. ``remedy`` is for a missing
    file; by default, it is that for an experiment's config.
    """
    try:
        if path == STANDARD_INPUT:
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        remedy = shipped.remedy_for_missing(path) if remedy is None else remedy
        raise ConfigError(Fault(str(path), "there is no such file", remedy)) from None
    except OSError as error:
        raise ConfigError(Fault(str(path), f"cannot be read: {error.strerror or error}")) from None
    if len(data) > MAX_BYTES:
        problem = f"the file is larger than {MAX_BYTES // 1024} KiB"
        raise _error(place_name(path), data.count(b"\n"), problem, "a config is a short text")
    return read_document(data, place_name(path))


def place_name(path: Path) -> str:
    """How messages name ``path``."""
    return "standard input" if path == STANDARD_INPUT else str(path)


def read_document(data: bytes, place: str) -> Document:
    """Read UTF-8 YAML text; every message begins with ``place``."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problem = f"not UTF-8 text (byte {data[error.start]:#04x})"
        raise _error(place, data.count(b"\n", 0, error.start), problem) from None
    return read_text(text, place)


def read_text(text: str, place: str) -> Document:
    """Read YAML text; every message begins with ``place``. Raises ConfigError with the first fault of the text."""
    if refused := _REFUSED.search(text):
        line = text.count("\n", 0, refused.start())
        if refused[0] == "\t":
            raise _error(place, line, "tab character", "use spaces")
        raise _error(place, line, f"line break U+{ord(refused[0]):04X}", "end lines with a newline")
    if yaml.__with_libyaml__ and _SIMPLE.fullmatch(text):
        with suppress(yaml.MarkedYAMLError):  # PyYAML's own parser has clearer words for it
            return _Reader(yaml.CSafeLoader(text), place).document()
    try:
        return _Reader(yaml.SafeLoader(text), place).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, problem = mark.line if mark else 0, f"not valid YAML: {error.problem or error.context}"
        found = _PLACEHOLDER.search(next(islice(text.splitlines(), line, None), ""))
        raise _error(place, line, problem, _NOT_FILLED_IN if found else None) from None
    except yaml.reader.ReaderError as error:
        problem = f"character {error.character:#06x} is not allowed in YAML"
        raise _error(place, text.count("\n", 0, error.position), problem) from None


def plain_scalar(text: str) -> bool | int | float | str | None:
    """The value that ``text`` has without quotes."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _error(place: str, line: int, problem: str, remedy: str | None = None) -> ConfigError:
    """A fault in line ``line``, counted from 0."""
    return ConfigError(Fault(f"{place}:{line + 1}", problem, remedy))


class _Reader:
    """Builds one document from PyYAML's parse events (PyYAML's own constructors are never used).

    Every event is kept on a tape, so that an alias can be read again from its anchor.
    """

    def __init__(self, loader: Any, place: str) -> None:
        self.loader, self.place = loader, place
        self.tape: list[Any] = []
        self.position = 0
        self.anchors: dict[str, tuple[int, str | int | None]] = {}  # where on the tape, and under which top-level key
        self.num_values = 0
        self.lines: dict[KeyPath, int] = {}
        self.reused: set[str] = set()

    def peek(self) -> Any:
        if self.position == len(self.tape):
            self.tape.append(self.loader.get_event())
        return self.tape[self.position]

    def next(self) -> Any:
        event = self.peek()
        self.position += 1
        return event

    def document(self) -> Document:
        self.next()  # stream start
        if isinstance(self.peek(), yaml.StreamEndEvent):
            return Document(None, {})
        self.next()  # document start
        value = self.node((), 1)
        self.next()  # document end
        event = self.next()
        if not isinstance(event, yaml.StreamEndEvent):
            raise self.fault(event, "a second document begins here", "one file holds one experiment")
        return Document(value, self.lines, self.reused)

    def node(self, path: KeyPath, depth: int) -> Value:
        event = self.peek()
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            self.lines.setdefault(path, line)
            with self.at_anchor(path):
                return self.node(path, depth)
        start = self.position
        self.next()
        if event.tag is not None:
            raise self.fault(event, f"tag {event.tag[:60]} is not allowed", "only plain data is read")
        self.num_values += 1
        if self.num_values > MAX_VALUES:
            raise self.fault(event, f"more than {MAX_VALUES} values, aliases written out", "a config is a short text")
        self.lines.setdefault(path, line)
        if isinstance(event, yaml.ScalarEvent):
            value = self.scalar(event)
        elif depth > MAX_DEPTH:
            raise self.fault(event, f"nested more than {MAX_DEPTH} levels deep")
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self.sequence(path, depth + 1)
        else:
            value = self.mapping(path, depth + 1)
        if event.anchor is not None:  # only now, so that no value can contain itself
            self.set_anchor(event, start, path)
        return value

    def set_anchor(self, event: Any, start: int, path: KeyPath) -> None:
        first, _ = self.anchors.setdefault(event.anchor, (start, path[0] if path else None))
        if first != start:  # an alias between the two would have two meanings when it is read again
            line = self.tape[first].start_mark.line + 1
            raise self.fault(event, f"duplicate anchor &{event.anchor[:60]}", f"it is already in line {line}")

    @contextmanager
    def at_anchor(self, path: KeyPath) -> Iterator[None]:
        """Read the anchored value instead of the alias at ``path``, which comes next; then continue after the alias."""
        event = self.next()
        if event.anchor not in self.anchors:
            name = event.anchor[:60]
            remedy = f"mark an earlier value with &{name}, or put the text in quotes"
            raise self.fault(event, f"alias *{name} has no anchor before it", remedy)
        back = self.position
        self.position, top = self.anchors[event.anchor]
        if isinstance(top, str) and top not in path[:1]:
            self.reused.add(top)
        yield
        self.position = back

    def scalar(self, event: Any) -> Value:
        text: str = event.value
        if not event.implicit[0]:  # quoted or a block: always text
            return text
        if _INTEGER.fullmatch(text) and len(text.lstrip("+-0")) > MAX_YAML_DIGITS:
            raise self.fault(event, f"the number has more than {MAX_YAML_DIGITS} digits")
        return plain_scalar(text)

    def sequence(self, path: KeyPath, depth: int) -> list[Value]:
        items: list[Value] = []
        while not isinstance(self.peek(), yaml.SequenceEndEvent):
            items.append(self.node((*path, len(items)), depth))
        self.next()
        return items

    def mapping(self, path: KeyPath, depth: int) -> dict[str, Value]:
        items: dict[str, Value] = {}
        merged: list[tuple[dict[str, Value], dict[KeyPath, int]]] = []
        key_lines: dict[str, int] = {}
        while not isinstance(self.peek(), yaml.MappingEndEvent):
            event = self.next()
            line = event.start_mark.line + 1
            if not isinstance(event, yaml.ScalarEvent | yaml.AliasEvent) or getattr(event, "tag", None):
                is_placeholder = isinstance(event, yaml.MappingStartEvent) and event.flow_style
                raise self.fault(event, "a key must be a plain word", _NOT_FILLED_IN if is_placeholder else None)
            if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
                raise self.fault(event, f"alias or anchor {str(event.anchor)[:60]} is not allowed", "write the key out")
            key: str = event.value
            if key in key_lines:
                remedy = f"it is already in line {key_lines[key]}"
                raise self.fault(event, f"duplicate key {key[:60]}", remedy)
            key_lines[key] = line
            if key == _MERGE and event.implicit[0]:  # in quotes it is a key like any other
                merged = self.merged(path, depth)
                continue
            self.lines[(*path, key)] = line
            items[key] = self.node((*path, key), depth)
        self.next()
        for mapping, lines in merged:  # a key written out wins, then the first mapping that has it
            new = {key: value for key, value in mapping.items() if key not in items}
            items |= new
            self.lines |= {
                place: line for place, line in lines.items() if len(place) > len(path) and place[len(path)] in new
            }
        return items

    def merged(self, path: KeyPath, depth: int) -> list[tuple[dict[str, Value], dict[KeyPath, int]]]:
        """The mappings that a merge key names, each with its lines as if it were written at ``path``."""
        if isinstance(self.peek(), yaml.AliasEvent):
            with self.at_anchor(path):
                return self.merged(path, depth)
        if not isinstance(self.peek(), yaml.SequenceStartEvent):
            return [self.merged_mapping(path, depth)]
        self.next()
        found = []
        while not isinstance(self.peek(), yaml.SequenceEndEvent):
            found.append(self.merged_mapping(path, depth))
        self.next()
        return found

    def merged_mapping(self, path: KeyPath, depth: int) -> tuple[dict[str, Value], dict[KeyPath, int]]:
        event = self.peek()
        outer, self.lines = self.lines, {}
        value = self.node(path, depth)
        lines, self.lines = self.lines, outer
        if not isinstance(value, dict):
            raise self.fault(event, "<< takes a mapping or a list of mappings", "such as <<: *name")
        return value, lines

    def fault(self, event: Any, problem: str, remedy: str | None = None) -> ConfigError:
        return _error(self.place, event.start_mark.line, problem, remedy)
