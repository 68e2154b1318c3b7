"""``predict``: what the network of a run predicts for real pictures."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnn_trainer.data.arrays import is_folder
from cnn_trainer.data.pictures import read_picture_file
from cnn_trainer.data.rows import CSV_SUFFIXES, iterate_images
from cnn_trainer.errors import DataError
from cnn_trainer.evaluation.evaluate import Result
from cnn_trainer.pictures import like_mnist
from cnn_trainer.runs.records import DataRecord

_SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".tif", ".tiff", ".gif", ".bmp")
# Pictures that are predicted at a time; no more than this are in memory.
_BATCH = 128


@dataclass(frozen=True)
class Picture:
    """A picture to predict."""

    name: str
    """Its path, or ``-`` for standard input."""
    read: Callable[[], bytes]
    """Returns the content of its file. Raises DataError."""


@dataclass(frozen=True)
class ImageRows:
    """A CSV file with an image in each row, in the format of the training data; it may also have labels."""

    name: str
    """Its path."""


@dataclass(frozen=True)
class Answer:
    """What the network predicts for a picture."""

    name: str
    image: NDArray[np.uint8]
    """What the network sees: (height, width, channels)."""
    probabilities: NDArray[np.float64]
    """(classes,)."""


def find_pictures(words: Sequence[str], read_stdin: Callable[[], bytes]) -> list[Picture | ImageRows]:
    """The pictures that ``words`` name: files, folders with everything under them, CSV files, and ``-``.

    In a folder, all files count whose names end like those of pictures, sorted by path; hidden ones do not.

    Raises:
        DataError: if a folder holds no pictures.
    """
    found: list[Picture | ImageRows] = []
    for word in words:
        if word == "-":
            found.append(Picture("-", read_stdin))
        elif word.lower().endswith(CSV_SUFFIXES) and not is_folder(Path(word)):
            found.append(ImageRows(word))
        else:
            paths = _pictures_under(word) if is_folder(Path(word)) else [Path(word)]
            found += [Picture(str(path), partial(read_picture_file, path)) for path in paths]
    return found


def _pictures_under(folder: str) -> list[Path]:
    paths: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [Path(place, name) for name in names if not name.startswith(".") and name.lower().endswith(_SUFFIXES)]
    if not paths:
        raise DataError(f"holds no picture, that is, no file whose name ends in {', '.join(_SUFFIXES)}", place=folder)
    return sorted(paths)


def predict(
    data: DataRecord,
    found: Iterable[Picture | ImageRows],
    result: Result,
    prepare: bool,
    row_shape: Sequence[int] | None = None,
) -> Iterator[Answer | DataError]:
    """Yield an answer for each picture, in order; for one that cannot be read, the error that says why.

    Args:
        data: What the network was trained on.
        found: The pictures. An image in a row of a CSV file is named ``file:line``, and used as it is.
        result: What the run has learned.
        prepare: Make the pictures like MNIST's images; see ``like_mnist.fit``.
        row_shape: The shape of an image in a row: ``data.image_shape`` of a config; None for that of ``data``.
    """
    waiting = _images(data, found, prepare, row_shape or data.image_shape)
    while batch := list(islice(waiting, _BATCH)):
        images = [image for _, image in batch if not isinstance(image, DataError)]
        probabilities = iter(result.probabilities(np.stack(images)) if images else ())
        for name, image in batch:
            if isinstance(image, DataError):
                yield image
            else:
                yield Answer(name, image, next(probabilities))


def _images(
    data: DataRecord, found: Iterable[Picture | ImageRows], prepare: bool, row_shape: Sequence[int]
) -> Iterator[tuple[str, NDArray[np.uint8] | DataError]]:
    for each in found:
        if isinstance(each, Picture):
            yield each.name, _read(each, data, prepare)
            continue
        try:
            for line, image in iterate_images(Path(each.name), row_shape, data.white or 255):
                yield f"{each.name}:{line}", image
        except DataError as error:
            yield each.name, error


def _read(picture: Picture, data: DataRecord, prepare: bool) -> NDArray[np.uint8] | DataError:
    height, width, channels = data.image_shape
    try:
        decoded = like_mnist.decode(picture.read(), picture.name, like_mnist.color_of(data))
        return like_mnist.fit(decoded, (height, width, channels), prepare)
    except DataError as error:
        return error.at(error.place or picture.name)
