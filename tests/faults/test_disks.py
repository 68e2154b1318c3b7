"""Disks that are full, cannot be written to, or go away: a message, exit code 6, and the checkpoint that was there."""

import shutil
import subprocess
from pathlib import Path

import pytest

from .harness import fingerprint, only_run, read_json, small_disk, wait_until, write_config


def test_a_full_disk_costs_no_checkpoint_and_the_run_goes_on_once_there_is_room(zygote, reference, tmp_path):
    with small_disk(tmp_path / "disk", 300) as disk:  # room for two checkpoints, and not for the third beside them
        child = zygote.run("train", reference.config, "--runs-dir", disk, code=6)
        assert "No space left on device; free some space on its disk" in child.stderr
        run_dir = only_run(disk)
        assert not [*run_dir.rglob(".tmp-*")]
        assert [*(run_dir / "checkpoints").iterdir()]
        assert read_json(run_dir / "run.json")["status"] in ("failed", "training")
        child = zygote.run("resume", run_dir, code=6)
        assert "cannot be read" not in child.stderr  # the checkpoints are sound
        subprocess.run(["mount", "-o", "remount,size=2m", str(disk)], check=True)
        zygote.run("resume", run_dir)
        assert fingerprint(run_dir) == reference.fingerprint


def test_a_full_folder_for_temporary_files_costs_nothing_but_the_end(zygote, reference, tmp_path):
    with small_disk(tmp_path / "disk", 8) as disk:
        (disk / "full").write_bytes(b"x" * 4096)
        environment = {"TMPDIR": str(disk)}
        child = zygote.run("train", reference.config, "--runs-dir", tmp_path / "runs", code=6, env=environment)
        assert "model.keras: cannot be made: No space left on device" in child.stderr
        assert "the folder that TMPDIR names" in child.stderr
    run_dir = only_run(tmp_path / "runs")
    assert read_json(run_dir / "run.json")["status"] == "failed"
    zygote.run("resume", run_dir)
    assert fingerprint(run_dir) == reference.fingerprint


def test_a_place_that_cannot_be_written_to_is_named_and_left_as_it_is(zygote, reference, tmp_path):
    with small_disk(tmp_path / "disk", 2000) as disk:
        run_dir = reference.copy(disk)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        child = zygote.run("train", reference.config, "--runs-dir", disk, code=6)
        assert f"{disk}" in child.stderr
        assert f"no run can be created: {disk} cannot be written to; choose another folder" in child.stderr
        assert "Read-only" in zygote.run("resume", run_dir, "--epochs", 4, code=6).stderr
        zygote.run("resume", run_dir)  # there is nothing to do
        assert "Read-only" in zygote.run("evaluate", run_dir, code=6).stderr
        zygote.run("runs", "show", run_dir)
        assert fingerprint(run_dir) == reference.fingerprint


@pytest.mark.parametrize("what", ["", "checkpoints", "run.json"])
def test_a_folder_that_vanishes_while_training_ends_it_with_a_message(zygote, tmp_path, what):
    config = write_config(tmp_path, 500, ("patience: 3", "patience: 1000"))
    child = zygote.start("train", config, "--runs-dir", tmp_path / "runs")
    wait_until(lambda: [*(tmp_path / "runs").rglob("step-*")] or child.ended.is_set())
    gone = only_run(tmp_path / "runs") / what
    moved = Path(shutil.move(gone, tmp_path / "elsewhere"))
    if what == "run.json":  # nothing that training reads: it goes on
        child.signal(15)
        assert child.wait() == 143
        assert read_json(gone)["status"] == "interrupted"
        return
    assert child.wait() == 6, child.stderr
    assert "Traceback" not in child.stderr
    assert "check that it, or its folder, has not been moved or removed" in child.stderr
    if what == "":
        gone.parent.mkdir(exist_ok=True)
        shutil.move(moved, gone)
        child = zygote.start("resume", gone)
        wait_until(lambda: "epoch " in child.stderr or child.ended.is_set())
        child.signal(15)
        assert child.wait() == 143, child.stderr
