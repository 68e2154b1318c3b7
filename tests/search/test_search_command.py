"""cnn-train search: from a space file to a winner, killed and resumed, and what it refuses."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
from faults.harness import small_disk
from support import invoke, read_json, signals_heard

SPACE = """\
name: tiny
experiment: small.yaml
validation_fraction: 0.25
space:
  training.learning_rate: {low: 0.001, high: 0.1, log: true}
  training.batch_size: {choices: [16, 32]}
trials: 6
rungs: {first: 1, factor: 2, last: 2}
lanes: 2
final: {trials: 1, seeds: 2}
"""


@pytest.fixture
def space(small_config, tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(SPACE)
    return path


@pytest.fixture(scope="module")
def finished(cnn_train, strokes, tmp_path_factory):
    """A search that was not disturbed: its folder, and what it printed with --json."""
    import numpy as np

    home = tmp_path_factory.mktemp("search")
    np.savez(home / "strokes.npz", **strokes)
    text = (
        "{name: small, data: {source: npz, path: strokes.npz}, model: {builder: cnn, filters: [4], dense_units: [8]}}"
    )
    (home / "small.yaml").write_text(text)
    (home / "space.yaml").write_text(SPACE)
    answer = cnn_train("search", "space.yaml", "--json", cwd=home)
    assert answer.code == 0, answer.err
    return home, answer


def test_a_search_ends_with_a_winner_that_its_config_repeats(finished, cnn_train):
    home, answer = finished
    summary = answer.json
    assert (summary["status"], summary["num_trials"], summary["num_planned"]) == ("finished", 6, 6)
    assert len(summary["finalists"][0]["values"]) == 2
    assert summary["test_examples"] == 96
    assert f"results sha256 {summary['identity_sha256']}" in answer.err
    won = read_json(home / summary["winning_run"] / "run.json")
    repeated = cnn_train("train", f"{summary['search']}/best.yaml", "--json", cwd=home)
    assert repeated.json["weights_sha256"] == won["weights_sha256"]
    assert repeated.json["test_accuracy"] == summary["test_accuracy"]


def test_only_the_winner_has_seen_the_test_split(finished):
    home, answer = finished
    scored = [path.parent for path in (home / answer.json["search"] / "trials").glob("*/evaluation.json")]
    assert scored == [home / answer.json["winning_run"]]


def test_trials_are_ordinary_runs_that_are_not_among_the_runs(finished, cnn_train):
    home, answer = finished
    trials = sorted((home / answer.json["search"] / "trials").iterdir())
    finals = {path.name for path in trials if "-final-" in path.name}
    assert {path.name for path in trials} - finals == {f"{number:04}-small" for number in range(1, 7)}
    assert len(finals) == 2
    shown = cnn_train("runs", "show", trials[0], "--json", cwd=home)
    assert shown.json["status"] in ("paused", "trained")
    assert cnn_train("runs", "list", "--runs-dir", answer.json["search"], cwd=home).out == ""
    listed = cnn_train("runs", "list", "--runs-dir", f"{answer.json['search']}/trials", "--json", cwd=home)
    assert len(listed.json["runs"]) == len(trials)


def test_list_and_show_tell_what_came_of_it(finished, cnn_train):
    home, answer = finished
    listed = cnn_train("search", "list", "--json", cwd=home)
    assert [one["search"] for one in listed.json["searches"]] == [answer.json["search"]]
    shown = cnn_train("search", "show", "latest", cwd=home)
    for words in ("validation loss", "Kendall's tau", "fresh seed", "training.learning_rate", "test accuracy"):
        assert words in shown.out
    as_json = cnn_train("search", "show", answer.json["search"], "--json", cwd=home).json
    results = as_json.pop("results")
    assert as_json == answer.json
    assert {one["status"] for one in results} == {"ok"}


def test_a_finished_search_is_left_as_it_is(finished, cnn_train):
    home, answer = finished
    before = {path: path.stat().st_mtime_ns for path in (home / answer.json["search"]).rglob("*")}
    again = cnn_train("search", "--resume", "latest", "--json", cwd=home)
    assert again.json == answer.json
    assert "the search is finished; nothing to do" in again.err
    assert {path: path.stat().st_mtime_ns for path in (home / answer.json["search"]).rglob("*")} == before


def start(home, *words):
    command = [sys.executable, "-m", "cnn_trainer", "search", *words]
    return subprocess.Popen(command, cwd=home, stderr=subprocess.PIPE, text=True)


def wait_for(home, num_lines):
    """Until the journal of the only search has so many lines."""
    give_up = time.monotonic() + 120
    while time.monotonic() < give_up:
        for path in home.glob("searches/*/journal.jsonl"):
            if path.read_text().count("\n") >= num_lines:
                return
        time.sleep(0.02)
    pytest.fail("the search does not get on")


def test_a_search_that_is_killed_and_stopped_comes_to_the_same(finished, cnn_train, tmp_path):
    home, answer = finished
    copied(home, tmp_path)
    first = start(tmp_path, "space.yaml")
    wait_for(tmp_path, 1)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate(timeout=60)
    assert cnn_train("search", "list", "--json", cwd=tmp_path).json["searches"][0]["status"] == "interrupted"
    second = start(tmp_path, "--resume", "latest")
    wait_for(tmp_path, 4)
    second.terminate()
    _, err = second.communicate(timeout=60)
    assert (second.returncode, "continue with: cnn-train search --resume" in err) in ((143, True), (0, False))
    end = cnn_train("search", "--resume", "latest", "--json", cwd=tmp_path)
    assert end.json["identity_sha256"] == answer.json["identity_sha256"]


def copied(home, there):
    for name in ("strokes.npz", "small.yaml", "space.yaml"):
        (there / name).write_bytes((home / name).read_bytes())


@pytest.mark.parametrize("moment", ["loading", "scoring"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_outside_of_the_jobs_says_how_to_go_on(finished, cnn_train, tmp_path, number, moment):
    home, answer = finished
    copied(home, tmp_path)
    shutil.copytree(home / "searches", tmp_path / "searches")
    folder = tmp_path / answer.json["search"]
    record = read_json(folder / "search.json") | {"status": "interrupted", "identity_sha256": None}
    (folder / "search.json").write_text(json.dumps(record))
    (folder / "best.yaml").unlink()
    (tmp_path / answer.json["winning_run"] / "evaluation.json").unlink()
    for path in (folder / "experiment.yaml", *(folder / "trials").glob("*/config.yaml")):
        path.write_text(path.read_text().replace(str(home), str(tmp_path)))
    with signals_heard():
        process = start(tmp_path, "--resume", "latest")
    while moment == "scoring" and not (folder / "best.yaml").exists():
        time.sleep(0.01)
    time.sleep(0.5)
    process.send_signal(number)
    sent = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - sent < 2
    words = f"the search was stopped; continue with: cnn-train search --resume searches/{folder.name}"
    assert (process.returncode, err.splitlines()[-1]) == (128 + number, words)
    end = cnn_train("search", "--resume", "latest", "--json", cwd=tmp_path).json
    assert end["identity_sha256"] == answer.json["identity_sha256"]
    assert end["test_accuracy"] == answer.json["test_accuracy"]


def test_a_full_disk_ends_a_search_that_goes_on_once_there_is_room(finished, cnn_train, tmp_path):
    home, answer = finished
    copied(home, tmp_path)
    with small_disk(tmp_path / "disk", 250) as disk:
        full = cnn_train("search", "space.yaml", "--searches-dir", "disk", cwd=tmp_path)
        assert full.code == 6
        *_, go_on, error = full.err.splitlines()
        assert go_on.startswith("nothing is lost; continue with: cnn-train search --resume disk/")
        assert error.startswith("error: disk/")
        assert "No space left on device; free some space on its disk" in error
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        end = cnn_train("search", "--resume", "latest", "--searches-dir", "disk", "--json", cwd=tmp_path)
        assert end.json["identity_sha256"] == answer.json["identity_sha256"]


def test_machines_without_a_shared_folder_continue_the_trials_of_others(finished, cnn_train, tmp_path):
    home, answer = finished
    words = ["space.yaml", "--storage", f"sqlite:///{tmp_path}/search.db", "--artifacts", tmp_path / "artifacts"]
    for machine in ("a", "b", "c", "d"):
        (tmp_path / machine).mkdir()
        for name in ("strokes.npz", "small.yaml", "space.yaml"):
            (tmp_path / machine / name).write_bytes((home / name).read_bytes())
    first = start(tmp_path / "a", *words, "--workers", "1")
    give_up = time.monotonic() + 120
    while not list(tmp_path.glob("artifacts/*-0001-1.tar")) and time.monotonic() < give_up:
        time.sleep(0.02)
    first.terminate()
    _, err = first.communicate(timeout=60)
    assert (first.returncode, "continue with the same command" in err) == (143, True), err
    second = cnn_train("search", *words, "--json", cwd=tmp_path / "b")
    assert second.code == 0, second.err
    assert second.json["identity_sha256"] == answer.json["identity_sha256"]
    assert second.json["test_accuracy"] == answer.json["test_accuracy"]
    metrics = "searches/*/trials/0001-small/metrics.jsonl"
    on_a, on_b = (next((tmp_path / machine).glob(metrics)).read_text().splitlines() for machine in "ab")
    assert on_a[0] == on_b[0]  # with its times
    assert len(on_b) == 2
    third = cnn_train("search", *words, "--json", cwd=tmp_path / "c")
    assert third.json == second.json
    assert (tmp_path / "c" / third.json["winning_run"] / "run.json").exists()
    with sqlite3.connect(tmp_path / "search.db") as database:  # as if the machine had died before it scored the winner
        database.execute("DELETE FROM study_user_attributes WHERE key = 'test'")
        database.execute("UPDATE cnn_train_jobs SET is_done = 0, owner = 'dead' WHERE job = 'score'")
    database.close()
    program = "from cnn_trainer.search import database, shared; database.LOST_SECONDS = shared.LOST_SECONDS = 1; "
    program += "from cnn_trainer.__main__ import main; main()"
    command = [sys.executable, "-c", program, "search", *words[:3], "--json"]
    fourth = subprocess.run(command, cwd=tmp_path / "d", capture_output=True, text=True, check=True)
    assert json.loads(fourth.stdout) == second.json  # it had to train the winner again
    resumed = cnn_train("search", "--resume", "latest", cwd=tmp_path / "c")
    assert resumed.code == 2
    assert "this search is in a database; continue it with the command that began it" in resumed.err


def test_a_wrong_space_file_is_refused_before_anything_is_written(space, tmp_path):
    space.write_text(SPACE.replace("trials: 6", "trials: 0").replace("0.001", "-1"))
    code, out, err = invoke("search", space, "--searches-dir", tmp_path / "searches")
    assert (code, out) == (3, "")
    assert f"{space}:5: space.training.learning_rate.low: got -1; must be greater than 0 with log: true" in err
    assert f"{space}:7: trials: got 0; must be at least 1" in err
    assert not (tmp_path / "searches").exists()


def test_a_dry_run_checks_and_writes_nothing(space, tmp_path):
    code, _, err = invoke("search", space, "--searches-dir", tmp_path / "searches", "--dry-run")
    assert code == 0
    assert "trials: 6 by tpe, 2 at a time, compared after 1, 2 epochs" in err
    assert "dry run: nothing was written" in err
    assert not (tmp_path / "searches").exists()


def test_a_dry_run_checks_the_database_too(space, tmp_path):
    words = ["search", space, "--searches-dir", tmp_path / "searches", "--dry-run", "--storage"]
    code, _, err = invoke(*words, "postgresql://me:hidden@127.0.0.1:9/x")
    assert code == 2
    assert "postgresql://me:***@127.0.0.1:9/x: cannot be connected to" in err
    assert invoke(*words, f"sqlite:///{tmp_path}/x.db")[0] == 0
    assert not (tmp_path / "searches").exists()


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["start"], 2, "give either a space file, or --resume SEARCH"),
        (["a.yaml", "--resume", "latest"], 2, "give either a space file, or --resume SEARCH"),
        (["--resume", "latest", "--dry-run"], 2, "--dry-run checks a space file"),
        (["--resume", "latest", "--storage", "sqlite:///x.db"], 2, "give its space file instead of --resume"),
        (["a.yaml", "--artifacts", "b"], 2, "--artifacts is for searches on several machines, and needs --storage"),
        (["none.yaml"], 3, "none.yaml: there is no such file; configs/searches/mnist.yaml is an example"),
        (["--resume", "latest", "--searches-dir", "none"], 6, "there is no search under none yet"),
        (["show", "latest", "--searches-dir", "none"], 6, "there is no search under none yet"),
        (["list", "--searches-dir", "none"], 0, "no searches in none"),
    ],
)
def test_what_is_typed_wrong_is_told(words, code, expected):
    found = invoke("search", *words)
    assert found[0] == code
    assert expected in found[2]


def test_other_images_than_the_search_began_with_are_refused(finished, cnn_train, tmp_path, strokes):
    import numpy as np

    from cnn_trainer.search import journal

    home, answer = finished
    opened = journal.open_search(home / answer.json["search"])
    text = json.dumps({**opened.record.model_dump(), "status": "interrupted"})
    copy = tmp_path / "searches" / opened.dir.name
    copy.mkdir(parents=True)
    for name in ("search.yaml", "experiment.yaml"):
        (copy / name).write_bytes((opened.dir / name).read_bytes())
    (copy / "search.json").write_text(text)
    other = strokes["x_train"].copy()
    other[0, 0, 0] ^= 1
    np.savez(tmp_path / "strokes.npz", **{**strokes, "x_train": other})
    experiment = (copy / "experiment.yaml").read_text().replace(str(home), str(tmp_path))
    (copy / "experiment.yaml").write_text(experiment)
    answer = cnn_train("search", "--resume", "latest", cwd=tmp_path)
    assert answer.code == 6
    assert "these are not the training images that the search began with" in answer.err


def test_a_search_that_fails_says_how_to_go_on(space, cnn_train, tmp_path):
    """A folder stands in the place of the journal."""
    from cnn_trainer.search import journal
    from cnn_trainer.search.load import load_search

    opened = journal.create_search(tmp_path / "searches", space, *load_search(space, pytest.fail, lambda *_: None))
    (opened.dir / "journal.jsonl").mkdir()
    answer = cnn_train("search", "--resume", "latest", cwd=tmp_path)
    assert answer.code == 6
    assert f"nothing is lost; continue with: cnn-train search --resume searches/{opened.dir.name}" in answer.err
    assert "journal.jsonl: is a folder, not a regular file; move it away" in answer.err
    assert read_json(opened.dir / "search.json")["status"] == "failed"


def test_a_broken_search_is_listed_with_its_fault(tmp_path):
    broken = tmp_path / "20260101-000000-broken"
    broken.mkdir()
    (broken / "search.json").write_text("{")
    code, out, err = invoke("search", "list", "--searches-dir", tmp_path)
    assert (code, out) == (0, "")
    assert "20260101-000000-broken is broken" in err
    assert invoke("search", "show", broken)[0] == 6
