"""Reads a folder of pictures, with one subfolder per class, as a split.

The format of a picture is recognised by its content, not its name. Each picture is turned upright by its EXIF
orientation, laid on white if it is transparent (as a web page shows it), converted to grey (ITU-R 601 luma) or rgb, and
resized, not cropped, to a square with Pillow's Lanczos filter, which averages over what it shrinks. 16-bit greys keep
their upper 8 bits; an animation keeps its first picture.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnn_trainer.config.nearest import did_you_mean_file
from cnn_trainer.data import arrays
from cnn_trainer.data.pictures import CHANNELS, BrokenPicturesError, Color, read_picture
from cnn_trainer.data.splits import SPLIT_WORDS, Split, SplitName, Stream, choose_stratified, split_named
from cnn_trainer.errors import DataError

_EXPECTED = "expected train or training, test or testing, and for validation val, valid, validation, dev or eval"
_MAX_NESTED = 3  # folders around the one that holds the splits or classes, as in archives
# Splits whose folders must exist if a split is asked for: a trained model is scored on the test split at the end.
_NEEDED: dict[SplitName, tuple[SplitName, ...]] = {"train": ("train", "test"), "validation": (), "test": ("test",)}
# What systems, servers and programs leave in folders of pictures, in lower case.
_JUNK = {
    "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information", "__macosx", "icon\r",
    "@eadir", "#recycle", "picasa.ini", "ehthumbs_vista.db", "zbthumbnail.info", "lost+found", "network trash folder",
    "temporary items", "__pycache__",
}  # fmt: skip
_JUNK_ENDS = (":zone.identifier",)
_PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Listing:
    """The pictures of a split, not opened yet: their paths, and the class of each as a number."""

    class_names: list[str]
    paths: list[Path]
    labels: NDArray[np.int32]


def list_pictures(
    folder: Path, split: SplitName, test_fraction: float, seed: int, class_names: Sequence[str] | None = None
) -> Listing | None:
    """The pictures of a split; None for validation if there is no folder for it.

    If ``folder`` has subfolders train and test, they are the splits, and val is the validation split; other usual
    names work too. Otherwise the subfolders are the classes, and ``test_fraction`` of each class, chosen by ``seed``,
    is the test split. If a folder holds only one folder of folders, as archives do, the inner one is used.

    Args:
        folder: where to look.
        split: which split.
        test_fraction: the share of each class, if there is no folder for the test split.
        seed: 0 to 2**64 - 1.
        class_names: the order of the classes. If it is None or other classes are found, they are in natural order, 2
            before 10.

    Raises:
        DataError: if there is no such folder, a split is missing, or it does not hold pictures of two or more classes.
            A folder for the validation or test split may lack some classes, but not all.
    """
    folder = _inner(folder)
    splits = _find_splits(folder)
    if splits:
        _require_splits(folder, splits, _NEEDED[split])
        if split not in splits:
            return None
        return _list_classes(_inner(splits[split], in_split=True), class_names, may_lack=split != "train")
    if split == "validation":
        return None
    whole = _list_classes(folder, class_names)
    try:
        is_test = choose_stratified(whole.labels, test_fraction, seed, Stream.FOLDER_TEST)
    except DataError as error:
        raise DataError(f"data.test_fraction: {error.problem}", place=folder, remedy=error.remedy) from None
    chosen = np.flatnonzero(is_test if split == "test" else ~is_test)
    return Listing(whole.class_names, [whole.paths[index] for index in chosen], whole.labels[chosen])


def _find_splits(folder: Path) -> dict[SplitName, Path]:
    """The folders of the splits; empty if the subfolders are classes, which may be named like a split."""
    found: dict[SplitName, list[Path]] = {}
    folders = _folders(folder)
    for path in folders:
        split = split_named(path.name)
        if split and (path.name.lower() in SPLIT_WORDS[split] or _folders(path)):  # test, or a class "test tube"
            found.setdefault(split, []).append(path)
    if len(found) < 2 and [path for paths in found.values() for path in paths] != folders:
        return {}
    for split, paths in found.items():
        if len(paths) > 1:
            both = " and ".join(path.name for path in paths)
            problem = f"has {both} for the {split} split"
            raise DataError(problem, place=folder, remedy="keep one of them")
    return {split: paths[0] for split, paths in found.items()}


def _require_splits(folder: Path, found: dict[SplitName, Path], wanted: Sequence[SplitName]) -> None:
    for split in wanted:
        if split not in found:
            there = " and ".join(path.name for path in found.values())
            carve = ""
            if split == "test" and list(found) == ["train"]:
                carve = f"; or set data.path to {found['train']}, to set aside data.test_fraction of it"
            problem = f"has {there}, but no folder for the {split} split"
            raise DataError(problem, place=folder, remedy=f"{_EXPECTED}{carve}")


def _inner(folder: Path, in_split: bool = False) -> Path:
    """The folder that holds the splits or the classes: ``folder``, or one inside it, as in an unpacked archive.

    With ``in_split``, ``folder`` is that of a split, and the inner one may also be named like a split.
    """
    if not arrays.is_folder(folder):
        problem = "is a file, not a folder" if arrays.is_file(folder) else "no such folder"
        remedy = f"expected one with a subfolder of pictures for each class{did_you_mean_file(folder)}"
        raise DataError(problem, place=folder, remedy=remedy)
    inner = folder
    for _ in range(_MAX_NESTED):
        folders = _folders(inner)
        if len(folders) != 1 or not _folders(folders[0]) or (split_named(folders[0].name) and not in_split):
            return inner
        inner = folders[0]
    return inner


def unused_pictures(folder: Path) -> list[str]:
    """Files and folders with pictures that belong to no split or class: names below ``folder``. Raises DataError."""
    inner = _inner(folder)
    splits = list(_find_splits(inner).values())
    others = [path for path in _folders(inner) if path not in splits] if splits else []
    loose = [path for place in splits or [inner] for path in _visible(place) if _is_picture(path)]
    found = [path for path in others if any(map(_is_picture, path.rglob("*")))] + loose
    return [str(path.relative_to(folder)) for path in found]


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in _PICTURE_SUFFIXES and arrays.is_file(path)


def _folders(folder: Path) -> list[Path]:
    return [path for path in _visible(folder) if arrays.is_folder(path)]


def is_junk(name: str) -> bool:
    """Whether a file or folder is hidden, or one that a system or a server puts among pictures by itself."""
    return name.startswith((".", "~$")) or name.lower() in _JUNK or name.lower().endswith(_JUNK_ENDS)


def _visible(folder: Path) -> list[Path]:
    """What is in a folder, except for junk, sorted by code point, whatever the locale."""
    try:
        return sorted(path for path in folder.iterdir() if not is_junk(path.name))
    except OSError as error:
        raise DataError(f"cannot be listed: {error.strerror}", place=folder, remedy="check its permissions") from None


def _class_folders(folder: Path, least: int) -> list[Path]:
    classes = _folders(folder)
    if not least <= len(classes) <= arrays.MAX_CLASSES:
        found = f"has {len(classes)} subfolders" if len(classes) != 1 else f"has the one subfolder {classes[0].name}"
        wanted = f"expected one subfolder per class, {least} to {arrays.MAX_CLASSES} of them"
        raise DataError(found, place=folder, remedy=wanted)
    for path in classes:
        if (inside := _folders(path)) and len(inside) == len(_visible(path)):
            problem = f"holds folders, such as {inside[0].name}, and no pictures"
            remedy = f"expected the pictures of a class; or if they are splits: {_EXPECTED}"
            raise DataError(problem, place=path, remedy=remedy)
        if not path.name.isprintable():
            raise DataError("its name is not printable Unicode text", place=path, remedy="rename the class")
    return sorted(classes, key=lambda path: arrays.natural_order(path.name))


def _list_classes(folder: Path, class_names: Sequence[str] | None, may_lack: bool = False) -> Listing:
    """The pictures of all classes; with ``may_lack``, some of ``class_names`` may have no pictures and no folder."""
    paths: list[Path] = []
    labels: list[int] = []
    names = found = [path.name for path in _class_folders(folder, 1 if may_lack else 2)]
    if class_names is not None and (set(found) == set(class_names) or (may_lack and set(found) < set(class_names))):
        names = list(class_names)
    for label, name in enumerate(names):
        pictures = _visible(folder / name) if name in found else []
        if not pictures and not may_lack:
            raise DataError("holds no picture", place=folder / name, remedy="put some in, or remove the class")
        paths += pictures
        labels += [label] * len(pictures)
    if not paths:
        raise DataError("holds no picture", place=folder, remedy="put some in, or remove the folder")
    return Listing(names, paths, np.array(labels, np.int32))


def read_pictures(
    listing: Listing, image_size: int, color: Color, later: Callable[[], Iterable[Listing | None]] = tuple
) -> Split:
    """Read all pictures of a listing, each resized to ``image_size`` pixels in height and width.

    Args:
        listing: which pictures.
        image_size: in pixels.
        color: what they are converted to.
        later: returns the listings of other splits. If a picture is broken, those are read too, so that one error
            names all broken pictures.

    Raises:
        BrokenPicturesError: if files are broken, are not pictures or are too large.
        DataError: if all of them together would take more memory than allowed.
    """
    shape = (len(listing.paths), image_size, image_size, CHANNELS[color])
    if (size := math.prod(shape)) > arrays.MAX_ARRAY_BYTES:
        counted = f"{shape[0]} pictures of {image_size}x{image_size}x{shape[3]} would take {size} bytes of memory"
        remedy = "use a smaller data.image_size or fewer pictures"
        raise DataError(f"{counted}; at most {arrays.MAX_ARRAY_BYTES}", remedy=remedy)
    images = np.empty(shape, np.uint8)
    broken = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of harmless flaws, and of sizes that are refused below
        for index, path in enumerate(listing.paths):
            try:
                images[index] = read_picture(path, image_size, color)
            except DataError as error:
                broken.append(error)
        for path in [path for other in later() if other for path in other.paths] if broken else ():
            try:
                read_picture(path, image_size, color)
            except DataError as error:
                broken.append(error)
    if broken:
        raise BrokenPicturesError(sorted(broken, key=lambda error: str(error.place)))
    return Split(images, listing.labels)
