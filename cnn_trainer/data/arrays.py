"""The rules that every array of images or labels must follow, whatever file it comes from.

Sizes, dtypes and shapes that a file's header declares are checked before memory is allocated; values are checked later.
"""

import math
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from cnn_trainer.config.nearest import did_you_mean_file
from cnn_trainer.data import scale
from cnn_trainer.data.splits import Split, counts_per_class
from cnn_trainer.errors import DataError, count

MAX_ARRAY_BYTES = 4 * 2**30
MAX_CLASSES = 1000
CHUNK_BYTES = 2**20
# Deflate makes nothing more than 1032 times smaller (zlib's own documentation); the rest is for short files.
_MAX_DEFLATE_RATIO = 1100
# To be done for every split, so that a class has the same number in all of them.
_NUMBER = "labels = numpy.searchsorted(numpy.unique(train_labels), labels)"


class Readable(Protocol):
    """What bytes are read from: a file, or a stream that unpacks one."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; none at the end."""


def is_file(path: Path) -> bool:
    """Whether ``path`` is a regular file. Unlike ``Path.is_file``, this never raises, whatever the path is."""
    return os.path.isfile(path)  # noqa: PTH113


def is_folder(path: Path) -> bool:
    """Whether ``path`` is a folder. Unlike ``Path.is_dir``, this never raises, whatever the path is."""
    return os.path.isdir(path)  # noqa: PTH112


@contextmanager
def open_file(path: Path, expected: str) -> Iterator[tuple[BinaryIO, int]]:
    """Open a regular file of data for reading, and yield it with its size in bytes.

    Args:
        path: the file; a symbolic link is followed.
        expected: what the file should be, for messages: ``"an npz file"``.

    Raises:
        DataError: if it is missing, empty, not a regular file, not readable, or a web page.
    """
    try:
        # O_NONBLOCK, because opening a FIFO would wait for its other end.
        file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
    except FileNotFoundError:
        remedy = f"expected {expected}{did_you_mean_file(path)}"
        raise DataError("no such file", place=path, remedy=remedy) from None
    except IsADirectoryError:
        raise DataError("is a folder", place=path, remedy=f"expected {expected}") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        problem = getattr(error, "strerror", None) or error
        raise DataError(f"cannot be opened: {problem}", place=path, remedy=f"expected {expected}") from None
    with file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise DataError("is not a regular file", place=path, remedy=f"expected {expected}")
        if not status.st_size:
            raise DataError("is empty", place=path, remedy=f"expected {expected}")
        if looks_like_web_page(file.read(512)):
            raise DataError(f"looks like a web page; expected {expected}", place=path, remedy="download it again")
        file.seek(0)
        yield file, status.st_size


def looks_like_web_page(head: bytes) -> bool:
    """Whether a file with these first bytes is HTML or XML, such as a log-in page saved instead of data."""
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype", b"<html", b"<head", b"<?xml"))


def check_deflate_ratio(where: str, num_bytes: int, stored_bytes: int) -> None:
    """Refuse a header that declares more bytes than the compressed bytes after it can unpack to."""
    if num_bytes > _MAX_DEFLATE_RATIO * (stored_bytes + 1):
        raise DataError(
            f"declares {num_bytes} bytes, more than its {count(stored_bytes, 'packed byte')} can hold", place=where
        )


def read_bytes(where: str, source: Readable, num_bytes: int) -> NDArray[np.uint8]:
    """Exactly ``num_bytes`` bytes of ``source``, in memory of their own: uint8 (num_bytes,).

    Raises DataError if ``source`` holds fewer or more, or if there is not enough memory.
    """
    try:
        data = np.empty(num_bytes, np.uint8)
    except MemoryError:
        problem = f"needs {num_bytes} bytes of memory, more than are free"
        raise DataError(problem, place=where, remedy="use fewer images") from None
    done = 0
    while part := source.read(min(CHUNK_BYTES, num_bytes - done + 1)):
        if done + len(part) > num_bytes:
            raise DataError(f"holds more than the {count(num_bytes, 'byte')} that its header declares", place=where)
        data[done : done + len(part)] = np.frombuffer(part, np.uint8)
        done += len(part)
    if done < num_bytes:
        problem = f"ends after {done} of the {count(num_bytes, 'byte')} that its header declares"
        raise DataError(problem, place=where, remedy="get it again")
    return data


def check_header(where: str, dtype: np.dtype[np.generic], shape: tuple[int, ...], is_images: bool) -> int:
    """Refuse arrays that are too large; images must be numbers (n, height, width[, 1 or 3]), labels integers (n,).

    Returns:
        The bytes that the array takes.

    Raises:
        DataError: that says what was found and how to convert it.
    """
    (_check_images if is_images else _check_labels)(where, dtype, shape)
    if min(shape) < 1:
        problem = f"has the shape {shape}, which holds nothing"
        raise DataError(problem, place=where, remedy="expected at least one example")
    if (size := dtype.itemsize * math.prod(shape)) > MAX_ARRAY_BYTES:
        problem = f"would take {size} bytes of memory; at most {MAX_ARRAY_BYTES}"
        raise DataError(problem, place=where, remedy="use fewer images")
    return size


def _check_images(where: str, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> None:
    if dtype.kind == "O":
        problem, remedy = "images are Python objects", "x = numpy.stack(x.tolist()), if all are of one size"
        raise DataError(f"{problem}; expected an array of numbers", place=where, remedy=remedy)
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)):
        problem = f"images have the shape {shape}; expected (n, height, width) or (n, height, width, 1 or 3)"
        raise DataError(problem, place=where, remedy=_reshape(shape))
    if dtype.kind not in "buif" or dtype.itemsize > 8:
        remedy = "convert them with astype('float64')" if dtype.kind == "f" else "give numbers from 0 to 255"
        found = "text" if dtype.kind in "US" else dtype.name
        raise DataError(f"images are {found}; expected uint8", place=where, remedy=remedy)


def _reshape(shape: tuple[int, ...]) -> str:
    """How to bring images of a wrong shape into an allowed one."""
    if len(shape) == 4 and shape[1] in (1, 3):
        return "channels come last: numpy.moveaxis(x, 1, -1)"
    if len(shape) == 4 and shape[2] in (1, 3):
        return "examples come first: numpy.moveaxis(x, -1, 0)"
    if len(shape) == 4 and shape[3] == 4:
        return "x[..., :3] leaves out the transparency"
    if len(shape) == 2:
        for channels, then in ((1, ""), (3, ", or x.reshape(-1, 3, {side}, {side}).transpose(0, 2, 3, 1)")):
            side = math.isqrt(shape[1] // channels)
            if side and side * side * channels == shape[1]:
                last = f", {channels}" if channels > 1 else ""
                return f"x.reshape(-1, {side}, {side}{last}){then.format(side=side)}"
    return "use reshape or transpose"


def _check_labels(where: str, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> None:
    if len(shape) != 1:
        is_line = math.prod(shape) == max(shape, default=0)
        convert = "labels.reshape(-1)" if is_line else "for one-hot rows use labels.argmax(axis=1)"
        raise DataError(f"labels have the shape {shape}; expected (n,)", place=where, remedy=convert)
    if dtype.kind not in "iu":
        convert, found = "labels.astype('int64')", dtype.name
        if dtype.kind == "f":
            convert = f"make sure that none is NaN or a fraction, then {convert}"
        elif dtype.kind != "b":
            convert, found = f"number them: {_NUMBER}", "text" if dtype.kind in "US" else "Python objects"
        raise DataError(f"labels are {found}; expected integers from 0", place=where, remedy=convert)


def make_split(images_where: str, images: NDArray[Any], labels_where: str, labels: NDArray[np.integer]) -> Split:
    """A split from arrays whose headers have been checked; ``images_where`` and ``labels_where`` are for messages.

    Raises:
        DataError: if the two lengths differ, a label is negative or at least ``MAX_CLASSES``, or it is not clear
            which value stands for white.
    """
    if len(images) != len(labels):
        problem = f"{count(len(labels), 'label')} for the {count(len(images), 'image')} of {images_where}"
        is_last = images.shape[-1] == len(labels)
        remedy = "examples come first: numpy.moveaxis(x, -1, 0)" if is_last else "expected one each"
        raise DataError(problem, place=labels_where, remedy=remedy)
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0:
        raise DataError(f"holds the label {lowest}", place=labels_where, remedy="expected integers from 0")
    if highest >= MAX_CLASSES:
        problem = f"holds the label {highest}; expected at most {MAX_CLASSES - 1}, for {MAX_CLASSES} classes"
        raise DataError(problem, place=labels_where, remedy="number the classes 0, 1, 2, …")
    pixels, white = scale.to_uint8(images_where, images)
    four = pixels if pixels.ndim == 4 else pixels[..., np.newaxis]
    return Split(np.ascontiguousarray(four), labels.astype(np.int32), images.dtype.name, white)


def count_classes(where: str, labels: NDArray[np.integer]) -> int:
    """The number of classes of training labels. Raises DataError if one has no example, or if there is only one."""
    counts = counts_per_class(labels, 0)
    if 0 in counts:
        empty = counts.index(0)
        is_shifted = all(counts[1:])
        remedy = (
            "subtract 1 from the labels of every split" if is_shifted else f"number the classes 0, 1, 2, …: {_NUMBER}"
        )
        problem = f"no training example has the label {empty}, and some have {len(counts) - 1}"
        raise DataError(problem, place=where, remedy=remedy)
    if len(counts) == 1:
        raise DataError("all labels are 0", place=where, remedy="expected two classes or more")
    return len(counts)


def natural_order(name: str) -> tuple[list[str | tuple[int, str]], str]:
    """A key to sort names of classes by, with digits as numbers: 2 before 10, and "class 2" before "class 10"."""
    parts = re.split("([0-9]+)", name)  # every second part is digits
    numbers = ((len(digits), digits) for digits in (part.lstrip("0") for part in parts[1::2]))
    return [next(numbers) if at % 2 else part for at, part in enumerate(parts)], name
