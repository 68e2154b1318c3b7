"""TensorFlow starts with a run's settings, or the run is refused."""

import json
import os
import subprocess
import sys

import pytest

from cnn_trainer.machine import backend

CALLER = """
import gc, json
import tensorflow as tf
from cnn_trainer.config.schema import Experiment
from cnn_trainer.errors import DeviceError
from cnn_trainer.machine import backend

def start(**runtime):
    wanted = {"device": "cpu", "towers": 1, "intra_op_threads": 1, "inter_op_threads": 2, **runtime}
    asked = {"data": {"source": "mnist-5k"}, "model": {"builder": "cnn"}, "runtime": wanted}
    try:
        return backend.start(Experiment.model_validate(asked)).intra_op_threads
    except DeviceError as error:
        return str(error)

found = {}
tf.config.run_functions_eagerly(True)
found["functions run eagerly"] = start()
tf.config.run_functions_eagerly(False)
with tf.Graph().as_default():
    found["a graph of TensorFlow 1"] = start()
found["not used so far"] = start()
frozen = gc.get_freeze_count()
tf.constant(1) + 1
found["used with these settings"] = start()
found["kept from collection"] = gc.get_freeze_count() - frozen
found["used with other threads"] = start(intra_op_threads=3)
found["used with these settings again"] = start()
print(json.dumps(found))
"""
REMEDY = "train in a new process, or before anything else in this one uses TensorFlow"


@pytest.fixture(scope="module")
def found():
    words = [sys.executable, "-W", "ignore", "-c", CALLER]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_tensorflow_that_runs_with_the_same_settings_is_accepted(found):
    for name in ("not used so far", "used with these settings", "used with these settings again"):
        assert found[name] == 1, name
    assert found["kept from collection"] == 0


def test_other_threads_are_one_error_with_both_numbers_and_the_remedy(found):
    assert found["used with other threads"] == (
        "TensorFlow is already in use in this process, with 1 and 2 for runtime.intra_op_threads and "
        f"runtime.inter_op_threads (0: TensorFlow chooses); this run needs 3 and 2; {REMEDY}"
    )


def test_a_tensorflow_that_would_not_compile_the_steps_is_refused(found):
    words = "TensorFlow does not compile functions in this process: "
    assert found["functions run eagerly"] == (
        f"{words}tf.config.run_functions_eagerly is on; call tf.config.run_functions_eagerly(False), or {REMEDY}"
    )
    assert found["a graph of TensorFlow 1"] == f"{words}eager execution is off, as in TensorFlow 1; {REMEDY}"


LINES = {
    "E0000 00:00:1 2 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error: Failed call to cuInit: "
    "UNKNOWN ERROR (303)": False,
    "E0000 00:00:1 2 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error: Failed call to cuInit: "
    "CUDA_ERROR_NO_DEVICE: no CUDA-capable device is detected": False,
    "I0000 00:00:1 2 port.cc:153] oneDNN custom operations are on.": False,
    "E0000 00:00:1 2 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error: Failed call to cuInit: "
    "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH: system has unsupported display driver": True,
    "E0000 00:00:1 2 gpu.cc:1] out of memory": True,
}


def test_a_missing_gpu_is_not_an_error_but_a_broken_one_is(capfd, monkeypatch):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    with backend._quiet():
        for line in LINES:
            os.write(2, f"{line}\n".encode())
    assert capfd.readouterr().err.splitlines() == [line for line, is_shown in LINES.items() if is_shown]
