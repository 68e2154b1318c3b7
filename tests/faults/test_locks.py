"""File systems without flock, or without any lock: a run is trained, killed and resumed, and leaves no stray file."""

import signal

import pytest

from .harness import assert_nothing_left_over, fingerprint, only_run, wait_until, write_config

UNSAFE = (
    "cannot lock files (Operation not supported); make sure that no other process works on this run at the same time"
)


@pytest.mark.parametrize(("calls", "warnings"), [("flock", 0), ("flock,lockf", 1)])
def test_a_run_is_trained_and_scored_with_the_same_bits(zygote, reference, tmp_path, calls, warnings):
    child = zygote.start_call("without_locks", calls, "", "train", reference.config, "--runs-dir", tmp_path / "runs")
    assert child.wait() == 0, child.stderr
    assert child.stderr.count(f"WARNING: {only_run(tmp_path / 'runs')}: the file system {UNSAFE}\n") == warnings
    assert child.stderr.count("WARNING") == warnings
    assert fingerprint(only_run(tmp_path / "runs")) == reference.fingerprint
    assert_nothing_left_over(only_run(tmp_path / "runs"))
    child = zygote.start_call("without_locks", calls, "", "evaluate", only_run(tmp_path / "runs"))
    assert child.wait() == 0, child.stderr


def test_a_second_trainer_is_refused_and_a_killed_one_frees_the_run(zygote, tmp_path):
    """By the POSIX lock. The training process must not lose it when it looks at its own run."""
    config = write_config(tmp_path, 500, ("patience: 3", "patience: 1000"))
    first = zygote.start_call("without_locks", "flock", "", "train", config, "--runs-dir", tmp_path / "runs")
    wait_until(lambda: [*(tmp_path / "runs").rglob("step-*")] or first.ended.is_set())
    run_dir = only_run(tmp_path / "runs")
    second = zygote.start_call("without_locks", "flock", "", "resume", run_dir)
    assert second.wait() == 6, second.stderr
    assert f"process {first.pid} is working on this run; wait for it, or stop it first" in second.stderr
    first.signal(signal.SIGKILL)
    first.wait()
    third = zygote.start_call("without_locks", "flock", "", "resume", run_dir)
    wait_until(lambda: "epoch " in third.stderr or third.ended.is_set())
    third.signal(signal.SIGTERM)
    assert third.wait() == 143, third.stderr


def test_without_any_lock_a_killed_run_is_resumed_to_the_same_bits(zygote, reference, tmp_path):
    words = ("train", reference.config, "--runs-dir", tmp_path / "runs")
    first = zygote.start_call("without_locks", "flock,lockf", "step-000000072.safetensors:1", *words)
    assert first.wait() == -signal.SIGKILL
    run_dir = only_run(tmp_path / "runs")
    shown = zygote.start_call("without_locks", "flock,lockf", "", "runs", "list", "--runs-dir", tmp_path / "runs")
    assert shown.wait() == 0
    assert " training " in shown.stdout, "it is not known whether the process is alive"
    child = zygote.start_call("without_locks", "flock,lockf", "", "resume", run_dir)
    assert child.wait() == 0, child.stderr
    assert fingerprint(run_dir) == reference.fingerprint
