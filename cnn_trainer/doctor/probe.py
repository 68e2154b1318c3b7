"""Tries a training of three steps on made-up images, for ``doctor``, in a process of its own.

TensorFlow may be missing, broken or built for another processor, and then ends its process by a signal; here that ends
this process alone. What was found goes to stdout as one JSON object with the fields of ``Probe``.
"""

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from cnn_trainer.config.schema import Experiment
from cnn_trainer.errors import CnnTrainError
from cnn_trainer.machine import backend

if TYPE_CHECKING:
    from cnn_trainer.data import TrainingData

PROBE_SECONDS = 180.0  # a first start from a slow disk can take a minute

# The child imports this package from where its parent did, and nothing from the working folder besides.
_CHILD = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from cnn_trainer.doctor import probe; probe.main()"


@dataclass(frozen=True)
class Probe:
    """What came of it."""

    device: str
    """What was asked for: auto or cpu."""
    works: bool
    failure: str | None = None
    """Why it does not work, one line."""
    used: str | None = None
    """cpu, or gpu and the name of its model."""
    gpus: list[str] = field(default_factory=list)
    """What TensorFlow sees, by name, whether or not it was used."""
    built_for_gpu: bool = False
    messages: list[str] = field(default_factory=list)
    """What TensorFlow said on the way that is not chatter."""


def run_probe(device: str) -> Probe:
    """Probe in a new process, which takes some seconds. Never raises.

    Args:
        device: auto or cpu.
    """
    words = [sys.executable, "-P", "-c", _CHILD, json.dumps(sys.path), device]
    try:
        ended = subprocess.run(  # noqa: S603 (this interpreter, and words of ours)
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Probe(device, works=False, failure=f"TensorFlow did not come to an end in {PROBE_SECONDS:.0f} seconds")
    except OSError as error:
        return Probe(device, works=False, failure=f"no process could be started: {error.strerror}")
    messages = [str(line) for line in ended.stderr.splitlines() if line.strip()]
    if ended.returncode:
        return Probe(device, works=False, failure=_describe(ended.returncode, messages), messages=messages[-20:])
    found = Probe(**json.loads(ended.stdout))
    return Probe(**{**asdict(found), "messages": messages[-20:]})


def _describe(code: int, messages: list[str]) -> str:
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        why = "; the processor lacks instructions that it was built for" if name == "SIGILL" else ""
        return f"TensorFlow ended its process by {name}{why}"
    return messages[-1][:300] if messages else f"the process ended with code {code}"


def main() -> None:
    """Probe the device that the last word of the command line names, and print a ``Probe``."""
    device = sys.argv[-1]
    sys.stdout.flush()
    real = os.dup(1)
    os.dup2(2, 1)  # whatever else is printed is no part of the answer
    try:
        found = _probe(device)
    except CnnTrainError as error:
        found = Probe(device, works=False, failure=str(error))
    os.write(real, json.dumps(asdict(found)).encode())


def _probe(device: str) -> Probe:
    experiment = documented(device)
    started = backend.start(experiment)
    import numpy as np
    import tensorflow as tf

    from cnn_trainer.training.engine import Sums
    from cnn_trainer.training.session import build_session

    batch_size = experiment.training.batch_size
    session = build_session(experiment, _made_up(3 * batch_size), started)
    order = tf.constant(np.arange(3 * batch_size, dtype=np.int32))
    loss = session.engine.train_steps(order, 0, 3, Sums()).loss
    failure = None if np.isfinite(loss) else f"the loss of a training on made-up images is {loss}"
    return Probe(
        device,
        works=failure is None,
        failure=failure,
        used=started.device,
        gpus=[backend.gpu_name(tf, gpu) for gpu in tf.config.list_physical_devices("GPU")],
        built_for_gpu=bool(tf.test.is_built_with_cuda()),
    )


def documented(device: str) -> Experiment:
    """The documented network and training, which are the schema's defaults."""
    return Experiment.model_validate(
        {"data": {"source": "mnist"}, "model": {"builder": "cnn"}, "runtime": {"device": device}}
    )


def _made_up(num_examples: int) -> "TrainingData":
    import numpy as np

    from cnn_trainer.data import Split, TrainingData, split_digest
    from cnn_trainer.runs.records import DataRecord

    labels = np.arange(num_examples, dtype=np.int32) % 10
    images = np.random.default_rng(0).integers(0, 256, (num_examples, 28, 28, 1), np.uint8)
    split = Split(images, labels)
    record = DataRecord(
        source="mnist",
        requested="mnist",
        location="",
        image_shape=[28, 28, 1],
        class_names=[str(digit) for digit in range(10)],
        num_train=num_examples,
        num_validation=0,
        train_sha256=split_digest(split),
    )
    return TrainingData(split, None, record)
