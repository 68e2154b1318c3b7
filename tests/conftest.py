"""TensorFlow as a run has it, and small experiments to put through the compiled step."""

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from cnn_trainer import backend, data
from cnn_trainer.data import Split
from cnn_trainer.schema import Experiment

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
    """TensorFlow started as a run starts it, deterministic and with two threads, where a collected test imports it."""
    if "tensorflow" in sys.modules:
        backend.start(Experiment.model_validate({**_make_experiment().model_dump(), "runtime": _RUNTIME}))


@pytest.fixture(scope="session")
def make_experiment():
    """A function of the sections model and training, the precision and the seed that gives an experiment."""
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

        from cnn_trainer.engine import Sums

        if order is None:
            order = np.arange(self.engine.num_examples)
        last = self.engine.steps_per_epoch if last is None else last
        return self.engine.train_steps(tf.constant(order, tf.int32), first, last, sums or Sums())

    def weights(self):
        """The trainable variables' values, float64 or float32."""
        return [np.array(variable.numpy()) for variable in self.model.trainable_variables]


@pytest.fixture(scope="session")
def make_trainer():
    """A function that builds the network, the optimizer and the engine of an experiment for one training split."""

    def make(experiment, split, towers=1):
        from cnn_trainer.data.augment import build_augment
        from cnn_trainer.engine import Engine
        from cnn_trainer.model import build_model
        from cnn_trainer.optimizer import build_optimizer

        height, width, channels = split.images.shape[1:]
        model = build_model(experiment, (height, width, channels), int(split.labels.max()) + 1)
        steps_per_epoch = -(-len(split.labels) // experiment.training.batch_size)
        optimizer = build_optimizer(experiment.training, model, steps_per_epoch)
        augment = build_augment(experiment.training.augmentation, height, width)
        engine = Engine(experiment, model, optimizer, split, towers, augment)
        return Trainer(experiment, model, optimizer, engine)

    return make


@pytest.fixture(scope="session")
def digits():
    """70 real MNIST images, 7 of every class: every 57th of mnist-5k's training split, which is sorted by class."""
    whole = data.load_training(_make_experiment().data, 1, print).train
    return Split(np.ascontiguousarray(whole.images[::57][:70]), whole.labels[::57][:70])


@pytest.fixture(scope="session")
def small_images():
    """22 images of random pixels, 10x9x1, in 3 classes."""
    random = np.random.default_rng(5)
    return Split(random.integers(0, 256, (22, 10, 9, 1), np.uint8), (np.arange(22) % 3).astype(np.int32))
