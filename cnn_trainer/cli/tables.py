"""Tables in plain text: columns if there is room for them, otherwise one line a cell."""

import os
import re
import sys
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
    if stream is None or not stream.isatty():
        return None
    wanted = os.environ.get("COLUMNS", "")
    if wanted.isdecimal() and int(wanted):
        return int(wanted)
    return os.get_terminal_size(stream.fileno()).columns or 80


def table(heading: Row, rows: Sequence[Row], width: int | None = None) -> list[str]:
    """The lines of a table: rows under a heading, columns of numbers to the right.

    Args:
        heading: One word or two for each column.
        rows: Cells, as many in each row as in the heading.
        width: If a line would be longer than this, each row becomes a block of lines, ``heading  cell``.
    """
    columns = list(zip(heading, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    if width is not None and sum(widths) + 2 * (len(widths) - 1) > width:
        blocks = [pairs(list(zip(heading, row, strict=True))) for row in rows]
        return [line for number, block in enumerate(blocks) for line in (["", *block] if number else block)]
    right = [all(_NUMBER.fullmatch(cell) for cell in column[1:]) for column in columns]
    lines = []
    for row in (heading, *rows):
        cells = [
            cell.rjust(size) if is_right else cell.ljust(size)
            for cell, size, is_right in zip(row, widths, right, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def pairs(rows: Sequence[tuple[str, str]], indent: str = "") -> list[str]:
    """Lines of a name and a value, the values under one another."""
    size = max((len(name) for name, _ in rows), default=0)
    return [f"{indent}{name.ljust(size)}  {value}".rstrip() for name, value in rows]
