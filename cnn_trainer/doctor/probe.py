"""Trains three steps on made-up images, for ``doctor``, in a process of its own.

TensorFlow may be missing, broken or built for another processor, and then ends its process by a signal.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from cnn_trainer.config.load import documented_config
from cnn_trainer.errors import CnnTrainError, DeviceError
from cnn_trainer.machine import backend, child

PROBE_SECONDS = 180.0  # a first start from a slow disk can take a minute


def run_probe(device: str) -> dict[str, Any]:
    """Train in a new process, which takes some seconds.

    Args:
        device: auto or cpu.

    Returns:
        ``trains_on`` (cpu, or gpu and the name of its model), ``gpus`` (the names of those that TensorFlow finds),
        ``towers``, ``intra_op_threads``, ``inter_op_threads``, and ``messages``: what TensorFlow said on the way.

    Raises:
        DeviceError: if no training works on the device.
    """
    ended = child.run_child("cnn_trainer.doctor.probe:main", device, timeout_seconds=PROBE_SECONDS)
    remedy = "install it again: pip install --force-reinstall 'cnn-trainer[cpu]', or [gpu]"
    if ended.signal_name == "SIGILL":
        remedy = "install a TensorFlow that was built for this processor"
    if ended.failure:
        raise DeviceError(f"no training works here: {ended.failure}", remedy=remedy)
    found = json.loads(ended.stdout)
    if "problem" in found:
        raise DeviceError(f"no training works here: {found['problem']}", remedy=found["remedy"] or remedy)
    return {**found, "messages": ended.messages[-20:]}


def main() -> None:
    """Train on the device that the command line names, and print what was found, or what is wrong."""
    child.answer(_probe)


def _probe() -> dict[str, Any]:
    try:
        return _train(sys.argv[1])
    except CnnTrainError as error:
        return {"problem": error.problem, "remedy": error.remedy}


def _train(device: str) -> dict[str, Any]:
    import numpy as np

    from cnn_trainer.training.run import Feedback, train_config

    images = np.random.default_rng(0).integers(0, 256, (3 * 128, 28, 28), np.uint8)
    started: list[backend.Backend] = []
    with tempfile.TemporaryDirectory(prefix="cnn-train-doctor-") as folder:
        path = Path(folder, "images.npz")
        np.savez(path, x_train=images, y_train=np.arange(len(images)) % 10)
        changes = {"data": {"source": "npz", "path": str(path)}, "training.epochs": 1, "runtime.device": device}
        feedback = Feedback(prepared=lambda prepared: started.append(prepared.backend))
        train_config(documented_config(changes), Path(folder, "runs"), feedback, evaluate=False)
    import tensorflow as tf

    return {
        "trains_on": started[0].device,
        "gpus": [backend.gpu_name(tf, gpu) for gpu in tf.config.list_physical_devices("GPU")],
        **{name: getattr(started[0], name) for name in ("towers", "intra_op_threads", "inter_op_threads")},
    }
