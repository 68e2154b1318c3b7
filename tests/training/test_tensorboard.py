"""TensorBoard events: what metrics.jsonl says, once for each epoch, if the config asks for them."""

import importlib.util
import json
import struct

import pytest

from cnn_trainer.config.load import load_config
from cnn_trainer.errors import ConfigError, RunDirectoryError
from cnn_trainer.machine import facts
from cnn_trainer.training import tensorboard
from cnn_trainer.training.prepare import Feedback, prepare

event_pb2 = pytest.importorskip("tensorboard.compat.proto.event_pb2")

WANTED = ["--set", "runtime.tensorboard=true", "--set", "data.validation_fraction=0.25"]


def events_of(path):
    """The events of a file: TFRecord's frames (length, its sum, content, its sum), each an Event."""
    content, place = path.read_bytes(), 0
    while place < len(content):
        (length,) = struct.unpack_from("<Q", content, place)
        yield event_pb2.Event.FromString(content[place + 12 : place + 12 + length])
        place += 16 + length


def points_of(folder):
    """All points as {run: {tag: [(epoch, value), …]}}, in the order of the files."""
    found = {}
    for path in sorted(folder.glob("*/events.out.tfevents.*")):
        for event in events_of(path):
            for value in event.summary.value:
                (number,) = struct.unpack("<f", value.tensor.tensor_content)
                found.setdefault(path.parent.name, {}).setdefault(value.tag, []).append((event.step, number))
    return found


def expected(run_dir):
    metrics = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]

    def points(name):
        return [(epoch["epoch"], pytest.approx(epoch[name], rel=1e-6)) for epoch in metrics]

    return {
        "train": {
            "loss": points("train_loss"),
            "accuracy": points("train_accuracy"),
            "learning_rate": points("learning_rate"),
            "images_per_second": points("images_per_second"),
        },
        "validation": {"loss": points("validation_loss"), "accuracy": points("validation_accuracy")},
    }


def test_every_epoch_appears_once_even_after_resuming(cnn_train, small_config, tmp_path):
    answer = cnn_train("train", small_config, *WANTED, "--json", cwd=tmp_path)
    assert answer.code == 0, answer.err
    run_dir = tmp_path / answer.run
    first = expected(run_dir)
    assert [epoch for epoch, _ in first["train"]["loss"]] == [1, 2]
    assert points_of(run_dir / "tensorboard") == first

    assert cnn_train("resume", run_dir, "--epochs", "4").code == 0
    resumed = expected(run_dir)
    assert [epoch for epoch, _ in resumed["train"]["loss"]] == [1, 2, 3, 4]
    assert points_of(run_dir / "tensorboard") == resumed


def test_without_a_validation_split_there_are_only_training_curves(cnn_train, small_config, tmp_path):
    answer = cnn_train("train", small_config, *WANTED[:2], "--json", cwd=tmp_path)
    assert answer.code == 0, answer.err
    assert points_of(tmp_path / answer.run / "tensorboard").keys() == {"train"}


def test_a_missing_extra_is_refused_before_any_work(small_config, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    loaded = load_config(small_config, WANTED[1::2])
    (tmp_path / "strokes.npz").unlink()  # the program does not even look for the data
    with pytest.raises(ConfigError) as refused:
        prepare(loaded, Feedback())
    assert str(refused.value) == (
        "--set runtime.tensorboard=true: runtime.tensorboard: got true, but TensorBoard is not installed; "
        f"install it with: {facts.install_command('tensorboard')}, or set false"
    )


def test_events_are_not_written_through_a_symbolic_link(tmp_path):
    outside, run_dir = tmp_path / "outside", tmp_path / "run"
    kept = outside / "train" / "events.out.tfevents.1"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"kept")
    run_dir.mkdir()
    for place, target in ((run_dir / "tensorboard", outside), (run_dir / "tensorboard" / "train", outside / "train")):
        place.symlink_to(target)
        with (
            pytest.raises(RunDirectoryError, match="is a symbolic link, which is not followed here"),
            tensorboard.epoch_writer(run_dir, [], wanted=True),
        ):
            pass
        place.unlink()
        place.parent.joinpath("tensorboard").mkdir(exist_ok=True)
    assert kept.read_bytes() == b"kept"


def test_nothing_is_written_unless_requested(tmp_path):
    with tensorboard.epoch_writer(tmp_path, [], wanted=False) as write:
        write(None)
    assert list(tmp_path.iterdir()) == []
