"""The process in which the parity check runs an exported model, given only its path and the images.

This is the only place where TensorFlow's and Keras' loaders are used, on the file that this program has just written.
The probabilities go to a file, the measurements to stdout as a JSON object.
"""

import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from cnn_trainer.config.schema import Experiment
from cnn_trainer.export import runtimes
from cnn_trainer.export.manifest import INPUT_NAME, OUTPUT_NAME
from cnn_trainer.export.runtimes import SIGNATURE, Predict
from cnn_trainer.machine import backend, child

_BATCH_PIXELS = 100 * 28 * 28  # 100 MNIST images at a time, fewer if they are larger
_WARM_UP = 20
_SINGLE_IMAGES = 500
_SINGLE_SECONDS = 2.0  # time limit for images one at a time, of which there is at least one
_MICRO_IMAGES = 500
_MICRO_SECONDS = 10.0  # likewise; TensorFlow Lite Micro takes about 3 ms for an MNIST image
_MICRO_ARENA_BYTES = 2**28  # for its intermediate values; only the part in use takes memory


def main() -> None:
    """Run the model named on the command line on the images named there, with one thread."""
    child.answer(lambda: _measure(*sys.argv[1:]))


def _measure(format_name: str, path: str, images_path: str, answer_path: str) -> dict[str, Any]:
    images = safetensors.numpy.load_file(images_path)["images"]
    predict, runtime = _load(format_name, Path(path))
    size = max(1, _BATCH_PIXELS // (images.shape[1] * images.shape[2]))
    predict(images[:size])
    before = time.perf_counter()
    probabilities = np.concatenate([predict(images[start : start + size]) for start in range(0, len(images), size)])
    seconds = time.perf_counter() - before
    safetensors.numpy.save_file({"probabilities": probabilities}, answer_path)
    rate = len(images) / seconds
    return {
        "runtime": runtime,
        "latency_seconds": _latency(predict, images),
        "images_per_second": rate,
        "micro": _measure_micro(Path(path), images, probabilities) if format_name == "litert-micro" else None,
    }


def _latency(predict: Predict, images: NDArray[np.uint8]) -> float:
    """Median of the seconds for one image."""
    seconds: list[float] = []
    give_up = time.perf_counter() + _SINGLE_SECONDS
    for number in range(_WARM_UP + _SINGLE_IMAGES):
        image = images[number % len(images) :][:1]
        before = time.perf_counter()
        predict(image)
        after = time.perf_counter()
        seconds.append(after - before)
        if after > give_up:
            break
    return statistics.median(seconds[_WARM_UP:] or seconds)


def _measure_micro(path: Path, images: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> dict[str, Any] | None:
    """Compare TensorFlow Lite Micro with LiteRT's ``probabilities`` on some images; None if it is not installed."""
    if importlib.util.find_spec("tflite_micro") is None:
        return None
    from tflite_micro import runtime

    interpreter = runtime.Interpreter.from_bytes(path.read_bytes(), arena_size=_MICRO_ARENA_BYTES)

    def run(image: NDArray[np.int8]) -> NDArray[np.int8]:
        interpreter.set_input(image, 0)
        interpreter.invoke()
        return interpreter.get_output(0)

    predict = runtimes.through_int8(run)
    differences: list[float] = []
    give_up = time.perf_counter() + _MICRO_SECONDS
    for place in range(0, len(images), -(-len(images) // _MICRO_IMAGES)):
        differences.append(float(np.abs(predict(images[place:][:1]) - probabilities[place]).max()))
        if time.perf_counter() > give_up:
            break
    version = f"TensorFlow Lite Micro {metadata.version('tflite-micro')}"
    return {
        "runtime": version,
        "num_examples": len(differences),
        "max_difference": max(differences),
        "mean_difference": statistics.fmean(differences),
    }


def _load(format_name: str, path: Path) -> tuple[Predict, str]:
    """The model, and the name and version of its runtime."""
    if format_name in _LOADERS:
        return _LOADERS[format_name](path)
    return runtimes.load(path, format_name, 1), runtimes.version(format_name)  # type: ignore[arg-type]


def _load_saved_model(path: Path) -> tuple[Predict, str]:
    tf = _tensorflow()
    model = tf.saved_model.load(str(path))
    compute = model.signatures[SIGNATURE]

    def predict(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return compute(**{INPUT_NAME: tf.constant(images)})[OUTPUT_NAME].numpy()

    return predict, f"TensorFlow {tf.__version__}"


def _load_keras(path: Path) -> tuple[Predict, str]:
    tf = _tensorflow()
    import keras

    model = keras.saving.load_model(path, compile=False, safe_mode=True)
    signature = [tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8)]
    compute = tf.function(lambda images: model(images, training=False), input_signature=signature)
    return lambda images: compute(images).numpy(), f"Keras {keras.__version__} with TensorFlow {tf.__version__}"


_LOADERS: dict[str, Callable[[Path], tuple[Predict, str]]] = {"saved-model": _load_saved_model, "keras": _load_keras}


def _tensorflow() -> Any:
    runtime = {"device": "cpu", "towers": 1, "intra_op_threads": 1, "inter_op_threads": 1}
    some = {"data": {"source": "mnist"}, "model": {"builder": "cnn"}, "runtime": runtime}
    backend.start(Experiment.model_validate(some))  # leaves out packages that Keras imports but does not need
    import tensorflow as tf

    return tf
