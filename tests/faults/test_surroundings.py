"""Streams that close, a missing home, characters that cannot be shown, a clock that jumps: training goes on."""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from cnn_trainer.machine import backend, facts
from cnn_trainer.runs import details, store
from cnn_trainer.training.run import differences

from .harness import PROGRAM, fingerprint, only_run, wait_until


def test_a_reader_of_stdout_that_ends_early_changes_nothing(zygote, reference, tmp_path):
    with closing_pipe(tmp_path / "pipe", read=1) as pipe:
        arguments = ["train", reference.config, "--runs-dir", tmp_path / "runs", "--json"]
        child = zygote.start(*arguments, streams=["/dev/null", pipe.path, str(tmp_path / "stderr")])
        pipe.read_and_close()
        assert child.wait() == 0
    assert "Traceback" not in (tmp_path / "stderr").read_text()
    assert fingerprint(only_run(tmp_path / "runs")) == reference.fingerprint


def test_an_early_end_of_whoever_reads_stderr_changes_nothing(zygote, reference, tmp_path):
    with closing_pipe(tmp_path / "pipe", read=300) as pipe:  # it reads some lines, and goes away during training
        arguments = ["train", reference.config, "--runs-dir", tmp_path / "runs", "--json"]
        child = zygote.start(*arguments, streams=["/dev/null", str(tmp_path / "stdout"), pipe.path])
        pipe.read_and_close()
        assert child.wait() == 0
    outcome = json.loads((tmp_path / "stdout").read_text())
    assert outcome["weights_sha256"] == reference.fingerprint["weights_sha256"]
    assert fingerprint(only_run(tmp_path / "runs")) == reference.fingerprint


@pytest.mark.parametrize("closed", [[2], [0, 1, 2]])
def test_streams_that_were_closed_before_the_start_change_nothing(zygote, reference, tmp_path, closed):
    names = ["/dev/null", str(tmp_path / "stdout"), str(tmp_path / "stderr")]
    streams = [None if number in closed else name for number, name in enumerate(names)]
    zygote.run("train", reference.config, "--runs-dir", tmp_path / "runs", streams=streams)
    run_dir = only_run(tmp_path / "runs")
    assert fingerprint(run_dir) == reference.fingerprint
    zygote.run("evaluate", run_dir, "--json", streams=streams)
    if 1 not in closed:
        assert '"weights_sha256"' in (tmp_path / "stdout").read_text()


class ClosingPipe:
    """A named pipe whose reader goes away after a number of bytes."""

    def __init__(self, path: Path, read: int) -> None:
        os.mkfifo(path)
        self.path, self._read = str(path), read
        self._reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def read_and_close(self) -> None:
        found = bytearray()

        def enough() -> bool:
            with contextlib.suppress(BlockingIOError):
                found.extend(os.read(self._reader, self._read - len(found)))
            return len(found) >= self._read

        wait_until(enough)
        os.close(self._reader)
        self._reader = -1


@contextlib.contextmanager
def closing_pipe(path: Path, read: int):
    pipe = ClosingPipe(path, read)
    yield pipe
    if pipe._reader >= 0:
        os.close(pipe._reader)


ODD_NAME = b"a b\n\xff\xf0\x9f\x98\x80'\"$;"


def test_a_stranger_without_a_home_or_utf_8_trains_to_the_same_bits_in_a_folder_of_odd_name(reference):
    """Another process, another user: the same seed gives the same weights."""
    as_nobody = ["unshare", "--user", "--map-user", "12345"]  # the owner of the same files, under an unknown user id
    tried = subprocess.run([*as_nobody, "true"], capture_output=True, text=True, check=False)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "faults.yaml").write_bytes(reference.config.read_bytes())
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
        if "PYTHONPATH" in os.environ:
            environment["PYTHONPATH"] = os.environ["PYTHONPATH"]
        runs_dir = os.fsencode(folder) + b"/" + ODD_NAME
        command = [
            *([] if tried.returncode else as_nobody),
            "nice",
            str(PROGRAM),
            "train",
            "faults.yaml",
            "--json",
            "--runs-dir",
            runs_dir,
        ]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        assert b"Traceback" not in done.stderr
        assert (done.stdout + done.stderr).isascii()
        outcome = json.loads(done.stdout)
        assert outcome["weights_sha256"] == reference.fingerprint["weights_sha256"]
        assert fingerprint(only_run(Path(os.fsdecode(runs_dir)))) == reference.fingerprint
    if tried.returncode:
        pytest.skip(f"all was shown but the unknown user: {tried.stderr.strip()}")


def test_a_clock_that_jumps_changes_nothing(zygote, reference, tmp_path):
    child = zygote.start_call("train_on_a_jumping_clock", reference.config, tmp_path / "runs")
    assert child.wait() == 0, child.stderr
    run_dir = only_run(tmp_path / "runs")
    assert fingerprint(run_dir) == reference.fingerprint
    record = store.read_run_record(run_dir)
    assert record.updated_at < record.created_at  # the clock did go back
    assert details.summarize(run_dir).status == "finished"


def test_differences_since_the_run_began_are_named(zygote, reference, monkeypatch):
    record = store.read_run_record(reference.dir)
    same = backend.Backend(record.device, "", record.towers, record.intra_op_threads, record.inter_op_threads)
    monkeypatch.setattr(facts, "environment", lambda: record.environment)
    assert differences(record, same) == []
    other = record.model_copy(
        update={
            "versions": {**record.versions, "keras": "3.0.0"},
            "machine": {**record.machine, "processor": "abacus"},
            "environment": {"TF_ENABLE_ONEDNN_OPTS": "0"},
            "device": "gpu x",
            "towers": 64,
        }
    )
    lines = differences(other, same)
    assert [line.split(" is ")[0] for line in lines] == [
        "TF_ENABLE_ONEDNN_OPTS was 0,",
        "device was gpu x,",
        "keras was 3.0.0,",
        "processor was abacus,",
        "towers was 64,",
    ]


def test_a_difference_is_reported_on_resume(zygote, reference, tmp_path):
    run_dir = reference.copy(tmp_path)
    text = (run_dir / "run.json").read_text()
    (run_dir / "run.json").write_text(text.replace('"environment": {}', '"environment": {"XLA_FLAGS": "x"}'))
    child = zygote.start("resume", run_dir, "--epochs", 4)
    assert child.wait() == 0, child.stderr
    assert "WARNING: XLA_FLAGS was x, is not set; the bits of the result may differ" in child.stderr
    child.signal(signal.SIGKILL)
