"""The processes of a benchmark. Each works on the data of a config and prints its figures as a JSON object.

Our own loop is not one of them: it is measured as ``cnn-train train``, including everything that it writes and shows.
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cnn_trainer import data
from cnn_trainer.config.load import load_config
from cnn_trainer.config.schema import Experiment
from cnn_trainer.machine import backend, child

Figures = dict[str, Any]

_EVALUATIONS = 5
# Rows and columns of the multiplied matrices: large enough for arithmetic, not memory, to be the limit.
_MATRIX_SIZE = 2048
_PRODUCTS = 10


def train_with_keras(experiment: Experiment) -> Figures:
    """The plain program: arrays in memory, the documented model, ``compile``, ``fit``, ``evaluate``, ``save``.

    TensorFlow uses its default number of threads.
    """
    import keras

    from cnn_trainer.network.build import keras_file
    from cnn_trainer.training.optimizer import build_optimizer

    train, test = _training_split(experiment), _test_split(experiment)
    seconds: list[float] = []

    class EpochSeconds(keras.callbacks.Callback):
        def on_epoch_begin(self, *_: Any) -> None:
            self.began = time.perf_counter()

        def on_epoch_end(self, *_: Any) -> None:
            seconds.append(time.perf_counter() - self.began)

    model = _model(experiment, train)
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
    test = _test_split(experiment)
    model = _model(experiment, test)
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    batch_size = experiment.training.batch_size
    return _rate(lambda: model.evaluate(test.images, test.labels, batch_size, verbose=0), len(test.labels))


def evaluate_with_loop(experiment: Experiment) -> Figures:
    """The work of ``cnn-train evaluate`` once the model and the test split are loaded."""
    started = backend.start(experiment)
    from cnn_trainer.evaluation.scores import score_logits
    from cnn_trainer.network.logits import build_logits

    test = _test_split(experiment)
    model = _model(experiment, test)
    logits = build_logits(model, started.towers)
    return _rate(
        lambda: score_logits(logits(model.trainable_variables, test.images), test.labels, experiment.training.loss),
        len(test.labels),
    )


def measure_limit(experiment: Experiment) -> Figures:
    """Floating-point operations needed to train on one image, and the FLOP/s that matrix products reach here."""
    import tensorflow as tf

    from cnn_trainer.network import rewrite
    from cnn_trainer.network.work import flop_per_image

    train = _training_split(experiment)
    height, width, channels = train.images.shape[1:]
    model = _model(experiment, train)
    operations, shapes = rewrite.read_model(model), [tuple(variable.shape) for variable in model.trainable_variables]
    cropped = (*rewrite.cropped_size(operations, height, width), channels)
    product = tf.function(lambda matrix: tf.matmul(matrix, matrix), autograph=False)

    def products_per_second(precision: str) -> float:
        matrix = tf.cast(tf.random.normal((_MATRIX_SIZE, _MATRIX_SIZE)), precision)
        return 2 * _MATRIX_SIZE**3 / statistics.median(_seconds(lambda: product(matrix).numpy(), _PRODUCTS))

    return {
        "flop_per_image": flop_per_image(operations, (height, width, channels), shapes),
        "flop_per_image_cropped": flop_per_image(operations, cropped, shapes),
        **{precision: products_per_second(precision) for precision in ("float32", "bfloat16")},
    }


def _model(experiment: Experiment, split: data.Split) -> Any:
    from cnn_trainer.network.build import build_model

    return build_model(experiment, split.images.shape[1:], int(split.labels.max()) + 1)


def _training_split(experiment: Experiment) -> data.Split:
    return data.load_training(experiment.data, experiment.seed, lambda _: None).train


def _test_split(experiment: Experiment) -> data.Split:
    return data.load_split(experiment.data, experiment.seed, "test")


def _rate(evaluate: Callable[[], Any], num_examples: int) -> Figures:
    rates = [num_examples / spent for spent in _seconds(evaluate, _EVALUATIONS)]
    return {"num_examples": num_examples, "images_per_second": rates}


def _seconds(function: Callable[[], Any], num_calls: int) -> list[float]:
    """The seconds of each call, after a first one that compiles."""
    function()
    seconds = []
    for _ in range(num_calls):
        began = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - began)
    return seconds


_WORKERS: dict[str, Callable[[Experiment], Figures]] = {
    "keras-train": train_with_keras,
    "keras-evaluate": evaluate_with_keras,
    "loop-evaluate": evaluate_with_loop,
    "limit": measure_limit,
}


def main() -> None:
    """Run the task named on the command line, with the config named there."""
    name, config_file = sys.argv[1:]
    experiment = load_config(Path(config_file)).experiment
    child.answer(lambda: _WORKERS[name](experiment))
