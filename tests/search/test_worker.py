"""Workers that train: whatever becomes of them, trials come to the same bits as runs of their own."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from support import read_json

MNIST_5K = Path(__file__).parents[2] / "configs" / "searches" / "mnist-5k.yaml"
LONGEST_SECONDS = 12.0  # between two kills of the full form; a search takes about 7 s until its workers train
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


def start(home, *words):
    """A search in ``home``; what it writes to stderr is added to a file there."""
    with (home / "stderr.txt").open("a") as stderr:
        return subprocess.Popen([sys.executable, "-m", "cnn_trainer", "search", *words], cwd=home, stderr=stderr)


def kill_supervisor(supervisor):
    """Kill it, and see its workers end by themselves."""
    left = workers_of(supervisor)
    supervisor.kill()
    supervisor.wait(60)
    give_up = time.monotonic() + 2
    while any(map(is_there, left)) and time.monotonic() < give_up:
        time.sleep(0.05)
    assert not any(map(is_there, left))


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="the workers of a process are listed in /proc only"
)


@needs_proc
def test_kills_of_workers_and_supervisor_change_nothing(undisturbed, make_home, cnn_train):
    home, rng = make_home(), random.Random(1)  # noqa: S311
    words, num_killed = ["space.yaml", "--workers", "3"], 0
    for _ in range(2):
        supervisor = start(home, *words)
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
        kill_supervisor(supervisor)
        words = ["--resume", "latest", "--workers", "2"]
    assert num_killed >= 2
    end = cnn_train("search", *words, "--json", cwd=home)
    assert end.code == 0, end.err
    assert end.json["identity_sha256"] == undisturbed[1]["identity_sha256"]


def search_with_kills(home, rng, most_kills):
    """Search mnist-5k in ``home``, killed at random instants and resumed each time: the numbers of kills."""
    kills, words = Counter(), [MNIST_5K]
    while True:
        supervisor = start(home, *words, "--workers", "2")
        while kills.total() < most_kills:
            with suppress(subprocess.TimeoutExpired):
                supervisor.wait(rng.uniform(0, LONGEST_SECONDS))
                break
            workers = workers_of(supervisor)
            if workers and rng.random() < 0.5:
                with suppress(ProcessLookupError):
                    os.kill(rng.choice(workers), signal.SIGKILL)
                    kills["workers"] += 1
            else:
                kill_supervisor(supervisor)
                kills["supervisors"] += 1
                break
        code = supervisor.wait(600)
        if code == 0:
            return kills
        messages = (home / "stderr.txt").read_text()
        assert code == -signal.SIGKILL or "workers died on this trial" in messages.splitlines()[-1], messages
        if list(home.glob("searches/*/search.json")):  # it may be killed before it has created one
            words = ["--resume", "latest"]


def identity_of(home):
    """The digest of the results of the only search, which has scored one run on the test split."""
    (search_dir,) = [path.parent for path in home.glob("searches/*/search.json")]
    assert len(list(search_dir.glob("trials/*/evaluation.json"))) == 1
    return read_json(search_dir / "search.json")["identity_sha256"]


@needs_proc
@pytest.mark.skipif("CNN_TRAIN_SOAK" not in os.environ, reason="half an hour: set CNN_TRAIN_SOAK=1")
def test_200_kills_at_random_instants_and_any_number_of_workers_change_nothing(tmp_path):
    digests = {}
    for num_workers in (1, 2, 4):
        (home := tmp_path / f"workers-{num_workers}").mkdir()
        assert start(home, MNIST_5K, "--workers", str(num_workers)).wait(900) == 0
        digests[home.name] = identity_of(home)
    rng, num_kills = random.Random(2), 0  # noqa: S311
    while num_kills < 200:
        (home := tmp_path / f"kills-{num_kills}").mkdir()
        num_kills += search_with_kills(home, rng, 200 - num_kills).total()
        digests[home.name] = identity_of(home)
    assert len(set(digests.values())) == 1, digests


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
