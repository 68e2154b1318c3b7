"""``cnn-train evaluate``: a run is scored again from its directory, and gives the same digits."""

import csv
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from support import read_json, read_metrics, settings

from cnn_trainer.evaluation.evaluate import write_evaluation
from cnn_trainer.evaluation.scores import Score
from cnn_trainer.runs import store
from cnn_trainer.storage.strict_json import changed

KINDS = {
    "documented layers": [],
    "normalised, averaged, best epoch": [
        "model.batch_normalization=true",
        "model.dropout=0.2",
        "data.validation_fraction=0.25",
        "training.ema_decay=0.8",
        "training.epochs=3",
        "training.batch_size=15",  # the last step of an epoch has fewer
    ],
    "bfloat16, towers": ["runtime.precision=bfloat16", "runtime.towers=2", "model.conv_dropout=0.1"],
    "float64, mean squared error": [
        "model={builder: mlp, hidden_units: [8], activation: tanh, batch_normalization: true}",
        "runtime.precision=float64",
        "training.loss=mean_squared_error",
    ],
}
# The parts in which two evaluations of one run may differ.
TIME = "evaluated_at"


def without_time(scores):
    return {name: value for name, value in scores.items() if name != TIME}


def write_config(folder, strokes):
    np.savez(folder / "strokes.npz", **strokes)
    (folder / "small.yaml").write_text(
        """\
name: small
data: {source: npz, path: strokes.npz}
model: {builder: cnn, filters: [4], dense_units: [8]}
training: {epochs: 2, batch_size: 16, learning_rate: 0.01}
runtime: {device: cpu}
"""
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory, strokes):
    """The folder of all runs of this module. The config is then removed, because nothing may read it again."""
    folder = tmp_path_factory.mktemp("evaluate")
    write_config(folder, strokes)
    return folder


@pytest.fixture(scope="module")
def trained(cnn_train, folder):
    """The answers of ``train``, by kind."""
    answers = {}
    for number, (kind, overrides) in enumerate(KINDS.items()):
        words = ["--name", f"kind-{number}", *settings(*overrides), "--json"]
        answers[kind] = cnn_train("train", "small.yaml", *words, cwd=folder)
        assert answers[kind].code == 0, answers[kind].err
    (folder / "small.yaml").write_text("name: [another, thing\n")
    return answers


@pytest.fixture
def plain(trained, folder):
    """The run directory of the plain network."""
    return folder / trained["documented layers"].run


@pytest.mark.parametrize("kind", KINDS)
def test_evaluate_gives_the_figures_of_train_to_the_last_digit(cnn_train, trained, folder, kind):
    told = trained[kind].json
    run_dir = folder / told["run"]
    written, predictions = read_json(run_dir / "evaluation.json"), (run_dir / "predictions.csv").read_bytes()
    again = cnn_train("evaluate", told["run"], "--json", cwd=folder)
    assert again.code == 0, again.err
    assert without_time(again.json) == without_time(written)
    assert read_json(run_dir / "evaluation.json") == again.json
    assert (run_dir / "predictions.csv").read_bytes() == predictions
    for name in ("loss", "accuracy", "accuracy_interval"):
        assert again.json[name] == told[f"test_{name}"]
    assert again.json["images_sha256"] == told["test_images_sha256"]
    assert again.json["weights_sha256"] == told["weights_sha256"]


def test_the_validation_score_is_that_of_the_best_epoch(cnn_train, trained, folder):
    answer = trained["normalised, averaged, best epoch"]
    scores = cnn_train("evaluate", answer.run, "--split", "validation", "--json", cwd=folder).json
    best = read_metrics(folder / answer.run)[answer.json["best_epoch"] - 1]
    assert (scores["split"], scores["num_examples"]) == ("validation", 48)
    assert (scores["loss"], scores["accuracy"]) == (best["validation_loss"], best["validation_accuracy"])


def test_an_epoch_before_the_last_can_be_the_result(cnn_train, strokes, tmp_path):
    """Labels without a pattern: learning the training images makes the validation loss worse."""
    write_config(tmp_path, strokes)
    random = np.random.default_rng(3)
    arrays = strokes | {"y_train": random.permutation(strokes["y_train"])}
    np.savez(tmp_path / "strokes.npz", **arrays)
    words = settings("data.validation_fraction=0.25", "training.epochs=12", "training.learning_rate=0.03")
    answer = cnn_train("train", "small.yaml", *words, "--json", cwd=tmp_path)
    losses = [epoch["validation_loss"] for epoch in read_metrics(tmp_path / answer.run)]
    best = answer.json["best_epoch"]
    assert best == 1 + losses.index(min(losses)) < 12
    for split, name in ("validation", "evaluation-validation.json"), ("test", "evaluation.json"):
        scores = cnn_train("evaluate", "latest", "--split", split, "--json", cwd=tmp_path).json
        assert scores == read_json(tmp_path / answer.run / name)
        assert scores["loss"] == (min(losses) if split == "validation" else answer.json["test_loss"])


def test_another_split_is_saved_next_to_the_test_score(cnn_train, plain):
    before = (plain / "evaluation.json").read_bytes()
    answer = cnn_train("evaluate", plain, "--split", "train", "--json")
    assert (answer.json["split"], answer.json["num_examples"]) == ("train", 192)
    assert read_json(plain / "evaluation-train.json") == answer.json
    assert len((plain / "predictions-train.csv").read_text().splitlines()) == 194
    assert (plain / "evaluation.json").read_bytes() == before
    assert "train accuracy" in answer.err


def test_a_split_that_the_run_does_not_have_is_refused(cnn_train, plain):
    answer = cnn_train("evaluate", plain, "--split", "validation")
    assert answer.code == 4
    assert answer.err == "error: there is no validation split; use the split train or test\n"


def test_a_minimum_accuracy_is_a_check(cnn_train, trained, plain):
    accuracy = trained["documented layers"].json["test_accuracy"]
    assert cnn_train("evaluate", plain, "--min-accuracy", accuracy).code == 0
    answer = cnn_train("evaluate", plain, "--min-accuracy", "1", "--json")
    assert answer.code == 7
    assert answer.json["accuracy"] == accuracy
    assert answer.err.splitlines()[-1] == (
        f"error: {plain}: the test accuracy is {accuracy:.4f}, below the required minimum 1"
    )


def test_a_run_is_found_by_path_by_name_and_as_the_latest(cnn_train, trained, plain, folder):
    newest = folder / list(trained.values())[-1].run
    for words, run_dir in (
        ((plain,), plain),
        ((plain.name, "--runs-dir", folder / "runs"), plain),
        (("latest", "--runs-dir", folder / "runs"), newest),
    ):
        answer = cnn_train("evaluate", *words, "--json")
        assert answer.code == 0, answer.err
        assert answer.json["weights_sha256"] == read_json(run_dir / "run.json")["weights_sha256"]
        assert answer.err.splitlines()[-1] == f"next: cnn-train runs show {run_dir}"


def test_another_copy_of_the_data_gives_the_same_score_which_is_not_saved(cnn_train, plain, strokes, tmp_path):
    before = {path.name: path.read_bytes() for path in plain.iterdir() if path.is_file() and path.name != ".lock"}
    moved = tmp_path / "other.npz"
    np.savez_compressed(moved, **{name: np.asfortranarray(array) for name, array in strokes.items()})
    answer = cnn_train("evaluate", plain, "--data", moved, "--json")
    assert answer.code == 0, answer.err
    assert answer.json["location"] == str(moved)
    written = read_json(plain / "evaluation.json")
    assert without_time(answer.json) | {"location": ""} == without_time(written) | {"location": ""}
    after = {path.name: path.read_bytes() for path in plain.iterdir() if path.is_file() and path.name != ".lock"}
    assert after == before


def test_other_images_have_another_digest_and_unsuitable_ones_are_refused(cnn_train, plain, strokes, tmp_path):
    other = tmp_path / "other.npz"
    np.savez(other, **(strokes | {"x_test": strokes["x_test"][::-1]}))
    answer = cnn_train("evaluate", plain, "--data", other, "--json")
    assert answer.json["images_sha256"] != read_json(plain / "evaluation.json")["images_sha256"]
    for change, words in (
        ({"x_test": strokes["x_test"][:, :10]}, "12x12x1"),
        ({"y_test": strokes["y_test"] + 1}, "label 3"),
    ):
        np.savez(other, **(strokes | change))
        answer = cnn_train("evaluate", plain, "--data", other)
        assert answer.code == 4
        assert words in answer.err
        assert len(answer.err.splitlines()) == 1


def test_images_elsewhere_on_a_wrong_scale_are_refused_and_dark_ones_warned_of(cnn_train, plain, strokes, tmp_path):
    other = tmp_path / "other.npz"
    np.savez(other, **(strokes | {"x_test": (strokes["x_test"] > 100).astype(np.uint8)}))
    answer = cnn_train("evaluate", plain, "--data", other)
    assert (answer.code, answer.out) == (4, "")
    assert re.search(r"of the \d+ test images is 1 of 255, so the scale is wrong; multiply by 255", answer.err)
    np.savez(other, **(strokes | {"x_test": strokes["x_test"] // 4}))
    answer = cnn_train("evaluate", plain, "--data", other)
    assert answer.code == 0
    dark = strokes["x_test"].max() // 4
    assert re.search(
        rf"WARNING: .*of the \d+ test images is {dark} of 255; use .* if {dark} stands for white", answer.err
    )


def test_a_run_without_a_result_cannot_be_scored_and_the_remedy_is_named(cnn_train, plain, tmp_path):
    unfinished = tmp_path / "20261124-010203-unfinished"
    shutil.copytree(plain, unfinished)
    record = read_json(unfinished / "run.json") | {"status": "interrupted", "weights_sha256": None}
    (unfinished / "run.json").write_text(json.dumps(record))
    answer = cnn_train("evaluate", unfinished)
    assert (answer.code, answer.out) == (6, "")
    assert len(answer.err.splitlines()) == 1
    assert f"is interrupted and has no result yet; next: cnn-train resume {unfinished}" in answer.err


def test_weights_that_are_not_the_result_are_refused(cnn_train, trained, plain, folder, tmp_path):
    changed = tmp_path / "20261124-010203-changed"
    shutil.copytree(plain, changed)
    content = bytearray((changed / "weights.safetensors").read_bytes())
    content[-3] ^= 1
    (changed / "weights.safetensors").write_bytes(content)
    answer = cnn_train("evaluate", changed)
    assert answer.code == 6
    assert str(changed / "weights.safetensors") in answer.err
    assert len(answer.err.splitlines()) == 1


READ_ELSEWHERE = """
import json, pathlib, sys
sys.modules["cnn_trainer"] = None  # the import of this package fails
import keras
import numpy as np
with np.load(sys.argv[1]) as arrays:
    images, labels = arrays["x_test"], arrays["y_test"]
found = {}
for name in sys.argv[2:]:
    model = keras.models.load_model(name)
    found[name] = {
        str(dtype): float((model.predict(images.astype(dtype)[..., None], verbose=0).argmax(1) == labels).mean())
        for dtype in ("uint8", "float32")
    }
    found[name]["layers"] = [type(layer).__name__ for layer in model.layers]
print(json.dumps(found))
"""


def test_the_saved_model_has_the_accuracy_in_plain_keras_fed_raw_images(trained, folder, tmp_path):
    models = {kind: folder / answer.run / "model.keras" for kind, answer in trained.items()}
    words = [sys.executable, "-I", "-c", READ_ELSEWHERE, folder / "strokes.npz", *models.values()]
    done = subprocess.run(words, cwd=tmp_path, check=True, stdout=subprocess.PIPE, text=True, timeout=120)
    found = json.loads(done.stdout.splitlines()[-1])
    for kind, path in models.items():
        accuracy = trained[kind].json["test_accuracy"]
        assert found[str(path)]["uint8"] == found[str(path)]["float32"] == accuracy, kind
    assert found[str(models["documented layers"])]["layers"] == [
        "Rescaling",
        "Conv2D",
        "MaxPooling2D",
        "Flatten",
        "Dense",
        "Dense",
    ]


def test_the_score_comes_first_then_the_matrix_the_confusions_and_every_class(cnn_train, plain):
    answer = cnn_train("evaluate", plain)
    assert (answer.code, answer.out) == (0, "")
    found = read_json(plain / "evaluation.json")
    score, calibration, matrix, misread, classes, digest = (block.splitlines() for block in answer.err.split("\n\n"))
    assert re.fullmatch(r"test accuracy \d+\.\d\d% \(95 % interval .*% to .*%\)", score[0])
    assert score[1:] == [f"loss {found['loss']:.4f}, on 96 test images of npz"]
    confidence, error = found["calibration"]["confidence"], found["calibration"]["calibration_error"]
    assert calibration[0].startswith(f"mean confidence {confidence:.2%}, accuracy {found['accuracy']:.2%}: ")
    assert calibration[1].startswith(f"expected calibration error {error['error']:.2%} (95 % interval ")
    assert len(calibration) == 2  # there is no validation split, and so no temperature
    assert matrix[1].split() == ["label", "0", "1", "2"]
    cells = [[0 if cell == "-" else int(cell) for cell in line.split()] for line in matrix[2:]]
    assert cells == [[label, *row] for label, row in enumerate(found["confusion_matrix"])]
    wrong = 96 - sum(found["confusion_matrix"][label][label] for label in range(3))
    assert misread[0] == f"misread: {wrong} of 96 test images"
    words = [f"  {each['label']} read as {each['prediction']}: {each['count']} time" for each in found["confusions"]]
    assert [line.rstrip("s") for line in misread[1:]] == words
    assert sum(each["count"] for each in found["confusions"]) == wrong > 0
    assert classes[0].split() == ["class", "examples", "precision", "recall", "F1"]
    for row, score in zip(classes[1:], found["classes"], strict=True):
        shares = [f"{score[name]:.4f}" for name in ("precision", "recall", "f1")]
        assert row.split() == [score["name"], str(score["support"]), *shares]
    assert digest == [f"images sha256 {found['images_sha256']}", f"next: cnn-train runs show {plain}"]


def test_predictions_have_the_names_of_their_classes(cnn_train, plain):
    heading, *rows = (plain / "predictions.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert heading == "index,label,prediction,probability,label_name,prediction_name"
    assert len(rows) == 96
    for row in rows:
        _, label, prediction, _, label_name, prediction_name = row.split(",")
        assert (label_name, prediction_name) == (label, prediction)


def test_names_that_csv_must_quote_are_read_back(plain):
    run = store.open_run(plain)
    names = ['a "quoted" name', "a, b", "naïve 猫"]
    run = replace(run, dir=plain.parent, record=changed(run.record, data=changed(run.record.data, class_names=names)))
    probabilities = np.array([[0.5, 0.25, 0.25], [0.125, 0.75, 0.125], [0.25, 0.75, 0]])
    score = Score(1.0, 2 / 3, np.array([0, 1, 1]), probabilities, np.log(probabilities + 1e-9))
    evaluation = changed(store.read_evaluation(plain), split="train")
    write_evaluation(run, evaluation, score, np.array([0, 1, 2]))
    with (plain.parent / "predictions-train.csv").open(encoding="utf-8", newline="") as file:
        assert file.readline() == f"# images sha256 {evaluation.images_sha256}\n"
        rows = [list(row.values()) for row in csv.DictReader(file)]
    assert rows == [
        ["0", "0", "0", "0.500000", names[0], names[0]],
        ["1", "1", "1", "0.750000", names[1], names[1]],
        ["2", "2", "1", "0.750000", names[2], names[1]],
    ]
