"""Labelled images in the rows of a file, whatever its format: their shape, their labels and their classes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn_trainer.data import arrays
from cnn_trainer.errors import DataError, count

# Names of the column of the labels, in lower case; the first one that is there is taken.
LABEL_NAMES = ("label", "labels", "class", "target", "y", "fine_label", "digit", "letter", "character", "category")

# Columns that number the rows, in lower case.
NOT_PIXELS = frozenset({"", "id", "imageid", "image_id", "index", "idx", "__index_level_0__"})


@dataclass(frozen=True)
class Table:
    """Images and labels as a file holds them.

    Attributes:
        images: numbers (n, height, width, channels), on the scale of the file.
        labels: the column of the labels: int64 (n,), or n texts.
        names: the names that a file gives to the classes 0, 1, …; None if it gives none.
    """

    images: NDArray[Any]
    labels: NDArray[np.int64] | list[str]
    names: list[str] | None = None

    def classes(self) -> list[str]:
        """The name of the class of each example."""
        if not isinstance(self.labels, list) and self.names and len(set(self.names)) == len(self.names):
            return [self.names[label] for label in self.labels.tolist()]
        return [str(label) for label in self.labels]

    def class_names(self, where: object) -> list[str]:
        """The classes that have examples, in the order of their numbers, or else of their names.

        Raises DataError at ``where`` if there are fewer than two of them, or more than ``arrays.MAX_CLASSES``.
        """
        if isinstance(self.labels, list):
            found = sorted(set(self.labels), key=arrays.natural_order)
        else:
            found = [name for _, name in sorted(set(zip(self.labels.tolist(), self.classes(), strict=True)))]
        if not 2 <= len(found) <= arrays.MAX_CLASSES:
            problem = f"has {len(found)} different labels" if len(found) != 1 else f"has only the label {found[0]}"
            remedy = f"expected 2 to {arrays.MAX_CLASSES}; name the column of the labels in data.label"
            raise DataError(problem, place=where, remedy=remedy)
        return found

    def numbers(self, where: object, class_names: Sequence[str]) -> NDArray[np.int32]:
        """The class of each example as its index in ``class_names``. Raises DataError if one is not among them."""
        known = {name: number for number, name in enumerate(class_names)}
        classes = self.classes()
        if unknown := next((name for name in classes if name not in known), None):
            shown = ", ".join(class_names[:10]) + (", …" if len(class_names) > 10 else "")
            raise DataError(f"holds the label {unknown}", place=where, remedy=f"the training labels are {shown}")
        return np.array([known[name] for name in classes], np.int32)


def check_name(name: str, where: object) -> None:
    """Refuse what cannot be the name of a class: an empty name, NaN, or text that is not printable."""
    if not name or name.lower() == "nan":
        raise DataError(f"holds {name or 'nothing'} as the label", place=where, remedy="write it in, or remove the row")
    if not name.isprintable() or "\N{REPLACEMENT CHARACTER}" in name:
        problem = f"holds the label {name}, which is not printable Unicode text"
        raise DataError(problem, place=where, remedy="rename the class, or save the file as UTF-8")


def join(tables: Sequence[Table], where: object) -> Table:
    """The tables of several files as one. Raises DataError at ``where`` if their images differ in shape."""
    if len(tables) == 1:
        return tables[0]
    if len({table.images.shape[1:] for table in tables}) > 1:
        problem = "the files of one table have images of different sizes"
        raise DataError(problem, place=where, remedy="give all of them the same size and channels")
    images = np.concatenate([table.images for table in tables])
    if any(isinstance(table.labels, list) for table in tables):
        return Table(images, [name for table in tables for name in table.classes()])
    labels = np.concatenate([np.asarray(table.labels) for table in tables])
    return Table(images, labels, tables[0].names)


def find_label(names: Sequence[str], wanted: str | None, where: object) -> int | None:
    """The index of the column of the labels in ``names``; None if there is none.

    Raises DataError if ``wanted`` is not there.
    """
    if wanted is not None:
        if wanted in names:
            return list(names).index(wanted)
        shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        raise DataError(f"has no column {wanted}, which data.label names", place=where, remedy=f"it has {shown}")
    lower = [name.strip().lower() for name in names]
    return next((lower.index(name) for name in LABEL_NAMES if name in lower), None)


def image_shape(num_values: int, given: Sequence[int] | None, where: object) -> tuple[int, ...]:
    """The shape of an image of ``num_values`` values: as ``given``, or a square with one or three values per pixel.

    Raises DataError if ``given`` takes another number of values, or if the image is not square.
    """
    if given is not None:
        if math.prod(given) != num_values:
            shown = "x".join(map(str, given))
            problem = f"has {count(num_values, 'value')} per row, but data.image_shape {shown} takes {math.prod(given)}"
            raise DataError(problem, place=where, remedy="correct data.image_shape, or remove other columns")
        return tuple(given)
    for channels in (1, 3):
        side = math.isqrt(num_values // channels)
        if side and side * side * channels == num_values:
            return side, side, channels
    problem = f"has {count(num_values, 'value')} per row, which make no square image, either grey or in colour"
    remedy = "set data.image_shape: [height, width, 1 or 3], or remove columns that are neither pixels nor the label"
    raise DataError(problem, place=where, remedy=remedy)


def is_square(num_values: int) -> bool:
    """Whether ``num_values`` values are a square image with one or three values per pixel."""
    return num_values > 0 and any(math.isqrt(num_values // n) ** 2 * n == num_values for n in (1, 3))


def shaped(flat: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    """Rows (n, values) as images (n, height, width, channels); a shape (1 or 3, height, width) means whole planes."""
    images = flat.reshape(len(flat), *shape)
    if shape[0] in (1, 3) and shape[2] not in (1, 3):
        images = images.transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images)
