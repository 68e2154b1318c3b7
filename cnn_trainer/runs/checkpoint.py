"""Checkpoints and weights: one file each, read without executing anything and without trusting the content.

The format is safetensors (https://github.com/huggingface/safetensors#format): the length of the header in 8 bytes, the
header as JSON, then the arrays one after another. The header's metadata has one entry, ``checkpoint``, which is the
JSON text ``{"sha256": "…", "state": {…}}``. There is only one entry because the library writes several entries in a
different order each time. The digest is the SHA-256 of the whole file with the digest's 64 characters set to ``0``, so
that a single flipped bit anywhere is found.
"""

import hashlib
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import safetensors
import safetensors.numpy

from cnn_trainer.errors import RunDirectoryError, StorageError, count, raised_as
from cnn_trainer.storage import files, strict_json

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
# Name, dtype and shape of every array that a file must hold, as the model of the validated config has them.
ExpectedArrays: TypeAlias = Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]

# The header holds the state, which holds the history: 335 bytes for each of at most 100,000 epochs (schema's limit).
MAX_HEADER_BYTES = 32 * 1024 * 1024

_DTYPES = {
    np.dtype("bool"): "BOOL",
    np.dtype("uint8"): "U8",
    np.dtype("int32"): "I32",
    np.dtype("int64"): "I64",
    np.dtype("uint32"): "U32",
    np.dtype("uint64"): "U64",
    np.dtype("float32"): "F32",
    np.dtype("float64"): "F64",
}
_ZEROS = "0" * 64
# Quotes inside a JSON string are escaped, so this pattern occurs only once in a header.
_DIGEST = re.compile(rb'"checkpoint":"\{\\"sha256\\":\\"([0-9a-f]{64})\\",\\"state\\":')
_FILE_NAME = re.compile(r"step-([0-9]{9,})\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """All that is needed to continue training.

    Attributes:
        arrays: Variables by name; each is bool, uint8, int32, int64, uint32, uint64, float32 or float64.
        state: Everything else, as values of strict JSON.
    """

    arrays: dict[str, Array]
    state: dict[str, Any]


def encode(checkpoint: Checkpoint) -> bytes:
    """Encode a checkpoint as the content of its file. Equal checkpoints give equal bytes.

    Raises:
        StorageError: if the state makes the header larger than ``MAX_HEADER_BYTES``.
        ValueError: if the state is not strict JSON, or an array has another dtype.
    """
    arrays = {}
    for name, array in checkpoint.arrays.items():
        if array.dtype not in _DTYPES:
            raise ValueError(f"array {name} has the dtype {array.dtype}, which a checkpoint cannot hold")
        arrays[name] = np.asarray(array, order="C")  # the library silently writes other orders wrongly
    text = f'{{"sha256":"{_ZEROS}","state":{strict_json.format_json(checkpoint.state)}}}'
    data = bytearray(safetensors.numpy.save(arrays, {"checkpoint": text}))
    header_bytes = int.from_bytes(data[:8], "little")
    if header_bytes > MAX_HEADER_BYTES:
        raise StorageError(
            f"the history is too long: the checkpoint's header takes {header_bytes} bytes; "
            f"at most {MAX_HEADER_BYTES} are allowed",
            remedy="train fewer epochs",
        )
    place = _digest_place(data, header_bytes)
    data[place] = hashlib.sha256(data).hexdigest().encode()
    return bytes(data)


def decode(data: bytes, expected: ExpectedArrays, is_intact: bool = False) -> Checkpoint:
    """Decode what ``encode`` wrote. No array is allocated before the whole header has been checked.

    Args:
        data: The whole file.
        expected: Name, dtype and shape of all arrays; the file must hold these and no others.
        is_intact: Whether the caller has checked a digest of ``data``, so that the one inside is not computed again.

    Returns:
        The checkpoint, with its arrays in the order of ``expected``.

    Raises:
        StorageError: with the first fault; it does not name the file.
    """
    header_bytes = int.from_bytes(data[:8], "little")
    if header_bytes > MAX_HEADER_BYTES:
        raise StorageError(f"its header takes {header_bytes} bytes; at most {MAX_HEADER_BYTES} are allowed")
    place = _digest_place(data, header_bytes)
    if not is_intact and _digest_of(data, place) != data[place]:
        raise StorageError("its content does not match its digest", remedy="it is damaged")
    header = _mapping(strict_json.parse_json(data[8 : 8 + header_bytes]), "header")
    metadata = _mapping(header.pop("__metadata__", None), "metadata", {"checkpoint"})
    _check_arrays(header, expected)
    try:
        arrays = safetensors.numpy.load(data)  # refuses offsets that overlap, leave gaps or do not fit their shapes
    except safetensors.SafetensorError as error:
        raise StorageError(f"is not a safetensors file: {error}") from None
    state = _mapping(strict_json.parse_json(metadata["checkpoint"]), "content", {"sha256", "state"})["state"]
    return Checkpoint({name: arrays[name] for name in expected}, _mapping(state, "state"))


def _digest_of(data: bytes, place: slice) -> bytes:
    """The digest that belongs at ``place``."""
    content = memoryview(data)
    digest = hashlib.sha256(content[: place.start])
    digest.update(_ZEROS.encode())
    digest.update(content[place.stop :])
    return digest.hexdigest().encode()


def _mapping(value: object, name: str, keys: set[str] | None = None) -> dict[str, Any]:
    """Require ``value`` to be a mapping, with exactly ``keys`` if they are given."""
    if not isinstance(value, dict) or (keys and value.keys() != keys):
        raise StorageError(f"its {name} is not what this program writes")
    return value


def _digest_place(data: bytes | bytearray, header_bytes: int) -> slice:
    """Where the digest's 64 characters are."""
    found = [match.span(1) for match in _DIGEST.finditer(data, 8, 8 + header_bytes)]
    if len(found) != 1:
        raise StorageError("holds no digest", remedy="it is damaged, or not a checkpoint of this program")
    return slice(*found[0])


def _check_arrays(header: dict[str, Any], expected: ExpectedArrays) -> None:
    """Refuse arrays whose names, dtypes or shapes are not the expected ones."""
    if header.keys() != expected.keys():
        parts = [f"lacks {name}" for name in [*expected.keys() - header.keys()][:1]]
        parts += [f"has {name[:60]}" for name in [*header.keys() - expected.keys()][:1]]
        raise StorageError(f"its arrays are not those expected: it {' and '.join(parts)}")
    for name, (dtype, shape) in expected.items():
        entry = _mapping(header[name], f"array {name}", {"dtype", "shape", "data_offsets"})
        if (entry["dtype"], entry["shape"]) != (_DTYPES[dtype], [*shape]):
            found = f"{entry['dtype']} {entry['shape']}"[:120]
            raise StorageError(f"its array {name} is {found}; expected {_DTYPES[dtype]} {[*shape]}")


def _read(path: Path, expected: ExpectedArrays) -> Checkpoint:
    array_bytes = sum(dtype.itemsize * math.prod(shape) for dtype, shape in expected.values())
    data = files.read_bounded(path, 8 + MAX_HEADER_BYTES + array_bytes)
    try:
        return decode(data, expected)
    except StorageError as error:
        raise error.at(path) from None


@raised_as(RunDirectoryError)
def write_checkpoint(folder: Path, step: int, checkpoint: Checkpoint) -> Path:
    """Write ``folder/step-<step, nine digits>.safetensors``, then remove all checkpoints but this and the previous one.

    Checkpoints of later steps are removed too: they could not be read, so training continued from an earlier one.

    Raises:
        RunDirectoryError: if it cannot be written; the existing checkpoints are then intact.
    """
    files.require_folder(folder)
    path = folder / f"step-{step:09d}.safetensors"
    files.write_atomic(path, encode(checkpoint))
    paths = checkpoint_paths(folder)
    kept = [path, *[other for other in paths if step_of(other) < step][:1]]
    for other in paths:
        if other not in kept:
            with suppress(OSError):  # a file that cannot be removed only costs space
                other.unlink()
    return path


def step_of(path: Path) -> int:
    """The step in a checkpoint's name; -1 if it is not such a name."""
    match = _FILE_NAME.fullmatch(path.name)
    return int(match[1]) if match else -1


@raised_as(RunDirectoryError)
def checkpoint_paths(folder: Path) -> list[Path]:
    """The paths of the checkpoints in ``folder``, newest first; empty if it is missing.

    Raises:
        RunDirectoryError: if ``folder`` is a symbolic link or cannot be read.
    """
    if not os.path.lexists(folder):
        return []
    files.require_folder(folder)
    with files.reported(folder, "read"):
        return sorted((path for path in folder.iterdir() if step_of(path) >= 0), key=step_of, reverse=True)


@raised_as(RunDirectoryError)
def read_newest(folder: Path, expected: ExpectedArrays, warn: Callable[[str], None]) -> Checkpoint:
    """Read the newest valid checkpoint in ``folder``.

    Args:
        folder: The run's folder of checkpoints.
        expected: As for ``decode``.
        warn: Called with one line about each newer file that is not valid.

    Raises:
        RunDirectoryError: if no checkpoint is valid.
    """
    paths = checkpoint_paths(folder)
    for number, path in enumerate(paths, start=1):
        try:
            return _read(path, expected)
        except StorageError as error:
            left = "using the previous checkpoint" if number < len(paths) else "there is no earlier checkpoint"
            warn(f"{error}; {left}")
    problem = f"its {count(len(paths), 'checkpoint')} cannot be read" if paths else "there is no checkpoint"
    remedy = "repeat the run from its config: cnn-train train RUN/config.yaml"
    raise StorageError(problem, place=folder, remedy=remedy)


@raised_as(RunDirectoryError)
def write_weights(path: Path, arrays: dict[str, Array]) -> None:
    """Write the result of a run: arrays by name, encoded as a checkpoint with no state. Raises RunDirectoryError."""
    files.write_atomic(path, encode(Checkpoint(arrays, {})))


@raised_as(RunDirectoryError)
def read_weights(path: Path, expected: ExpectedArrays) -> dict[str, Array]:
    """Read what ``write_weights`` wrote, in the order of ``expected``. Raises RunDirectoryError naming the fault."""
    return _read(path, expected).arrays


def weights_digest(arrays: Iterable[Array]) -> str:
    r"""SHA-256 of ``arrays`` in their order, as 64 hexadecimal digits.

    Each array adds the name of its dtype, a space, its shape as decimal numbers separated by commas, and a newline, all
    in ASCII (``float32 3,3,1,32\n``; a scalar: ``float32 \n``), followed by its values in C order, little-endian.
    """
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.name} {','.join(map(str, array.shape))}\n".encode())
        digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()
