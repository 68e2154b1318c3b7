"""Reads exports from disk without trusting their content, and compares the digests of their files."""

import hashlib
import os
import stat
from itertools import islice
from pathlib import Path

from cnn_trainer.errors import RunDirectoryError, raised_as
from cnn_trainer.export.manifest import MANIFEST_FILE, PATHS, ExportedModel, Manifest
from cnn_trainer.storage import files, strict_json

MAX_FILES = 100  # per exported model; a SavedModel has four or five


@raised_as(RunDirectoryError)
def read(export_dir: Path) -> Manifest:
    """Read the manifest of the export in ``export_dir``, without looking at any model file.

    Raises RunDirectoryError if there is none, or if it is not as this program writes it.
    """
    path = export_dir / MANIFEST_FILE
    if not os.path.lexists(path):
        remedy = "make one with: cnn-train export RUN"
        raise RunDirectoryError(f"is not an export: it has no {MANIFEST_FILE}", place=export_dir, remedy=remedy)
    manifest = strict_json.read_record(Manifest, path)
    for name, model in manifest.models.items():
        if model.format != name or model.path != PATHS[name]:
            problem = f"models.{name}: has the wrong format or path"
            raise RunDirectoryError(problem, place=path, remedy="the file was changed")
    return manifest


@raised_as(RunDirectoryError)
def verify(export_dir: Path, model: ExportedModel) -> Path:
    """Check that the file or folder of an exported model matches the manifest. Returns its path.

    Raises RunDirectoryError if a file is missing, different, unexpected, a symbolic link, or unreadable.
    """
    path = export_dir / model.path
    if content(export_dir, model.path, model.num_bytes) != (model.num_bytes, model.sha256):
        raise _changed(path)
    return path


@raised_as(RunDirectoryError)
def read_verified(export_dir: Path, model: ExportedModel) -> bytes:
    """Like ``verify``, for an exported model that is a single file, but return its content.

    Run these bytes: if the file were read a second time, it could have changed.
    """
    data = files.read_bounded(export_dir / model.path, model.num_bytes)
    if {model.path: hashlib.sha256(data).hexdigest()} != model.sha256:
        raise _changed(export_dir / model.path)
    return data


def _changed(path: Path) -> RunDirectoryError:
    remedy = "export the run again with: cnn-train export RUN"
    return RunDirectoryError(f"does not match its entry in {MANIFEST_FILE}", place=path, remedy=remedy)


@raised_as(RunDirectoryError)
def content(export_dir: Path, path: str, max_bytes: int) -> tuple[int, dict[str, str]]:
    """Total size in bytes of the files at ``path`` in ``export_dir``, and their SHA-256 by path there, sorted.

    Raises RunDirectoryError if there is nothing, if there is anything but files and folders, such as a symbolic link,
    if there are more than ``MAX_FILES`` files, or if they have more than ``max_bytes`` in all, before reading any.
    """
    found = _list_files(export_dir, path)
    with files.reported(export_dir / path, "read"):
        num_bytes = sum(file.lstat().st_size for file in found)
    if num_bytes > max_bytes:
        problem = f"is too large: {num_bytes} bytes; at most {max_bytes} are allowed"
        raise RunDirectoryError(problem, place=export_dir / path)
    digests = {}
    for file in found:
        data = files.read_bounded(file, max_bytes)
        digests[file.relative_to(export_dir).as_posix()] = hashlib.sha256(data).hexdigest()
    return num_bytes, digests


def _list_files(export_dir: Path, path: str) -> list[Path]:
    place = export_dir
    for part in Path(path).parts[:-1]:
        place /= part
        files.require_folder(place)
    found: list[Path] = []
    waiting = [export_dir / path]
    while waiting:
        place = waiting.pop()
        with files.reported(place, "read"):
            mode = place.lstat().st_mode
            if stat.S_ISDIR(mode):
                waiting += islice(place.iterdir(), MAX_FILES + 1)
            elif not stat.S_ISREG(mode):
                raise RunDirectoryError("is a link, a pipe or a device", place=place, remedy="move it away")
            else:
                found.append(place)
        if len(found) + len(waiting) > MAX_FILES:
            problem = f"holds more than {MAX_FILES} files"
            raise RunDirectoryError(problem, place=export_dir / path, remedy="move it away")
    return sorted(found)
