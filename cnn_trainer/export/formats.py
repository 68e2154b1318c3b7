"""Writes a model in each of the formats: raw uint8 images in, float32 probabilities out, scaling inside the file.

Every format but Keras' own comes from one TensorFlow function with a named input and output, so that all of them have
these names. What is written follows from the model alone: no date, no path of this machine, and the same bytes again
for the same weights and the same versions of the libraries. (The exception: ONNX with GELU, where tf2onnx gives some
constants their names in another order from process to process.)
"""

import importlib.util
import io
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn_trainer.errors import DeviceError
from cnn_trainer.export.manifest import INPUT_NAME, OUTPUT_NAME, Format
from cnn_trainer.export.runtimes import SIGNATURE
from cnn_trainer.machine import streams
from cnn_trainer.storage import files

# ONNX Runtime 1.12 of 2022 knows it, and so do the converters to other formats; later ones bring nothing that is used.
_OPSET = 17

# Objects that stand in Keras' config more than once have their address in memory as a number that they share.
_SHARED = re.compile(r'("shared_object_id": )([0-9]+)')

_LITERT = ("litert", ["ai_edge_litert"])
_NEEDED: dict[Format, tuple[str, list[str]]] = {
    "onnx": ("onnx", ["onnx", "onnxruntime", "tf2onnx"]),
    "litert": _LITERT,
    "litert-float16": _LITERT,
    "litert-int8": _LITERT,
}


@dataclass(frozen=True)
class ExportSource:
    """What is exported."""

    model: Any
    """A Keras model of float32 weights, as ``network.build.build_model`` builds it."""
    saved_at: str
    """When its weights were last written: UTC, ISO 8601."""
    calibration: NDArray[np.uint8]
    """Training images (examples, height, width, channels) by which int8 chooses its scales; none without int8."""


def require(formats: Iterable[Format]) -> None:
    """Refuse formats whose converter or runtime is not installed. Raises DeviceError with the command for it."""
    for name in formats:
        extra, modules = _NEEDED[name] if name in _NEEDED else ("", [])
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        if missing:
            remedy = f"install what it needs with: pip install 'cnn-trainer[{extra}]'"
            raise DeviceError(f"--format {name}: {' and '.join(missing)} cannot be found", remedy=remedy)


def write(name: Format, source: ExportSource, path: Path) -> None:
    """Write ``source`` as a new file or folder at ``path``, whose folder exists.

    Raises:
        RunDirectoryError: where the system refuses.
    """
    with files.reported(path, "written"), streams.redirected(2, None):  # converters chat there, and fail by raising
        _WRITERS[name](source, path)


def _function(model: Any) -> Any:
    """The model as a TensorFlow function of ``image`` that gives ``{"probabilities": ...}``."""
    import tensorflow as tf

    from cnn_trainer.network import rewrite

    operations = rewrite.fold_scale(rewrite.read_model(model))
    signature = [tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8, INPUT_NAME)]

    @tf.function(autograph=False, input_signature=signature)
    def compute(image: Any) -> dict[str, Any]:
        weights = [tf.convert_to_tensor(variable) for variable in model.trainable_variables]
        logits = rewrite.compute(operations, tf.cast(image, tf.float32), weights, None, training=False)
        return {OUTPUT_NAME: tf.nn.softmax(logits)}

    return compute


def _module(model: Any) -> Any:
    """What holds the variables of the model where TensorFlow saves a function of them."""
    import tensorflow as tf

    module = tf.Module()
    module.variables_of_model = [variable.value for variable in model.weights]
    return module


def _write_saved_model(source: ExportSource, path: Path) -> None:
    import tensorflow as tf

    signatures = {SIGNATURE: _function(source.model).get_concrete_function()}
    try:
        tf.saved_model.save(_module(source.model), str(path), signatures)
    except tf.errors.OpError as error:  # a full disk, for one
        raise OSError(error.message) from None
    (path / "fingerprint.pb").unlink()  # holds a random number, and nothing that a reader needs
    for file in path.rglob("*"):
        if file.is_file():
            _sync(file)


def _sync(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def _write_onnx(source: ExportSource, path: Path) -> None:
    import tf2onnx

    function = _function(source.model)
    model, _ = tf2onnx.convert.from_function(
        function, function.input_signature, opset=_OPSET, custom_op_handlers={"Erfc": (_write_erfc, [])}
    )
    model.graph.doc_string = ""  # names the function with a number that counts all functions of this process
    files.write_atomic(path, model.SerializeToString(deterministic=True))


def _write_erfc(graph: Any, node: Any, *_: Any) -> None:
    """1 - erf(x), for ONNX has no operator for what TensorFlow's GELU is made of."""
    shapes, dtypes = node.output_shapes, node.output_dtypes
    graph.remove_node(node.name)
    erf = graph.make_node("Erf", node.input, shapes=shapes, dtypes=dtypes)
    one = graph.make_const(f"{node.name}/one", np.array(1, np.float32))
    graph.make_node(
        "Sub", [one.output[0], erf.output[0]], outputs=node.output, name=node.name, shapes=shapes, dtypes=dtypes
    )


def _write_litert(source: ExportSource, path: Path, choose: Callable[[Any, ExportSource], None]) -> None:
    import tensorflow as tf

    function = _function(source.model).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], _module(source.model))
    choose(converter, source)
    files.write_atomic(path, converter.convert())


def _float32(converter: Any, _: ExportSource) -> None:
    import tensorflow as tf

    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]


def _float16(converter: Any, _: ExportSource) -> None:
    """Weights in half the bytes; they are made float32 when the model is loaded."""
    import tensorflow as tf

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]


def _int8(converter: Any, source: ExportSource) -> None:
    """Weights and values as int8 throughout; the uint8 image and the float32 probabilities are converted at the ends.

    The probabilities are multiples of 1/256, as LiteRT's int8 softmax gives them.
    """
    import tensorflow as tf

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[np.newaxis]] for image in source.calibration)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]


def _write_keras(source: ExportSource, path: Path) -> None:
    """Keras' own file, with the date of the run in place of this one, and small numbers in place of addresses."""
    from cnn_trainer.network.build import keras_file

    numbers: dict[str, int] = {}
    content = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(keras_file(source.model))) as dated, zipfile.ZipFile(content, "w") as fixed:
        for name in dated.namelist():
            member = dated.read(name)
            if name == "metadata.json":
                date = source.saved_at.replace("T", "@").rstrip("Z")
                member = json.dumps(json.loads(member) | {"date_saved": date}).encode()
            if name == "config.json":
                member = _SHARED.sub(
                    lambda match: f"{match[1]}{numbers.setdefault(match[2], len(numbers) + 1)}", member.decode()
                ).encode()
            fixed.writestr(zipfile.ZipInfo(name), member)  # of the first day that zip files know
    files.write_atomic(path, content.getvalue())


_WRITERS: dict[Format, Callable[[ExportSource, Path], None]] = {
    "saved-model": _write_saved_model,
    "onnx": _write_onnx,
    "litert": lambda source, path: _write_litert(source, path, _float32),
    "litert-float16": lambda source, path: _write_litert(source, path, _float16),
    "litert-int8": lambda source, path: _write_litert(source, path, _int8),
    "keras": _write_keras,
}
