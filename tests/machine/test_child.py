"""A function in its own process: what goes in, what comes back, and how its end is reported."""

import json
import os

import pytest

from cnn_trainer.machine.child import run_child

PROGRAM = """
import json, os, sys, time
from cnn_trainer.machine import child

def facts():
    os.write(1, b"chatter")
    print("more of it")
    return {"words": sys.argv[1:], "stdin": sys.stdin.read(), "variable": os.environ["CHILD"], "path": sys.path}

def main(): child.answer(facts)
def fail(): sys.exit("\\nno room left\\n")
def die(): os.kill(os.getpid(), 9)
def hang(): time.sleep(60)
def raise_it(): child.answer(lambda: 1 / 0)
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Runs a function of the program, in a folder from which nothing must be imported."""
    (tmp_path / "programs").mkdir()
    (tmp_path / "programs" / "program.py").write_text(PROGRAM)
    (tmp_path / "working").mkdir()
    (tmp_path / "working" / "json.py").write_text("raise SystemExit('taken from the working folder')")
    monkeypatch.chdir(tmp_path / "working")
    folder = str(tmp_path / "programs")
    return lambda name, *words, **options: run_child(f"program:{name}", *words, folder=folder, **options)


def test_arguments_and_variables_go_in_and_only_the_answer_comes_back(program, tmp_path):
    ended = program("main", "a b", "--c", environment={"CHILD": "1"})
    found = json.loads(ended.stdout)
    assert (found["words"], found["stdin"], found["variable"]) == (["a b", "--c"], "", "1")
    assert not {"", ".", str(tmp_path / "working")} & set(found["path"])
    assert (ended.failure, ended.exit_code, ended.signal_name) == (None, 0, None)
    assert ended.messages == ["chattermore of it"]
    assert "CHILD" not in os.environ


@pytest.mark.parametrize(
    ("name", "failure", "exit_code", "signal_name"),
    [
        ("fail", "exit code 1: no room left", 1, None),
        ("raise_it", "exit code 1: ZeroDivisionError: division by zero", 1, None),
        ("die", "its process was ended by SIGKILL", None, "SIGKILL"),
        ("hang", "its process did not end within 1 seconds", None, None),
    ],
)
def test_a_failure_is_described_in_one_line(program, name, failure, exit_code, signal_name):
    ended = program(name, timeout_seconds=1.0 if name == "hang" else 60.0)
    assert (ended.failure, ended.exit_code, ended.signal_name) == (failure, exit_code, signal_name)


def test_a_process_that_cannot_be_started_is_reported(program, monkeypatch):
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    assert program("main").failure == "no process could be started: No such file or directory"
