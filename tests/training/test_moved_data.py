"""``resume --data``: a run whose data has moved resumes bit for bit, and records where the data is now."""

import json
import shutil

import numpy as np
import pytest
from support import read_json, settings

from cnn_trainer.config.load import load_config
from cnn_trainer.errors import DataError
from cnn_trainer.evaluation.evaluate import missing_data
from cnn_trainer.runs import store


@pytest.fixture
def half(cnn_train, small_config, tmp_path):
    """The directory of a run of two epochs of four, whose data has moved, and the new place of the data."""
    answer = cnn_train("train", small_config, "--json", cwd=tmp_path)
    assert answer.code == 0, answer.err
    moved = tmp_path / "elsewhere" / "arrays.npz"
    moved.parent.mkdir()
    (tmp_path / "strokes.npz").rename(moved)
    return tmp_path / answer.run, moved


@pytest.fixture
def expected(cnn_train, small_config, half, tmp_path):
    """The digest of the weights after four uninterrupted epochs."""
    words = settings("training.epochs=4", f"data.path={half[1]}")
    answer = cnn_train("train", small_config, *words, "--runs-dir", tmp_path / "whole", "--json")
    assert answer.code == 0, answer.err
    return answer.json["weights_sha256"]


def files(run_dir):
    return {path.name: path.read_bytes() for path in run_dir.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.mark.parametrize("relative", [False, True])
def test_the_run_continues_with_the_same_bits_and_records_the_new_place(cnn_train, half, expected, relative):
    run_dir, moved = half
    words = ("--data", moved.name if relative else moved, "--json")
    answer = cnn_train("resume", run_dir, "--epochs", "4", *words, cwd=moved.parent)
    assert answer.code == 0, answer.err
    assert (answer.json["weights_sha256"], answer.json["data_location"]) == (expected, str(moved))
    assert read_json(run_dir / "run.json")["data"]["location"] == str(moved)
    assert load_config(run_dir / "config.yaml").experiment.data.path == str(moved)
    assert read_json(run_dir / "evaluation.json")["location"] == str(moved)
    for words in ("evaluate", run_dir), ("resume", run_dir, "--epochs", "5"):  # they find it without --data
        assert cnn_train(*words).code == 0


def test_without_data_the_message_names_the_option(cnn_train, half):
    run_dir, _ = half
    before = files(run_dir)
    answer = cnn_train("resume", run_dir, "--epochs", "4")
    assert answer.code == 4
    assert answer.err.endswith(f"; if the data has moved: cnn-train resume {run_dir} --data PATH\n")
    answer = cnn_train("evaluate", run_dir)
    assert answer.code == 4
    assert answer.err.endswith(f"; if the data has moved: cnn-train evaluate {run_dir} --data PATH\n")
    assert files(run_dir) == before


def test_other_data_is_refused_and_the_run_does_not_change(cnn_train, half, strokes, tmp_path):
    run_dir, moved = half
    before = files(run_dir)
    other = tmp_path / "other.npz"
    images = strokes["x_train"].copy()
    images[7, 3, 3] ^= 1
    np.savez(other, **strokes | {"x_train": images})
    missing = tmp_path / "missing.npz"
    for path, code, words in (
        (other, 6, "these are not the images that the run was trained on"),
        (missing, 4, str(missing)),
        (tmp_path / "small.yaml", 4, "small.yaml"),
    ):
        answer = cnn_train("resume", run_dir, "--epochs", "4", "--data", path)
        assert answer.code == code, answer.err
        assert words in answer.err
        assert "if the data has moved" not in answer.err
        assert files(run_dir) == before
    assert moved.exists()


def test_a_finished_run_does_not_change(cnn_train, half):
    run_dir, moved = half
    before = files(run_dir)
    answer = cnn_train("resume", run_dir, "--data", moved, "--json")
    assert (answer.code, files(run_dir)) == (0, before)
    assert "nothing to do" in answer.err
    assert answer.json["status"] == "finished"


def test_an_interrupted_run_needs_no_epochs(cnn_train, half, tmp_path):
    """Killed after its last checkpoint, before its result was written; then its data is moved."""
    run_dir, moved = half
    digest = read_json(run_dir / "run.json")["weights_sha256"]
    record = read_json(run_dir / "run.json") | {"status": "training", "weights_sha256": None}
    (run_dir / "run.json").write_text(json.dumps(record))
    (run_dir / "evaluation.json").unlink()
    answer = cnn_train("resume", run_dir, "--data", moved, "--json")
    assert answer.code == 0, answer.err
    assert (answer.json["weights_sha256"], answer.json["status"]) == (digest, "finished")


def test_data_from_a_package_takes_no_path(cnn_train, tmp_path):
    (tmp_path / "digits.yaml").write_text(
        "data: {source: mnist-5k}\nmodel: {builder: mlp, hidden_units: []}\ntraining: {epochs: 1, batch_size: 500}\n"
    )
    run_dir = tmp_path / cnn_train("train", "digits.yaml", "--json", cwd=tmp_path).run
    answer = cnn_train("resume", run_dir, "--epochs", "2", "--data", tmp_path)
    problem = "mnist-5k comes with a package and cannot be read from elsewhere"
    assert (answer.code, answer.err) == (4, f"error: {tmp_path}: {problem}\n")


def test_no_message_names_an_option_for_such_data(cnn_train, tmp_path):
    config = "data: {source: mnist-5k}\nmodel: {builder: mlp, hidden_units: []}\ntraining: {epochs: 1}\n"
    (tmp_path / "digits.yaml").write_text(config)
    run_dir = tmp_path / cnn_train("train", "digits.yaml", "--json", cwd=tmp_path).run
    record = read_json(run_dir / "run.json")
    record["data"]["location"] = "/no/such/place"
    (run_dir / "run.json").write_text(json.dumps(record))
    error = DataError("the package is not installed", place="mnist-5k", remedy="install it")
    assert missing_data(error, store.open_run(run_dir), "evaluate") is error


def test_a_run_with_a_validation_split_is_validated_on_the_same_images(cnn_train, small_config, tmp_path):
    words = settings("data.validation_fraction=0.25", "training.epochs=4")
    whole = cnn_train("train", small_config, *words, "--json", cwd=tmp_path)
    half = cnn_train("train", small_config, *words, "--set", "training.epochs=2", "--json", cwd=tmp_path)
    moved = shutil.move(tmp_path / "strokes.npz", tmp_path / "moved.npz")
    answer = cnn_train("resume", half.run, "--epochs", "4", "--data", moved, "--json", cwd=tmp_path)
    assert answer.json["weights_sha256"] == whole.json["weights_sha256"]


def test_tables_of_any_name_move_together(cnn_train, tmp_path, strokes):
    """Their paths are recorded absolute, so a run is resumed from any folder."""
    (tmp_path / "here").mkdir()
    for name, split in ("eins.csv", "train"), ("zwei.csv", "test"):
        rows = np.column_stack([strokes[f"y_{split}"], strokes[f"x_{split}"].reshape(len(strokes[f"y_{split}"]), -1)])
        np.savetxt(tmp_path / "here" / name, rows, "%d", ",")
    keys = "epochs: 1, batch_size: 12"
    (tmp_path / "tables.yaml").write_text(
        f"""data: {{source: csv, path: here/eins.csv, test_path: here/zwei.csv, label: first}}
model: {{builder: mlp, hidden_units: []}}\ntraining: {{{keys}}}\n"""
    )
    answer = cnn_train("train", "tables.yaml", "--json", cwd=tmp_path)
    assert answer.code == 0, answer.err
    run_dir = tmp_path / answer.run
    assert load_config(run_dir / "config.yaml").experiment.data.test_path == str(tmp_path / "here" / "zwei.csv")
    assert cnn_train("evaluate", run_dir, cwd="/").code == 0
    (tmp_path / "here").rename(tmp_path / "there")
    answer = cnn_train("resume", run_dir, "--epochs", "2", "--data", tmp_path / "there", "--json")
    assert answer.code == 0, answer.err
    found = load_config(run_dir / "config.yaml").experiment.data
    assert (found.path, found.test_path) == (str(tmp_path / "there/eins.csv"), str(tmp_path / "there/zwei.csv"))
    assert cnn_train("evaluate", run_dir).code == 0
