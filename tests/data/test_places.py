import numpy as np
import pytest

from cnn_trainer.data import places
from cnn_trainer.data.download import no_progress
from cnn_trainer.data.published import PUBLISHED
from cnn_trainer.errors import DataError


def touch(path, content=b"content"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def data_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("CNN_TRAIN_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def offline(monkeypatch):
    def fail(*_):
        raise DataError("no network")

    monkeypatch.setattr(places, "fetch", fail)


FASHION = [
    f"{part}-ubyte.gz" for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
]


@pytest.mark.parametrize("name", ["mnist.npz", "mnist/mnist.npz"])
def test_mnist_is_found_as_a_file_in_the_data_folder_or_its_sub_folder(data_dir, name):
    path = touch(data_dir / name)
    assert places.locate("mnist")[0] == path


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "mnist/t10k-labels-idx1-ubyte.gz"])
def test_mnist_is_found_as_a_folder_of_idx_files(data_dir, name):
    path = touch(data_dir / name)
    assert places.locate("mnist")[0] == path.parent


def test_the_data_folder_comes_before_keras_cache(data_dir, cache):
    cached = touch(cache / "mnist.npz")
    assert places.locate("mnist")[0] == cached
    given = touch(data_dir / "mnist.npz")
    assert places.locate("mnist")[0] == given


def test_the_cache_is_in_the_home_folder_where_keras_home_is_not_set(tmp_path, monkeypatch):
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    path = touch(tmp_path / ".keras" / "datasets" / "mnist.npz")
    assert places.locate("mnist")[0] == path


def test_fashion_mnist_is_looked_for_in_folders_of_its_own(data_dir, cache):
    for name in FASHION:
        touch(data_dir / name)  # these would be MNIST's
    assert places.locate("fashion-mnist")[0] is None
    for name in FASHION:
        touch(cache / "fashion-mnist" / name)
    assert places.locate("fashion-mnist")[0] == cache / "fashion-mnist"
    for name in FASHION:
        touch(data_dir / "fashion-mnist" / name)
    assert places.locate("fashion-mnist")[0] == data_dir / "fashion-mnist"


def test_an_empty_variable_is_not_set(monkeypatch):
    monkeypatch.setenv("CNN_TRAIN_DATA_DIR", "")
    assert "CNN_TRAIN_DATA_DIR (not set)" in places.locate("mnist")[1]


def test_what_was_looked_at_is_told(data_dir, cache, offline):
    data_dir.mkdir()
    with pytest.raises(places.NotAvailableError) as caught:
        places.find_or_fetch("mnist", None, no_progress)
    message = str(caught.value)
    assert f"{data_dir} (nothing of it there)" in message
    assert f"{data_dir / 'mnist'} (no such folder)" in message
    assert f"{cache} (no such folder)" in message
    assert caught.value.problem.endswith("no network")


def test_unknown_home_is_one_of_the_places(monkeypatch, offline):
    monkeypatch.delenv("KERAS_HOME")

    def no_home():
        raise RuntimeError

    monkeypatch.setattr(places.Path, "home", no_home)
    with pytest.raises(places.NotAvailableError, match="no home folder known"):
        places.find_or_fetch("mnist", None, no_progress)


@pytest.mark.parametrize("source", ["mnist", "fashion-mnist"])
def test_a_given_path_is_the_only_place(tmp_path, cache, source):
    touch(cache / "mnist.npz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no such data.*correct data\.path") as caught:
        places.find_or_fetch(source, tmp_path / "empty", no_progress)
    assert not isinstance(caught.value, places.NotAvailableError)
    with pytest.raises(DataError, match="no such file or folder"):
        places.find_or_fetch(source, tmp_path / "none", no_progress)


def test_a_given_path_is_a_file_or_the_folder_of_it(tmp_path):
    path = touch(tmp_path / "mnist.npz")
    assert places.find_or_fetch("mnist", path, no_progress) == path
    assert places.find_or_fetch("mnist", tmp_path, no_progress) == path


def test_list_sources_tells_what_is_at_hand(data_dir, small_arrays):
    data_dir.mkdir()
    np.savez(data_dir / "mnist.npz", **small_arrays)
    statuses = places.list_sources()
    assert [status.source for status in statuses] == [*PUBLISHED, "mnist-5k"]
    mnist, fashion = statuses[:2]
    assert (mnist.location, mnist.problem) == (data_dir / "mnist.npz", None)
    assert fashion.location is None
    assert f"{data_dir / 'fashion-mnist'} (no such folder)" in fashion.looked_at


@pytest.mark.parametrize(("content", "problem"), [(b"", "is empty"), (b"<html></html>", "looks like a web page")])
def test_list_sources_sees_what_cannot_be_it(data_dir, content, problem):
    touch(data_dir / "mnist.npz", content)
    assert problem in str(places.list_sources()[0].problem)


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("mnist", ["MNIST/raw/train-images-idx3-ubyte"]),
        ("mnist", ["t10k-labels.idx1-ubyte.gz"]),
        ("fashion-mnist", [f"FashionMNIST/raw/{name.removesuffix('.gz')}" for name in FASHION]),
        ("fashion-mnist", [f"fashion_mnist/{name}" for name in FASHION]),
        ("fashion-mnist", [f"fashion-{name}" for name in FASHION]),
        ("kmnist", [f"KMNIST/raw/{name}" for name in FASHION]),
        ("qmnist", [f"QMNIST/raw/{name}" for name in PUBLISHED["qmnist"].files]),
        ("qmnist", list(PUBLISHED["qmnist"].files)),
        ("emnist-letters", [f"EMNIST/raw/{name}" for name in PUBLISHED["emnist-letters"].files]),
        ("emnist-letters", [f"emnist/gzip/{name}" for name in PUBLISHED["emnist-letters"].files]),
        ("emnist-digits", ["EMNIST/raw/gzip.zip"]),
    ],
)
def test_the_folders_of_others_are_known(data_dir, source, names):
    paths = [touch(data_dir / name) for name in names]
    assert places.locate(source)[0] == paths[0].parent
    assert places.find_or_fetch(source, data_dir, no_progress) == paths[0].parent


def test_of_a_folder_for_all_data_sets_each_takes_its_own(data_dir):
    for folder in "MNIST", "FashionMNIST", "KMNIST":
        for name in FASHION:
            touch(data_dir / folder / "raw" / name)
    for source, folder in ("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST"), ("kmnist", "KMNIST"):
        assert places.locate(source)[0] == data_dir / folder / "raw"
    assert places.locate("emnist-letters")[0] is None
