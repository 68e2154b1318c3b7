"""Disks that are full, cannot be written to, or go away: a message, exit code 6, and the earlier checkpoint is kept."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from .harness import fingerprint, only_run, read_json, small_disk, wait_until, write_config


def test_a_full_disk_costs_no_checkpoint_and_the_run_goes_on_once_there_is_room(zygote, reference, tmp_path):
    with small_disk(tmp_path / "disk", 300) as disk:  # room for two checkpoints, but not for a third
        child = zygote.run("train", reference.config, "--runs-dir", disk, code=6)
        assert "No space left on device; free some space on its disk" in child.stderr
        run_dir = only_run(disk)
        assert not [*run_dir.rglob(".tmp-*")]
        assert [*(run_dir / "checkpoints").iterdir()]
        assert read_json(run_dir / "run.json")["status"] in ("failed", "training")
        child = zygote.run("resume", run_dir, code=6)
        assert "cannot be read" not in child.stderr  # the checkpoints are intact
        subprocess.run(["mount", "-o", "remount,size=2m", str(disk)], check=True)
        zygote.run("resume", run_dir)
        assert fingerprint(run_dir) == reference.fingerprint


def test_a_full_folder_for_temporary_files_loses_no_training(zygote, reference, tmp_path):
    with small_disk(tmp_path / "disk", 8) as disk:
        (disk / "full").write_bytes(b"x" * 4096)
        environment = {"TMPDIR": str(disk)}
        child = zygote.run("train", reference.config, "--runs-dir", tmp_path / "runs", code=6, env=environment)
        assert "model.keras: cannot be created: No space left on device" in child.stderr
        assert "the folder in TMPDIR" in child.stderr
    run_dir = only_run(tmp_path / "runs")
    assert read_json(run_dir / "run.json")["status"] == "failed"
    zygote.run("resume", run_dir)
    assert fingerprint(run_dir) == reference.fingerprint


def test_a_place_that_cannot_be_written_to_is_named_and_does_not_change(zygote, reference, tmp_path):
    with small_disk(tmp_path / "disk", 2000) as disk:
        run_dir = reference.copy(disk)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        child = zygote.run("train", reference.config, "--runs-dir", disk, code=6)
        assert f"{disk}" in child.stderr
        assert f"no run can be created: {disk} cannot be written to; choose another folder" in child.stderr
        assert "Read-only" in zygote.run("resume", run_dir, "--epochs", 4, code=6).stderr
        zygote.run("resume", run_dir)  # there is nothing to do
        zygote.run("runs", "show", run_dir)
        assert fingerprint(run_dir) == reference.fingerprint


def test_a_read_only_run_is_scored_and_used_and_says_what_is_not_saved(zygote, reference, tmp_path):
    picture = tmp_path / "stroke.png"
    stroke = Image.new("L", (28, 28))
    stroke.paste(255, (12, 4, 16, 24))
    stroke.save(picture)
    with small_disk(tmp_path / "disk", 2000) as disk:
        run_dir = reference.copy(disk)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        whole = read_json(run_dir / "evaluation.json")
        child = zygote.run("evaluate", run_dir, "--json")
        lines = child.stderr.splitlines()
        assert lines[0].startswith(f"test accuracy {whole['accuracy']:.2%} ")
        [warning] = [line for line in lines if line.startswith("WARNING")]
        assert warning.startswith(
            f"WARNING: the score is not saved: {run_dir}/predictions.csv: cannot be written: Read-"
        )
        assert json.loads(child.stdout) | {"evaluated_at": whole["evaluated_at"]} == whole
        zygote.run("evaluate", run_dir, "--split", "train")
        zygote.run("evaluate", run_dir, "--min-accuracy", whole["accuracy"])
        zygote.run("evaluate", run_dir, "--min-accuracy", 1, code=7)
        zygote.run("predict", run_dir, picture)
        zygote.run("export", run_dir, "--format", "keras", "--output", tmp_path / "export")
        assert (tmp_path / "export" / "model.keras").exists()
        assert "or name another place with --output" in zygote.run("export", run_dir, code=6).stderr
        assert fingerprint(run_dir) == reference.fingerprint


@pytest.mark.parametrize("error", ["EACCES", "EPERM", "EROFS", "ENOSPC"])
def test_the_score_of_a_run_that_refuses_what_is_written_is_not_lost(zygote, reference, tmp_path, error):
    """As if the run were another user's. (The tests may run as root, which could write to it.)"""
    run_dir = reference.copy(tmp_path)
    before = contents(run_dir)
    child = zygote.start_call("without_writing", run_dir, error, "evaluate", run_dir)
    assert child.wait() == 0, child.stderr
    assert child.stderr.startswith("test accuracy ")
    assert f"WARNING: the score is not saved: {run_dir}/predictions.csv: cannot be written: " in child.stderr
    assert child.stderr.splitlines()[-1] == f"next: cnn-train runs show {run_dir}"
    child = zygote.start_call("without_writing", run_dir, error, "evaluate", run_dir, "--min-accuracy", "1")
    assert child.wait() == 7, child.stderr
    for words in (("runs", "show", run_dir), ("resume", run_dir), ("runs", "list", "--runs-dir", tmp_path)):
        child = zygote.start_call("without_writing", run_dir, error, *words)
        assert child.wait() == 0, child.stderr
    assert contents(run_dir) == before


def contents(run_dir):
    return {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}


@pytest.mark.parametrize("what", ["", "checkpoints", "run.json"])
def test_a_folder_that_vanishes_while_training_ends_it_with_a_message(zygote, tmp_path, what):
    config = write_config(tmp_path, 500, ("patience: 3", "patience: 1000"))
    child = zygote.start("train", config, "--runs-dir", tmp_path / "runs")
    wait_until(lambda: [*(tmp_path / "runs").rglob("step-*")] or child.ended.is_set())
    gone = only_run(tmp_path / "runs") / what
    moved = Path(shutil.move(gone, tmp_path / "elsewhere"))
    if what == "run.json":  # training does not read it, so it goes on
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
