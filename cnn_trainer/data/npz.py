"""One array after the other from an npz file, under limits and without pickles.

``numpy.load`` is not used: it trusts what a file declares about its size, and reads more of it than is asked for.
"""

import io
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from cnn_trainer.data import arrays
from cnn_trainer.data.arrays import SourceSplit
from cnn_trainer.data.splits import Split
from cnn_trainer.errors import DataError

EXPECTED = "an npz file with x_train, y_train, x_test and y_test"
_WRITE = "write it with numpy.savez_compressed"

# NumPy's own bound for headers of files that are not trusted.
_MAX_HEADER_BYTES = 10_000
# What zipfile and the header's parser raise for files that are broken, or made to break them.
_BROKEN = (
    zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError, OSError, EOFError, ValueError, SyntaxError,
    TypeError, KeyError, IndexError, OverflowError, RecursionError, MemoryError, NotImplementedError, RuntimeError,
)  # fmt: skip


def read_npz(path: Path, split: SourceSplit) -> Split:
    """The images ``x_train`` or ``x_test`` with their labels; the arrays of the other split are not touched.

    Raises DataError if the file is missing, broken, or does not hold what it should.
    """
    images, labels = (read_npz_array(path, f"{letter}_{split}") for letter in "xy")
    return arrays.make_split(f"{path}: x_{split}", images, f"{path}: y_{split}", labels)


def read_npz_array(path: Path, name: str) -> NDArray[np.integer]:
    """One array of the file: images if ``name`` opens with x, labels if it opens with y. Raises DataError."""
    with arrays.open_file(path, EXPECTED) as (file, _):
        return read_npz_stream(str(path), file, name)


def read_npz_stream(where: str, file: BinaryIO, name: str) -> NDArray[np.integer]:
    """What ``read_npz_array`` does, for an open file; ``where`` is the place that errors name."""
    place = f"{where}: {name}"
    try:
        with zipfile.ZipFile(cast(BinaryIO, _BoundedReads(where, file))) as archive:
            member = _find(archive, name, place)
            with archive.open(member) as stream:
                return _read_array(stream, member, place, is_images=name.startswith("x"))
    except _BROKEN as error:
        problem = f"broken npz file: {str(error) or type(error).__name__}"
        raise DataError(problem, place=place, remedy=f"{_WRITE}, or get it again") from None


class _BoundedReads:
    """A file for zipfile, which reads the table of contents at once, whatever size the file gives it."""

    def __init__(self, where: str, file: BinaryIO) -> None:
        self._where, self._file = where, file

    def __getattr__(self, name: str) -> Any:
        """All else is the file's own."""
        return getattr(self._file, name)

    def read(self, size: int = -1) -> bytes:
        """At most ``size`` bytes; without it, zipfile reads the end of the file, 65,557 bytes at most."""
        if size > arrays.CHUNK_BYTES:  # more than is read of an array at a time
            problem = f"has a table of contents of more than {arrays.CHUNK_BYTES} bytes"
            raise DataError(problem, place=self._where, remedy=f"expected {EXPECTED}")
        return self._file.read(size if size >= 0 else arrays.CHUNK_BYTES)


def _find(archive: zipfile.ZipFile, name: str, where: str) -> zipfile.ZipInfo:
    try:
        member = archive.getinfo(f"{name}.npy")
    except KeyError:
        names = ", ".join(sorted(str(entry.removesuffix(".npy")) for entry in archive.namelist())) or "nothing"
        found = names if len(names) <= 100 else f"{names[:97]}..."
        raise DataError(f"no such array; the file holds {found}", place=where, remedy=f"expected {EXPECTED}") from None
    if member.flag_bits & 1:
        raise DataError("is encrypted", place=where, remedy="write the file without a password")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError("is packed by another method than deflate", place=where, remedy=_WRITE)
    arrays.check_deflate_ratio(where, member.file_size, member.compress_size)
    return member


def _read_array(stream: arrays.Readable, member: zipfile.ZipInfo, where: str, is_images: bool) -> NDArray[np.integer]:
    shape, fortran_order, dtype, header_bytes = _read_header(stream, where)
    num_bytes = arrays.check_header(where, dtype, shape, is_images)
    if member.file_size != header_bytes + num_bytes:
        declared = f"{member.file_size - header_bytes} bytes stand behind its header"
        raise DataError(f"broken: {declared}, but the shape {shape} of {dtype.name} takes {num_bytes}", place=where)
    flat: NDArray[np.integer] = arrays.read_bytes(where, stream, num_bytes).view(dtype)
    return flat.reshape(shape, order="F" if fortran_order else "C")


def _read_header(stream: arrays.Readable, where: str) -> tuple[tuple[int, ...], bool, np.dtype[np.generic], int]:
    """Shape, order, dtype and length in bytes of the header of an npy file (NumPy's NEP 1)."""
    magic = stream.read(8)
    if len(magic) < 8 or magic[:6] != npy.MAGIC_PREFIX or magic[6:] not in (b"\x01\x00", b"\x02\x00"):
        raise DataError("is no array of NumPy's format 1.0 or 2.0", place=where, remedy=_WRITE)
    length_bytes = 2 if magic[6] == 1 else 4
    length = stream.read(length_bytes)
    header_bytes = int.from_bytes(length, "little")
    if header_bytes > _MAX_HEADER_BYTES:
        raise DataError(f"its header takes {header_bytes} bytes", place=where, remedy=f"at most {_MAX_HEADER_BYTES}")
    text = io.BytesIO(length + stream.read(header_bytes))
    parse = npy.read_array_header_1_0 if magic[6] == 1 else npy.read_array_header_2_0
    shape, fortran_order, dtype = parse(text, max_header_size=_MAX_HEADER_BYTES)
    return shape, fortran_order, dtype, 8 + length_bytes + header_bytes
