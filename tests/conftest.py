"""TensorFlow as a run has it, and small experiments to put through the compiled step."""

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnn_trainer import data
from cnn_trainer.config.schema import Experiment
from cnn_trainer.data import Split
from cnn_trainer.machine import backend

pytest_plugins = ["finished_runs"]

# A parent that ignores SIGCHLD hides from its descendants how their own children end.
signal.signal(signal.SIGCHLD, signal.SIG_DFL)

_RUNTIME = {"device": "cpu", "towers": 2, "intra_op_threads": 1, "inter_op_threads": 2}


def _make_experiment(model=None, training=None, precision="float32", seed=1):
    return Experiment.model_validate(
        {
            "seed": seed,
            "data": {"source": "mnist-5k"},
            "model": {"builder": "cnn", **(model or {})},
            "training": training or {},
            "runtime": {"device": "cpu", "precision": precision},
        }
    )


@pytest.fixture(scope="session", autouse=True)
def tensorflow_started():
    """TensorFlow started as a run starts it, deterministic and with two threads, if a collected test imports it."""
    if "tensorflow" in sys.modules:
        backend.start(Experiment.model_validate({**_make_experiment().model_dump(), "runtime": _RUNTIME}))


@pytest.fixture(scope="session")
def make_experiment():
    """A function that makes an experiment from the sections model and training, the precision and the seed."""
    return _make_experiment


@dataclass(frozen=True)
class Trainer:
    """One model with its optimizer and its compiled steps."""

    experiment: Experiment
    model: Any
    optimizer: Any
    engine: Any

    def train(self, first=0, last=None, sums=None, order=None):
        """Run steps of an epoch in the order of the split, or in ``order``."""
        import tensorflow as tf

        from cnn_trainer.training.engine import Sums

        if order is None:
            order = np.arange(self.engine.num_examples)
        last = self.engine.steps_per_epoch if last is None else last
        return self.engine.train_steps(tf.constant(order, tf.int32), first, last, sums or Sums())

    def weights(self):
        """The trainable variables' values, float64 or float32."""
        return [np.array(variable.numpy()) for variable in self.model.trainable_variables]


@pytest.fixture(scope="session")
def make_trainer():
    """A function that builds the network, the optimizer and the engine of an experiment, for one training split."""

    def make(experiment, split, towers=1):
        from cnn_trainer.network.build import build_model
        from cnn_trainer.training.optimizer import build_optimizer
        from cnn_trainer.training.session import build_engine

        height, width, channels = split.images.shape[1:]
        model = build_model(experiment, (height, width, channels), int(split.labels.max()) + 1)
        steps_per_epoch = -(-len(split.labels) // experiment.training.batch_size)
        optimizer = build_optimizer(experiment, model, steps_per_epoch)
        engine = build_engine(experiment, model, optimizer, split, towers)
        return Trainer(experiment, model, optimizer, engine)

    return make


@pytest.fixture(scope="session")
def digits():
    """70 real MNIST images, 7 of every class: every 57th of mnist-5k's training split, which is sorted by class."""
    whole = data.load_training(_make_experiment().data, 1, print).train
    return Split(np.ascontiguousarray(whole.images[::57][:70]), whole.labels[::57][:70])


@pytest.fixture(scope="session")
def small_images():
    """22 images of random pixels, 11x10x1, in 3 classes."""
    random = np.random.default_rng(5)
    return Split(random.integers(0, 256, (22, 11, 10, 1), np.uint8), (np.arange(22) % 3).astype(np.int32))


@dataclass(frozen=True)
class Answer:
    """What a command line did: its exit code, and what it wrote to stdout and stderr."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        """The one JSON object that stdout must hold."""
        return json.loads(self.out)

    @property
    def run(self):
        """The run directory that --json names."""
        return Path(self.json["run"])


class CommandLine:
    """cnn-train in its own process and folder, without a network and without MNIST."""

    def __init__(self, home):
        self.home = home
        self.environment = {**os.environ, "HOME": str(home), "KERAS_HOME": str(home / "keras")}
        for name in ("CNN_TRAIN_DATA_DIR", "CNN_TRAIN_RUNS_DIR", "TF_CPP_MIN_LOG_LEVEL", "NO_PROXY", "no_proxy"):
            self.environment.pop(name, None)
        for name in ("https_proxy", "HTTPS_PROXY"):
            self.environment[name] = "http://127.0.0.1:9"  # the port of discard: refused at once
        script = Path(__file__).parent / "faults" / "zygote.py"
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._zygote = subprocess.Popen([sys.executable, "-W", "ignore", script], start_new_session=True, **pipes)

    def __call__(self, *words, cwd=None, env=None, stderr=None):
        """Run ``cnn-train *words``. If ``stderr`` names a file or a terminal, the Answer holds no stderr."""
        out, err = self.home / "stdout", self.home / "stderr"
        for path in (out, err):
            path.write_text("")
        request = {
            "argv": [str(word) for word in words],
            "cwd": str(cwd or self.home),
            "env": self.environment | (env or {}),
            "streams": [os.devnull, str(out), str(stderr or err)],
            "hasty": True,
        }
        self._zygote.stdin.write(f"{json.dumps(request)}\n")
        self._zygote.stdin.flush()
        _started, ended = (json.loads(self._zygote.stdout.readline()) for _ in range(2))
        return Answer(ended["code"], out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8"))

    def close(self):
        self._zygote.stdin.close()
        self._zygote.wait(timeout=60)
        self._zygote.stdout.close()


@pytest.fixture(scope="session")
def cnn_train(tmp_path_factory):
    """A function that runs a command line and gives its ``Answer``."""
    command_line = CommandLine(tmp_path_factory.mktemp("home"))
    yield command_line
    command_line.close()


def _make_strokes(num_train=192, num_test=96, side=12):
    """Images with a bright horizontal, vertical or diagonal line on noise: 3 classes, learned in an epoch or two."""
    random = np.random.default_rng(11)
    arrays = {}
    for split, count in ("train", num_train), ("test", num_test):
        labels = np.arange(count) % 3
        images = random.integers(0, 90, (count, side, side))
        for image, label in zip(images, labels, strict=True):
            place = random.integers(1, side - 1)
            lines = {0: np.s_[place, :], 1: np.s_[:, place], 2: (np.arange(side), np.arange(side))}
            image[lines[int(label)]] += 150
        arrays |= {f"x_{split}": images.astype(np.uint8), f"y_{split}": labels.astype(np.uint8)}
    return arrays


@pytest.fixture(scope="session")
def strokes():
    """The arrays of an npz file: 192 training and 96 test images of 12x12 in 3 classes."""
    return _make_strokes()


@pytest.fixture
def small_config(tmp_path, strokes):
    """A config that trains in a second: a small network for two epochs on the ``strokes.npz`` next to it."""
    np.savez(tmp_path / "strokes.npz", **strokes)
    path = tmp_path / "small.yaml"
    path.write_text(
        f"""\
name: small
data: {{source: npz, path: {tmp_path / "strokes.npz"}}}
model: {{builder: cnn, filters: [4], dense_units: [8]}}
training: {{epochs: 2, batch_size: 16, learning_rate: 0.01}}
runtime: {{device: cpu}}
"""
    )
    return path


@pytest.fixture
def on_terminal(cnn_train, tmp_path):
    """A function that runs a command line with stderr on a terminal of this width, and returns its output."""

    def run(columns, *words, **environment):
        primary, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        received = bytearray()

        def read():
            try:
                while part := os.read(primary, 65_536):
                    received.extend(part)
            except OSError:  # the terminal was closed
                pass

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        environment = {"TERM": "xterm-256color"} | environment
        answer = cnn_train(*words, cwd=tmp_path, stderr=os.ttyname(terminal), env=environment)
        os.close(terminal)
        reader.join(timeout=10)
        os.close(primary)
        return answer.code, received.decode()

    return run
