"""Reads single arrays from an npz file, under limits and without pickles.

``numpy.load`` is not used: it trusts the size that a file declares, and reads more of the file than is asked for.
"""

import io
import re
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from cnn_trainer.config.schema.data import Npz
from cnn_trainer.data import arrays
from cnn_trainer.data.splits import SPLIT_WORDS, Split, SplitName
from cnn_trainer.errors import DataError, count

EXPECTED = "an npz file with x_train, y_train, x_test and y_test"
_WRITE = "write it with numpy.savez_compressed"

# NumPy's own bound for headers of files that are not trusted.
_MAX_HEADER_BYTES = 10_000
# What zipfile and the header's parser raise for files that are broken or malicious.
BROKEN = (
    zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError, OSError, EOFError, ValueError, SyntaxError,
    TypeError, KeyError, IndexError, OverflowError, RecursionError, MemoryError, NotImplementedError, RuntimeError,
)  # fmt: skip


Keys = Mapping[str, str]
"""Names in the file for x_train, y_train, x_val, y_val, x_test and y_test, if they are not the usual ones."""

_PARTS: dict[SplitName, str] = {"train": "train", "validation": "val", "test": "test"}
_SPLIT_WORDS = {_PARTS[split]: words for split, words in SPLIT_WORDS.items()}
_LETTER_WORDS = {
    "x": ("x", "xs", "image", "images", "img", "imgs", "data", "features"),
    "y": ("y", "ys", "label", "labels", "target", "targets", "class", "classes"),
}


def keys_of(data: Npz) -> dict[str, str]:
    """The names that a config's data section gives."""
    return {name: key for name, key in dict(data.keys).items() if key is not None}


def read_npz(path: Path, split: SplitName, keys: Keys = MappingProxyType({})) -> Split | None:
    """The images of a split with their labels; the arrays of the other splits are not read.

    The arrays are found under all usual names, such as ``X_train``, ``train_images`` and ``arr_0``. None if ``split``
    is the validation split and the file has none.

    Raises DataError if the file is missing, broken, or does not hold what it should.
    """
    names = [f"{letter}_{_PARTS[split]}" for letter in "xy"]
    with arrays.open_file(path, EXPECTED) as (file, _):
        if split == "validation" and not any(_has(str(path), file, name, keys) for name in names):
            return None
        (images_at, images), (labels_at, labels) = (_read_found(str(path), file, name, keys) for name in names)
    return arrays.make_split(images_at, images, labels_at, labels)


def unused_images(path: Path, keys: Keys = MappingProxyType({})) -> list[str]:
    """The names of arrays of images that belong to no split. Raises DataError if the file is missing or broken."""
    with arrays.open_file(path, EXPECTED) as (file, _):
        try:
            with open_archive(str(path), file) as archive:
                splits = [f"x_{part}" for part in _PARTS.values()]
                used = {keys.get(name) or next(iter(_candidates(archive, name, str(path))), None) for name in splits}
                return [name for name in _names(archive) if name not in used and _is_image(archive, name)]
        except BROKEN as error:
            raise _broken(str(path), error) from None


def _is_image(archive: zipfile.ZipFile, name: str) -> bool:
    try:
        return _dimensions(archive, name) >= 3
    except (DataError, *BROKEN):  # whatever it is, it is not used
        return False


def read_npz_array(path: Path, name: str, keys: Keys = MappingProxyType({})) -> NDArray[np.integer]:
    """One array of the file: images if ``name`` begins with x, labels if it begins with y. Raises DataError."""
    with arrays.open_file(path, EXPECTED) as (file, _):
        return read_npz_stream(str(path), file, name, keys)


def read_npz_stream(where: str, file: BinaryIO, name: str, keys: Keys = MappingProxyType({})) -> NDArray[np.integer]:
    """What ``read_npz_array`` does, for an open file; the place that errors name begins with ``where``."""
    return _read_found(where, file, name, keys)[1]


def _read_found(where: str, file: BinaryIO, name: str, keys: Keys) -> tuple[str, NDArray[np.integer]]:
    """The place of an array, with its name in the file, and the array."""
    place = where
    try:
        with open_archive(where, file) as archive:
            found = _find_name(archive, name, keys, f"{where}: {name}")
            place = f"{where}: {found}"
            member = _require(archive, found, place)
            with archive.open(member) as stream:
                return place, _read_array(stream, member, place, is_images=name.startswith("x"))
    except BROKEN as error:
        raise _broken(place, error) from None


def _has(where: str, file: BinaryIO, name: str, keys: Keys) -> bool:
    try:
        with open_archive(where, file) as archive:
            return name in keys or bool(_candidates(archive, name, where))
    except BROKEN as error:
        raise _broken(where, error) from None


def _broken(place: str, error: Exception) -> DataError:
    if isinstance(error, zipfile.BadZipFile) and "not a zip file" in str(error):
        problem = "is not a zip file, as an npz file is, or is incomplete"
        return DataError(problem, place=place, remedy=f"expected {EXPECTED}; {_WRITE}, or get it again")
    problem = f"broken npz file: {str(error) or type(error).__name__}"
    return DataError(problem, place=place, remedy=f"{_WRITE}, or get it again")


def open_archive(where: str, file: BinaryIO) -> zipfile.ZipFile:
    """A zip file whose table of contents takes at most ``arrays.CHUNK_BYTES``. Raises DataError, and any of BROKEN."""
    return zipfile.ZipFile(cast(BinaryIO, _BoundedReads(where, file)))


class _BoundedReads:
    """A file for zipfile, which reads the table of contents in one go, however large the file says it is."""

    def __init__(self, where: str, file: BinaryIO) -> None:
        self._where, self._file = where, file

    def __getattr__(self, name: str) -> Any:
        """Everything else comes from the file itself."""
        return getattr(self._file, name)

    def read(self, size: int = -1) -> bytes:
        """At most ``size`` bytes; without it, zipfile reads the end of the file, at most 65,557 bytes."""
        if size > arrays.CHUNK_BYTES:  # more than is read of an array at a time
            problem = f"has a table of contents of more than {arrays.CHUNK_BYTES} bytes"
            raise DataError(problem, place=self._where, remedy=f"expected {EXPECTED}")
        return self._file.read(size if size >= 0 else arrays.CHUNK_BYTES)


def _find_name(archive: zipfile.ZipFile, name: str, keys: Keys, where: str) -> str:
    """The name in the file of the array that we call ``name``, such as ``x_train``."""
    there = _names(archive)
    found = [keys[name]] if name in keys else _candidates(archive, name, where)
    if len(found) == 1 and found[0] in there:
        return found[0]
    shown = ", ".join(there) or "nothing"
    shown = shown if len(shown) <= 100 else f"{shown[:97]}..."
    if len(found) > 1:
        problem = f"there is more than one: {', '.join(found)}"
    elif name in keys:
        problem = f"no array {keys[name]}, which data.keys.{name} names; the file holds {shown}"
    else:
        problem = f"no such array; the file holds {shown}"
    remedy = f"say which it is: data.keys: {{{name}: NAME}}"
    if name.endswith("test"):
        remedy += "; if there is none, move some of the training examples into x_test and y_test"
    raise DataError(problem, place=where, remedy=remedy if there else f"expected {EXPECTED}")


def _names(archive: zipfile.ZipFile) -> list[str]:
    return sorted(str(entry.removesuffix(".npy")) for entry in archive.namelist())


def _candidates(archive: zipfile.ZipFile, name: str, where: str) -> list[str]:
    """The names in the file that are spellings of ``name``; if ``name`` itself is there, only that."""
    there = _names(archive)
    if name in there:
        return [name]
    letter, _, part = name.partition("_")
    spellings = {
        spelling
        for split_word in _SPLIT_WORDS[part]
        for letter_word in _LETTER_WORDS[letter]
        for spelling in (split_word + letter_word, letter_word + split_word)
    }
    found = [entry for entry in there if re.sub("[^a-z0-9]", "", entry.lower()) in spellings]
    if not found and there == _UNNAMED and part != "val":
        return [_unnamed(archive, letter, where)[part == "test"]]
    return found


_UNNAMED = ["arr_0", "arr_1", "arr_2", "arr_3"]  # what numpy.savez calls arrays that it is given without names


def _unnamed(archive: zipfile.ZipFile, letter: str, where: str) -> list[str]:
    """The images, or the labels with their fewer dimensions, of four arrays without names; the training array first."""
    images = [name for name in _UNNAMED if _dimensions(archive, name) >= 3]
    if len(images) != 2:
        problem = "holds four arrays without names, of which two should be images (n, height, width)"
        raise DataError(problem, place=where, remedy="say which they are, in data.keys")
    return images if letter == "x" else [name for name in _UNNAMED if name not in images]


def _dimensions(archive: zipfile.ZipFile, name: str) -> int:
    """How many dimensions an array in the file has; 0 if it is not an array."""
    if f"{name}.npy" not in archive.namelist():
        return 0
    with archive.open(f"{name}.npy") as stream:
        return len(_read_header(stream, name)[0])


def _require(archive: zipfile.ZipFile, name: str, where: str) -> zipfile.ZipInfo:
    member = archive.getinfo(f"{name}.npy")
    if member.flag_bits & 1:
        raise DataError("is encrypted", place=where, remedy="write the file without a password")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError("is not packed with deflate", place=where, remedy=_WRITE)
    arrays.check_deflate_ratio(where, member.file_size, member.compress_size)
    return member


def _read_array(stream: arrays.Readable, member: zipfile.ZipInfo, where: str, is_images: bool) -> NDArray[np.integer]:
    shape, fortran_order, dtype, header_bytes = _read_header(stream, where)
    if not is_images and len(shape) == 2 and shape[1] == 1:  # one column, as in MedMNIST
        shape = shape[:1]
    num_bytes = arrays.check_header(where, dtype, shape, is_images)
    if member.file_size != header_bytes + num_bytes:
        declared = f"{count(member.file_size - header_bytes, 'byte')} after its header"
        raise DataError(f"broken: {declared}, but the shape {shape} of {dtype.name} takes {num_bytes}", place=where)
    flat: NDArray[np.integer] = arrays.read_bytes(where, stream, num_bytes).view(dtype)
    return flat.reshape(shape, order="F" if fortran_order else "C")


def _read_header(stream: arrays.Readable, where: str) -> tuple[tuple[int, ...], bool, np.dtype[np.generic], int]:
    """Shape, order, dtype and length in bytes of the header of an npy file (NumPy's NEP 1)."""
    magic = stream.read(8)
    if len(magic) < 8 or magic[:6] != npy.MAGIC_PREFIX or magic[6:] not in (b"\x01\x00", b"\x02\x00"):
        raise DataError("is not an array in NumPy's format 1.0 or 2.0", place=where, remedy=_WRITE)
    length_bytes = 2 if magic[6] == 1 else 4
    length = stream.read(length_bytes)
    header_bytes = int.from_bytes(length, "little")
    if header_bytes > _MAX_HEADER_BYTES:
        raise DataError(f"its header takes {header_bytes} bytes", place=where, remedy=f"at most {_MAX_HEADER_BYTES}")
    text = io.BytesIO(length + stream.read(header_bytes))
    parse = npy.read_array_header_1_0 if magic[6] == 1 else npy.read_array_header_2_0
    shape, fortran_order, dtype = parse(text, max_header_size=_MAX_HEADER_BYTES)
    return shape, fortran_order, dtype, 8 + length_bytes + header_bytes
