"""Exports as they are found on a disk: read without trusting what they hold, their files' digests compared."""

import hashlib
import os
import stat
from itertools import islice
from pathlib import Path

from cnn_trainer.errors import RunDirectoryError, raised_as
from cnn_trainer.export.manifest import MANIFEST_FILE, PATHS, ExportedModel, Manifest
from cnn_trainer.storage import files, strict_json

MAX_FILES = 100  # of one exported model; a SavedModel has four or five


@raised_as(RunDirectoryError)
def read(export_dir: Path) -> Manifest:
    """What the manifest of the export in ``export_dir`` says; no model file is looked at.

    Raises RunDirectoryError if there is none, or it is not what this program writes.
    """
    path = export_dir / MANIFEST_FILE
    if not os.path.lexists(path):
        remedy = "make one with: cnn-train export RUN"
        raise RunDirectoryError(f"is no export, for it has no {MANIFEST_FILE}", place=export_dir, remedy=remedy)
    manifest = strict_json.read_record(Manifest, path)
    for name, model in manifest.models.items():
        if model.format != name or model.path != PATHS[name]:
            problem = f"models.{name}: is not where an export has it"
            raise RunDirectoryError(problem, place=path, remedy="the file was changed")
    return manifest


@raised_as(RunDirectoryError)
def verify(export_dir: Path, model: ExportedModel) -> Path:
    """The file or folder of an exported model, once it is found to be the one that the manifest names.

    Raises RunDirectoryError if a file is missing, another, too many, a symbolic link, or cannot be read.
    """
    path = export_dir / model.path
    if content(export_dir, model.path, model.num_bytes) != (model.num_bytes, model.sha256):
        raise _changed(path)
    return path


@raised_as(RunDirectoryError)
def read_verified(export_dir: Path, model: ExportedModel) -> bytes:
    """As ``verify``, the content of an exported model that is one file.

    What is run are these bytes: the file is not read a second time, by when it could be another.
    """
    data = files.read_bounded(export_dir / model.path, model.num_bytes)
    if {model.path: hashlib.sha256(data).hexdigest()} != model.sha256:
        raise _changed(export_dir / model.path)
    return data


def _changed(path: Path) -> RunDirectoryError:
    remedy = "export the run again with: cnn-train export RUN"
    return RunDirectoryError(f"is not what {MANIFEST_FILE} says it is", place=path, remedy=remedy)


@raised_as(RunDirectoryError)
def content(export_dir: Path, path: str, max_bytes: int) -> tuple[int, dict[str, str]]:
    """Bytes of the files at ``path`` in ``export_dir``, and the SHA-256 of each by its path there, sorted.

    Raises RunDirectoryError for anything but files and folders, such as a symbolic link, more than ``max_bytes`` in all
    (of which none is read then), more files than ``MAX_FILES``, and if there is nothing.
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
