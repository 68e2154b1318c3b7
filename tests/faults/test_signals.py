"""SIGTERM and Ctrl-C: a checkpoint at the next step, exit code 143 or 130 within two seconds, and a resumable run."""

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from numpy.random import default_rng
from support import signals_heard

from .harness import PROGRAM, fingerprint, only_run, read_json, wait_until, write_config

MAX_SECONDS = 2  # from the signal to the end of the process, on a machine with nothing else to do
LONG = ("patience: 3", "patience: 1000")


def is_training(run_dir: Path) -> bool:
    return read_json(run_dir / "run.json")["status"] == "training"


def start_long_run(zygote, tmp_path: Path, **more) -> tuple[object, Path]:
    """Start a run that trains for minutes, and wait for its first checkpoint."""
    child = zygote.start("train", write_config(tmp_path, 500, LONG), "--runs-dir", tmp_path / "runs", **more)
    wait_until(lambda: [*(tmp_path / "runs").rglob("step-*")] or child.ended.is_set())
    assert not child.ended.is_set(), child.stderr
    return child, only_run(tmp_path / "runs")


def stop(child, number: int) -> int:
    began = time.monotonic()
    child.signal(number)
    code = child.wait()
    assert time.monotonic() - began < MAX_SECONDS * (1 if os.getloadavg()[0] < 1 else 3)
    return code


def test_sigterm_at_random_instants_leaves_a_run_that_can_be_resumed(zygote, reference, tmp_path):
    chance = default_rng(2)
    child, run_dir = start_long_run(zygote, tmp_path)
    stopped = 0
    for _ in range(10):
        time.sleep(chance.uniform(0, 2.5))
        training = "run: " in child.stderr
        code = stop(child, signal.SIGTERM)
        assert code == 143 or (code == -signal.SIGTERM and not child.stderr)  # too early for this program to handle it
        assert "Traceback" not in child.stderr
        if "stopped in epoch" in child.stderr:
            stopped += 1
            assert f"continue with: cnn-train resume {run_dir}" in child.stderr
            assert read_json(run_dir / "run.json")["status"] == "interrupted"
        else:
            assert not training
        child = zygote.start("resume", run_dir)
    assert stopped >= 3
    child.signal(signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_while_the_program_starts_ends_it_quietly(reference, tmp_path, number):
    run_dir = reference.copy(tmp_path)
    for delay in (0.5, 1.2, 2.0):
        command = ["nice", PROGRAM, "resume", run_dir, "--epochs", "100", "--quiet"]
        with signals_heard():
            process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
        time.sleep(delay)
        process.send_signal(number)
        words = process.communicate(timeout=30)[1]
        assert process.returncode in (128 + number, -number), words
        assert "Traceback" not in words


def test_process_1_of_a_container_receives_sigterm(zygote, reference, tmp_path):
    unshare = ["unshare", "--pid", "--fork", "--mount-proc"]
    tried = subprocess.run([*unshare, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no process namespace can be made here: {tried.stderr.strip()}")
    config = write_config(tmp_path, 500, LONG)
    runs_dir = tmp_path / "runs"
    command = [*unshare, PROGRAM, "train", config, "--runs-dir", runs_dir]
    with signals_heard():
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: [*runs_dir.rglob("step-*")] or process.poll() is not None)
    first = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0]
    assert f"NSpid:\t{first}\t1\n" in Path(f"/proc/{first}/status").read_text()
    os.kill(int(first), signal.SIGTERM)
    words = process.communicate(timeout=30)[1]
    assert process.returncode == 143, words
    assert "stopped in epoch" in words
    assert read_json(only_run(runs_dir) / "run.json")["status"] == "interrupted"


def test_a_process_started_by_nohup_survives_its_terminal(tmp_path):
    command = ["nohup", PROGRAM, "train", write_config(tmp_path, 6), "--runs-dir", tmp_path / "runs", "--quiet"]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with signals_heard():
        process = subprocess.Popen(command, start_new_session=True, **pipes)
    ignored = re.compile(r"SigIgn:\s+\w*[13579bdf]\n")  # the lowest bit is SIGHUP's
    wait_until(lambda: ignored.search(Path(f"/proc/{process.pid}/status").read_text()))
    while process.poll() is None:
        os.killpg(process.pid, signal.SIGHUP)
        time.sleep(0.05)
    words = process.communicate(timeout=30)[1]
    assert process.returncode == 0, words
    assert read_json(only_run(tmp_path / "runs") / "run.json")["status"] == "finished"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_a_run_ignores_what_its_parent_ignored_and_stops_at_sigterm(zygote, tmp_path, number):
    child, run_dir = start_long_run(zygote, tmp_path, ignored=[number])
    child.signal(number)
    before = {path.name for path in run_dir.rglob("step-*")}
    wait_until(lambda: {path.name for path in run_dir.rglob("step-*")}.isdisjoint(before) or child.ended.is_set())
    assert is_training(run_dir)
    assert stop(child, signal.SIGTERM) == 143
    assert read_json(run_dir / "run.json")["status"] == "interrupted"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM])
def test_children_receive_signals_that_these_tests_ignore(number):
    program = f"import signal; print(signal.getsignal({number:d}) == signal.SIG_IGN)"
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with signals_heard():
            heard = subprocess.check_output([sys.executable, "-c", program], text=True)
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)
    assert heard == "False\n"


@pytest.fixture
def terminal():
    """A terminal: the end with its keyboard and screen, and the path by which a process opens it."""
    screen, keyboard = pty.openpty()
    yield screen, os.ttyname(keyboard)
    os.close(screen)
    os.close(keyboard)


def read_screen(screen: int, seconds: float = 0.2) -> str:
    os.set_blocking(screen, False)
    text, end = b"", time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            text += os.read(screen, 65_536)
        except BlockingIOError:
            time.sleep(0.01)
    return text.decode(errors="replace")


def test_ctrl_c_on_a_terminal_leaves_a_run_that_can_be_resumed(zygote, tmp_path, terminal):
    screen, path = terminal
    child, run_dir = start_long_run(zygote, tmp_path, streams=[path] * 3)
    read_screen(screen)
    os.write(screen, b"\x03")
    assert child.wait() == 130
    words = read_screen(screen)
    assert "stopped in epoch" in words
    assert "Traceback" not in words
    assert words.rfind("\x1b[?25h") > words.rfind("\x1b[?25l") or "\x1b[?25l" not in words  # the cursor is visible
    assert read_json(run_dir / "run.json")["status"] == "interrupted"


def test_a_second_ctrl_c_leaves_at_once_with_every_file_valid(zygote, reference, tmp_path, terminal):
    screen, path = terminal
    shutil.copytree(reference.dir, tmp_path / "run")
    text = (tmp_path / "run" / "config.yaml").read_text()
    (tmp_path / "run" / "config.yaml").write_text(text.replace("epochs: 3\n", "epochs: 4\n"))
    record = (tmp_path / "run" / "run.json").read_text()
    (tmp_path / "run" / "run.json").write_text(record.replace('"finished"', '"interrupted"'))
    child = zygote.start_call("resume_with_slow_checkpoints", tmp_path / "run", streams=[path] * 3)
    wait_until(lambda: is_training(tmp_path / "run") or child.ended.is_set())
    time.sleep(0.5)
    os.write(screen, b"\x03")
    time.sleep(2.5)  # the first asks for a checkpoint, which here takes ten seconds
    assert not child.ended.is_set(), read_screen(screen)
    began = time.monotonic()
    os.write(screen, b"\x03")
    assert child.wait() == 130
    assert time.monotonic() - began < 1
    words = read_screen(screen)
    assert "Traceback" not in words
    assert words.rstrip().endswith("\x1b[?25h")
    zygote.run("train", write_config(tmp_path, 4), "--runs-dir", tmp_path / "whole")
    zygote.run("resume", tmp_path / "run")
    assert fingerprint(tmp_path / "run") == fingerprint(only_run(tmp_path / "whole"))
