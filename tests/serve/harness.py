"""A small model to serve, made without TensorFlow, and servers in their own processes."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import support
from onnx import TensorProto, helper, numpy_helper

DIGITS = [str(digit) for digit in range(10)]
NAME = "tiny"


def weights(shape, num_classes):
    """The weights of the served model, which computes softmax(images x weights)."""
    return np.random.default_rng(3).normal(0, 3e-4, (int(np.prod(shape)), num_classes)).astype(np.float32)


def probabilities(images, num_classes=10):
    """What the served model must answer, computed here."""
    images = np.asarray(images, np.float32)
    logits = images.reshape(len(images), -1) @ weights(images.shape[1:], num_classes)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def onnx_bytes(shape, num_classes):
    matrix = weights(shape, num_classes)
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["floats"], ["rows"]),
        helper.make_node("MatMul", ["rows", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", *shape])
    output = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", num_classes])
    graph = helper.make_graph(nodes, "tiny", [image], [output], [numpy_helper.from_array(matrix, "weights")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    return model.SerializeToString()


def write_export(folder, shape=(28, 28, 1), classes=DIGITS, source="mnist"):
    """An export of one ONNX model."""
    folder.mkdir(parents=True)
    content = onnx_bytes(shape, len(classes))
    (folder / "model.onnx").write_bytes(content)
    parity = {
        "runtime": "ONNX Runtime 1",
        "images_sha256": "0" * 64,
        "num_examples": 10_000,
        "max_difference": 0.0,
        "max_difference_allowed": 1e-5,
        "equal_predictions": 1.0,
        "accuracy": 0.99,
        "accuracy_loss_allowed": 0.0,
        "latency_seconds": 1e-4,
        "images_per_second": 1e4,
    }
    model = {"format": "onnx", "path": "model.onnx", "num_bytes": len(content), "parity": parity}
    data = {
        "source": source,
        "requested": source,
        "location": "/data",
        "image_shape": list(shape),
        "class_names": list(classes),
        "num_train": 60_000,
        "num_validation": 0,
        "train_sha256": "0" * 64,
    }
    manifest = {
        "name": NAME,
        "run": "20261124-000000-tiny",
        "created_at": "2026-11-24T00:00:00Z",
        "versions": {},
        "weights_sha256": "0" * 64,
        "num_parameters": 7840,
        "data": data,
        "test_accuracy": 0.99,
        "test_examples": 10_000,
        "models": {"onnx": {**model, "sha256": {"model.onnx": hashlib.sha256(content).hexdigest()}}},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


class Server:
    """``cnn-train serve`` in its own process, which is stopped at the end of a with block."""

    def __init__(self, export, log, *options, patch="pass"):
        """``patch`` is Python code that runs before the command, for instance to shorten a time limit."""
        self.log_path = Path(log)
        program = f"{patch}\nfrom cnn_trainer.__main__ import main\nmain()"
        words = [sys.executable, "-c", program, "serve", export, "--port", "0", *options]
        with self.log_path.open("wb") as stderr, support.signals_heard():
            self.process = subprocess.Popen([str(word) for word in words], stderr=stderr, stdin=subprocess.DEVNULL)
        self.url = self._wait_for_url()
        self.port = int(self.url.rsplit(":", 1)[1])

    def _wait_for_url(self):
        give_up = time.monotonic() + 120
        while time.monotonic() < give_up and self.process.poll() is None:
            if found := re.search(r"at (http://\S+:\d+)/; stop with Ctrl-C\n", self.log_path.read_text()):
                return found[1]
            time.sleep(0.02)
        self.process.kill()
        raise AssertionError(self.log_path.read_text())

    def log(self, path=None):
        """The lines of JSON, or only those about one path."""
        lines = [json.loads(line) for line in self.log_path.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if path is None or line["path"] == path]

    def wait_for_status(self, status, path=None):
        """Wait until the log has a request to ``path`` with this status."""
        give_up = time.monotonic() + 20
        while not any(line["status"] == status for line in self.log(path)):
            assert time.monotonic() < give_up, self.log_path.read_text()
            time.sleep(0.02)

    def resident_bytes(self):
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def num_files(self):
        """The number of open file descriptors, including connections."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def stop(self, number=signal.SIGTERM):
        """The exit code and the seconds that it took."""
        started = time.monotonic()
        self.process.send_signal(number)
        return self.process.wait(timeout=30), time.monotonic() - started

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
