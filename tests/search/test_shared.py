"""Several supervisors of one search in a database: killed, without a database, without a shared folder."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from postgres import Server

from cnn_trainer.search import journal, supervise
from cnn_trainer.search.board import JournalBoard
from cnn_trainer.search.display import SearchDisplay
from cnn_trainer.search.run import SearchFeedback
from cnn_trainer.search.spec import identity

SETTINGS = {"LOST_SECONDS": 2.0, "BEAT_SECONDS": 0.4, "POLL_SECONDS": 0.1}


@pytest.fixture
def server():
    started = Server()
    try:
        yield started.start()
    finally:
        started.remove()


@pytest.fixture
def supervisors(write_space, tmp_path):
    """A function that starts a supervisor of the same search; those that still run are killed in the end."""
    space, started = write_space(), []

    def start(url, home="searches", function="compute_slowly", **settings):
        program = Path(__file__).with_name("search_supervisor.py")
        words = [sys.executable, program, space, tmp_path / home, url, function, json.dumps({**SETTINGS, **settings})]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def expected(make_opened, monkeypatch):
    """The identity of the same search in a journal."""
    opened = make_opened()
    monkeypatch.setattr(supervise, "_FUNCTION", "search_worker:compute")
    feedback = SearchFeedback(pytest.fail, SearchDisplay(opened.search))
    supervise.supervise(opened, feedback, JournalBoard(opened), 2)
    return identity(journal.read_results(opened.dir))


def study_at(url):
    """The trials and the user attributes of the only study in a database."""
    storage = optuna.storages.RDBStorage(url)
    (study,) = storage.get_all_studies()
    trials = storage.get_all_trials(study._study_id)
    storage.engine.dispose()
    return trials, study.user_attrs


def num_results(search_dirs):
    return max((len(journal.read_results(path)) for path in search_dirs), default=0)


def wait_for(home, number, process):
    """Until a journal under ``home``, where ``process`` works, has so many results."""
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up:
        if num_results(home.iterdir() if home.exists() else ()) >= number:
            return
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    pytest.fail("the search does not get on")


def test_supervisors_that_are_killed_and_a_server_that_restarts_do_not_matter(server, supervisors, expected, tmp_path):
    first, second = supervisors(server.url), supervisors(server.url, home="elsewhere")
    wait_for(tmp_path / "elsewhere", 6, second)
    first.send_signal(signal.SIGKILL)
    server.stop()
    time.sleep(1.5)
    server.start()
    third = supervisors(server.url)
    ends = []
    for process in (second, third):
        out, err = process.communicate(timeout=90)
        assert process.returncode == 0, err
        ends.append(json.loads(out))
        if process is second:
            assert err.count("the database does not answer; waiting for it, and training goes on") == 1
            assert err.count("the database answers again") == 1
    assert [end["identity"] for end in ends] == [expected, expected]
    assert sum(end["scored"] for end in ends) == 1
    assert [identity(journal.read_results(Path(end["search"]))) for end in ends] == [expected, expected]
    assert len(study_at(f"{server.url}?client_encoding=utf8")[0]) == 24


def test_a_database_that_never_comes_back_ends_the_search(server, supervisors, expected, tmp_path):
    one = supervisors(server.url, "here", GIVE_UP_SECONDS=2.0)
    wait_for(tmp_path / "here", 3, one)
    server.stop()
    _, err = one.communicate(timeout=60)
    assert one.returncode == 6
    assert "run the same command again when it does; finished jobs are read from their run directories" in err
    server.start()
    again = supervisors(server.url, "here", function="compute")
    out, err = again.communicate(timeout=60)
    assert json.loads(out)["identity"] == expected, err


def test_jobs_of_a_supervisor_that_is_stopped_are_free_at_once(supervisors, tmp_path):
    url = f"sqlite:///{tmp_path / 'search.db'}"
    one = supervisors(url, LOST_SECONDS=1000.0)
    wait_for(tmp_path / "searches", 2, one)
    one.send_signal(signal.SIGTERM)
    _, err = one.communicate(timeout=10)
    assert one.returncode == 128 + signal.SIGTERM, err
    again = supervisors(url, LOST_SECONDS=1000.0, function="compute")
    # Its winner has no run directory, so it would wait for LOST_SECONDS to score it.
    deadline = time.monotonic() + 40
    while not is_trained(url) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert is_trained(url)
    again.kill()


def is_trained(url):
    return sum("final" in key for key in study_at(url)[1]) == 15


def test_the_study_shows_what_came_of_each_trial(supervisors, tmp_path):
    url = f"sqlite:///{tmp_path / 'search.db'}"
    one = supervisors(url, function="compute", LOST_SECONDS=0.5)
    _, err = one.communicate(timeout=60)
    assert one.returncode == 0, err
    trials, attributes = study_at(url)
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    assert complete
    assert all(sorted(trial.intermediate_values) == [1, 3, 9] for trial in complete)
    assert {trial.state for trial in trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    assert attributes["test"]["accuracy"] == 0.5
    assert set(complete[0].params) == {
        "training.learning_rate", "training.batch_size", "model.filters", "model.dense_units"
    }  # fmt: skip
