"""A folder of pictures, one sub-folder a class, as a split.

Pictures are told apart by content, not by name. Each is turned the way its EXIF orientation says, laid on white if
it is transparent (as a page shows it), made grey (ITU-R 601 luma) or rgb, and resized, not cropped, to a square with
Pillow's Lanczos filter, which averages over what it shrinks. Of 16-bit greys the upper 8 bits are kept; of an
animation the first picture.
"""

import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnn_trainer.data import arrays
from cnn_trainer.data.arrays import SourceSplit
from cnn_trainer.data.pictures import CHANNELS, Color, read_picture
from cnn_trainer.data.splits import Split, Stream, choose_stratified
from cnn_trainer.errors import DataError


@dataclass(frozen=True)
class Listing:
    """The pictures of a split, none of them opened yet: paths, and the class of each as a number."""

    class_names: list[str]
    paths: list[Path]
    labels: NDArray[np.int32]


def list_pictures(folder: Path, split: SourceSplit, test_fraction: float, seed: int) -> Listing:
    """The pictures of a split.

    If ``folder`` has sub-folders train and test, these are the splits. Else its sub-folders are the classes, and
    ``test_fraction`` of each class, chosen by ``seed``, are the test split.

    Raises:
        DataError: if there is no such folder, or it does not hold two classes or more of pictures.
    """
    _require_folder(folder)
    if _is_split(folder):
        return _list_classes(folder / split)
    whole = _list_classes(folder)
    try:
        is_test = choose_stratified(whole.labels, test_fraction, seed, Stream.FOLDER_TEST)
    except DataError as error:
        raise DataError(f"data.test_fraction: {error}", place=folder) from None
    chosen = np.flatnonzero(is_test if split == "test" else ~is_test)
    return Listing(whole.class_names, [whole.paths[index] for index in chosen], whole.labels[chosen])


def list_training_classes(folder: Path) -> list[str]:
    """Names of the classes that the training split has; only folders are read."""
    _require_folder(folder)
    return [path.name for path in _class_folders(folder / "train" if _is_split(folder) else folder)]


def _is_split(folder: Path) -> bool:
    return arrays.is_folder(folder / "train") and arrays.is_folder(folder / "test")


def _require_folder(folder: Path) -> None:
    if not arrays.is_folder(folder):
        remedy = "expected one with a sub-folder of pictures for each class"
        raise DataError("no such folder", place=folder, remedy=remedy)


def _visible(folder: Path) -> list[Path]:
    """What is in a folder but for hidden names, sorted by code point, which no locale changes."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"cannot be listed: {error.strerror}", place=folder, remedy="check its permissions") from None


def _class_folders(folder: Path) -> list[Path]:
    classes = [path for path in _visible(folder) if arrays.is_folder(path)]
    if not 2 <= len(classes) <= arrays.MAX_CLASSES:
        found = f"has {len(classes)} sub-folders" if len(classes) != 1 else f"has the one sub-folder {classes[0].name}"
        wanted = f"expected one sub-folder a class, 2 to {arrays.MAX_CLASSES} of them"
        raise DataError(found, place=folder, remedy=wanted)
    for path in classes:
        if not path.name.isprintable():
            raise DataError("its name is not printable Unicode text", place=path, remedy="rename the class")
    return classes


def _list_classes(folder: Path) -> Listing:
    paths: list[Path] = []
    labels: list[int] = []
    classes = _class_folders(folder)
    for label, path in enumerate(classes):
        pictures = _visible(path)
        if not pictures:
            raise DataError("holds no picture", place=path, remedy="put some in, or remove the class")
        paths += pictures
        labels += [label] * len(pictures)
    return Listing([path.name for path in classes], paths, np.array(labels, np.int32))


def read_pictures(listing: Listing, image_size: int, color: Color) -> Split:
    """Read all pictures of a listing, each resized to ``image_size`` pixels in height and width.

    Raises:
        DataError: if a file is broken, no picture or too large, or all would take more than the memory allowed.
    """
    shape = (len(listing.paths), image_size, image_size, CHANNELS[color])
    if (size := math.prod(shape)) > arrays.MAX_ARRAY_BYTES:
        counted = f"{shape[0]} pictures of {image_size}x{image_size}x{shape[3]} would take {size} bytes of memory"
        remedy = "use a smaller data.image_size or fewer pictures"
        raise DataError(f"{counted}; at most {arrays.MAX_ARRAY_BYTES}", remedy=remedy)
    images = np.empty(shape, np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of harmless flaws, and of sizes that are refused below
        for index, path in enumerate(listing.paths):
            images[index] = read_picture(path, image_size, color)
    return Split(images, listing.labels)
