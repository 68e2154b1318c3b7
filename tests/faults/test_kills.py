"""kill -9 at any instant: every run resumes bit for bit."""

import signal
import subprocess
import time
from pathlib import Path

import pytest
from numpy.random import default_rng

from cnn_trainer.runs import details

from .harness import (
    FULL,
    PROGRAM,
    assert_nothing_left_over,
    fingerprint,
    only_run,
    quick_or_full,
    read_json,
    write_config,
)

KILLS = quick_or_full(20, 200)
EPOCHS = 6


def start(zygote, config: Path, runs_dir: Path, call: str = "", wanted: int = 0):
    run = only_run(runs_dir) if runs_dir.exists() and any(runs_dir.iterdir()) else ""
    if run and not (run / "run.json").exists():  # killed before the run existed: it is started again
        for path in [*run.rglob("*")][::-1]:
            path.rmdir() if path.is_dir() else path.unlink()
        run.rmdir()
        run = ""
    return zygote.start_call("hurry", config, runs_dir, run, call, wanted)


def check(run_dir: Path, expected: dict) -> None:
    assert fingerprint(run_dir) == expected
    assert_nothing_left_over(run_dir)


def test_a_run_killed_again_and_again_at_random_instants_ends_with_the_same_bits(zygote, reference, tmp_path):
    chance = default_rng(4)
    config = write_config(tmp_path, EPOCHS)
    began = time.monotonic()
    assert start(zygote, config, tmp_path / "whole").wait() == 0
    longest = time.monotonic() - began
    expected = fingerprint(only_run(tmp_path / "whole"))
    assert expected["epochs_done"] > 1
    kills = ends = inside_epochs = 0
    while kills < KILLS or not ends:
        runs_dir = tmp_path / f"killed-{ends}"
        while True:
            child = start(zygote, config, runs_dir)
            if kills < KILLS:
                child.ended.wait(chance.uniform(0, longest))
                child.signal(signal.SIGKILL)
            code = child.wait()
            if code == 0:
                break
            assert code == -signal.SIGKILL, child.stderr
            kills += 1
            inside_epochs += max(steps_done(runs_dir)) % 36 > 0
        assert fingerprint(only_run(runs_dir)) == expected
        assert_nothing_left_over(only_run(runs_dir))
        ends += 1
    assert inside_epochs >= KILLS // 10  # this many kills left the newest checkpoint inside an epoch


def steps_done(runs_dir: Path) -> list[int]:
    """The steps of all checkpoints, and 0."""
    return [0, *(int(path.stem.split("-")[1]) for path in runs_dir.rglob("step-*.safetensors"))]


def test_a_run_killed_while_its_result_is_written_or_scored_ends_with_the_same_bits(zygote, reference, tmp_path):
    for rename in ("weights.safetensors:1", "model.keras:1", "predictions.csv:1", "evaluation.json:1", "run.json:3"):
        child = start(zygote, reference.config, tmp_path / "runs", "rename", rename)
        assert child.wait() == -signal.SIGKILL, child.stderr
        run_dir = only_run(tmp_path / "runs")
        assert read_json(run_dir / "run.json")["status"] == "training"
        assert details.summarize(run_dir).status == "interrupted"
    zygote.run("resume", run_dir)
    assert fingerprint(run_dir) == reference.fingerprint
    assert_nothing_left_over(run_dir)
    assert details.summarize(run_dir).status == "finished"


def test_a_finished_run_killed_during_further_training_is_resumed(zygote, reference, tmp_path):
    zygote.run("train", write_config(tmp_path, 4), "--runs-dir", tmp_path / "whole")
    for rename in ("run.json:1", "config.yaml:1", "metrics.jsonl:1", "step-000000144.safetensors:1"):
        run_dir = reference.copy(tmp_path / rename)
        child = zygote.start_call("resume_and_die", run_dir, "4", "rename", rename)
        assert child.wait() == -signal.SIGKILL, child.stderr
        zygote.run("resume", run_dir, "--epochs", 4)
        assert fingerprint(run_dir) == fingerprint(only_run(tmp_path / "whole"))


@pytest.mark.skipif(not FULL, reason="several minutes: set CNN_TRAIN_SOAK=1")
@pytest.mark.parametrize("call", ["open", "write", "fsync", "rename", "unlink"])
def test_a_run_killed_at_any_call_of_the_whole_command_line_ends_with_the_same_bits(zygote, reference, tmp_path, call):
    for wanted in range(1, 1000):
        runs_dir = tmp_path / str(wanted)
        code = start(zygote, reference.config, runs_dir, call, wanted).wait()
        assert code in (0, -signal.SIGKILL)
        if code:
            assert start(zygote, reference.config, runs_dir).wait() == 0
        assert fingerprint(only_run(runs_dir)) == reference.fingerprint
        assert_nothing_left_over(only_run(runs_dir))
        if not code:
            return
    raise AssertionError("no end of calls")


def test_an_evaluation_killed_at_any_call_leaves_old_or_new_scores(zygote, reference, tmp_path):
    run_dir = reference.copy(tmp_path)
    for call, wanted in (("rename", 1), ("rename", 2), ("fsync", 3), ("write", 2)):
        child = zygote.start_call("evaluate_and_die", run_dir, call, wanted)
        assert child.wait() == -signal.SIGKILL, child.stderr
        assert fingerprint(run_dir) == reference.fingerprint
    zygote.run("resume", run_dir)
    zygote.run("evaluate", run_dir)
    assert fingerprint(run_dir) == reference.fingerprint


def test_a_process_killed_while_it_starts_has_written_nothing(reference, tmp_path):
    run_dir = reference.copy(tmp_path)
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file() and path.name != ".lock"}
    for delay in (0.3, 1.0):
        process = subprocess.Popen(
            [PROGRAM, "resume", run_dir, "--epochs", "4"], stderr=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(delay)
        process.kill()
        process.wait()
    after = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file() and path.name != ".lock"}
    assert after == before
