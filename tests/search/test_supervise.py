"""Workers that die, hang, fail and must stop: what becomes of the search."""

import os
import signal
import subprocess
import threading
import time

import pytest
from faults.harness import small_disk

from cnn_trainer.errors import CnnTrainError, DeviceError, RunDirectoryError, StoppedError
from cnn_trainer.machine import child
from cnn_trainer.search import journal, supervise
from cnn_trainer.search.board import JournalBoard
from cnn_trainer.search.display import SearchDisplay
from cnn_trainer.search.run import SearchFeedback
from cnn_trainer.search.spec import identity


@pytest.fixture
def search_with(make_opened, monkeypatch):
    """A function that carries out a search with workers of search_worker: its folder, its warnings, its processes."""

    def carry_out(function, num_workers=2, opened=None, **keys):
        opened = opened or make_opened(**keys)
        warnings, processes = [], []

        def start(*words):
            processes.append(real(*words))
            return processes[-1]

        monkeypatch.setattr(supervise, "_FUNCTION", f"search_worker:{function}")
        monkeypatch.setattr(child, "start_child", start)
        try:
            feedback = SearchFeedback(warnings.append, SearchDisplay(opened.search))
            supervise.supervise(opened, feedback, JournalBoard(opened), num_workers)
        finally:
            assert all(process.poll() is not None for process in processes)
        return opened, warnings, processes

    real = child.start_child
    return carry_out


def found(opened):
    return identity(journal.read_results(opened.dir))


def test_workers_that_die_and_their_number_do_not_matter(search_with, monkeypatch):
    monkeypatch.setattr(supervise, "MAX_DEATHS", 1000)
    opened, _, _ = search_with("compute", num_workers=1)
    num_deaths = 0
    for num_workers in (2, 7):
        other, warnings, processes = search_with("compute_and_die", num_workers)
        assert found(other) == found(opened)
        assert len(warnings) >= len(processes) - num_workers
        assert all("continues from its last checkpoint" in line for line in warnings)
        num_deaths += len(warnings)
    assert num_deaths


def test_no_more_workers_are_started_than_asked_for(search_with):
    _, _, processes = search_with("compute", num_workers=3)
    assert len(processes) <= 3


def test_a_worker_is_replaced_after_some_jobs(search_with, monkeypatch):
    monkeypatch.setattr(supervise, "MAX_JOBS", 3)
    opened, warnings, processes = search_with("compute", num_workers=1, trials=7, rungs="null")
    num_jobs = len(journal.read_results(opened.dir))
    assert (len(processes), warnings) == (-(-num_jobs // 3), [])


def test_a_job_that_three_workers_die_of_ends_the_search(search_with, make_opened):
    opened = make_opened()
    with pytest.raises(DeviceError) as raised:
        search_with("die_of_trial_3", opened=opened)
    assert raised.value.problem == "3 workers died on this trial; the last failure: its process was ended by SIGKILL"
    assert raised.value.place.endswith("/trials/0003-small")
    assert {result.trial for result in journal.read_results(opened.dir)} >= {1, 2}
    finished, _, _ = search_with("compute", opened=opened)
    assert found(finished) == found(search_with("compute")[0])


def test_deaths_on_the_way_to_an_earlier_rung_do_not_count(search_with):
    opened, warnings, _ = search_with(
        "die_twice_of_each_job", trials=2, rungs="{first: 1, factor: 2, last: 4}", final={"trials": 1, "seeds": 1}
    )
    results = journal.read_results(opened.dir)
    assert max(result.rung for result in results if result.final is None) > 1
    assert len(warnings) == 2 * len(results)


def test_a_worker_that_hangs_is_replaced(search_with, monkeypatch):
    monkeypatch.setattr(supervise, "HANG_SECONDS", 5.0)
    opened, warnings, processes = search_with("hang_once", trials=3, rungs="null")
    assert [process.returncode for process in processes].count(-signal.SIGKILL) == 1
    assert len(warnings) == 1
    assert len(journal.read_results(opened.dir)) > 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stop_takes_two_seconds_at_most_also_if_workers_do_not_hear_it(search_with, number, monkeypatch):
    before = signal.signal(number, signal.default_int_handler)
    sent = []

    def stop():
        sent.append(time.monotonic())
        os.kill(os.getpid(), number)

    timer = threading.Timer(2.0, stop)
    timer.start()
    try:
        with pytest.raises(StoppedError) as raised:
            search_with("never_end")
    finally:
        timer.cancel()
        signal.signal(number, before)
    assert time.monotonic() - sent[0] < 2.0
    assert raised.value.exit_code == 128 + number


def test_what_a_job_fails_with_ends_the_search(search_with):
    with pytest.raises(CnnTrainError, match="trial 1: No space left") as raised:
        search_with("fail", num_workers=1)
    assert raised.value.exit_code == 6


def test_the_same_warning_is_shown_once(search_with):
    _, warnings, _ = search_with("warn", trials=3)
    assert warnings == ["slow"]


def test_a_system_without_room_for_a_process_is_told(make_opened, monkeypatch):
    def refuse(*_, **__):
        raise OSError(11, "Resource temporarily unavailable")

    opened = make_opened()
    monkeypatch.setattr(subprocess, "Popen", refuse)
    feedback = SearchFeedback(pytest.fail, SearchDisplay(opened.search))
    with pytest.raises(DeviceError, match="Resource temporarily unavailable; use fewer workers with --workers"):
        supervise.supervise(opened, feedback, JournalBoard(opened), 2)


def test_a_disk_too_full_for_the_journal_loses_no_result(make_opened, search_with, tmp_path):
    with small_disk(tmp_path / "searches", 24) as disk:
        opened = make_opened()
        with pytest.raises(RunDirectoryError, match=r"journal\.jsonl: cannot be appended to: No space left on device"):
            search_with("compute", opened=opened)
        results = journal.read_results(opened.dir)
        subprocess.run(["mount", "-o", "remount,size=1m", str(disk)], check=True)
        search_with("compute", opened=opened)
        assert journal.read_results(opened.dir)[: len(results)] == results
        assert results
        digest = found(opened)
    assert digest == found(search_with("compute")[0])


def test_a_search_stops_also_if_the_signal_comes_with_its_last_result(search_with, monkeypatch):
    def end(workers):
        real(workers)
        os.kill(os.getpid(), signal.SIGTERM)

    real = supervise._end
    monkeypatch.setattr(supervise, "_end", end)
    with pytest.raises(StoppedError):
        search_with("compute", trials=2, final={"trials": 1})
