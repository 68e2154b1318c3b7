"""The program as a library, in a process like a notebook's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cnn_trainer
from cnn_trainer.errors import ConfigError, DataError, RunDirectoryError
from cnn_trainer.runs import store

# No terminal, a running event loop, two runs one after another, and what a user asks of a run.
NOTEBOOK = """
import asyncio, json, sys
import numpy as np
import cnn_trainer

async def cells():
    first = cnn_trainer.train("small.yaml", {"training.epochs": 2})
    second = cnn_trainer.train("small.yaml", ["training.epochs=2"], evaluate=False)
    unscored = sorted(path.name for path in second.dir.glob("*.json"))
    images = np.load("strokes.npz")["x_test"]
    labels = np.load("strokes.npz")["y_test"]
    probabilities = first.predict(images)
    return {
        "digests": [run.record.weights_sha256 for run in (first, second)],
        "status": [first.record.status, second.record.status],
        "unscored": unscored,
        "epochs": len(first.metrics),
        "shape": list(probabilities.shape),
        "sums": [float(probabilities.sum(axis=1).min()), float(probabilities.sum(axis=1).max())],
        "accuracy": float((probabilities.argmax(axis=1) == labels).mean()),
        "evaluated": first.evaluate().accuracy,
        "scored": second.evaluate().accuracy,
        "after": cnn_trainer.load_run(second.dir).record.status,
        "again": repr(cnn_trainer.load_run(first.dir.name)) == repr(first),
        "longer": len(first.resume(3).metrics),
    }

print(json.dumps(asyncio.run(cells())))
"""
OWN_SETTINGS = """
import tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(7)
tf.constant(1) + 1
import cnn_trainer
try:
    cnn_trainer.train("small.yaml")
except cnn_trainer.errors.DeviceError as error:
    print(error.problem, "|", error.remedy)
"""


def run_in_notebook(program, folder):
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    pipes = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL}
    return subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment, check=False, **pipes)


@pytest.fixture
def folder(small_config, tmp_path):
    assert (tmp_path / "strokes.npz").exists()
    (tmp_path / "small.yaml").write_text(small_config.read_text())
    return tmp_path


def test_a_notebook_trains_scores_and_predicts_to_the_bits_of_the_command_line(folder, cnn_train):
    done = run_in_notebook(NOTEBOOK, folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = json.loads(done.stdout)
    answer = cnn_train("train", "small.yaml", "--set", "training.epochs=2", "--json", cwd=folder)
    assert found["digests"] == [answer.json["weights_sha256"]] * 2
    assert found["status"] == ["finished", "trained"]
    assert found["unscored"] == ["run.json"]
    assert found["after"] == "finished"
    assert (found["epochs"], found["longer"]) == (2, 3)
    assert found["shape"] == [96, 3]
    assert found["sums"] == pytest.approx([1, 1])
    assert found["accuracy"] == found["evaluated"] == found["scored"] == answer.json["test_accuracy"]
    assert found["again"]


def test_a_tensorflow_with_the_callers_own_settings_is_one_clear_error(folder):
    done = run_in_notebook(OWN_SETTINGS, folder)
    assert done.returncode == 0, done.stderr
    assert "TensorFlow" in done.stdout
    assert "process" in done.stdout
    assert not (folder / "runs").exists()


def test_faults_of_a_config_are_all_in_the_error(folder):
    with pytest.raises(ConfigError) as caught:
        cnn_trainer.train(folder / "small.yaml", {"training.epochs": 0, "training.optimizer": "adm"})
    assert [(fault.key, fault.problem) for fault in caught.value.faults] == [
        ("training.epochs", "got 0"),
        ("training.optimizer", "got 'adm'"),
    ]


def test_images_that_do_not_fit_are_refused(finished_run):
    run = cnn_trainer.load_run(finished_run)
    shape = tuple(run.record.data.image_shape)
    with pytest.raises(DataError, match="got float64"):
        run.predict(np.zeros((1, *shape)))
    with pytest.raises(DataError, match="but the run takes uint8"):
        run.predict(np.zeros((1, 3, 3, 1), np.uint8))


def test_no_images_give_an_empty_result(finished_run):
    run = cnn_trainer.load_run(finished_run)
    assert run.predict(np.zeros((0, *run.record.data.image_shape), np.uint8)).shape == (0, len(run.class_names))


def test_a_score_of_outdated_weights_is_not_written(run_copy):
    """Another process, or another object, has trained the run further since these weights were loaded."""
    run = cnn_trainer.load_run(run_copy)
    assert run.evaluate().accuracy > 0
    before = (run_copy / "evaluation.json").read_bytes()
    store.update_record(store.open_run(run_copy), weights_sha256="b" * 64, epochs_done=7)
    with pytest.raises(RunDirectoryError, match="has been trained further since its weights were loaded"):
        run.evaluate()
    assert (run_copy / "evaluation.json").read_bytes() == before
    assert store.open_run(run_copy).record.epochs_done == 7


def test_a_run_can_be_resumed_after_a_failed_attempt(run_copy):
    data = Path(store.open_run(run_copy).record.data.location)
    data = data.rename(data.with_name("away.npz"))
    run = cnn_trainer.load_run(run_copy)
    try:
        with pytest.raises(DataError):
            run.resume(3)
    finally:
        data.rename(data.with_name("strokes.npz"))
    assert len(run.resume(3).metrics) == 3


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = cnn_trainer.trian
