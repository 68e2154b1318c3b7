"""Small data sets, in a temporary folder that replaces the places where data is looked for."""

import gzip
import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cnn_trainer.data.published import PUBLISHED

_GIVEN_FOLDER = os.environ.get("CNN_TRAIN_DATA_DIR")
_SHARED_FOLDER = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty Keras cache; no other place is searched, and no request goes to a proxy."""
    monkeypatch.delenv("CNN_TRAIN_DATA_DIR", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "keras" / "datasets"


@pytest.fixture(scope="session")
def real_mnist():
    """The real mnist.npz."""
    for folder in filter(None, (_GIVEN_FOLDER, _SHARED_FOLDER)):
        if (path := Path(folder) / "mnist.npz").is_file():
            return path
    return pytest.skip("MNIST is neither in CNN_TRAIN_DATA_DIR nor in ../shared/data")


def make_arrays(num_train=24, num_test=9, num_classes=3, side=28):
    random = np.random.default_rng(7)
    return {
        "x_train": random.integers(0, 256, (num_train, side, side), np.uint8),
        "y_train": np.arange(num_train, dtype=np.uint8) % num_classes,
        "x_test": random.integers(0, 256, (num_test, side, side), np.uint8),
        "y_test": np.arange(num_test, dtype=np.uint8) % num_classes,
    }


@pytest.fixture
def small_arrays():
    """Arrays of 24 training and 9 test images of 28x28 in 3 classes."""
    return make_arrays()


def idx_bytes(array):
    sizes = b"".join(side.to_bytes(4, "big") for side in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


@pytest.fixture
def write_idx():
    """A function that writes arrays into a folder as the four idx files."""

    def write(folder, arrays, *, packed=False):
        folder.mkdir(parents=True, exist_ok=True)
        for split, prefix in ("train", "train"), ("test", "t10k"):
            for letter, kind in ("x", "images-idx3"), ("y", "labels-idx1"):
                content = idx_bytes(arrays[f"{letter}_{split}"])
                name = f"{prefix}-{kind}-ubyte"
                if packed:
                    (folder / f"{name}.gz").write_bytes(gzip.compress(content))
                else:
                    (folder / name).write_bytes(content)
        return folder

    return write


def publish(monkeypatch, source, of, **changes):
    """While the test runs, take the arrays ``of`` for the data set ``source``."""
    sums = {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in of.items()}
    sizes = {split: len(of[f"y_{split}"]) for split in ("train", "test")}
    changed = replace(PUBLISHED[source], **{"arrays": sums, "num_examples": sizes, **changes})
    monkeypatch.setitem(PUBLISHED, source, changed)


@pytest.fixture
def small_mnist(small_arrays, monkeypatch):
    """Arrays that are taken for MNIST while the test runs."""
    publish(monkeypatch, "mnist", small_arrays)
    return small_arrays


@pytest.fixture
def small_fashion(small_arrays, write_idx, tmp_path, monkeypatch):
    """A folder of four files that are taken for Fashion-MNIST while the test runs."""
    publish(monkeypatch, "fashion-mnist", small_arrays)
    return write_idx(tmp_path / "published", small_arrays, packed=True)
