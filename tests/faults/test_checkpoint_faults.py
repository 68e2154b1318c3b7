"""Whatever happens to a checkpoint, while it is written or later: the old one, the new one or none is read."""

import shutil
import signal

import numpy as np
import pytest
from numpy.random import default_rng

from cnn_trainer.runs import checkpoint
from cnn_trainer.runs.checkpoint import Checkpoint

from .harness import fingerprint, quick_or_full


@pytest.mark.parametrize("call", ["open", "write", "fsync", "rename", "unlink"])
def test_a_kill_at_any_call_of_writing_a_checkpoint_leaves_the_old_or_the_new_one(zygote, tmp_path, call):
    expected = {"weights": (np.dtype(np.float32), (100, 100))}
    kills = []
    for wanted in range(1, 100):
        folder = tmp_path / str(wanted)
        folder.mkdir()
        for step in (1, 2):
            arrays = {"weights": np.full((100, 100), step, np.float32)}
            checkpoint.write_checkpoint(folder, step, Checkpoint(arrays, {"step": step}))
        code = zygote.start_call("write_checkpoint_and_die", folder, call, wanted).wait()
        warnings = []
        found = checkpoint.read_newest(folder, expected, warnings.append)
        assert not warnings
        assert (found.arrays["weights"] == found.state["step"]).all()
        if code == 0:
            assert found.state["step"] == 3
            break
        assert code == -signal.SIGKILL
        kills.append(found.state["step"])
    # The rename makes the checkpoint: a death before it leaves the old one, a death after it the new one.
    assert kills == {"open": [2, 2], "write": [2], "fsync": [2, 3], "rename": [2], "unlink": [3]}[call]


def test_a_damaged_checkpoint_is_skipped_and_the_run_ends_with_the_same_bits(zygote, reference, tmp_path):
    for seed in range(2):  # two processes, so that what one damaged file leaves in memory does not hide another fault
        folder = tmp_path / str(seed)
        run_dir = reference.copy(folder)
        zygote.call("resume_from_damaged_checkpoints", run_dir, quick_or_full(10, 200), seed)


def test_a_run_without_an_intact_checkpoint_is_refused_and_keeps_its_result(zygote, reference, tmp_path):
    run_dir = reference.copy(tmp_path)
    for path in (run_dir / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    child = zygote.run("resume", run_dir, "--epochs", 4, code=6)
    assert "its 2 checkpoints cannot be read; repeat the run from its config" in child.stderr
    zygote.run("evaluate", run_dir)
    assert fingerprint(run_dir) == reference.fingerprint


def test_a_damaged_result_is_never_scored(zygote, reference, tmp_path):
    run_dir, chance = reference.copy(tmp_path), default_rng(1)
    path = run_dir / "weights.safetensors"
    whole = path.read_bytes()
    for _ in range(quick_or_full(2, 50)):
        data = bytearray(whole)
        place = int(chance.integers(len(data) * 8))
        data[place // 8] ^= 1 << place % 8
        path.write_bytes(data)
        assert "weights.safetensors: " in zygote.run("evaluate", run_dir, code=6).stderr
    shutil.copy(reference.dir / "weights.safetensors", path)
    zygote.run("evaluate", run_dir)
