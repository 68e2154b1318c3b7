"""Two trainers of one run: the first keeps it, the second is refused at once and writes nothing."""

import signal
import time

from .harness import only_run, wait_until, write_config


def snapshot(run_dir):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run_dir.rglob("*") if path.is_file()}


def test_a_second_trainer_is_refused_at_once_and_a_dead_one_frees_the_run(zygote, tmp_path):
    config = write_config(tmp_path, 500, ("patience: 3", "patience: 1000"))
    first = zygote.start("train", config, "--runs-dir", tmp_path / "runs")
    wait_until(lambda: [*(tmp_path / "runs").rglob("step-*")] or first.ended.is_set())
    run_dir = only_run(tmp_path / "runs")
    first.signal(signal.SIGSTOP)  # so that the second one has made any change from now on
    before, began = snapshot(run_dir), time.monotonic()
    second = zygote.run("resume", run_dir, code=6)
    assert time.monotonic() - began < 3  # the whole process, which does not start TensorFlow
    assert f"process {first.pid} is working on this run; wait for it, or stop it first" in second.stderr
    assert snapshot(run_dir) == before
    first.signal(signal.SIGKILL)
    first.wait()
    third = zygote.start("resume", run_dir)
    wait_until(lambda: "epoch " in third.stderr or third.ended.is_set())
    third.signal(signal.SIGTERM)
    assert third.wait() == 143, third.stderr


def test_a_run_is_held_from_before_the_data_is_read(zygote, reference, tmp_path):
    run_dir = reference.copy(tmp_path)
    children = [zygote.start("resume", run_dir, "--epochs", 5) for _ in range(2)]
    codes = [child.wait() for child in children]
    assert sorted(codes) == [0, 6]
    assert "WARNING" not in children[codes.index(6)].stderr
    assert "data:" not in children[codes.index(6)].stderr
