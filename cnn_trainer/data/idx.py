"""The idx format of MNIST's original files: a magic number, one size for each dimension, then the bytes.

Format: two zero bytes, the type of a value (8: unsigned byte), the number of dimensions, then each dimension as a
big-endian 32-bit integer (LeCun, Cortes, Burges, "The MNIST database of handwritten digits").
"""

import gzip
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from cnn_trainer.data import arrays
from cnn_trainer.data.arrays import SourceSplit
from cnn_trainer.data.splits import Split
from cnn_trainer.errors import DataError

# The files of the images and of the labels of each split, without .gz.
FILE_NAMES: dict[SourceSplit, tuple[str, str]] = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_UNSIGNED_BYTE = 8
_GZIP = b"\x1f\x8b"


def find_file(folder: Path, name: str) -> Path:
    """The plain or the gzipped file of that name; the plain one if there are both, or neither."""
    plain, packed = folder / name, folder / f"{name}.gz"
    return packed if not arrays.is_file(plain) and arrays.is_file(packed) else plain


def read_idx(folder: Path, split: SourceSplit) -> Split:
    """The images of a split with their labels, from the two files of it in ``folder``; the other two are not opened.

    Raises DataError if a file is missing, broken, or does not hold what it should.
    """
    images_path, labels_path = (find_file(folder, name) for name in FILE_NAMES[split])
    images, labels = read_idx_file(images_path, num_dimensions=3), read_idx_file(labels_path, num_dimensions=1)
    return arrays.make_split(str(images_path), images, str(labels_path), labels)


def read_idx_file(path: Path, num_dimensions: int) -> NDArray[np.uint8]:
    """One file as uint8 in the shape that it declares, of 3 dimensions for images, 1 for labels.

    Whether it is gzipped is told by its content, as browsers unpack without a change of the name. Raises DataError if
    it is missing, broken, or of another kind.
    """
    with arrays.open_file(path, f"an idx{num_dimensions} file, plain or gzipped") as (file, size):
        return read_idx_stream(str(path), file, size, num_dimensions)


def read_idx_stream(where: str, file: BinaryIO, size: int, num_dimensions: int) -> NDArray[np.uint8]:
    """What ``read_idx_file`` does, for an open file of ``size`` bytes; ``where`` opens its messages."""
    packed = file.read(2) == _GZIP
    file.seek(0)
    try:
        stream = gzip.GzipFile(fileobj=file, mode="rb") if packed else file
        return _read(where, stream, size, num_dimensions, packed)
    except (OSError, EOFError, zlib.error) as error:
        kind = "gzip" if packed else "idx"
        raise DataError(f"broken {kind} file: {error}", place=where, remedy="get it again") from None


def _read(where: str, stream: arrays.Readable, size: int, num_dimensions: int, packed: bool) -> NDArray[np.uint8]:
    magic = bytes([0, 0, _UNSIGNED_BYTE, num_dimensions])
    header = stream.read(4 + 4 * num_dimensions)
    if header[:4] != magic:
        found = header[:4].hex(" ") or "nothing"
        expected = f"expected {magic.hex(' ')}, an idx{num_dimensions} file"
        raise DataError(f"opens with the bytes {found}", place=where, remedy=expected)
    if len(header) < 4 + 4 * num_dimensions:
        raise DataError("ends inside its header", place=where, remedy="get it again")
    shape = tuple(int.from_bytes(header[at : at + 4], "big") for at in range(4, len(header), 4))
    num_bytes = arrays.check_header(where, np.dtype(np.uint8), shape, is_images=num_dimensions == 3)
    if packed:
        arrays.check_deflate_ratio(where, num_bytes, size)
    elif size != len(header) + num_bytes:
        found = f"holds {size - len(header)} bytes behind its header"
        problem = f"{found}, which declares {num_bytes}, of the shape {shape}"
        raise DataError(problem, place=where, remedy="get it again")
    return arrays.read_bytes(where, stream, num_bytes).reshape(shape)
