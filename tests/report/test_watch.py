"""``report --watch``: the page follows the training, reloads itself while it does, and stops doing so at the end."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from page_checks import check_is_harmless
from reading import read_html, rows_of
from support import invoke, signals_heard
from test_search_page import make_search

from cnn_trainer.machine.stopping import StopRequest
from cnn_trainer.report import subject
from cnn_trainer.runs import paths, store
from cnn_trainer.search import journal

PATIENCE = 60  # seconds


@pytest.fixture
def training(finished_run, tmp_path):
    """A run that is being trained as far as anybody can see: this process holds it, and one epoch has ended."""
    run_dir = shutil.copytree(finished_run, tmp_path / "runs" / finished_run.name)
    for name in (paths.EVALUATION_FILE, paths.WEIGHTS_FILE):
        (run_dir / name).unlink()
    run = store.open_run(run_dir)
    history = store.read_metrics(run)
    store.rewrite_metrics(run, history[:1])
    with store.lock_run(run):
        store.update_record(run, status="training", epochs_done=0, weights_sha256=None)
        yield run, history


def refreshes(text):
    return [one.attrs["content"] for one in read_html(text).all("meta", http_equiv="refresh")]


def epochs_on(text):
    section = read_html(text).one("h2", id="curves").parent
    return [int(row[0]) for row in rows_of(section.one("table"))]


def wait_until(is_so):
    give_up = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < give_up
        time.sleep(0.05)


class Watch(threading.Thread):
    """``watch_subject`` in the background."""

    def __init__(self, words, path):
        super().__init__()
        self.about = subject.find_subject(words, path.parent, None, lambda _: None)
        self.path, self.stop, self.first = path, StopRequest(), []

    def run(self):
        self.content = subject.watch_subject(
            self.about, self.path, self.stop, lambda: self.first.append(time.monotonic())
        )

    def wait_for_page(self, is_so):
        wait_until(lambda: self.path.exists() and is_so(self.path.read_text("utf-8")))


def test_the_page_follows_the_epochs_and_reloads_itself_until_the_end(training, tmp_path):
    run, history = training
    watch = Watch([str(run.dir)], tmp_path / "page.html")
    watch.start()
    watch.wait_for_page(lambda text: epochs_on(text) == [1])
    text = watch.path.read_text("utf-8")
    assert refreshes(text) == [str(subject.RELOAD_SECONDS)]
    check_is_harmless(read_html(text), refreshes=True)
    store.append_metrics(run, history[1])
    watch.wait_for_page(lambda text: epochs_on(text) == [1, 2])
    assert watch.is_alive()
    store.update_record(run, status="finished", epochs_done=2)
    watch.join(PATIENCE)
    assert not watch.is_alive()
    assert watch.path.read_bytes() == watch.content
    assert refreshes(watch.content.decode()) == []
    assert len(watch.first) == 1


def test_a_page_is_not_written_again_without_a_change(training, tmp_path):
    run, _ = training
    watch = Watch([str(run.dir)], tmp_path / "page.html")
    watch.start()
    watch.wait_for_page(refreshes)
    before = watch.path.stat().st_ino
    time.sleep(1.5)
    assert watch.path.stat().st_ino == before
    watch.stop.signal_number = signal.SIGINT
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "excepthook", lambda _: None)  # StoppedError
        watch.join(PATIENCE)
    assert refreshes(watch.path.read_text("utf-8")) == []


def test_ctrl_c_leaves_a_page_that_does_not_reload(training, tmp_path):
    run, _ = training
    page = tmp_path / "page.html"
    words = [sys.executable, "-m", "cnn_trainer", "report", run.dir, "--output", page, "--watch"]
    with signals_heard():
        child = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: page.exists() or child.poll() is not None)
        assert child.poll() is None, child.stderr.read()
        assert refreshes(page.read_text("utf-8")) != []
        os.kill(child.pid, signal.SIGINT)
        out, err = child.communicate(timeout=PATIENCE)
    finally:
        child.kill()
    assert (child.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert "stop with Ctrl-C" in err
    assert str(page) in err.splitlines()[-1]
    assert refreshes(page.read_text("utf-8")) == []


def test_a_finished_run_is_written_once(finished_run, tmp_path):
    page = tmp_path / "page.html"
    code, _, err = invoke("report", finished_run, "--output", page, "--watch")
    assert code == 0, err
    text = page.read_text("utf-8")
    assert refreshes(text) == []
    assert epochs_on(text) == [1, 2]


def test_a_run_whose_process_died_is_not_watched_on(finished_run, tmp_path):
    run_dir = shutil.copytree(finished_run, tmp_path / finished_run.name)
    store.update_record(store.open_run(run_dir), status="training")
    code, _, err = invoke("report", run_dir, "--watch")
    assert code == 0, err
    assert refreshes((run_dir / "report.html").read_text("utf-8")) == []


def test_a_search_is_watched_too(tmp_path):
    whole = make_search(tmp_path / "whole", end=6)
    opened = make_search(tmp_path / "watched", end=5)
    with journal.lock_search(opened):
        watch = Watch([str(opened.dir)], tmp_path / "page.html")
        watch.start()
        watch.wait_for_page(refreshes)
        assert "5 of 24 trials" in watch.path.read_text("utf-8")
        journal.add_result(opened.dir, journal.read_results(whole.dir)[5])
        watch.wait_for_page(lambda text: "6 of 24 trials" in text)
        journal.update_search_record(opened, status="interrupted")
        watch.join(PATIENCE)
    assert not watch.is_alive()
    assert refreshes(watch.content.decode()) == []
