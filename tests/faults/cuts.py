"""Runs that are stopped after chosen steps and resumed, many in one process, each with a new session."""

import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from cnn_trainer.config.load import load_config
from cnn_trainer.errors import RunDirectoryError, StoppedError
from cnn_trainer.machine.stopping import StopRequest
from cnn_trainer.runs import store
from cnn_trainer.runs.store import Run
from cnn_trainer.training import loop
from cnn_trainer.training import run as recipe
from cnn_trainer.training.prepare import Feedback

sys.path.insert(0, str(Path(__file__).parent))
from harness import fingerprint, write_config

loop._PYTHON_EVERY_SECONDS = 0  # control returns to Python after every step

SMALL = (("builder: cnn, filters: [4], dense_units: [8]", "builder: mlp, hidden_units: [8]"),)
NO_STOPPING = ("  early_stopping: {patience: 3, min_delta: 0.02}\n", "")
EARLY = ("learning_rate: 0.01", "learning_rate: 0.000001"), ("patience: 3", "patience: 2")


class Cutter:
    """A display that asks to stop after one step of one epoch, both counted from 1."""

    def __init__(self, stop: StopRequest, place: tuple[int, int] | None) -> None:
        self._stop, self._place = stop, place
        self.first: tuple[int, int] | None = None

    def begin(self, epoch: int, step: int, *_: int) -> None:
        pass

    def step(self, epoch: int, step: int, *_: float) -> None:
        self.first = self.first or (epoch, step)
        if (epoch, step) == self._place:
            self._stop.signal_number = 15

    def epoch(self, *_: object) -> None:
        pass

    def end(self) -> None:
        pass


def train(
    file: Path, runs_dir: Path, run: Run | None = None, cut: tuple[int, int] | None = None, epochs: int | None = None
) -> tuple[Run, list[str], tuple[int, int] | None]:
    """Train or resume up to a cut or to the end. Returns the run, the messages, and the first step that was trained."""
    said: list[str] = []
    runs: list[Run] = []
    stop = StopRequest()
    cutter = Cutter(stop, cut)
    recipe.stopping.stop_requests = lambda: nullcontext(stop)
    feedback = Feedback(warn=said.append, created=runs.append, display=cutter)
    with pytest.raises(StoppedError) if cut else nullcontext():
        if run is None:
            recipe.train_config(load_config(file), runs_dir, feedback)
        else:
            recipe.resume_run(store.open_run(run.dir), epochs, feedback)
    run = store.open_run(runs[0].dir)
    assert run.record.status == ("interrupted" if cut else "finished")
    return run, said, cutter.first


def folder_of(place: str, name: str) -> Path:
    folder = Path(place, name)
    folder.mkdir()
    return folder


def cut_everywhere(place: str, expected_run: str) -> None:
    """Cut after every epoch and after five steps inside epochs."""
    file = write_config(Path(place), 3)
    cuts = [(1, 1), (1, 17), (1, 36), (2, 1), (2, 2), (2, 36), (3, 20), (3, 35), (3, 36)]
    run, following = None, (1, 1)
    for cut in cuts:
        run, _, first = train(file, Path(place) / "runs", run, cut)
        assert first == following
        following = (cut[0], cut[1] + 1) if cut[1] < 36 else (cut[0] + 1, 1)
    run, _, first = train(file, Path(place) / "runs", run)
    assert first is None
    assert fingerprint(run.dir) == fingerprint(Path(expected_run))


def cut_across_early_stopping(place: str) -> None:
    """The loss no longer falls; the epochs without a fall are counted across the cuts."""
    file = write_config(folder_of(place, "early"), 9, *SMALL, *EARLY)
    whole, _, _ = train(file, Path(place) / "whole")
    assert whole.record.epochs_done == 3
    run = None
    for cut in ((1, 36), (2, 20), (2, 36), (3, 36)):
        run, _, _ = train(file, Path(place) / "cut", run, cut)
    run, _, _ = train(file, Path(place) / "cut", run)
    assert fingerprint(run.dir) == fingerprint(whole.dir)

    run, said, _ = train(file, Path(place) / "cut", run, epochs=12)
    assert "early stopping ended the run after epoch 3; it is not trained up to epoch 12" in said
    assert fingerprint(run.dir) == fingerprint(whole.dir)


def cut_across_a_plateau(place: str) -> None:
    """The learning rate is lowered when the validation loss stays the same, and the checkpoint holds it."""
    plateau = (
        ("name: exponential, factor: 0.8", "name: plateau, patience: 1"),
        ("learning_rate: 0.01", "learning_rate: 1.0"),
    )
    file = write_config(folder_of(place, "plateau"), 6, *SMALL, NO_STOPPING, *plateau)
    whole, _, _ = train(file, Path(place) / "whole")
    assert len({metrics.learning_rate for metrics in store.read_metrics(whole)}) >= 3
    run = None
    for cut in ((1, 36), (2, 36), (3, 1), (3, 36), (4, 36), (5, 20)):
        run, _, _ = train(file, Path(place) / "cut", run, cut)
    run, _, _ = train(file, Path(place) / "cut", run)
    assert fingerprint(run.dir) == fingerprint(whole.dir)


def train_on(place: str) -> None:
    """Two epochs and then three, compared with three at once; from the best checkpoint and from the moving averages."""
    for schedule in ("constant", "step, epochs: 1", "exponential", "cosine", "one-cycle", "plateau, patience: 1"):
        name = schedule.split(",")[0]
        folder = folder_of(place, name)
        changes = *SMALL, NO_STOPPING, ("name: exponential, factor: 0.8", f"name: {schedule}")
        if name == "step":
            changes += ((", validation_fraction: 0.1", ", validation_fraction: 0"),)
        whole, _, _ = train(write_config(folder, 3, *changes), folder / "whole")
        run, _, _ = train(write_config(folder, 2, *changes), folder / "parts")
        run, said, _ = train(folder, folder, run, epochs=3)
        as_one = fingerprint(run.dir) == fingerprint(whole.dir)
        warned = f"the schedule {name} depends on the number of epochs" in "\n".join(said)
        assert (as_one, warned) == ((False, True) if name in ("cosine", "one-cycle") else (True, False)), name
        assert store.open_run(run.dir).experiment == whole.experiment


def ask_for_fewer_epochs(place: str) -> None:
    """Asking for fewer epochs than are done is refused."""
    file = write_config(folder_of(place, "fewer"), 4, *SMALL)
    run, _, _ = train(file, Path(place) / "runs", None, (2, 10))
    before = {path: path.read_bytes() for path in run.dir.rglob("*") if path.is_file()}
    problem = "asked for 1 epoch in all, but 1 epoch and 10 steps are done"
    with pytest.raises(RunDirectoryError, match=problem):
        train(file, Path(place) / "runs", run, epochs=1)
    assert {path: path.read_bytes() for path in run.dir.rglob("*") if path.is_file()} == before
    run, _, first = train(file, Path(place) / "runs", run, epochs=2)
    assert first == (2, 11)
    assert run.record.epochs_done == 2
