"""Workers that train: whatever becomes of them, trials come to the same bits as runs of their own."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from support import read_json

SPACE = """\
name: tiny
experiment: small.yaml
validation_fraction: 0.25
space:
  training.learning_rate: {low: 0.001, high: 0.1, log: true}
  training.batch_size: {choices: [16, 32]}
  model.dropout: {low: 0.0, high: 0.5}
trials: 6
rungs: {first: 1, factor: 2, last: 4}
lanes: 3
final: {trials: 1, seeds: 2}
"""


@pytest.fixture(scope="module")
def make_home(strokes, tmp_path_factory):
    """A function that gives a new folder with a space file and what it names."""

    def make():
        home = tmp_path_factory.mktemp("search")
        np.savez(home / "strokes.npz", **strokes)
        data, model = "{source: npz, path: strokes.npz}", "{builder: cnn, filters: [4], dense_units: [8]}"
        (home / "small.yaml").write_text(f"{{name: small, data: {data}, model: {model}}}")
        (home / "space.yaml").write_text(SPACE)
        return home

    return make


@pytest.fixture(scope="module")
def undisturbed(make_home, cnn_train):
    """A search by one worker: its folder, and what it printed with --json."""
    home = make_home()
    answer = cnn_train("search", "space.yaml", "--workers", "1", "--json", cwd=home)
    assert answer.code == 0, answer.err
    return home / answer.json["search"], answer.json


def results(search_dir, cnn_train):
    return cnn_train("search", "show", search_dir, "--json").json["results"]


def workers_of(supervisor):
    listed = Path(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children")
    return [int(word) for word in listed.read_text().split()] if listed.exists() else []


def is_there(pid):
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the workers of a process are listed in /proc only")
def test_kills_of_workers_and_supervisor_change_nothing(undisturbed, make_home, cnn_train):
    home, rng = make_home(), random.Random(1)  # noqa: S311
    words, num_killed = ["space.yaml", "--workers", "3"], 0
    for _ in range(2):
        command = [sys.executable, "-m", "cnn_trainer", "search", *words]
        supervisor = subprocess.Popen(command, cwd=home, stderr=subprocess.PIPE, text=True)
        give_up = time.monotonic() + 60
        while len(workers_of(supervisor)) < 2 and supervisor.poll() is None:
            assert time.monotonic() < give_up
            time.sleep(0.05)
        time.sleep(rng.uniform(1, 5))  # a worker takes about 3 s to start, and the search a few more
        for _ in range(2):
            if workers := workers_of(supervisor):
                os.kill(rng.choice(workers), signal.SIGKILL)
                num_killed += 1
            time.sleep(rng.uniform(0, 1))
        left = workers_of(supervisor)
        supervisor.kill()
        supervisor.communicate(timeout=60)
        give_up = time.monotonic() + 2
        while any(map(is_there, left)) and time.monotonic() < give_up:
            time.sleep(0.05)
        assert not any(map(is_there, left))
        words = ["--resume", "latest", "--workers", "2"]
    assert num_killed >= 2
    end = cnn_train("search", *words, "--json", cwd=home)
    assert end.code == 0, end.err
    assert end.json["identity_sha256"] == undisturbed[1]["identity_sha256"]


def test_a_trial_that_paused_at_two_rungs_has_the_bits_of_a_run_of_its_config(undisturbed, cnn_train, tmp_path):
    search_dir, _ = undisturbed
    ended = [one for one in results(search_dir, cnn_train) if one["final"] is None and one["rung"] == 3]
    trial = ended[0]
    config = search_dir / "trials" / f"{trial['trial']:04}-small" / "config.yaml"
    run = cnn_train("train", config, "--runs-dir", tmp_path, "--json")
    assert run.json["weights_sha256"] == trial["weights_sha256"]
    assert run.json["epochs"] == trial["epochs"] == 4


def test_a_result_that_is_lost_after_its_trial_went_on_is_computed_again(undisturbed, make_home, cnn_train):
    home, (search_dir, summary) = make_home(), undisturbed
    copy = home / "searches" / search_dir.name
    shutil.copytree(search_dir, copy)
    record = {**read_json(copy / "search.json"), "status": "interrupted", "identity_sha256": None}
    (copy / "search.json").write_text(json.dumps(record))
    lines = (copy / "journal.jsonl").read_bytes().splitlines(keepends=True)
    rungs = [(one["trial"], one["rung"]) for one in map(json.loads, lines)]
    lost = next(number for number, (trial, _) in enumerate(rungs) if (trial, 2) in rungs)
    (copy / "journal.jsonl").write_bytes(b"".join(lines[:lost]) + lines[lost][:40])
    end = cnn_train("search", "--resume", "latest", "--json", cwd=home)
    assert end.code == 0, end.err
    assert "was trained beyond a rung whose result is lost; it starts again" in end.err
    assert end.json["identity_sha256"] == summary["identity_sha256"]


def test_a_stop_leaves_a_search_that_goes_on_to_the_same(undisturbed, make_home, cnn_train):
    home = make_home()
    command = [sys.executable, "-m", "cnn_trainer", "search", "space.yaml", "--workers", "2"]
    first = subprocess.Popen(command, cwd=home, stderr=subprocess.PIPE, text=True)
    give_up = time.monotonic() + 120
    while not list(home.glob("searches/*/journal.jsonl")) and time.monotonic() < give_up:
        time.sleep(0.05)
    sent = time.monotonic()
    first.terminate()
    _, err = first.communicate(timeout=60)
    assert time.monotonic() - sent < 2.5  # the last half second: the process itself ends
    assert first.returncode == 143
    assert "continue with: cnn-train search --resume" in err
    statuses = [read_json(path)["status"] for path in home.glob("searches/*/trials/*/run.json")]
    assert set(statuses) <= {"paused", "interrupted", "trained", "created", "training"}
    end = cnn_train("search", "--resume", "latest", "--json", cwd=home)
    assert end.json["identity_sha256"] == undisturbed[1]["identity_sha256"]
