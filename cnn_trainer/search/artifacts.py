"""Run directories in an artifact store, for machines without a shared folder: one tar file for each finished job."""

import shutil
import tarfile
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from cnn_trainer.config.load import change_experiment
from cnn_trainer.errors import CnnTrainError, RunDirectoryError, StorageError, UsageError
from cnn_trainer.machine.facts import install_command
from cnn_trainer.runs import store
from cnn_trainer.runs.paths import CHECKPOINTS_DIR, LOCK_FILE
from cnn_trainer.storage import files

MAX_RUN_BYTES = 8 * 1024**3  # unpacked
MAX_RUN_FILES = 1000

ArtifactStore: TypeAlias = Any
"""One of Optuna's artifact stores."""


def open_artifacts(text: str) -> ArtifactStore:
    """The store at a folder, ``s3://BUCKET/PREFIX`` or ``gs://BUCKET/PREFIX``.

    Raises:
        UsageError: if the folder cannot be created, or the package for the store or its credentials are missing.
    """
    from optuna import artifacts as stores

    parts = urlsplit(text)
    if "://" not in text:
        try:
            with files.reported(Path(text), "created"):
                Path(text).mkdir(parents=True, exist_ok=True)
        except StorageError as error:
            raise UsageError(f"{text} {error.problem}", place="--artifacts", remedy=error.remedy) from None
        return stores.FileSystemArtifactStore(text)
    kinds = {"s3": (stores.Boto3ArtifactStore, "boto3"), "gs": (stores.GCSArtifactStore, "google-cloud-storage")}
    if parts.scheme not in kinds or not parts.netloc:
        remedy = "give a folder, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX"
        raise UsageError(f"{text} is not a place for artifacts", place="--artifacts", remedy=remedy)
    kind, package = kinds[parts.scheme]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna calls one of them experimental
            opened = kind(parts.netloc)
    except ImportError:
        remedy = f"install it with: {install_command(package)}"
        raise UsageError(f"needs the package {package}, which is not installed", place=text, remedy=remedy) from None
    except Exception as error:
        remedy = "check the credentials and the region in the environment"
        raise UsageError(f"cannot be opened: {error}", place=text, remedy=remedy) from None
    prefix = parts.path.strip("/")
    return _Prefixed(opened, prefix) if prefix else opened


class _Prefixed:
    """A store whose names all begin with a prefix."""

    def __init__(self, inner: ArtifactStore, prefix: str) -> None:
        self._inner, self._prefix = inner, prefix

    def open_reader(self, name: str) -> Any:
        return self._inner.open_reader(f"{self._prefix}/{name}")

    def write(self, name: str, content: Any) -> None:
        self._inner.write(f"{self._prefix}/{name}", content)


def save_run(target: ArtifactStore, name: str, run_dir: Path) -> None:
    """Write a run directory, which no process works on, to the store as one tar file."""
    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w") as archive:
            for path in sorted(run_dir.rglob("*")):
                if path.is_file() and not path.is_symlink() and path.name != LOCK_FILE:
                    archive.add(path, arcname=path.relative_to(run_dir).as_posix(), recursive=False)
        file.seek(0)
        target.write(name, file)


def fetch_run(source: ArtifactStore, name: str, run_dir: Path, data: Any) -> None:
    """Put a run directory from the store in the place of ``run_dir``, with this machine's data section.

    Args:
        source: The store, whose contents are not trusted.
        name: As it was uploaded.
        run_dir: Replaced only when everything has been unpacked.
        data: The data section of the search's experiment on this machine, whose paths may differ.

    Raises:
        RunDirectoryError: if the file holds anything but regular files inside the directory, or too many of them.
    """
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=run_dir.parent, prefix=".tmp-") as folder:
        new = Path(folder) / run_dir.name
        new.mkdir()
        (new / CHECKPOINTS_DIR).mkdir()
        with tempfile.TemporaryFile() as file:
            with source.open_reader(name) as stream:
                _copy_bounded(stream, file, name)
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:") as archive:
                for member in _checked(archive, name):
                    archive.extract(member, new, filter="data")
        run = store.open_run(new)
        run.experiment = change_experiment(run.experiment, {"data": data.model_dump()})
        store.write_config(run)
        if run_dir.exists():
            shutil.rmtree(run_dir)
        new.rename(run_dir)


def _copy_bounded(stream: Any, file: Any, name: str) -> None:
    size = 0
    while part := stream.read(1024 * 1024):
        size += len(part)
        if size > 2 * MAX_RUN_BYTES:
            raise RunDirectoryError("is too large for a run", place=name)
        file.write(part)


def _checked(archive: tarfile.TarFile, name: str) -> Iterator[tarfile.TarInfo]:
    size = 0
    for number, member in enumerate(archive, start=1):
        path = Path(member.name)
        if not member.isreg() or path.is_absolute() or ".." in path.parts:
            raise RunDirectoryError(f"holds {member.name!r}, which is not a plain file of a run", place=name)
        size += member.size
        if size > MAX_RUN_BYTES or number > MAX_RUN_FILES:
            raise RunDirectoryError("holds more than a run", place=name)
        yield member


def num_epochs(run_dir: Path) -> int:
    """The number of epochs that the run in a directory has been trained for; 0 if there is no sound run."""
    with suppress(CnnTrainError):
        return len(store.read_metrics(store.open_run(run_dir)))
    return 0
