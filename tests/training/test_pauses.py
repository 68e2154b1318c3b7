"""Runs that pause after an epoch and go on: ``train_until``."""

import json

import pytest
from support import read_json, read_metrics

from cnn_trainer.config.load import load_config
from cnn_trainer.errors import DivergedError, RunDirectoryError
from cnn_trainer.runs import store
from cnn_trainer.training.prepare import Feedback
from cnn_trainer.training.run import resume_run, train_config, train_until

THREADS = {"runtime.towers": 2, "runtime.intra_op_threads": 1, "runtime.inter_op_threads": 2}
EVERYTHING_RANDOM = {
    "training.epochs": 4,
    "training.schedule": {"name": "one-cycle"},
    "training.ema_decay": 0.9,
    "training.augmentation": {"shift_pixels": 1.0},
    "data.validation_fraction": 0.25,
    "model.dropout": 0.2,
}


@pytest.fixture
def config(small_config):
    """A function of changes to the small config."""
    return lambda **changes: load_config(small_config, THREADS | EVERYTHING_RANDOM | changes)


def silent(line):
    pytest.fail(f"said: {line}")


def training_files(run_dir):
    """What does not depend on the time: the last checkpoint's arrays, the result, the history."""
    history = [{**line, "images_per_second": 0, "seconds": 0} for line in read_metrics(run_dir)]
    return (run_dir / "weights.safetensors").read_bytes(), history


def test_a_run_that_pauses_has_the_result_of_one_that_does_not(config, tmp_path):
    told = Feedback(warn=silent)
    whole = train_config(config(), tmp_path / "runs", told, evaluate=False)
    paused = tmp_path / "trials" / "0001-small"
    digests = {}
    for until in (1, 3):
        outcome = train_until(config(), paused, until, told)
        assert (outcome.status, outcome.epochs, outcome.run) == ("paused", until, str(paused))
        assert read_json(paused / "run.json")["weights_sha256"] is None
        assert not (paused / "weights.safetensors").exists()
        digests[until] = outcome.weights_sha256
        again = train_until(config(), paused, until, told)  # as after a kill between the result and its journal
        assert again.weights_sha256 == outcome.weights_sha256
        assert len(read_metrics(paused)) == until
    for _ in range(2):
        outcome = train_until(config(), paused, 9, told)
        assert (outcome.status, outcome.epochs, outcome.test_loss) == ("trained", 4, None)
        assert outcome.weights_sha256 == whole.weights_sha256
    assert training_files(paused) == training_files(tmp_path / whole.run)
    assert not (paused / "evaluation.json").exists()
    assert len({*digests.values(), whole.weights_sha256}) >= 2


def test_the_digest_at_a_pause_is_that_of_the_result_of_a_run_that_ends_there(config, tmp_path):
    """With a schedule that does not depend on the number of epochs; the best epoch's weights, and the averaged ones."""
    changes = {"training.schedule": {"name": "constant"}}
    for name, more in ("best", {}), ("averaged", {"data.validation_fraction": 0.0}):
        paused = train_until(config(**changes | more), tmp_path / name, 2)
        short = train_config(config(**changes | more | {"training.epochs": 2}), tmp_path / "runs", evaluate=False)
        assert paused.weights_sha256 == short.weights_sha256


def test_a_paused_run_is_resumed_and_scored_like_any_other(config, tmp_path):
    train_until(config(), tmp_path / "paused", 2)
    outcome = resume_run(store.open_run(tmp_path / "paused"))
    assert outcome.status == "finished"
    assert outcome.weights_sha256 == train_config(config(), tmp_path / "runs").weights_sha256
    with pytest.raises(RunDirectoryError, match="was trained beyond epoch 3, where it was to pause"):
        train_until(config(), tmp_path / "paused", 3)
    assert read_json(tmp_path / "paused" / "run.json")["status"] == "finished"


def test_early_stopping_ends_a_run_before_its_pause(config, tmp_path):
    stopping = {"training.early_stopping": {"patience": 1, "min_delta": 100.0}}
    outcome = train_until(config(**stopping), tmp_path / "early", 3)
    assert (outcome.status, outcome.epochs) == ("trained", 2)


def test_what_a_killed_creation_left_is_replaced_and_a_run_never(config, tmp_path):
    place = tmp_path / "0001-small"
    (place / "checkpoints").mkdir(parents=True)
    (place / "config.yaml").write_text("name: [")
    assert train_until(config(), place, 1).epochs == 1
    run = store.open_run(place)
    with pytest.raises(RunDirectoryError, match="cannot be created: File exists"):
        store.create_run(tmp_path, "small", run.experiment, run.record, place.name)
    assert store.open_run(place).record == run.record


@pytest.mark.parametrize("change", [{"seed": 2}, {"model.dropout": 0.3}, {"training.learning_rate": 0.02}])
def test_a_run_of_another_experiment_is_refused(change, config, tmp_path):
    train_until(config(), tmp_path / "one", 1)
    section = next(iter(change)).split(".")[0]
    with pytest.raises(RunDirectoryError, match=f"is a run of another experiment: {section} differs"):
        train_until(config(**change), tmp_path / "one", 2)
    assert len(read_metrics(tmp_path / "one")) == 1


def test_a_run_that_diverged_says_so_again(config, tmp_path):
    wild = config(**{"training.learning_rate": 1000.0, "training.optimizer": "sgd", "model.activation": "linear"})
    said = []
    for _ in range(2):
        with pytest.raises(DivergedError) as caught:
            train_until(wild, tmp_path / "wild", 2)
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert read_json(tmp_path / "wild" / "run.json")["status"] == "diverged"


def test_a_paused_run_is_listed_and_its_next_step_is_to_resume_it(config, cnn_train, tmp_path):
    train_until(config(), tmp_path / "runs" / "0001-small", 1)
    answer = cnn_train("runs", "list", "--status", "paused", "--json", cwd=tmp_path)
    assert [(run["name"], run["status"]) for run in json.loads(answer.out)["runs"]] == [("0001-small", "paused")]
    answer = cnn_train("evaluate", "runs/0001-small", cwd=tmp_path)
    assert answer.code == 6
    assert "the run is paused and has no result yet; next: cnn-train resume runs/0001-small" in answer.err
