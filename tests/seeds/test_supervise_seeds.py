"""Workers that die, fail and must stop: what becomes of the group."""

import os
import signal
import subprocess
import time
from dataclasses import replace

import pytest
from seeds_worker import outcome_of

from cnn_trainer.config.load import documented_config
from cnn_trainer.errors import CnnTrainError, DeviceError
from cnn_trainer.machine import child
from cnn_trainer.seeds import supervise
from cnn_trainer.seeds.display import SeedsDisplay


class Stopping(SeedsDisplay):
    """Sends SIGTERM to this process when so many runs have begun."""

    def __init__(self, num_runs, stop_after, stopped):
        super().__init__(num_runs)
        self._begun, self._stop_after, self._stopped = set(), stop_after, stopped

    def step(self, seed, news):
        self._begun.add(seed)
        if len(self._begun) == self._stop_after and not self._stopped:
            self._stopped.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def group_with(tmp_path, monkeypatch):
    """A function that trains a group with workers of seeds_worker: its runs, its signal, what was reported."""

    def train(function, seeds=(1, 2, 3, 4), num_workers=2, stop_after=None, notes=()):
        told = {"warnings": [], "processes": [], "began": [], "ended": [], "stopped": []}

        def start(*words):
            told["processes"].append(real(*words))
            return told["processes"][-1]

        monkeypatch.setattr(supervise, "_FUNCTION", f"seeds_worker:{function}")
        monkeypatch.setattr(child, "start_child", start)
        feedback = supervise.SeedsFeedback(
            warn=told["warnings"].append,
            download=pytest.fail,
            began=lambda run_dir: told["began"].append((run_dir, len(told["processes"]))),
            ended=lambda run: told["ended"].append(run.seed),
            display=Stopping(len(seeds), stop_after, told["stopped"]),
        )
        config = replace(documented_config(), notes=list(notes))
        try:
            runs, number = supervise.train_seeds(config, seeds, tmp_path, num_workers, feedback)
        finally:
            assert all(process.poll() is not None for process in told["processes"])
        return runs, number, told

    real = child.start_child
    return train


@pytest.mark.parametrize("num_workers", [1, 2, 9])
def test_each_seed_is_trained_once_and_the_runs_are_in_the_order_of_the_seeds(group_with, tmp_path, num_workers):
    runs, number, told = group_with("compute", (7, 3, 5, 1), num_workers)
    assert [run.outcome for run in runs] == [outcome_of(seed, tmp_path) for seed in (7, 3, 5, 1)]
    assert number is None
    assert sorted(told["ended"]) == [1, 3, 5, 7]
    assert len(told["processes"]) <= min(num_workers, 4)


def test_the_second_worker_starts_when_the_first_run_was_checked(group_with, tmp_path):
    _, _, told = group_with("compute")
    assert told["began"] == [(tmp_path / "1", 1)]


@pytest.mark.parametrize(
    ("function", "code", "problem"),
    [
        ("die_of_2", 5, "the worker died (its process was ended by SIGKILL)"),
        ("crash_of_2", 5, "the worker died (exit code 1: ZeroDivisionError: a defect)"),
        ("diverge_of_2", 8, "diverged"),
    ],
)
@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_run_that_fails_does_not_harm_the_others(group_with, tmp_path, function, code, problem, num_workers):
    runs, number, told = group_with(function, num_workers=num_workers)
    assert number is None
    assert [run.outcome is None for run in runs] == [False, True, False, False]
    assert runs[1].dir == tmp_path / "2"
    assert (runs[1].failure.exit_code, runs[1].failure.problem) == (code, problem)
    assert ("Traceback (most recent call last):" in told["warnings"]) == (function == "crash_of_2")


def test_what_is_wrong_with_all_runs_is_found_once_and_ends_the_group(group_with):
    with pytest.raises(CnnTrainError) as raised:
        group_with("refuse")
    error = raised.value
    assert (error.exit_code, str(error)) == (4, "mnist.npz: broken; repair it")


def test_the_same_warning_is_shown_once(group_with):
    assert group_with("warn")[2]["warnings"] == ["slow"]


def test_what_an_override_dropped_is_said_once(group_with):
    assert group_with("compute", notes=["dropped"])[2]["warnings"] == ["dropped"]


def test_a_signal_that_all_processes_receive_is_no_death(group_with):
    runs, number, told = group_with("stop_with_the_parent", (1, 2))
    assert number == signal.SIGTERM
    assert not any(run.outcome or run.failure for run in runs)
    assert told["warnings"] == []


def test_a_worker_is_replaced_after_some_runs(group_with, monkeypatch):
    monkeypatch.setattr(supervise, "MAX_RUNS", 2)
    runs, _, told = group_with("compute", range(5), 1)
    assert all(run.outcome for run in runs)
    assert len(told["processes"]) == 3


def test_a_stop_takes_two_seconds_at_most_also_if_workers_do_not_hear_it(group_with, tmp_path):
    runs, number, told = group_with("never_end", stop_after=2)
    assert time.monotonic() - told["stopped"][0] < 2.0
    assert number == signal.SIGTERM
    assert [run.dir for run in runs] == [tmp_path / "1", tmp_path / "2", None, None]
    assert not any(run.outcome or run.failure for run in runs)
    assert told["ended"] == []


def test_a_run_that_finishes_while_the_group_is_stopped_counts(group_with):
    runs, number, told = group_with("end_when_stopped", stop_after=2)
    assert told["stopped"]
    assert number == signal.SIGTERM
    assert [run.outcome is not None for run in runs] == [True, True, False, False]


def test_a_group_whose_last_run_finishes_while_it_is_stopped_is_finished(group_with):
    runs, number, told = group_with("end_when_stopped", (1, 2), stop_after=2)
    assert told["stopped"]
    assert number is None
    assert all(run.outcome for run in runs)


def test_a_system_without_room_for_a_process_is_told(group_with, monkeypatch):
    def refuse(*_, **__):
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(DeviceError, match="Resource temporarily unavailable; use fewer workers with --workers"):
        group_with("compute")
