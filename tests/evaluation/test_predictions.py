"""probabilities.safetensors: what is written with a score, is read back for that score only."""

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support import read_json

from cnn_trainer.errors import RunDirectoryError
from cnn_trainer.evaluation.evaluate import write_evaluation
from cnn_trainer.evaluation.predictions import Predictions, encode_predictions, read_predictions, rounded, worst_first
from cnn_trainer.evaluation.scores import log_softmax, score_logits
from cnn_trainer.runs import store
from cnn_trainer.storage import files
from cnn_trainer.storage.strict_json import changed
from cnn_trainer.training.library import TrainedRun

FILE = "probabilities.safetensors"


def read(run_dir, split="test"):
    return read_predictions(run_dir, store.read_evaluation(run_dir, split))


def refused(run_dir, split="test"):
    with pytest.raises(RunDirectoryError) as caught:
        read(run_dir, split)
    assert caught.value.remedy.startswith(f"score the run again: cnn-train evaluate {run_dir}")
    return str(caught.value)


def test_every_row_is_the_model_s_answer_to_the_image_of_that_index(finished_run, strokes):
    """Images, labels and probabilities are in one order: each image is predicted again, alone."""
    found, run = read(finished_run), TrainedRun(finished_run)
    assert found.labels.tolist() == strokes["y_test"].tolist()
    assert found.images_sha256 == store.read_evaluation(finished_run).images_sha256
    for index in (0, 1, 40, 95):
        alone = run.predict(strokes["x_test"][index : index + 1])
        assert found.probabilities[index] == pytest.approx(alone[0], abs=1e-6)
    in_csv = np.genfromtxt(finished_run / "predictions.csv", delimiter=",", skip_header=2)
    assert found.predictions.tolist() == in_csv[:, 2].tolist()
    assert found.probabilities.max(axis=1) == pytest.approx(in_csv[:, 3], abs=1e-6)


def test_the_image_with_a_wrong_label_is_the_worst(run_copy, strokes, tmp_path):
    """The image that the run is most sure of gets another label, and the run is scored again."""
    before = read(run_copy)
    known = int(before.probabilities.max(axis=1).argmax())
    labels = strokes["y_test"].copy()
    labels[known] = (labels[known] + 1) % 3
    np.savez(tmp_path / "strokes.npz", **strokes | {"y_test": labels})
    config = run_copy / "config.yaml"
    path = read_json(run_copy / "run.json")["data"]["location"]
    config.write_text(config.read_text().replace(path, str(tmp_path / "strokes.npz")))
    TrainedRun(run_copy).evaluate()
    after = read(run_copy)
    assert worst_first(after)[0] == known
    assert (after.probabilities == before.probabilities).all()
    assert after.images_sha256 != before.images_sha256
    assert worst_first(after).tolist()[1:] == [index for index in worst_first(before) if index != known]


def test_the_worst_come_first_and_equal_losses_in_the_order_of_the_split():
    probabilities = np.float32([[0.5, 0.5], [1, 0], [0.25, 0.75], [0, 1], [0.5, 0.5], [1, 0]])
    found = worst_first(Predictions(np.int32([0, 1, 0, 1, 1, 1]), probabilities, ""))
    assert found.tolist() == [1, 5, 2, 0, 4, 3]


def test_wrong_labels_are_among_the_worst_losses():
    """Every hundredth of 2,500 labels is changed; of the changed ones, 97 % are among the first 1.3 % of all."""
    with np.load(Path(__file__).parent / "logits.npz") as arrays:
        score = score_logits(arrays["quarters"] / 4, arrays["labels"], "cross_entropy")
        labels = arrays["labels"].astype(np.int32)
    assert score.accuracy > 0.99
    probabilities = rounded(score.probabilities, score.predictions)
    num_found = 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        flipped = random.choice(2_500, 25, replace=False)
        given = labels.copy()
        given[flipped] = (given[flipped] + random.integers(1, 10, 25)) % 10
        num_found += np.isin(flipped, worst_first(Predictions(given, probabilities, ""))[:32]).sum()
    assert num_found >= 0.97 * 40 * 25


def test_rounding_to_float32_does_not_change_the_prediction():
    close = np.array([[0.3, 0.35, 0.35 + 1e-12], [0.2, 0.5, 0.3], [0.4 + 1e-12, 0.4, 0.2], [1e-60, 1 - 1e-15, 0]])
    found = rounded(close, close.argmax(axis=1))
    assert found.dtype == np.float32
    assert found.argmax(axis=1).tolist() == [2, 1, 0, 1]
    assert found == pytest.approx(close, abs=1e-7)
    logits = np.random.default_rng(1).standard_normal((5_000, 10)) * 1e-8
    logits = logits.astype(np.float32)
    probabilities = np.exp(log_softmax(logits))
    assert (probabilities.astype(np.float32).argmax(axis=1) != logits.argmax(axis=1)).any()
    assert (rounded(probabilities, logits.argmax(axis=1)).argmax(axis=1) == logits.argmax(axis=1)).all()


def test_a_flipped_bit_is_found(run_copy):
    content = bytearray((run_copy / FILE).read_bytes())
    for place in (3, 200, len(content) // 2, len(content) - 1):
        damaged = content.copy()
        damaged[place] ^= 1
        (run_copy / FILE).write_bytes(damaged)
        assert "does not belong to the run's score, or is damaged" in refused(run_copy)
    (run_copy / FILE).write_bytes(content)
    read(run_copy)


def test_a_missing_file_and_another_file_are_refused(run_copy):
    other = replace(read(run_copy), images_sha256="0" * 64)
    (run_copy / FILE).write_bytes(encode_predictions(other))
    assert "does not belong to the run's score" in refused(run_copy)
    (run_copy / FILE).unlink()
    assert f"{run_copy}/{FILE}: cannot be read: No such file" in refused(run_copy)


@pytest.mark.parametrize(
    "change",
    [
        {"labels": np.full(96, 3, np.int32)},
        {"labels": np.full(96, -1, np.int32)},
        {"labels": np.zeros(95, np.int32)},
        {"probabilities": np.full((96, 3), np.nan, np.float32)},
        {"probabilities": np.full((96, 3), -1, np.float32)},
        {"probabilities": np.full((96, 4), 0.25, np.float32)},
        {"images_sha256": "0" * 64},
    ],
    ids=["class 3", "class -1", "too few", "not numbers", "negative", "4 classes", "other images"],
)
def test_a_stranger_s_file_with_the_right_digest_is_refused(run_copy, change):

    content = encode_predictions(replace(read(run_copy), **change))
    (run_copy / FILE).write_bytes(content)
    evaluation = read_json(run_copy / "evaluation.json")
    evaluation["probabilities_sha256"] = hashlib.sha256(content).hexdigest()
    (run_copy / "evaluation.json").write_text(json.dumps(evaluation))
    assert FILE in refused(run_copy)


@pytest.mark.parametrize("num_written", [0, 1, 2, 3])
def test_a_kill_between_the_files_leaves_no_score_of_other_predictions(run_copy, monkeypatch, num_written):
    """The run is scored with other probabilities, and the process dies after so many files."""
    run, before = store.open_run(run_copy), store.read_evaluation(run_copy)
    labels = read(run_copy).labels
    score = score_logits(np.random.default_rng(1).standard_normal((96, 3)), labels, "cross_entropy")

    content = encode_predictions(
        Predictions(labels, rounded(score.probabilities, score.predictions), before.images_sha256)
    )
    after = changed(before, loss=score.loss, probabilities_sha256=hashlib.sha256(content).hexdigest())
    write_atomic, written = files.write_atomic, []

    def killed(path, data):
        if len(written) == num_written:
            raise KeyboardInterrupt
        written.append(path.name)
        write_atomic(path, data)

    monkeypatch.setattr(files, "write_atomic", killed)
    if num_written == 3:
        write_evaluation(run, after, score, labels)
    else:
        with pytest.raises(KeyboardInterrupt):
            write_evaluation(run, after, score, labels)
    assert written == ["predictions.csv", FILE, "evaluation.json"][:num_written]
    assert store.read_evaluation(run_copy).loss == (score.loss if num_written == 3 else before.loss)
    if num_written == 2:
        assert "does not belong to the run's score" in refused(run_copy)
    else:
        assert (read(run_copy).probabilities == rounded(score.probabilities, score.predictions)).all() == (
            num_written == 3
        )


def test_predictions_are_read_without_tensorflow(finished_run):
    program = (
        "import sys, pathlib\n"
        "from cnn_trainer.evaluation.predictions import read_predictions\n"
        "from cnn_trainer.runs import store\n"
        "run_dir = pathlib.Path(sys.argv[1])\n"
        "print(len(read_predictions(run_dir, store.read_evaluation(run_dir)).labels))\n"
        "print('tensorflow' in sys.modules, 'keras' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, finished_run], check=True, stdout=subprocess.PIPE, text=True)
    assert done.stdout.split() == ["96", "False", "False"]


@pytest.fixture
def version_1(tmp_path, strokes):
    """A run that this program made before it kept probabilities, with its data where its config says."""
    np.savez(tmp_path / "strokes.npz", **strokes)
    run_dir = shutil.copytree(Path(__file__).parent / "version-1", tmp_path / "20261125-145640-small")
    for path in run_dir.glob("*.[jy]*"):
        path.write_text(path.read_text().replace("/data/strokes.npz", str(tmp_path / "strokes.npz")))
    return run_dir


def test_a_run_of_version_1_opens_and_gets_what_it_lacks_by_evaluate(cnn_train, version_1):
    before = store.read_evaluation(version_1)
    assert (before.schema_version, before.calibration, before.probabilities_sha256) == (1, None, None)
    assert "its test score was saved without the probabilities, by an earlier version" in refused(version_1)
    for words in (("show", version_1), ("list", "--runs-dir", version_1.parent)):
        answer = cnn_train("runs", *words)
        assert answer.code == 0, answer.err
        assert "90.62%" in answer.out
        assert "confidence" not in answer.out
    other = shutil.copytree(version_1, version_1.parent / "20261125-145641-small")
    config = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(config.replace("batch_size: 16", "batch_size: 8"))
    assert cnn_train("runs", "compare", version_1, other).code == 0
    answer = cnn_train("evaluate", version_1, "--json")
    assert answer.code == 0, answer.err
    after = store.read_evaluation(version_1)
    assert (after.schema_version, after.accuracy, after.images_sha256) == (2, before.accuracy, before.images_sha256)
    assert after.loss == pytest.approx(before.loss, rel=1e-6)  # another processor may differ in the last bits
    assert after.calibration.temperature.temperature < 1  # two epochs leave it unsure
    assert len(read(version_1).labels) == 96


@pytest.mark.parametrize("validation", ["carved", "carved from a subset", "own"])
def test_the_temperature_of_train_and_of_evaluate_has_the_same_bits(cnn_train, version_1, strokes, validation):
    """It comes from the validation split in memory, from where it was, and from the place that it was moved to."""
    if validation == "own":
        own = {"x_val": strokes["x_train"][:50], "y_val": strokes["y_train"][:50]}
        np.savez(version_1.parent / "strokes.npz", **strokes, **own)
    words = ["--set", "data.train_subset=120"] if validation == "carved from a subset" else []
    answer = cnn_train("train", version_1 / "config.yaml", *words, "--json", cwd=version_1.parent)
    assert answer.code == 0, answer.err
    run_dir = version_1.parent / answer.run
    trained = read_json(run_dir / "evaluation.json")["calibration"]
    assert trained["temperature"]["temperature"] != 1
    assert trained["temperature"]["validation_loss"] < trained["temperature"]["validation_loss_before"]
    data = version_1.parent / "strokes.npz"
    scores = [cnn_train("evaluate", run_dir, "--json").json]
    scores.append(cnn_train("evaluate", run_dir, "--json", "--data", shutil.copy(data, data.with_name("a.npz"))).json)
    moved = data.rename(data.with_name("moved.npz"))
    scores.append(cnn_train("evaluate", run_dir, "--json", "--data", moved).json)
    assert [score["calibration"] for score in scores] == [trained] * 3
    validation = cnn_train("evaluate", run_dir, "--json", "--data", moved, "--split", "validation").json
    temperature = validation["calibration"]["temperature"]
    assert temperature["temperature"] == trained["temperature"]["temperature"]
    assert temperature["negative_log_likelihood"] == temperature["validation_loss"]
    assert temperature["validation_images_sha256"] == validation["images_sha256"]


def test_a_validation_split_that_is_gone_leaves_no_temperature_and_is_said(cnn_train, version_1, strokes):
    only_test = version_1.parent / "only-test.npz"
    (version_1.parent / "strokes.npz").unlink()
    np.savez(only_test, x_test=strokes["x_test"], y_test=strokes["y_test"])
    answer = cnn_train("evaluate", version_1, "--json", "--data", only_test)
    assert answer.code == 0, answer.err
    assert answer.json["calibration"]["temperature"] is None
    assert "WARNING: the score has no temperature, because the validation split cannot be read: " in answer.err


def test_an_unknown_version_of_a_score_is_refused_in_words(run_copy):
    evaluation = read_json(run_copy / "evaluation.json")
    assert next(iter(evaluation)) == "schema_version"  # the first key that an earlier program does not know
    (run_copy / "evaluation.json").write_text(json.dumps(evaluation | {"schema_version": 3}))
    with pytest.raises(RunDirectoryError) as caught:
        store.read_evaluation(run_copy)
    assert "schema_version: input should be 1 or 2; the file was changed, or another version wrote it" in str(
        caught.value
    )
