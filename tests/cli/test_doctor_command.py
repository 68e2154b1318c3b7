"""``doctor``: what it says about this machine, and about machines on which something is wrong."""

import errno
import fcntl
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import support

from cnn_trainer.doctor import examine
from cnn_trainer.errors import DeviceError
from cnn_trainer.machine import facts

WORKS = {
    "trains_on": "cpu",
    "gpus": [],
    "towers": 2,
    "intra_op_threads": 1,
    "inter_op_threads": 2,
    "bfloat16_gain": 1.0,
    "messages": [],
}
FAILS = DeviceError("its process was ended by SIGILL", remedy="install another")


@pytest.fixture(autouse=True)
def plain_machine(tmp_path, monkeypatch):
    """An empty folder, no variable that changes TensorFlow, and no data except what is installed."""
    for name in (*facts.RECORDED_ENVIRONMENT, "CNN_TRAIN_DATA_DIR", "CNN_TRAIN_RUNS_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def probes(monkeypatch):
    """The results of the probes, by device."""
    answers = {"auto": WORKS, "cpu": WORKS}

    def answer(device):
        if isinstance(answers[device], DeviceError):
            raise answers[device]
        return answers[device]

    monkeypatch.setattr(examine, "run_probe", answer)
    return answers


def diagnose():
    """The exit code and the JSON object."""
    code, out, _ = support.invoke("doctor", "--json")
    return code, json.loads(out)


def only(errors, words):
    (error,) = [error for error in errors if words in f"{error['place']}: {error['problem']}"]
    return error


class TestThisMachine:
    def test_it_trains_here_and_stdout_is_one_object(self):
        ended = subprocess.run(
            [sys.executable, "-m", "cnn_trainer", "doctor", "--json"], capture_output=True, text=True, check=False
        )
        found = json.loads(ended.stdout)
        assert (ended.returncode, found["errors"]) == (0, [])
        assert found["machine"]["trains_on"]
        assert found["machine"]["cores"] == facts.available_cores()
        assert found["machine"]["intra_op_threads"] >= 1
        assert found["machine"]["bfloat16_gain"] > 0
        assert found["versions"]["python"]
        assert found["versions"]["keras"]
        assert ended.stderr.splitlines()[-1] == "next: cnn-train train mnist"
        assert len(ended.stderr.splitlines()) == 2, "nothing of TensorFlow's chatter"

    def test_every_section_is_shown_and_nothing_is_written(self, probes, tmp_path):
        Path("runs").mkdir()
        code, out, err = support.invoke("doctor")
        assert code == 0
        assert re.findall("^([a-z]+)$", out, re.MULTILINE) == ["versions", "machine", "data", "environment", "wrong"]
        assert re.search("^  trains_on +cpu$", out, re.MULTILINE)
        assert re.search("^  fashion-mnist +none$", out, re.MULTILINE)
        assert re.search("^  mnist: not on this machine; .*cnn-train data fetch mnist", out, re.MULTILINE)
        assert err.splitlines()[-1] == "next: cnn-train train mnist"
        assert [path.name for path in tmp_path.rglob("*")] == ["runs"]


class TestBfloat16:
    @pytest.mark.parametrize("gain", [1.2, 1.58])
    def test_what_is_measured_to_be_faster_is_a_hint(self, probes, gain):
        probes["auto"] = WORKS | {"bfloat16_gain": gain}
        code, out, _ = support.invoke("doctor")
        words = f"{gain:.1f} times as fast in bfloat16 as in float32; try: --set runtime.precision=bfloat16"
        assert (code, f"\nhint\n  the products of the documented network are {words}\n" in out) == (0, True)

    @pytest.mark.parametrize("gain", [1.19, 0.4, None])
    def test_what_is_not_is_none(self, probes, gain):
        probes["auto"] = WORKS | {"bfloat16_gain": gain}
        code, found = diagnose()
        assert (code, found["hints"], found["machine"]["bfloat16_gain"]) == (0, [], gain)


class TestProbe:
    """The probe on fake TensorFlow modules, which the child finds before the real one."""

    @pytest.fixture
    def failure(self, tmp_path, monkeypatch):
        """A function that takes the text of tensorflow.py and returns what the probe raises."""

        def write(text):
            (tmp_path / "tensorflow.py").write_text(text)
            monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
            with pytest.raises(DeviceError) as caught:
                examine.run_probe("cpu")
            return caught.value

        return write

    def test_a_tensorflow_that_cannot_be_imported_is_told_with_its_own_remedy(self, failure):
        found = failure("import os\nos.write(1, b'chatter')\nraise ImportError('libfoo.so.1 is missing')")
        assert "libfoo.so.1 is missing" in found.problem
        assert found.remedy == f"install it with: {facts.install_command('tensorflow')}"

    def test_a_tensorflow_that_is_broken_in_another_way_is_told(self, failure):
        assert failure("raise AttributeError('no x')").problem.endswith("exit code 1: AttributeError: no x")

    def test_a_processor_without_the_instructions_is_told(self, failure):
        found = failure("import os, signal\nos.kill(os.getpid(), signal.SIGILL)")
        assert found.problem == "its process was ended by SIGILL"
        assert "build of TensorFlow for this processor" in found.remedy

    def test_a_tensorflow_that_hangs_is_given_up(self, failure, monkeypatch):
        monkeypatch.setattr(examine, "PROBE_SECONDS", 2.0)
        assert "did not end within 2 seconds" in failure("import time\ntime.sleep(60)").problem


class TestWhatIsWrong:
    def test_no_training_at_all_is_an_error_of_the_device(self, probes):
        probes["auto"] = probes["cpu"] = FAILS
        code, out, err = support.invoke("doctor")
        assert code == 5
        assert f"\n  training does not work here: {FAILS}\n" in out
        assert re.search("^  trains_on +none$", out, re.MULTILINE)
        assert err.splitlines()[-1] == f"error: training does not work here: {FAILS}"
        assert "next:" not in err

    def test_a_gpu_that_fails_does_not_stop_the_cpu(self, probes):
        probes["auto"] = DeviceError("CUDA_ERROR_UNKNOWN")
        code, found = diagnose()
        assert code == 0
        assert "--device cpu" in only(found["warnings"], "training works only on the CPU: CUDA_ERROR_UNKNOWN")["remedy"]

    def test_a_runs_directory_that_cannot_be_used_is_an_error_of_the_run_directory(self, probes):
        Path("runs").write_text("")
        code, found = diagnose()
        assert (code, only(found["errors"], "runs: ")["exit_code"]) == (6, 6)

    def test_a_file_system_without_locks_is_a_warning(self, probes, monkeypatch):
        def refused(*_):
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

        monkeypatch.setattr(fcntl, "flock", refused)
        assert not [warning for warning in diagnose()[1]["warnings"] if warning["place"] == "runs"]
        monkeypatch.setattr(fcntl, "lockf", refused)
        code, found = diagnose()
        problem = "runs: the file system cannot lock files (Function not implemented)"
        assert (code, only(found["warnings"], problem)["place"]) == (0, "runs")

    def test_a_broken_mnist_is_an_error_of_the_data(self, probes, tmp_path, monkeypatch):
        monkeypatch.setenv("CNN_TRAIN_DATA_DIR", str(tmp_path))
        Path("mnist.npz").write_bytes(b"<html>")
        code, found = diagnose()
        assert (code, only(found["errors"], "mnist.npz")["exit_code"]) == (4, 4)

    def test_a_data_folder_that_is_none_is_told(self, probes, monkeypatch):
        monkeypatch.setenv("CNN_TRAIN_DATA_DIR", "nowhere")
        code, found = diagnose()
        assert (code, only(found["warnings"], "names nowhere")["place"]) == (0, "CNN_TRAIN_DATA_DIR")

    def test_variables_that_change_tensorflow_are_told(self, probes, monkeypatch):
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
        monkeypatch.setenv("XLA_FLAGS", "\x1b[31m")
        code, out, _ = support.invoke("doctor")
        assert code == 0
        assert re.search(r"^  XLA_FLAGS +\\x1b\[31m$", out, re.MULTILINE)
        assert "  TF_ENABLE_ONEDNN_OPTS: turns off TensorFlow's fast CPU kernels; unset it\n" in out

    def test_packages_that_are_missing_or_too_many_are_told(self, probes, monkeypatch):
        real = examine._version
        missing = ("rich", "onnx")
        monkeypatch.setattr(examine, "_version", lambda name: None if name in missing else real(name))
        both = {"python": "3.11.7", "tensorflow": "2.21.0", "tensorflow-cpu": "2.21.0"}
        monkeypatch.setattr(facts, "versions", lambda: both)
        code, found = diagnose()
        assert (code, found["versions"]["onnx"]) == (0, None)
        only(found["warnings"], "the package rich is missing")
        assert only(found["warnings"], "both installed")["remedy"].startswith("pip uninstall tensorflow tensorflow-cpu")
        assert not [error for error in found["warnings"] if "onnx is missing" in error["problem"]], "it is an extra"
