"""Images as the rows of a CSV file: one number per pixel, and the label in its own column.

With or without a header; with a comma, semicolon, tab, bar or space between cells; plain, gzipped, or as the only CSV
file in a zip file.
"""

import csv
import gzip
import io
import math
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
from numpy.typing import NDArray

from cnn_trainer.data import arrays, folder, npz, tables
from cnn_trainer.errors import DataError, count

CSV_SUFFIXES = (".csv", ".csv.gz", ".csv.zip", ".tsv", ".tsv.gz")

_EXPECTED = "a CSV file with one image per row"
_MAX_LINE_CHARACTERS = 2**24
_CHUNK_CELLS = 2**20

_LOOKED_AT = 1000  # rows that the layout is detected from
_MIN_NAMES = 0.1  # if more than this share of the labels are not numbers, all labels are names

_Line = tuple[int, str]  # its number, counted from 1, and its text
_Labels = NDArray[np.int64] | list[str]


@dataclass(frozen=True)
class Layout:
    """The layout of a row.

    Attributes:
        delimiter: what is between cells.
        names: of the columns; None without a header.
        num_columns: cells in a row.
        label: the column of the label; None if there is none.
        is_text: whether labels are names, not numbers.
        pixels: the columns of the pixels, in order.
    """

    delimiter: str
    names: list[str] | None
    num_columns: int
    label: int | None
    is_text: bool
    pixels: list[int]

    def column(self, column: int) -> str:
        """A column in words."""
        return f"column {column + 1}" + (f" ({self.names[column]})" if self.names else "")


def read_csv(path: Path, label: str | None, image_shape: Sequence[int] | None) -> tables.Table:
    """All rows of a file.

    Args:
        path: the file.
        label: the name of the column of the labels, or ``first`` or ``last`` without a header; None: it is detected.
        image_shape: height, width and channels, or channels, height and width; None: a square, of one value per pixel
            or of three.

    Raises:
        DataError: if it is missing, broken or too large, has no labels, or a cell is not what it should be.
    """
    images: list[NDArray[np.generic]] = []
    labels: list[_Labels] = []
    size = 0
    with _open(path) as lines:
        layout, rows = _start(path, lines, label)
        if layout.label is None:
            remedy = "name it in data.label; images without labels are for cnn-train predict"
            raise DataError("has no column of labels", place=path, remedy=remedy)
        shape = tables.image_shape(len(layout.pixels), image_shape, path)
        for chunk in _chunks(rows, layout):
            pixels, chunk_labels = _parse(path, chunk, layout)
            size += pixels.nbytes
            if size > arrays.MAX_ARRAY_BYTES:
                problem = f"would take more than {arrays.MAX_ARRAY_BYTES} bytes of memory"
                raise DataError(problem, place=path, remedy="use fewer images")
            images.append(pixels)
            labels.append(chunk_labels)
    if not images:
        raise DataError("holds no images", place=path, remedy=f"expected {_EXPECTED}")
    return tables.Table(tables.shaped(np.concatenate(images), shape), _join(labels))


def csv_has_labels(path: Path, label: str | None) -> bool:
    """Whether the rows of a file have labels, judging by its first rows. Raises DataError if it cannot be read."""
    with _open(path) as lines:
        layout, _ = _start(path, lines, None)
    return layout.label is not None or label in (layout.names or [])


def iterate_images(path: Path, image_shape: Sequence[int], white: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """The images of a file, in order; only some are in memory at a time, and a column of labels is ignored.

    Args:
        path: the file.
        image_shape: height, width and channels, or channels, height and width.
        white: the value in the file that stands for white: 1 or 255.

    Yields:
        The line of the row, counted from 1, and the image: uint8 (height, width, channels).

    Raises:
        DataError: if the file is missing or broken, or a cell is not what it should be.
    """
    with _open(path) as lines:
        layout, rows = _start(path, lines, None)
        if layout.names is None and layout.num_columns == math.prod(image_shape):  # there is no label
            layout = replace(layout, label=None, pixels=list(range(layout.num_columns)))
        if len(layout.pixels) != math.prod(image_shape):
            shape = "x".join(map(str, image_shape))
            problem = (
                f"has {count(len(layout.pixels), 'value')} per row; an image of {shape} takes {math.prod(image_shape)}"
            )
            raise DataError(problem, place=path, remedy="expected images like those that the network was trained on")
        for chunk in _chunks(rows, layout):
            pixels, _ = _parse(path, chunk, layout)
            images = tables.shaped(_to_uint8(f"{path}:{chunk[0][0]}", pixels, white), image_shape)
            yield from zip((number for number, _ in chunk), images, strict=True)


def _to_uint8(where: str, pixels: NDArray[np.generic], white: int) -> NDArray[np.uint8]:
    """Converts pixels whose scale is known. Raises DataError if they are outside it."""
    lowest, highest = float(pixels.min()), float(pixels.max())
    if not -0.5 / 255 < lowest / white <= highest / white < 1 + 0.5 / 255:
        problem = f"has pixels from {lowest:g} to {highest:g} in the rows that start here"
        raise DataError(problem, place=where, remedy=f"expected 0 to {white}, as in the training images")
    return np.rint(pixels.astype(np.float64) * (255 / white)).astype(np.uint8)


@contextmanager
def _open(path: Path) -> Iterator[Iterator[tuple[int, str]]]:
    """The lines of a file with their numbers, blank ones left out."""
    with arrays.open_file(path, _EXPECTED) as (file, _):
        head = file.read(4)
        file.seek(0)
        try:
            stream: IO[bytes] = file
            if head[:2] == b"\x1f\x8b":
                stream = gzip.GzipFile(fileobj=file, mode="rb")  # type: ignore[assignment]
            elif head == b"PK\x03\x04":
                archive = npz.open_archive(str(path), file)
                members = [name for name in archive.namelist() if name.lower().endswith((".csv", ".tsv"))]
                members = [name for name in members if not any(map(folder.is_junk, PurePosixPath(name).parts))]
                if len(members) != 1:
                    problem = f"a zip file with {len(members)} CSV files"
                    raise DataError(problem, place=path, remedy="unpack it" if members else f"expected {_EXPECTED}")
                stream = archive.open(members[0])
            encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
            with io.TextIOWrapper(stream, encoding, errors="replace", newline=None) as text:
                yield _lines(path, text)
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise DataError(f"broken file: {error}", place=path, remedy="get it again") from None


def _lines(path: Path, text: io.TextIOWrapper) -> Iterator[tuple[int, str]]:
    number = 0
    while line := text.readline(_MAX_LINE_CHARACTERS):
        number += 1
        if len(line) == _MAX_LINE_CHARACTERS:
            raise DataError("has a line without an end", place=f"{path}:{number}", remedy=f"expected {_EXPECTED}")
        if "\0" in line:
            raise DataError("is not text", place=f"{path}:{number}", remedy=f"expected {_EXPECTED}")
        if line.strip():
            yield number, line.rstrip("\n")


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        cells = next(csv.reader([line], delimiter=delimiter))
    except csv.Error:  # such as a cell of more than 131,072 characters
        cells = line.split(delimiter)
    return [cell.strip() for cell in cells]


def _start(path: Path, lines: Iterator[_Line], label: str | None) -> tuple[Layout, Iterator[_Line]]:
    """The layout, and the lines after the header."""
    head = list(islice(lines, _LOOKED_AT))
    if not head:
        raise DataError("holds no images", place=path, remedy=f"expected {_EXPECTED}")
    first = head[0][1]
    delimiter = max(",;\t|", key=first.count)
    delimiter = delimiter if delimiter in first else " "  # as numpy.savetxt writes
    cells = _cells(first, delimiter)
    if len(cells) < 2 or (delimiter == " " and not any(map(_is_number, _cells(head[-1][1], delimiter)))):
        problem = f"begins with {first[:40]!r}, which is not a row of many cells"
        remedy = f"expected {_EXPECTED}, with commas, semicolons, tabs, bars or spaces between cells"
        raise DataError(problem, place=f"{path}:{head[0][0]}", remedy=remedy)
    if not _is_header(cells):
        rows = [_cells(line, delimiter) for _, line in head]
        return _layout_by_values(path, rows, delimiter, label), chain(head, lines)
    if all(map(_is_number, cells)) and head[1:]:  # the header only numbers the columns
        rows = [_cells(line, delimiter) for _, line in head[1:]]
        return _layout_by_values(path, rows, delimiter, label), chain(head[1:], lines)
    rows = [_cells(line, delimiter) for _, line in head[1:]]
    return _layout_by_names(path, cells, rows, delimiter, label), chain(head[1:], lines)


def _is_header(cells: list[str]) -> bool:
    """Whether these are names of columns: most are not numbers, one is a usual name, or they count 0, 1, 2, …."""
    numbers = [cell for cell in cells if _is_number(cell)]
    if 2 * len(numbers) < len(cells) or any(cell.lower() in tables.LABEL_NAMES for cell in cells):
        return True
    counted = [str(number) for number in range(len(numbers))]
    return len(numbers) > 2 and numbers in (counted, [str(int(number) + 1) for number in counted])


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _layout_by_names(path: Path, names: list[str], rows: list[list[str]], delimiter: str, label: str | None) -> Layout:
    at = tables.find_label(names, label, path)
    left_out = [
        column for column, name in enumerate(names) if name.lower() in tables.NOT_PIXELS or name.startswith("Unnamed:")
    ]
    pixels = [column for column in range(len(names)) if column != at and column not in left_out]
    if not tables.is_square(len(pixels)) and tables.is_square(len(pixels) - 1) and _counts(rows, pixels[0]):
        pixels = pixels[1:]
    return Layout(delimiter, names, len(names), at, _are_names(rows, at), pixels)


def _are_names(rows: list[list[str]], at: int | None) -> bool:
    """Whether the labels are names; some may look like numbers, as in 0 to 9 and A to Z."""
    labels = [row[at] for row in rows if len(row) > at and row[at]] if at is not None else []
    return sum(not _is_number(label) for label in labels) > _MIN_NAMES * len(labels)


def _counts(rows: list[list[str]], column: int) -> bool:
    """Whether a column numbers the rows: from 0, or from any other number."""
    cells = [row[column] for row in rows if len(row) > column]
    if len(cells) < 3 or not cells[0].isdecimal():
        return False
    return cells == [str(number) for number in range(int(cells[0]), int(cells[0]) + len(cells))]


def _layout_by_values(path: Path, rows: list[list[str]], delimiter: str, label: str | None) -> Layout:
    """Without a header, the label is in the first column, or in the last if only that one varies."""
    num_columns = len(rows[0])
    used = [at for at in range(num_columns) if any(row[at] for row in rows if len(row) == num_columns)]
    columns = list(range(used[-1] + 1)) if used else [0]  # rows may end in a comma
    if tables.is_square(len(columns) - 2) and not tables.is_square(len(columns) - 1) and _counts(rows, 0):
        columns = columns[1:]
    first, last = columns[0], columns[-1]
    if label not in (None, "first", "last"):
        remedy = "write first or last: the file has no header with column names"
        raise DataError(f"has no column {label}, which data.label names", place=path, remedy=remedy)
    if label is None and tables.is_square(len(columns)) and not tables.is_square(len(columns) - 1):
        return Layout(delimiter, None, num_columns, None, False, columns)
    varies = [len({row[at] for row in rows if len(row) == num_columns}) > 1 for at in (first, last)]
    at = last if label == "last" or (label is None and varies == [False, True]) else first
    pixels = [column for column in columns if column != at]
    return Layout(delimiter, None, num_columns, at, _are_names(rows, at), pixels)


def _chunks(lines: Iterator[_Line], layout: Layout) -> Iterator[list[_Line]]:
    while chunk := list(islice(lines, max(1, _CHUNK_CELLS // layout.num_columns))):
        yield chunk


def _parse(path: Path, chunk: list[_Line], layout: Layout) -> tuple[NDArray[np.generic], _Labels]:
    """The pixels of some rows (rows, pixels) and their labels; as uint8 if they are whole numbers from 0 to 255.

    Floats up to 1 stay floats: they may be on a scale of 0 to 1.
    """
    texts = [line for _, line in chunk]
    columns = [*layout.pixels, *([layout.label] if layout.label is not None and not layout.is_text else [])]
    if any(line.count(layout.delimiter) != layout.num_columns - 1 for line in texts):
        raise _fault(path, chunk, layout, columns)
    used = None if len(columns) == layout.num_columns else columns
    for dtype in np.int64, np.float64:
        try:
            values = np.loadtxt(
                texts, dtype, delimiter=layout.delimiter, quotechar='"', comments=None, usecols=used, ndmin=2
            )
        except (ValueError, OverflowError):
            continue
        if not np.isfinite(values).all():
            break
        if used is None:
            values = values[:, columns]
        labels = _labels(path, chunk, layout, values[:, len(layout.pixels) :].ravel())
        pixels = values[:, : len(layout.pixels)]
        is_bytes = 0 <= pixels.min() <= pixels.max() <= 255
        if dtype is np.float64:
            is_bytes = is_bytes and pixels.max() > 1 and not (pixels % 1).any()
        return pixels.astype(np.uint8) if is_bytes else pixels, labels
    raise _fault(path, chunk, layout, columns)


def _labels(path: Path, chunk: list[_Line], layout: Layout, values: NDArray[np.generic]) -> _Labels:
    if layout.label is not None and layout.is_text:
        labels = [_cells(line, layout.delimiter)[layout.label] for _, line in chunk]
        for name in set(labels):
            tables.check_name(name, f"{path}:{chunk[labels.index(name)][0]}")
        return labels
    whole = values.astype(np.int64)
    if (wrong := np.flatnonzero(whole != values)).size:
        number, value = chunk[int(wrong[0])][0], values[wrong[0]]
        problem = f"{layout.column(layout.label or 0)} holds {value:g}"
        raise DataError(problem, place=f"{path}:{number}", remedy="expected a whole number or a name as the label")
    return whole


def _fault(path: Path, chunk: list[_Line], layout: Layout, columns: list[int]) -> DataError:
    """What is wrong with the first wrong cell of the chunk, and where it is."""
    for number, line in chunk:
        cells = _cells(line, layout.delimiter)
        place = f"{path}:{number}"
        if len(cells) != layout.num_columns:
            remedy = f"expected {layout.num_columns}, as in the first row"
            return DataError(f"has {count(len(cells), 'cell')}", place=place, remedy=remedy)
        for column in columns:
            if not _is_number(cells[column]) or not math.isfinite(float(cells[column])):
                shown = repr(cells[column][:40]) if cells[column] else "nothing"
                is_bool = cells[column].lower() in ("true", "false")
                remedy = "write 255 for True and 0 for False" if is_bool else "expected a number"
                if column == layout.label:
                    remedy = f"expected a number, as in most of the first {_LOOKED_AT} rows"
                return DataError(f"{layout.column(column)} holds {shown}", place=place, remedy=remedy)
    return DataError("has a cell that is not a number", place=f"{path}:{chunk[0][0]}", remedy="expected numbers")


def _join(labels: list[_Labels]) -> _Labels:
    if isinstance(labels[0], list):
        return [label for part in labels for label in part]
    return np.concatenate([part for part in labels if not isinstance(part, list)])
