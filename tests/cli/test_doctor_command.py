"""``doctor``: what it says of this machine, and of machines on which something is wrong."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import support

from cnn_trainer.doctor.examine import _version, meaning
from cnn_trainer.doctor.probe import Probe, run_probe
from cnn_trainer.machine import facts

WORKS = Probe("auto", works=True, used="cpu")


@pytest.fixture(autouse=True)
def plain_machine(tmp_path, monkeypatch):
    """A folder of its own, no variable set that changes TensorFlow, no data at hand but what is installed."""
    for name in (*facts.RECORDED_ENVIRONMENT, "CNN_TRAIN_DATA_DIR", "CNN_TRAIN_RUNS_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def probes(monkeypatch):
    """What the probes come to, by device; a list of what was asked for is kept under ``asked``."""
    answers = {"auto": WORKS, "cpu": WORKS, "asked": []}

    def answer(device):
        answers["asked"].append(device)
        return answers[device]

    monkeypatch.setattr(doctor, "run_probe", answer)
    return answers


def invoke(*words):
    return support.invoke("doctor", *words)


def wrong():
    """Exit code and what is wrong, by problem."""
    code, out, _ = invoke("--json")
    return code, {each["problem"]: each for each in json.loads(out)["wrong"]}


def only(found, words):
    (problem,) = [problem for problem in found if words in problem]
    return found[problem]


class TestThisMachine:
    def test_it_trains_here_and_stdout_is_one_object(self):
        pytest.importorskip("tensorflow")
        ended = subprocess.run(
            [sys.executable, "-m", "cnn_trainer", "doctor", "--json"], capture_output=True, text=True, check=False
        )
        found = json.loads(ended.stdout)
        assert ended.returncode == 0
        assert found["device"]["works"]
        assert found["device"]["used"]
        assert found["device"]["cores"] == facts.available_cores()
        assert found["versions"]["python"]
        assert found["versions"]["keras"]
        assert not [each for each in found["wrong"] if each["exit_code"]]
        assert ended.stderr.splitlines()[-1] == "next: cnn-train train configs/mnist.yaml"
        assert len(ended.stderr.splitlines()) == 2, "nothing of TensorFlow's chatter"

    def test_every_section_is_shown(self, probes):
        code, out, err = invoke()
        assert code == 0
        titles = re.findall("^([a-z][a-z ]*)$", out, re.MULTILINE)
        assert titles == ["versions", "device", "processor", "memory and disk", "data", "environment"]
        assert re.search("^  training +works, on cpu$", out, re.MULTILINE)
        assert re.search("^  memory +[0-9.]+ GiB free of [0-9.]+ GiB$", out, re.MULTILINE)
        assert re.search("^  fashion-mnist +not at hand$", out, re.MULTILINE)
        assert err.splitlines()[-1] == "next: cnn-train train configs/mnist.yaml"
        assert probes["asked"] == ["auto"]

    def test_tensorflow_is_not_loaded_by_doctor_itself(self, probes):
        script = "import sys\nfrom cnn_trainer import doctor\nsys.exit('tensorflow' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0

    def test_nothing_is_written(self, probes, tmp_path):
        Path("runs").mkdir()
        invoke()
        assert [path.name for path in tmp_path.rglob("*")] == ["runs"]


class TestProbe:
    """Against TensorFlows of our own making, which the child finds before the real one."""

    @pytest.fixture
    def fake_tensorflow(self, tmp_path, monkeypatch):
        def write(text):
            (tmp_path / "tensorflow.py").write_text(text)
            monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

        return write

    def test_a_tensorflow_that_cannot_be_imported_is_reported(self, fake_tensorflow):
        fake_tensorflow("raise ImportError('libfoo.so.1: cannot open shared object file')")
        found = run_probe("cpu")
        assert not found.works
        assert "libfoo.so.1" in found.failure

    def test_a_tensorflow_that_is_broken_in_another_way_is_reported(self, fake_tensorflow):
        fake_tensorflow("raise AttributeError('no \\x1b[31m attribute')")
        found = run_probe("cpu")
        assert not found.works
        assert found.failure == "AttributeError: no \\x1b[31m attribute"

    def test_a_processor_without_the_instructions_is_reported(self, fake_tensorflow):
        fake_tensorflow("import os, signal\nos.kill(os.getpid(), signal.SIGILL)")
        found = run_probe("cpu")
        assert "SIGILL; the processor lacks instructions" in found.failure

    def test_a_tensorflow_that_hangs_is_given_up(self, fake_tensorflow, monkeypatch):
        monkeypatch.setattr(probe, "PROBE_SECONDS", 1.0)
        fake_tensorflow("import time\ntime.sleep(60)")
        assert "did not come to an end in 1 seconds" in run_probe("cpu").failure

    def test_what_is_printed_on_the_way_is_no_part_of_the_answer(self, fake_tensorflow):
        fake_tensorflow("import os\nos.write(1, b'chatter')\nraise ImportError('gone')")
        found = run_probe("cpu")
        assert "gone" in found.failure

    def test_the_working_folder_is_not_imported_from(self, tmp_path):
        (tmp_path / "json.py").write_text("raise SystemExit('taken from the working folder')")
        (tmp_path / "tensorflow.py").write_text("raise ImportError('taken from the working folder')")
        script = (
            "import sys\nfrom cnn_trainer import probe\nprobe._CHILD = probe._CHILD.replace('probe.main()', "
            '\'import os, importlib.util; os.write(2, importlib.util.find_spec("tensorflow").origin.encode()); '
            "sys.exit(3)')\nprint(probe.run_probe('cpu').failure)"
        )
        pytest.importorskip("tensorflow")
        ended = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True)
        assert ended.stdout.strip().endswith("tensorflow/__init__.py")
        assert str(tmp_path) not in ended.stdout


class TestWhatIsWrong:
    def test_no_training_at_all_is_an_error_of_the_device(self, probes):
        probes["auto"] = probes["cpu"] = Probe("cpu", works=False, failure="TensorFlow ended its process by SIGILL")
        code, out, err = invoke()
        assert code == 5
        assert "no training works here: TensorFlow ended its process by SIGILL\n    remedy: install it again" in out
        assert err.splitlines()[-1].startswith("error: training would fail here: no training works here")
        assert "next:" not in err
        assert probes["asked"] == ["auto", "cpu"]

    def test_a_missing_tensorflow_is_named_with_the_command_that_brings_it(self, probes, monkeypatch):
        probes["auto"] = probes["cpu"] = Probe("cpu", works=False, failure="TensorFlow cannot be imported")
        real = _version
        monkeypatch.setattr(doctor, "_version", lambda name: None if "tensorflow" in name else real(name))
        monkeypatch.setattr(backend, "versions", lambda: {"python": "3.11.7"})
        code, out, _ = invoke()
        assert code == 5
        assert re.search("^  tensorflow +not installed$", out, re.MULTILINE)
        assert "remedy: pip install 'cnn-trainer[cpu]'" in out

    def test_a_gpu_that_fails_does_not_stop_the_cpu(self, probes):
        probes["auto"] = Probe("auto", works=False, failure="CUDA_ERROR_UNKNOWN")
        code, found = wrong()
        assert code == 0
        assert "--device cpu" in only(found, "on the CPU alone: CUDA_ERROR_UNKNOWN")["remedy"]
        assert probes["asked"] == ["auto", "cpu"]

    def test_two_builds_of_tensorflow_are_one_too_many(self, probes, monkeypatch):
        real = _version
        monkeypatch.setattr(doctor, "_version", lambda name: "2.21.0" if "tensorflow" in name else real(name))
        code, found = wrong()
        assert code == 0
        assert only(found, "both installed")["remedy"].startswith("pip uninstall tensorflow tensorflow-cpu")

    def test_a_runs_directory_that_cannot_be_used_is_an_error_of_the_run_directory(self, probes):
        Path("runs").write_text("")
        code, found = wrong()
        assert code == 6
        assert only(found, "runs: cannot be")["exit_code"] == 6

    def test_runs_are_counted_and_broken_ones_told(self, probes):
        Path("runs", "20261123-224601-x").mkdir(parents=True)
        code, out, _ = invoke("--json")
        assert code == 0
        assert json.loads(out)["runs"]["statuses"] == {"broken": 1}
        assert "1 of the runs cannot be read: 20261123-224601-x" in invoke()[1]

    def test_a_broken_mnist_is_an_error_of_the_data(self, probes, tmp_path, monkeypatch):
        monkeypatch.setenv("CNN_TRAIN_DATA_DIR", str(tmp_path))
        Path("mnist.npz").write_bytes(b"<html>")
        code, found = wrong()
        assert code == 4
        assert only(found, "mnist.npz")["exit_code"] == 4

    def test_data_that_is_not_at_hand_is_told_with_the_command_that_brings_it(self, probes):
        code, found = wrong()
        assert code == 0
        assert only(found, "mnist is not at hand")["remedy"].startswith("cnn-train data fetch mnist")

    def test_a_data_folder_that_is_none_is_told(self, probes, monkeypatch):
        monkeypatch.setenv("CNN_TRAIN_DATA_DIR", "nowhere")
        only(wrong()[1], "CNN_TRAIN_DATA_DIR names nowhere")

    def test_variables_that_change_tensorflow_are_told(self, probes, monkeypatch):
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
        monkeypatch.setenv("XLA_FLAGS", "\x1b[31m")
        _, out, _ = invoke()
        assert re.search("^  TF_ENABLE_ONEDNN_OPTS=0 +0 turns the fast CPU kernels off$", out, re.MULTILINE)
        assert "remedy: unset TF_ENABLE_ONEDNN_OPTS" in out
        assert "XLA_FLAGS=\\x1b[31m" in out

    def test_every_recorded_variable_has_its_meaning(self):
        assert [meaning(name) for name in facts.RECORDED_ENVIRONMENT]

    def test_little_memory_and_little_disk_are_told(self, probes, monkeypatch):
        monkeypatch.setattr(doctor, "_NEEDED_MEMORY_BYTES", 2**60)
        monkeypatch.setattr(doctor, "_NEEDED_DISK_BYTES", 2**60)
        code, found = wrong()
        assert code == 0
        assert "container's limit" in only(found, "of memory are free")["remedy"]
        assert "--runs-dir" in only(found, "are free on the disk of runs")["remedy"]

    def test_a_missing_package_is_told(self, probes, monkeypatch):
        real = _version
        monkeypatch.setattr(doctor, "_version", lambda name: None if name in ("rich", "mlxtend") else real(name))
        found = wrong()[1]
        only(found, "the package rich is missing")
        assert not [problem for problem in found if "mlxtend is missing" in problem], "an extra may be missing"

    @pytest.mark.parametrize(
        ("features", "native", "words"),
        [
            ("avx avx2 fma", [], "bfloat16 would be slower"),
            ("avx2 avx512_bf16 avx512f", [], "bfloat16 would be slower"),
            ("amx_bf16 amx_tile avx2 avx512_bf16 avx512f", ["amx_bf16"], "computes itself"),
        ],
    )
    def test_what_the_processor_means_for_precision_is_told(self, probes, monkeypatch, features, native, words):
        machine = {"architecture": "x86_64", "processor": "A", "features": features, "cores": "2", "system": "Linux"}
        monkeypatch.setattr(backend, "machine", lambda: machine)
        code, out, _ = invoke("--json")
        processor = json.loads(out)["processor"]
        assert code == 0
        assert processor["bfloat16"] == native
        assert processor["amx"] == ("amx_tile" in features)
        assert re.search(f"^  precision +float32; .*{words}", invoke()[1], re.MULTILINE)


def test_environment_is_left_alone(probes):
    before = dict(os.environ)
    invoke()
    assert dict(os.environ) == before
