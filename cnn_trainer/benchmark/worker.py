"""What the processes of a benchmark do: ``python -m cnn_trainer.benchmark.worker NAME CONFIG``.

Each works on the training data of the config, and prints its figures as one JSON object on its last line. Our own
loop is not among them: it is measured as ``cnn-train train``, with all that a run writes and shows.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cnn_trainer import data
from cnn_trainer.config.load import load_config
from cnn_trainer.config.schema import Experiment
from cnn_trainer.machine import backend

Figures = dict[str, Any]

# How often the test split is evaluated, after a first time that compiles.
_EVALUATIONS = 5
# Rows and columns of the matrices whose product is timed: large enough to be limited by arithmetic, not by memory.
_MATRIX_SIZE = 2048
_PRODUCTS = 10


def train_with_keras(experiment: Experiment) -> Figures:
    """The plain program: arrays in memory, the documented model, ``compile``, ``fit``, ``evaluate``, ``save``.

    TensorFlow has the threads that it takes when nothing is said.
    """
    import keras

    from cnn_trainer.network.build import build_model, keras_file
    from cnn_trainer.training.optimizer import build_optimizer

    train, test = _training_split(experiment), _test_split(experiment)
    seconds: list[float] = []

    class EpochSeconds(keras.callbacks.Callback):
        def on_epoch_begin(self, *_: Any) -> None:
            self.began = time.perf_counter()

        def on_epoch_end(self, *_: Any) -> None:
            seconds.append(time.perf_counter() - self.began)

    model = build_model(experiment, train.images.shape[1:], int(train.labels.max()) + 1)
    batch_size = experiment.training.batch_size
    steps_per_epoch = -(-len(train.labels) // batch_size)
    optimizer = build_optimizer(experiment, model, steps_per_epoch, keras.optimizers.Adam)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    epochs = experiment.training.epochs
    model.fit(train.images, train.labels, batch_size, epochs, verbose=0, callbacks=[EpochSeconds()])
    model.evaluate(test.images, test.labels, batch_size, verbose=0)
    keras_file(model)
    return {"images_per_second": [len(train.labels) / spent for spent in seconds]}


def evaluate_with_keras(experiment: Experiment) -> Figures:
    """``Model.evaluate`` on the test split, with the batch size of the config."""
    from cnn_trainer.network.build import build_model

    test = _test_split(experiment)
    model = build_model(experiment, test.images.shape[1:], int(test.labels.max()) + 1)
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    batch_size = experiment.training.batch_size
    return _rate(lambda: model.evaluate(test.images, test.labels, batch_size, verbose=0), len(test.labels))


def evaluate_with_loop(experiment: Experiment) -> Figures:
    """What ``cnn-train evaluate`` does once the model and the test split are there."""
    started = backend.start(experiment)
    from cnn_trainer.evaluation.scores import score_logits
    from cnn_trainer.network.build import build_model
    from cnn_trainer.network.logits import build_logits

    test = _test_split(experiment)
    model = build_model(experiment, test.images.shape[1:], int(test.labels.max()) + 1)
    logits = build_logits(model, started.towers)
    return _rate(
        lambda: score_logits(logits(model.trainable_variables, test.images), test.labels, experiment.training.loss),
        len(test.labels),
    )


def measure_limit(experiment: Experiment) -> Figures:
    """Floating-point operations of training on one image, and how many a second matrix products reach here."""
    import tensorflow as tf

    from cnn_trainer.network import rewrite
    from cnn_trainer.network.build import build_model
    from cnn_trainer.network.work import flop_per_image

    train = _training_split(experiment)
    height, width, channels = train.images.shape[1:]
    model = build_model(experiment, (height, width, channels), int(train.labels.max()) + 1)
    operations, shapes = rewrite.read_model(model), [tuple(variable.shape) for variable in model.trainable_variables]
    cropped = (*rewrite.cropped_size(operations, height, width), channels)
    figures: Figures = {
        "flop_per_image": flop_per_image(operations, (height, width, channels), shapes),
        "flop_per_image_cropped": flop_per_image(operations, cropped, shapes),
    }
    product = tf.function(lambda matrix: tf.matmul(matrix, matrix), autograph=False)
    for precision in ("float32", "bfloat16"):
        matrix = tf.cast(tf.random.normal((_MATRIX_SIZE, _MATRIX_SIZE)), precision)
        product(matrix).numpy()
        seconds = []
        for _ in range(_PRODUCTS):
            began = time.perf_counter()
            product(matrix).numpy()
            seconds.append(time.perf_counter() - began)
        figures[precision] = 2 * _MATRIX_SIZE**3 / statistics.median(seconds)
    return figures


def train_with_torch(experiment: Experiment) -> Figures:
    """The plain PyTorch program on the same network; see ``torch_program``."""
    from cnn_trainer.benchmark import torch_program

    return torch_program.train(experiment, _training_split(experiment), _test_split(experiment))


WORKERS: dict[str, Callable[[Experiment], Figures]] = {
    "keras-train": train_with_keras,
    "keras-evaluate": evaluate_with_keras,
    "loop-evaluate": evaluate_with_loop,
    "limit": measure_limit,
    "torch-train": train_with_torch,
}


def _training_split(experiment: Experiment) -> data.Split:
    return data.load_training(experiment.data, experiment.seed, lambda _: None).train


def _test_split(experiment: Experiment) -> data.Split:
    return data.load_split(experiment.data, experiment.seed, "test")


def _rate(evaluate: Callable[[], Any], num_examples: int) -> Figures:
    evaluate()  # compiles
    seconds = []
    for _ in range(_EVALUATIONS):
        began = time.perf_counter()
        evaluate()
        seconds.append(time.perf_counter() - began)
    return {"num_examples": num_examples, "images_per_second": [num_examples / spent for spent in seconds]}


if __name__ == "__main__":
    name, config_file = sys.argv[1:]
    print(json.dumps(WORKERS[name](load_config(Path(config_file)).experiment)))  # noqa: T201
