"""Wrapped lines and tables in plain text that fit the terminal."""

import os
import re
import sys
import textwrap
from collections.abc import Sequence
from typing import TextIO

_NUMBER = re.compile(r"-?[0-9][0-9,.e+-]*( ?%| s)?|-")

Row = Sequence[str]


def stdout_width() -> int | None:
    """Columns of the terminal that stdout goes to; None for a file or a pipe, where lines may be long."""
    return _columns(sys.stdout)


def stderr_width() -> int | None:
    """Columns of the terminal that stderr goes to; None for a file or a pipe, where lines may be long."""
    return _columns(sys.stderr)


def _columns(stream: TextIO | None) -> int | None:
    size = terminal_size(stream)
    return None if size is None else size[0]


def terminal_size(stream: TextIO | None) -> tuple[int, int] | None:
    """Columns and lines of the terminal that ``stream`` goes to; None for a file or a pipe."""
    if stream is None or not stream.isatty():
        return None
    found = os.get_terminal_size(stream.fileno())
    wanted = os.environ.get("COLUMNS", "")
    columns = int(wanted) if wanted.isdecimal() and int(wanted) else found.columns or 80
    return columns, found.lines or 24


def wrap(line: str, width: int | None, indent: str = "") -> list[str]:
    """``line`` broken at ``width``, between words if they are no longer than that; later parts are indented."""
    if width is None or len(line) <= width:
        return [line]
    return textwrap.wrap(
        line,
        width,
        subsequent_indent=indent,
        break_on_hyphens=False,
        expand_tabs=False,  # control characters are escaped when they are printed
        replace_whitespace=False,
    ) or [""]


def table(heading: Row, rows: Sequence[Row], width: int | None = None, spare: Sequence[str] = ()) -> list[str]:
    """The lines of a table: rows under a heading, columns of numbers to the right.

    Args:
        heading: One word or two for each column.
        rows: Cells, as many in each row as in the heading.
        width: If a line would be longer than this, the columns ``spare`` are left out, one after the other; then the
            cells of a last column of words are broken; and then each row becomes a block of lines, ``heading  cell``.
        spare: Headings of the columns that can be left out, the least important first.
    """
    columns = list(zip(heading, *rows, strict=True))
    for name in spare:
        if width is not None and _width(columns) > width:
            columns = [column for column in columns if column[0] != name]
    right = [all(map(_NUMBER.fullmatch, column[1:])) for column in columns]
    widths = [max(map(len, column)) for column in columns]
    if width is not None and _width(columns) > width:
        room = width - _width(columns[:-1]) - 2
        if right[-1] or room < max(width // 2, len(columns[-1][0])):
            blocks = [pairs(list(zip(heading, row, strict=True)), width=width) for row in rows]
            return [line for number, block in enumerate(blocks) for line in (["", *block] if number else block)]
        widths[-1] = room
    lines = []
    for row in zip(*columns, strict=True):
        first, *others = wrap(row[-1], widths[-1])
        cells = [
            cell.rjust(size) if is_right else cell.ljust(size)
            for cell, size, is_right in zip((*row[:-1], first), widths, right, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
        lines += [" " * (sum(widths[:-1]) + 2 * (len(widths) - 1)) + part for part in others]
    return lines


def _width(columns: Sequence[Row]) -> int:
    return sum(max(map(len, column)) for column in columns) + 2 * (len(columns) - 1)


def pairs(rows: Sequence[tuple[str, str]], indent: str = "", width: int | None = None) -> list[str]:
    """Lines of a name and a value, the values under one another and broken at ``width``."""
    size = len(indent) + max((len(name) for name, _ in rows), default=0) + 2
    lines = []
    for name, value in rows:
        first, *others = wrap(value, None if width is None else max(width - size, 1))
        lines.append(f"{(indent + name).ljust(size)}{first}".rstrip())
        lines += [" " * size + part for part in others]
    return lines
