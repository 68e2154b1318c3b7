"""``cnn-train train`` as a user sees it: from a config to a run directory."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from support import read_json, read_metrics, settings

from cnn_trainer.data import Split, load_training, split_digest
from cnn_trainer.errors import DataError
from cnn_trainer.evaluation.evaluate import evaluate_result, load_result
from cnn_trainer.network.fits import load_checked
from cnn_trainer.runs import store
from cnn_trainer.storage.strict_json import changed
from cnn_trainer.training.prepare import Feedback
from cnn_trainer.training.run import resume_run, train_config

ROOT = Path(__file__).parents[2]
RUN_FILES = {
    ".lock",
    "checkpoints",
    "config.yaml",
    "evaluation.json",
    "metrics.jsonl",
    "model.keras",
    "predictions.csv",
    "probabilities.safetensors",
    "run.json",
    "weights.safetensors",
}
SCORE_FILES = {"evaluation.json", "predictions.csv", "probabilities.safetensors"}
METRICS_KEYS = [
    "epoch",
    "step",
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "learning_rate",
    "images_per_second",
    "seconds",
]
EVERYTHING_RANDOM = [
    "model.conv_dropout=0.1",
    "model.dropout=0.2",
    "data.validation_fraction=0.25",
    "training.augmentation={shift_pixels: 1, rotation_radians: 0.1, zoom: 0.1, shear: 0.1}",
    "training.ema_decay=0.9",
]


def run_dirs(folder):
    return sorted(folder.glob("runs/*")) if folder.is_dir() else []


@pytest.fixture(scope="module")
def fallback_run(cnn_train, tmp_path_factory):
    """configs/mnist.yaml without MNIST, with fewer filters and two epochs: the answer and the folder."""
    folder = tmp_path_factory.mktemp("fallback")
    overrides = settings("training.epochs=2", "model.filters=[4, 8]", "model.dense_units=[16]")
    return cnn_train("train", ROOT / "configs/mnist.yaml", *overrides, "--json", cwd=folder), folder


def test_a_run_directory_holds_the_documented_files_and_no_others(fallback_run):
    answer, folder = fallback_run
    assert answer.code == 0, answer.err
    run_dir = folder / answer.run
    assert run_dirs(folder) == [run_dir]
    assert re.fullmatch(r"\d{8}-\d{6}-mnist-cnn-mnist-5k", run_dir.name)
    assert {path.name for path in run_dir.iterdir()} == RUN_FILES
    checkpoints = sorted(path.name for path in (run_dir / "checkpoints").iterdir())
    assert checkpoints == ["step-000000032.safetensors", "step-000000064.safetensors"]


def test_the_fallback_is_announced_and_in_every_record(cnn_train, fallback_run):
    answer, folder = fallback_run
    run_dir = folder / answer.run
    assert answer.err.startswith("WARNING: mnist is not at hand; looked at: CNN_TRAIN_DATA_DIR (not set)")
    assert "\nWARNING: using the 5,000 images of mnist-5k instead of MNIST" in answer.err
    assert "on 1,000 test images of mnist-5k (the fallback: mnist was not at hand)" in answer.err
    assert (answer.json["data"], answer.json["requested_data"]) == ("mnist-5k", "mnist")
    record, scores = read_json(run_dir / "run.json"), read_json(run_dir / "evaluation.json")
    assert record["name"] == "mnist-cnn-mnist-5k"
    for part in (record["data"], scores):
        assert (part["source"], part["requested"]) == ("mnist-5k", "mnist")
    again = cnn_train("evaluate", run_dir)
    assert "mnist-5k (the fallback: mnist was not at hand)" in again.err
    assert "mnist-5k for mnist" in cnn_train("runs", "list", cwd=folder).out


def test_run_json_says_what_was_run_and_how_it_ended(fallback_run):
    answer, folder = fallback_run
    record = read_json(folder / answer.run / "run.json")
    assert (record["status"], record["error"], record["epochs_done"]) == ("finished", None, 2)
    assert (record["seed"], record["best_epoch"]) == (1, None)
    assert record["data"]["num_train"] == 4000
    assert record["data"]["image_shape"] == [28, 28, 1]
    assert record["data"]["class_names"] == list("0123456789")
    assert record["weights_sha256"] == answer.json["weights_sha256"]
    assert {"cnn-trainer", "python", "keras", "numpy"} <= record["versions"].keys()
    for time in (record["created_at"], record["updated_at"]):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", time)


def test_metrics_have_one_line_per_epoch_with_the_documented_keys(fallback_run):
    answer, folder = fallback_run
    first, second = read_metrics(folder / answer.run)
    assert list(first) == list(second) == METRICS_KEYS
    assert (first["epoch"], first["step"], second["epoch"], second["step"]) == (1, 32, 2, 64)
    assert first["validation_loss"] is first["validation_accuracy"] is None
    assert first["learning_rate"] == 0.001
    assert second["train_loss"] < first["train_loss"]
    assert second["train_accuracy"] > first["train_accuracy"] > 0.1
    assert first["images_per_second"] > 0
    assert first["seconds"] > 0


def test_predictions_and_evaluation_agree(fallback_run):
    answer, folder = fallback_run
    run_dir = folder / answer.run
    scores = read_json(run_dir / "evaluation.json")
    heading, *lines = (run_dir / "predictions.csv").read_text(encoding="utf-8").splitlines()
    assert heading == f"# images sha256 {scores['images_sha256']}"
    rows = list(csv.DictReader(lines))
    assert [int(row["index"]) for row in rows] == list(range(1000))
    matrix = np.zeros((10, 10), int)
    for row in rows:
        assert 0.1 <= float(row["probability"]) <= 1
        matrix[int(row["label"]), int(row["prediction"])] += 1
    assert matrix.tolist() == scores["confusion_matrix"]
    assert scores["accuracy"] == answer.json["test_accuracy"] == matrix.trace() / 1000
    low, high = scores["accuracy_interval"]
    assert low < scores["accuracy"] < high
    for label, score in enumerate(scores["classes"]):
        right, predicted = int(matrix[label, label]), int(matrix[:, label].sum())
        assert (score["name"], score["support"]) == (str(label), 100)
        assert score["recall"] == right / 100
        assert score["precision"] == (right / predicted if predicted else None)
        if right:
            assert score["f1"] == pytest.approx(2 * right / (100 + predicted))


def test_json_is_one_object_on_stdout_and_text_is_on_stderr(fallback_run):
    answer, _ = fallback_run
    assert answer.out.startswith("{\n")
    assert answer.out.endswith("}\n")
    assert list(answer.json) == [
        "run",
        "status",
        "data",
        "requested_data",
        "data_location",
        "epochs",
        "best_epoch",
        "train_seconds",
        "test_loss",
        "test_accuracy",
        "test_accuracy_interval",
        "test_balanced_accuracy",
        "test_examples",
        "test_images_sha256",
        "weights_sha256",
    ]
    assert (answer.json["status"], answer.json["epochs"], answer.json["test_examples"]) == ("finished", 2, 1000)
    assert f"weights sha256 {answer.json['weights_sha256']}" in answer.err


def test_piped_text_has_one_line_per_epoch_no_control_codes_and_ends_with_the_next_command(cnn_train, fallback_run):
    answer, folder = fallback_run
    assert not re.search(r"[^\n -~]", answer.err)
    epochs = [line for line in answer.err.splitlines() if line.startswith("epoch ")]
    assert [line.split()[1] for line in epochs] == ["1/2", "2/2"]
    for line in epochs:
        assert re.fullmatch(r"epoch ./2  loss \d\.\d{4}  accuracy \d+\.\d\d%  [\d,]+ images/s  \d+\.\d s", line)
    last = answer.err.splitlines()[-1]
    assert last == f"next: cnn-train evaluate {answer.run}"
    assert cnn_train(*last.removeprefix("next: cnn-train ").split(), cwd=folder).code == 0


def test_the_config_of_a_run_repeats_it_to_the_bit(cnn_train, small_config, tmp_path):
    first = cnn_train("train", small_config, *settings(*EVERYTHING_RANDOM), "--json", cwd=tmp_path)
    assert first.code == 0, first.err
    small_config.unlink()
    second = cnn_train("train", first.run / "config.yaml", "--json", cwd=tmp_path)
    other = cnn_train("train", first.run / "config.yaml", "--set", "seed=2", "--json", cwd=tmp_path)
    assert second.json["weights_sha256"] == first.json["weights_sha256"] != other.json["weights_sha256"]
    assert second.json["test_loss"] == first.json["test_loss"]
    for name in ("predictions.csv", "probabilities.safetensors", "weights.safetensors"):
        assert (tmp_path / first.run / name).read_bytes() == (tmp_path / second.run / name).read_bytes()
    configs = [yaml.safe_load((tmp_path / answer.run / "config.yaml").read_text()) for answer in (first, second)]
    assert configs[0] == configs[1]
    metrics = [read_metrics(tmp_path / answer.run) for answer in (first, second)]
    for one, two in zip(*metrics, strict=True):
        assert [one[key] for key in METRICS_KEYS[:7]] == [two[key] for key in METRICS_KEYS[:7]]


def test_quiet_says_nothing_if_all_goes_well(cnn_train, small_config, tmp_path):
    answer = cnn_train("train", small_config, "--quiet", "--set", "training.epochs=1", cwd=tmp_path)
    assert (answer.code, answer.out, answer.err) == (0, "", "")
    assert len(run_dirs(tmp_path)) == 1
    answer = cnn_train("train", small_config, "--quiet", "--json", "--dry-run", cwd=tmp_path)
    assert (answer.code, answer.err) == (0, "")
    assert answer.json["name"] == "small"


def test_quiet_does_not_hide_that_other_data_is_used(cnn_train, tmp_path):
    words = settings("model.filters=[1]", "model.dense_units=[]", "training.epochs=1", "training.batch_size=4000")
    answer = cnn_train("train", ROOT / "configs/mnist.yaml", *words, "--quiet", "--dry-run", cwd=tmp_path)
    assert answer.code == 0
    assert [line.split()[0] for line in answer.err.splitlines()] == ["WARNING:", "WARNING:"]


def test_a_dry_run_shows_the_layers_and_writes_nothing(cnn_train, tmp_path):
    words = settings("data={source: mnist-5k}")
    answer = cnn_train("train", ROOT / "configs/mnist.yaml", *words, "--dry-run", "--json", cwd=tmp_path)
    assert answer.code == 0, answer.err
    assert "model: cnn, 121,930 parameters" in answer.err
    rows = [line.split() for line in answer.err.splitlines()]
    for row in (
        ["scale", "Rescaling", "28x28x1", "0"],
        ["conv_1", "Conv2D", "26x26x32", "320"],
        ["pool_1", "MaxPooling2D", "13x13x32", "0"],
        ["conv_2", "Conv2D", "11x11x64", "18,496"],
        ["pool_2", "MaxPooling2D", "5x5x64", "0"],
        ["flatten", "Flatten", "1600", "0"],
        ["dense_1", "Dense", "64", "102,464"],
        ["probabilities", "Dense", "10", "650"],
    ):
        assert row in rows
    assert answer.json["training"]["epochs"] == 10
    assert answer.err.splitlines()[-1].endswith("--set 'data={source: mnist-5k}'")
    assert list(tmp_path.iterdir()) == []


def test_a_runs_directory_that_cannot_be_written_is_refused_before_tensorflow_starts(small_config, tmp_path):
    if os.geteuid() == 0 and os.access("/proc", os.W_OK):
        place = tmp_path / "file"  # root may write anywhere
        place.write_text("")
    else:
        place = tmp_path / "closed"
        place.mkdir(mode=0o500)
    words = [sys.executable, "-X", "importtime", "-m", "cnn_trainer", "train", str(small_config), "--runs-dir"]
    done = subprocess.run([*words, str(place / "runs")], capture_output=True, text=True, check=False)
    assert done.returncode == 6
    assert "choose another folder with --runs-dir" in done.stderr
    assert " tensorflow\n" not in done.stderr


def test_name_device_and_runs_dir_override_the_config(cnn_train, small_config, tmp_path):
    words = ["--name", "my-run.2", "--device", "cpu", "--runs-dir", tmp_path / "with a space", "--json"]
    answer = cnn_train("train", small_config, *words, "--set", "training.epochs=1", cwd=tmp_path)
    assert answer.code == 0, answer.err
    assert answer.run.parent == tmp_path / "with a space"
    assert answer.run.name.endswith("-my-run.2")
    assert answer.err.splitlines()[-1] == f"next: cnn-train evaluate '{answer.run}'"
    assert "device: cpu (runtime.device is cpu)" in answer.err
    answer = cnn_train("runs", "list", "--json", env={"CNN_TRAIN_RUNS_DIR": str(tmp_path / "with a space")})
    assert [run["name"] for run in answer.json["runs"]] == [
        answer_dir.name for answer_dir in (tmp_path / "with a space").iterdir()
    ]


def test_a_small_network_learns_digits(cnn_train, tmp_path):
    """A fixed recipe with which plain Keras reaches about 0.95; a wrong gradient does not get there."""
    (tmp_path / "digits.yaml").write_text(
        """\
data: {source: mnist-5k}
model: {builder: cnn, filters: [8, 16], dense_units: [32]}
training: {epochs: 5, batch_size: 64, learning_rate: 0.003}
"""
    )
    answer = cnn_train("train", "digits.yaml", "--json", cwd=tmp_path)
    assert answer.code == 0, answer.err
    assert answer.json["test_accuracy"] > 0.93
    assert answer.json["test_loss"] < 0.25


OPTIONS = {
    "sgd, sigmoid, mean squared error": [
        "model={builder: mlp, hidden_units: [16], activation: sigmoid}",
        "training={epochs: 20, batch_size: 8, loss: mean_squared_error, optimizer: sgd, learning_rate: 2.0}",
    ],
    "momentum, tanh, step": [
        "model.activation=tanh",
        "training.optimizer=momentum",
        "training.momentum=0.8",
        "training.schedule={name: step, epochs: 4, factor: 0.5, warmup_epochs: 0.5}",
        "training.learning_rate=0.03",
        "training.epochs=10",
    ],
    "nesterov, gelu, same padding, exponential": [
        "model.filters=[4, 8]",
        "model.kernel_size=[3, 2]",
        "model.pool_size=[2, 1]",
        "model.padding=same",
        "model.activation=gelu",
        "training.optimizer=nesterov",
        "training.schedule={name: exponential, factor: 0.9}",
        "training.learning_rate=0.05",
        "training.epochs=8",
    ],
    "rmsprop, silu, cosine, clipping, smoothing": [
        "model.activation=silu",
        "training.optimizer=rmsprop",
        "training.schedule={name: cosine, final_fraction: 0.1, warmup_epochs: 1}",
        "training.gradient_clip_norm=1.0",
        "training.label_smoothing=0.1",
        "training.epochs=4",
    ],
    "adam, batch normalisation, penalties, one-cycle": [
        "model.batch_normalization=true",
        "model.l1=0.0001",
        "model.l2=0.001",
        "training.schedule={name: one-cycle}",
        "training.epochs=4",
    ],
    "adamw, linear, dropout, augmentation, average, bfloat16": [
        "model.activation=linear",
        "model.conv_dropout=0.1",
        "model.dropout=0.1",
        "training.optimizer=adamw",
        "training.weight_decay=0.01",
        "training.ema_decay=0.5",
        "training.augmentation={shift_pixels: 1, rotation_radians: 0.05, zoom: 0.05, shear: 0.05}",
        "runtime.precision=bfloat16",
        "runtime.towers=2",
        "training.epochs=4",
    ],
    "mlp of two layers, normalised, float64": [
        "model={builder: mlp, hidden_units: [16, 8], batch_normalization: true, dropout: [0.1, 0.0], l2: 0.0001}",
        "runtime.precision=float64",
        "training.epochs=6",
    ],
    "early stopping, auto": [
        "data.validation_fraction=0.25",
        "training.early_stopping={patience: 4, min_delta: 100.0}",
        "runtime.device=auto",
        "training.epochs=50",
        "training.learning_rate=0.03",
    ],
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_trains_better_than_chance(cnn_train, small_config, tmp_path, name):
    answer = cnn_train("train", small_config, *settings(*OPTIONS[name]), "--json", cwd=tmp_path)
    assert answer.code == 0, answer.err
    metrics = read_metrics(tmp_path / answer.run)
    assert metrics[-1]["train_loss"] < metrics[0]["train_loss"]
    assert answer.json["test_accuracy"] > 0.6  # chance is 1/3, with a standard deviation of 0.05


def test_every_choice_of_an_option_is_trained(cnn_train):
    schema = cnn_train("config", "schema").json
    trained = " ".join(" ".join(overrides) for overrides in OPTIONS.values()) + " relu adam cross_entropy constant cnn"
    definitions = schema["$defs"]
    choices = [definitions["Training"]["properties"][name]["enum"] for name in ("loss", "optimizer")]
    choices += [definitions["Cnn"]["properties"][name]["enum"] for name in ("activation", "padding")]
    choices += [definitions["Runtime"]["properties"]["precision"]["enum"]]
    choices += [
        [definitions[name]["properties"]["name"]["const"]] for name in ("Step", "Exponential", "Cosine", "OneCycle")
    ]
    left = {choice for some in choices for choice in some if choice not in trained}
    assert left <= {"valid", "float32"}  # the defaults


def test_early_stopping_ends_training_and_the_best_epoch_is_the_result(cnn_train, small_config, tmp_path):
    words = settings("data.validation_fraction=0.25", "training.early_stopping={patience: 2, min_delta: 100.0}")
    answer = cnn_train("train", small_config, *words, "--set", "training.epochs=9", "--json", cwd=tmp_path)
    assert answer.code == 0, answer.err
    metrics = read_metrics(tmp_path / answer.run)
    assert [epoch["epoch"] for epoch in metrics] == [1, 2, 3]  # the first is the lowest, and the patience is two more
    losses = [epoch["validation_loss"] for epoch in metrics]
    assert answer.json["best_epoch"] == 1 + losses.index(min(losses))
    assert f"result of epoch {answer.json['best_epoch']} (lowest validation loss)" in answer.err
    assert read_json(tmp_path / answer.run / "run.json")["data"]["num_validation"] == 48


def test_diverged_training_stops_with_its_own_exit_code(cnn_train, small_config, tmp_path):
    words = settings("training.optimizer=sgd", "training.learning_rate=1000", "model.activation=linear")
    answer = cnn_train("train", small_config, *words, "--json", cwd=tmp_path)
    assert (answer.code, answer.out) == (8, "")
    last = answer.err.splitlines()[-1]
    assert re.match(
        r"error: the training loss became infinite or NaN between steps \d+ and \d+ of epoch \d+; lower", last
    )
    assert "Traceback" not in answer.err
    (run_dir,) = run_dirs(tmp_path)
    record = read_json(run_dir / "run.json")
    assert record["status"] == "diverged"
    assert f"error: {record['error']}" == last
    assert not (run_dir / "evaluation.json").exists()
    for word in ("evaluate", "resume"):
        answer = cnn_train(word, run_dir)
        assert answer.code == 6
        assert "diverged" in answer.err


def test_a_last_step_that_ruins_the_weights_gives_no_result(cnn_train, small_config, tmp_path):
    """The loss of each of the three steps is finite; only the evaluation sees the effect of the third."""
    words = settings("training.optimizer=sgd", "training.learning_rate=1000", "model.activation=linear")
    words += settings("training.batch_size=64", "training.epochs=1")
    answer = cnn_train("train", small_config, *words, "--json", cwd=tmp_path)
    assert (answer.code, answer.out) == (8, "")
    assert answer.err.splitlines()[-1].startswith("error: the test loss is not a finite number; lower")
    (run_dir,) = run_dirs(tmp_path)
    assert read_json(run_dir / "run.json")["status"] == "diverged"
    assert cnn_train("evaluate", run_dir).code == 8


THREADS = {"runtime.towers": 2, "runtime.intra_op_threads": 1, "runtime.inter_op_threads": 2}  # as this process has


@pytest.mark.parametrize("word", ["--dry-run", "--json"])
def test_a_broken_test_split_is_found_before_the_first_step(cnn_train, small_config, strokes, tmp_path, word):
    path = tmp_path / "strokes.npz"
    np.savez(path, **{**strokes, "x_test": strokes["x_test"] / 255 - 0.5})
    answer = cnn_train("train", small_config, word, cwd=tmp_path)
    assert (answer.code, answer.out) == (4, "")
    (line,) = answer.err.splitlines()
    assert line.startswith(f"error: {path}: x_test: the pixels are float64 from -0.5 to 0.4")
    assert run_dirs(tmp_path) == []


def test_the_test_split_does_not_affect_training(cnn_train, small_config, strokes, tmp_path):
    words = ["--set", "data.validation_fraction=0.25", "--json"]
    answers = []
    for images in strokes["x_test"], strokes["x_test"][::-1] // 2:
        np.savez(tmp_path / "strokes.npz", **{**strokes, "x_test": images})
        answers.append(cnn_train("train", small_config, *words, cwd=tmp_path).json)
    first, second = answers
    assert first["weights_sha256"] == second["weights_sha256"]
    assert first["test_images_sha256"] != second["test_images_sha256"]


def test_a_test_split_that_breaks_while_a_run_trains_leaves_the_result(small_config, strokes, tmp_path, cnn_train):
    path = tmp_path / "strokes.npz"
    broken = {**strokes, "x_test": "broken", "y_test": "broken"}
    feedback = Feedback(created=lambda _: np.savez(path, **broken))
    with pytest.raises(DataError) as caught:
        train_config(load_checked(small_config, THREADS), tmp_path / "runs", feedback)
    (run_dir,) = run_dirs(tmp_path)
    assert caught.value.place == f"{path}: x_test"
    assert caught.value.remedy.endswith(
        f"the run keeps its result; once the data is repaired, score it with: cnn-train resume {run_dir}"
    )
    record = read_json(run_dir / "run.json")
    assert (record["status"], record["epochs_done"]) == ("failed", 2)
    digest = record["weights_sha256"]
    assert {path.name for path in run_dir.iterdir()} == RUN_FILES - SCORE_FILES

    np.savez(path, **strokes)
    scores = cnn_train("evaluate", run_dir, "--json")
    assert (scores.code, scores.json["weights_sha256"]) == (0, digest)
    resumed = cnn_train("resume", run_dir, "--json")
    assert resumed.code == 0, resumed.err
    assert resumed.json["status"] == "finished"
    assert (resumed.json["weights_sha256"], resumed.json["test_loss"]) == (digest, scores.json["loss"])


def with_own_validation(strokes):
    """The arrays, with the last 20 training examples as a separate validation split."""
    parts = {name: (strokes[name][:-20], strokes[name][-20:]) for name in ("x_train", "y_train")}
    own = {"x_val": parts["x_train"][1], "y_val": parts["y_train"][1]}
    return {**strokes, **{name: part[0] for name, part in parts.items()}, **own}


def test_the_sources_own_validation_split_determines_the_result(cnn_train, small_config, strokes, tmp_path):
    path = tmp_path / "strokes.npz"
    arrays = with_own_validation(strokes)
    np.savez(path, **arrays)
    words = settings("training.early_stopping={patience: 1, min_delta: 100.0}", "training.epochs=5")
    trained = cnn_train("train", small_config, *words, "--json", cwd=tmp_path)
    assert trained.code == 0, trained.err
    assert f"from {path}, which has its own validation split" in trained.err
    run = tmp_path / trained.run
    assert [line["epoch"] for line in read_metrics(run)] == [1, 2]  # early stopping after one epoch of patience
    record = read_json(run / "run.json")
    data = record["data"]
    assert (data["num_train"], data["num_validation"]) == (len(arrays["y_train"]), 20)
    assert data["validation_from"] == "own"
    losses = [line["validation_loss"] for line in read_metrics(run)]
    assert record["best_epoch"] == losses.index(min(losses)) + 1
    scored = cnn_train("evaluate", run, "--split", "validation", "--json").json
    assert (scored["num_examples"], scored["images_sha256"]) == (20, data["validation_sha256"])
    assert scored["loss"] == pytest.approx(min(losses), rel=1e-6)
    assert cnn_train("evaluate", run, "--split", "train", "--json").json["images_sha256"] == data["train_sha256"]
    asked = cnn_train("train", small_config, *words, *settings("data.validation_fraction=0.25"), "--json", cwd=tmp_path)
    assert f"data.validation_fraction is not used: {path} has its own validation split of 20 images" in asked.err
    assert asked.json["weights_sha256"] == trained.json["weights_sha256"]
    repeated = cnn_train("train", tmp_path / asked.run / "config.yaml", "--json", cwd=tmp_path)
    assert "WARNING" not in repeated.err
    assert repeated.json["weights_sha256"] == trained.json["weights_sha256"]

    for other, problem in (
        ({**arrays, "x_val": arrays["x_val"][::-1]}, "not the images that the run was validated on"),
        ({name: array for name, array in arrays.items() if "val" not in name}, "no longer has a validation split"),
    ):
        np.savez(path, **other)
        resumed = cnn_train("resume", run, "--epochs", "6", cwd=tmp_path)
        assert resumed.code in (4, 6)
        assert problem in resumed.err.splitlines()[-1]


def test_settings_that_need_a_validation_split_say_so_if_there_is_none(cnn_train, small_config, tmp_path):
    words = settings("training.early_stopping={patience: 1}", "training.schedule={name: plateau}")
    answer = cnn_train("train", small_config, *words, cwd=tmp_path)
    assert answer.code == 3
    assert "training.early_stopping: needs a validation split; set data.validation_fraction" in answer.err
    assert "training.schedule: plateau needs a validation split; set data.validation_fraction" in answer.err
    assert run_dirs(tmp_path) == []


def as_before(run):
    """Write the run's record as in versions without validation splits in sources or a recorded pixel scale."""
    record = read_json(run / "run.json")
    for name in ("validation_from", "validation_sha256", "pixel_dtype", "white"):
        del record["data"][name]
    (run / "run.json").write_text(json.dumps(record))


@pytest.mark.parametrize("fraction", [0.0, 0.25])
def test_a_run_of_an_earlier_version_resumes_with_its_validation_split(
    cnn_train, small_config, strokes, tmp_path, fraction
):
    words = ["--set", f"data.validation_fraction={fraction}", "--json"]
    run = tmp_path / cnn_train("train", small_config, *words, cwd=tmp_path).run
    whole = cnn_train("train", small_config, *words, "--set", "training.epochs=3", cwd=tmp_path).json
    as_before(run)
    own = {"x_val": strokes["x_test"], "y_val": strokes["y_test"]}
    np.savez(tmp_path / "strokes.npz", **strokes, **own)  # it was skipped
    scored = cnn_train("evaluate", run, "--split", "validation")
    assert scored.code == (0 if fraction else 4)
    resumed = cnn_train("resume", run, "--epochs", "3", "--json")
    assert resumed.code == 0, resumed.err
    assert resumed.json["weights_sha256"] == whole["weights_sha256"]


def test_a_run_of_an_earlier_version_with_wrongly_scaled_pixels_is_still_scored_and_resumed(
    cnn_train, small_config, strokes, tmp_path
):
    run = tmp_path / cnn_train("train", small_config, "--json", cwd=tmp_path).run
    dark = {name: array // 16 if name[0] == "x" else array for name, array in strokes.items()}
    np.savez(tmp_path / "strokes.npz", **dark)
    refused = cnn_train("train", small_config, cwd=tmp_path)
    assert refused.code == 4
    assert "the brightest pixel" in refused.err
    as_before(run)
    record = read_json(run / "run.json")
    whole = Split(dark["x_train"][..., None], dark["y_train"].astype(np.int32))
    record["data"]["train_sha256"] = split_digest(whole)
    (run / "run.json").write_text(json.dumps(record))
    assert cnn_train("evaluate", run).code == 0
    assert cnn_train("resume", run, "--epochs", "3").code == 0


def test_a_run_from_before_keeps_the_order_of_its_classes(cnn_train, tmp_path):
    """Its classes 10 and 2 were sorted by code point; a new run sorts them as numbers."""
    random = np.random.default_rng(3)
    for name in ("2", "10"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(8):
            pixels = random.integers(0, 256, (8, 8), np.uint8) // (1 if name == "2" else 4)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{number}.png")
    config = tmp_path / "pictures.yaml"
    config.write_text(
        "data: {source: folder, path: pictures, image_size: 8}\nmodel: {builder: mlp, hidden_units: [4]}\n"
        "training: {epochs: 2, batch_size: 4}\n"
    )
    new = tmp_path / cnn_train("train", config, "--json", cwd=tmp_path).run
    assert read_json(new / "run.json")["data"]["class_names"] == ["2", "10"]

    opened = store.open_run(new)
    known = changed(opened.record.data, class_names=["10", "2"])
    was = load_training(opened.experiment.data, 1, print, trained_on=known).record
    assert was.train_sha256 != known.train_sha256
    old = tmp_path / "runs" / "20250101-000000-old"
    shutil.copytree(new, old)
    record = read_json(old / "run.json")
    record["data"] |= {"class_names": ["10", "2"], "train_sha256": was.train_sha256}
    (old / "run.json").write_text(json.dumps(record))
    as_before(old)
    scores = [cnn_train("evaluate", run, "--json").json for run in (new, old)]
    assert [[one["name"] for one in score["classes"]] for score in scores] == [["2", "10"], ["10", "2"]]
    resumed = cnn_train("resume", old, "--epochs", "3")
    assert resumed.code == 0, resumed.err
    assert read_json(old / "run.json")["data"]["class_names"] == ["10", "2"]


def test_all_broken_pictures_are_named_before_training(cnn_train, tmp_path):
    """Whichever split they fall into."""
    for name in ("ant", "bee"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(10):
            Image.new("L", (8, 8), 100 + 10 * number).save(tmp_path / "pictures" / name / f"{number}.png")
    broken = [tmp_path / "pictures" / name for name in ("ant/1.png", "ant/4.png", "bee/0.png", "bee/7.png")]
    for path in broken:
        path.write_bytes(path.read_bytes()[:50])
    config = tmp_path / "pictures.yaml"
    config.write_text("data: {source: folder, path: pictures, image_size: 8}\nmodel: {builder: mlp}\n")
    for seed in range(3):
        for words in (["train", config, "--dry-run"], ["train", config], ["data", "check", config]):
            answer = cnn_train(*words, "--set", f"seed={seed}", cwd=tmp_path)
            assert answer.code == 4
            assert [line.split(": ")[1] for line in answer.err.splitlines()] == list(map(str, broken))
    assert run_dirs(tmp_path) == []


@pytest.fixture
def real_mnist():
    for folder in (os.environ.get("CNN_TRAIN_DATA_DIR"), ROOT.parent / "shared/data"):
        if folder and Path(folder, "mnist.npz").is_file():
            return str(folder)
    return pytest.skip("MNIST is neither in CNN_TRAIN_DATA_DIR nor in ../shared/data")


def test_the_full_mnist_is_used_if_its_folder_is_named(cnn_train, real_mnist, tmp_path):
    words = settings("training.epochs=1", "model.filters=[2]", "model.pool_size=4", "model.dense_units=[]")
    answer = cnn_train(
        "train", ROOT / "configs/mnist.yaml", *words, "--json", cwd=tmp_path, env={"CNN_TRAIN_DATA_DIR": real_mnist}
    )
    assert answer.code == 0, answer.err
    assert "WARNING" not in answer.err
    assert (answer.json["data"], answer.json["requested_data"]) == ("mnist", "mnist")
    assert answer.json["test_examples"] == 10_000
    assert answer.json["test_accuracy"] > 0.6
    record = read_json(tmp_path / answer.run / "run.json")
    assert (record["name"], record["data"]["num_train"]) == ("mnist-cnn", 60_000)


def test_without_a_fallback_missing_data_is_an_error_with_the_remedy(cnn_train, tmp_path):
    words = ["--set", "data={source: mnist}"]
    answer = cnn_train("train", ROOT / "configs/mnist.yaml", *words, cwd=tmp_path)
    assert (answer.code, answer.out) == (4, "")
    assert len(answer.err.splitlines()) == 1
    for remedy in ("cnn-train data fetch mnist", "CNN_TRAIN_DATA_DIR", "data.fallback: mnist-5k"):
        assert remedy in answer.err
    assert list(tmp_path.iterdir()) == []


def test_a_missing_gpu_is_refused_before_anything_is_written(cnn_train, small_config, tmp_path):
    before = set(tmp_path.iterdir())
    answer = cnn_train("train", small_config, "--device", "gpu", cwd=tmp_path, env={"CUDA_VISIBLE_DEVICES": "-1"})
    assert answer.code == 5
    assert re.fullmatch(r"error: runtime.device is gpu, but TensorFlow finds none; .*--device auto\n", answer.err)
    assert set(tmp_path.iterdir()) == before


def started_anew(tmp_path, config, level):
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    words = [sys.executable, "-m", "cnn_trainer", "train", config, "--dry-run"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    done = subprocess.run(words, cwd=tmp_path, env=environment | level, check=True, timeout=120, **pipes)
    assert done.stdout == ""
    return done.stderr


def test_tensorflow_starts_silently(small_config, tmp_path):
    lines = started_anew(tmp_path, small_config, {}).splitlines()
    assert lines[0].startswith("experiment: small")
    assert lines[-1].startswith("next: cnn-train train")
    assert not [line for line in lines if re.search(r"TensorFlow binary|oneDNN|absl|[IWE]0000|cuda", line)]


def test_tensorflow_messages_are_shown_on_request(small_config, tmp_path):
    assert "TensorFlow binary" in started_anew(tmp_path, small_config, {"TF_CPP_MIN_LOG_LEVEL": "0"})


@pytest.mark.parametrize(
    ("epochs", "words"),
    [
        ("200000", "training.epochs: got 200000; must be at most 100000"),
        ("0", "Invalid value for '--epochs'"),
    ],
)
def test_epochs_that_the_config_cannot_have_are_refused_and_the_run_does_not_change(
    cnn_train, small_config, tmp_path, epochs, words
):
    run = tmp_path / cnn_train("train", small_config, "--json", cwd=tmp_path).run
    before = {path.name: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    answer = cnn_train("resume", run, "--epochs", epochs, cwd=tmp_path)
    assert answer.code in (2, 3)
    assert words in answer.err
    assert {
        path.name: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"
    } == before
    assert cnn_train("resume", run, "--epochs", "3", cwd=tmp_path).code == 0


def test_a_run_can_be_trained_without_opening_the_test_split(small_config, strokes, tmp_path):
    """No test image is readable. Scoring the run later says so, and repairs nothing by itself."""
    np.savez(tmp_path / "strokes.npz", **{**strokes, "x_test": "broken", "y_test": "broken"})
    outcome = train_config(load_checked(small_config, THREADS), tmp_path / "runs", evaluate=False)
    assert (outcome.status, outcome.test_accuracy, outcome.test_images_sha256) == ("trained", None, None)
    run = store.open_run(Path(outcome.run))
    with pytest.raises(DataError):
        evaluate_result(run, load_result(run))
    np.savez(tmp_path / "strokes.npz", **strokes)
    assert resume_run(run, evaluate=False).status == "trained"
    assert resume_run(run).status == "finished"
