"""The idx format of MNIST's original files: a magic number, one size for each dimension, then the values.

Format: two zero bytes, the type of the values, the number of dimensions, then each dimension as a big-endian 32-bit
integer, then the values, also big-endian (LeCun, Cortes, Burges, "The MNIST database of handwritten digits").
"""

import gzip
import math
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from cnn_trainer.data import arrays
from cnn_trainer.data.splits import SPLIT_WORDS, Split, SplitName, split_named
from cnn_trainer.errors import DataError, count

Kind = Literal["images", "labels"]

# The types of values; labels have one of the first four.
_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_QMNIST_COLUMNS = 8  # the class, and seven more facts about each example: README of github.com/facebookresearch/qmnist
_GZIP = b"\x1f\x8b"

# Such as train-images-idx3-ubyte, t10k-labels.idx1-ubyte.gz, emnist-letters-test-images-idx3-ubyte.
_NAME = re.compile(
    rf"(?:(?P<prefix>.+)[-_.])?(?P<split>{'|'.join(chain(*SPLIT_WORDS.values()))})[-_.](?P<kind>images|labels)"
    r"(?=.*(?:idx|ubyte))(?:[-_.]idx[1-4]?)?(?:[-_.](?:ubyte|int))?(?:\.idx)?(?:\.gz)?",
    re.IGNORECASE,
)
_USUAL: dict[SplitName, str] = {"train": "train", "test": "t10k", "validation": "validation"}
_USUAL_KINDS: dict[Kind, str] = {"images": "images-idx3-ubyte", "labels": "labels-idx1-ubyte"}


@dataclass(frozen=True)
class IdxFile:
    """A file that is named like an idx file.

    Attributes:
        path: where it is.
        prefix: what its name begins with, in lower case, such as ``emnist-letters``; may be empty.
        split: which split it belongs to.
        kind: what it holds.
    """

    path: Path
    prefix: str
    split: SplitName
    kind: Kind


def list_idx_files(folder: Path) -> list[IdxFile]:
    """The files directly in ``folder`` that are named like idx files, sorted by name; none if it is not a folder."""
    found = []
    for path in files_in(folder):
        if (match := _NAME.fullmatch(path.name)) and (split := split_named(match["split"])):
            kind: Kind = "images" if match["kind"].lower() == "images" else "labels"
            prefix = (match["prefix"] or "").lower().replace("_", "-")
            found.append(IdxFile(path, prefix, split, kind))
    return found


def files_in(folder: Path) -> list[Path]:
    """The files directly in ``folder`` that are not hidden, sorted; none if it is not a folder."""
    return [path for path in _entries(folder) if arrays.is_file(path)]


def sub_folders(folder: Path) -> list[Path]:
    """The folders directly in ``folder`` that are not hidden, sorted; none if it is not a folder."""
    return [path for path in _entries(folder) if arrays.is_folder(path)]


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except (OSError, ValueError):
        return []


def _search(folder: Path) -> list[IdxFile]:
    """The idx files in ``folder``, or else in its subfolders and their subfolders, as in MNIST/raw."""
    level = [folder]
    for _ in range(3):
        if found := [file for place in level for file in list_idx_files(place)]:
            return found
        level = [path for place in level for path in sub_folders(place)]
    return []


def _choose(found: Iterable[IdxFile], folder: Path, split: SplitName, kind: Kind) -> Path | None:
    """The one file of a split; None if there is none. If it is there both plain and gzipped, the plain one is taken."""
    paths: dict[tuple[Path, str], Path] = {}
    for file in sorted(found, key=lambda file: file.path.name.lower().endswith(".gz")):
        if (file.split, file.kind) == (split, kind):
            paths.setdefault((file.path.parent, file.prefix), file.path)
    if len(paths) > 1:
        names = ", ".join(str(path.relative_to(folder)) for path in paths.values())
        problem = f"holds the {split} {kind} more than once: {names[:200]}"
        raise DataError(problem, place=folder, remedy="give a folder with one data set, or use its data.source")
    return next(iter(paths.values()), None)


def read_idx(folder: Path, split: SplitName) -> Split | None:
    """The images of a split with their labels, from its two files in ``folder``; the other files are not opened.

    The files are found under all usual names, and in subfolders if there are none in ``folder`` itself. None if
    ``split`` is the validation split and has no files.

    Raises DataError if a file is missing, is there more than once, is broken, or does not hold what it should.
    """
    if arrays.is_file(folder):
        raise DataError("is a file", place=folder, remedy=f"expected the folder that holds it: {folder.parent}")
    found = _search(folder)
    if split == "validation" and not any(file.split == split for file in found):
        return None
    images_path, labels_path = (_one(found, folder, split, kind) for kind in ("images", "labels"))
    images, labels = read_idx_file(images_path, "images"), read_idx_file(labels_path, "labels")
    if "emnist-letters" in labels_path.name.lower() and labels.min() > 0:
        remedy = "use data.source: emnist-letters, which numbers them from 0 and turns the images upright"
        raise DataError("numbers its classes from 1", place=labels_path, remedy=remedy)
    return arrays.make_split(str(images_path), images, str(labels_path), labels)


def _one(found: list[IdxFile], folder: Path, split: SplitName, kind: Kind) -> Path:
    return _choose(found, folder, split, kind) or folder / usual_name(split, kind)


def usual_name(split: SplitName, kind: Kind) -> str:
    """What MNIST's makers call the file: ``t10k-images-idx3-ubyte``."""
    return f"{_USUAL[split]}-{_USUAL_KINDS[kind]}"


def read_idx_file(path: Path, kind: Kind) -> NDArray[np.integer]:
    """One file in the shape that it declares: images as numbers (uint8 in MNIST), labels as integers (n,).

    The content decides whether it is gzipped, because browsers may unpack a file without renaming it. Raises DataError
    if it is missing, broken, or of another kind.
    """
    with arrays.open_file(path, f"an idx file of {kind}, plain or gzipped") as (file, size):
        return read_idx_stream(str(path), file, size, kind)


def read_idx_stream(where: str, file: BinaryIO, size: int, kind: Kind) -> NDArray[np.integer]:
    """What ``read_idx_file`` does, for an open file of ``size`` bytes; its messages begin with ``where``."""
    packed = file.read(2) == _GZIP
    file.seek(0)
    try:
        stream = gzip.GzipFile(fileobj=file, mode="rb") if packed else file
        return _read(where, stream, size, kind, packed)
    except (OSError, EOFError, zlib.error) as error:
        form = "gzip" if packed else "idx"
        raise DataError(f"broken {form} file: {error}", place=where, remedy="get it again") from None


def _read(where: str, stream: arrays.Readable, size: int, kind: Kind, packed: bool) -> NDArray[np.integer]:
    magic = stream.read(4)
    is_images = kind == "images"
    fits = magic[3:] in ((b"\3", b"\4") if is_images else (b"\1", b"\2"))
    if magic[:2] != b"\0\0" or not fits or magic[2] not in _TYPES:
        found = magic.hex(" ") or "nothing"
        expected = f"expected {'00 00 08 03' if is_images else '00 00 08 01'}, an idx{3 if is_images else 1} file"
        raise DataError(f"begins with the bytes {found}", place=where, remedy=expected)
    sizes = stream.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise DataError("ends inside its header", place=where, remedy="get it again")
    shape = tuple(int.from_bytes(sizes[at : at + 4], "big") for at in range(0, len(sizes), 4))
    dtype = np.dtype(_TYPES[magic[2]])
    has_columns = not is_images and shape[1:] == (_QMNIST_COLUMNS,)
    num_bytes = arrays.check_header(where, dtype, (math.prod(shape),) if has_columns else shape, is_images)
    header_bytes = len(magic) + len(sizes)
    if packed:
        arrays.check_deflate_ratio(where, num_bytes, size)
    elif size != header_bytes + num_bytes:
        found = f"holds {count(size - header_bytes, 'byte')} after its header"
        problem = f"{found}, which declares {num_bytes}, of the shape {shape}"
        raise DataError(problem, place=where, remedy="get it again")
    array: NDArray[np.integer] = arrays.read_bytes(where, stream, num_bytes).view(dtype).reshape(shape)
    return array[:, 0] if has_columns else array
