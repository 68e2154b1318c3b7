"""Writes a model in each of the formats: raw uint8 images in, float32 probabilities out, scaling inside the file.

Only litert-micro has int8 input and output, and takes one image at a time: microcontrollers have no cast from uint8.

Every format except Keras' own is made from one TensorFlow function with a named input and output, so that all of them
have these names. The files depend only on the model: they contain no date and no path of this machine, and have the
same bytes for the same weights and versions of the libraries. (The exception is ONNX with GELU, for which tf2onnx
names some constants in a different order in each process.)
"""

import importlib.util
import io
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cnn_trainer.errors import DeviceError
from cnn_trainer.export.manifest import INPUT_NAME, OUTPUT_NAME, Format
from cnn_trainer.export.runtimes import SIGNATURE
from cnn_trainer.machine import facts, streams
from cnn_trainer.storage import files

# ONNX Runtime 1.12 (2022) supports it, and so do the converters to other formats; later ones add nothing we use.
_OPSET = 17

# In Keras' config, objects that occur more than once share a number, which is their address in memory.
_SHARED = re.compile(r'("shared_object_id": )([0-9]+)')

# The modules that a format needs, by the extra that installs them.
_NEEDED = {"onnx": ["onnx", "onnxruntime", "tf2onnx"], "litert": ["ai_edge_litert"]}


CALIBRATED: Final = frozenset[Format]({"litert-int8", "litert-micro"})
"""The formats whose scales are chosen from training images."""


@dataclass(frozen=True)
class ExportSource:
    """What is exported."""

    model: Any
    """A Keras model with float32 weights, from ``network.build.build_model``."""
    saved_at: str
    """When its weights were last written: UTC, ISO 8601."""
    calibration: NDArray[np.uint8]
    """Training images (examples, height, width, channels) for the formats in ``CALIBRATED``; empty without these."""


def require(formats: Iterable[Format]) -> None:
    """Refuse formats whose converter or runtime is not installed. Raises DeviceError with the install command."""
    for name in formats:
        extra = name.partition("-")[0]
        modules = _NEEDED[extra] if extra in _NEEDED else []
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        if missing:
            remedy = f"install what it needs with: {facts.install_command(f'cnn-trainer[{extra}]')}"
            raise DeviceError(f"--format {name}: {' and '.join(missing)} cannot be found", remedy=remedy)


def write(name: Format, source: ExportSource, path: Path) -> None:
    """Write ``source`` as a new file or folder at ``path``, whose folder exists.

    Raises RunDirectoryError if the system refuses.
    """
    with files.reported(path, "written"), streams.redirected(2, None):  # converters chat on stderr, but raise errors
        _WRITERS[name](source, path)


def _function(model: Any, micro: bool = False) -> Any:
    """The model as a TensorFlow function of ``image`` that returns ``{"probabilities": ...}``.

    With ``micro``, it takes one float32 image, and uses only operations that TensorFlow Lite Micro supports.
    """
    import tensorflow as tf

    from cnn_trainer.network import rewrite

    operations = rewrite.fold_scale(rewrite.read_model(model))
    if micro:
        operations = rewrite.approximate_gelu(operations)
    batch, dtype = (1, tf.float32) if micro else (None, tf.uint8)
    signature = [tf.TensorSpec((batch, *model.input_shape[1:]), dtype, INPUT_NAME)]

    @tf.function(autograph=False, input_signature=signature)
    def compute(image: Any) -> dict[str, Any]:
        weights = [tf.convert_to_tensor(variable) for variable in model.trainable_variables]
        logits = rewrite.compute(operations, tf.cast(image, tf.float32), weights, None, training=False)
        return {OUTPUT_NAME: tf.nn.softmax(logits)}

    return compute


def _module(model: Any) -> Any:
    """A module that holds the variables of the model, so that TensorFlow can save a function of them."""
    import tensorflow as tf

    module = tf.Module()
    module.variables_of_model = [variable.value for variable in model.weights]
    return module


def _write_saved_model(source: ExportSource, path: Path) -> None:
    import tensorflow as tf

    signatures = {SIGNATURE: _function(source.model).get_concrete_function()}
    try:
        tf.saved_model.save(_module(source.model), str(path), signatures)
    except tf.errors.OpError as error:  # for example, if the disk is full
        raise OSError(error.message) from None
    (path / "fingerprint.pb").unlink()  # contains a random number, and nothing that a reader needs
    for file in path.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())


def _write_onnx(source: ExportSource, path: Path) -> None:
    import tf2onnx

    function = _function(source.model)
    model, _ = tf2onnx.convert.from_function(
        function, function.input_signature, opset=_OPSET, custom_op_handlers={"Erfc": (_write_erfc, [])}
    )
    model.graph.doc_string = ""  # otherwise it contains a number that counts the functions of this process
    files.write_atomic(path, model.SerializeToString(deterministic=True))


def _write_erfc(graph: Any, node: Any, *_: Any) -> None:
    """Write erfc(x) as 1 - erf(x), because ONNX has no operator for erfc, which TensorFlow's GELU uses."""
    shapes, dtypes = node.output_shapes, node.output_dtypes
    graph.remove_node(node.name)
    erf = graph.make_node("Erf", node.input, shapes=shapes, dtypes=dtypes)
    one = graph.make_const(f"{node.name}/one", np.array(1, np.float32))
    both = {"name": node.name, "shapes": shapes, "dtypes": dtypes}
    graph.make_node("Sub", [one.output[0], erf.output[0]], outputs=node.output, **both)


def _write_litert(source: ExportSource, path: Path, weights: str = "float32", micro: bool = False) -> None:
    """A LiteRT file with ``weights`` of float32, float16 or int8.

    float16 weights are converted to float32 when the model is loaded. With int8, all values between the uint8 image and
    the float32 probabilities are int8 too, and the probabilities are multiples of 1/256, as LiteRT's softmax returns
    them. With ``micro``, which is for int8, input and output are int8 as well, quantized by ``MICRO_QUANTIZATION``.
    """
    import tensorflow as tf

    function = _function(source.model, micro).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], _module(source.model))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if weights != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if weights == "float16":
        converter.target_spec.supported_types = [tf.float16]
    elif weights == "int8":
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        images = source.calibration
        if micro:
            converter.inference_input_type = converter.inference_output_type = tf.int8
            images = images.astype(np.float32)
            images[0, 0, 0] = 255  # the range of all pixels determines the scale of the input, which must be 1
        converter.representative_dataset = lambda: ([image[np.newaxis]] for image in images)
    files.write_atomic(path, converter.convert())


def _write_keras(source: ExportSource, path: Path) -> None:
    """Keras' own file, with the date of the run instead of today's, and small numbers instead of addresses."""
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
                text = _SHARED.sub(lambda m: f"{m[1]}{numbers.setdefault(m[2], len(numbers) + 1)}", member.decode())
                member = text.encode()
            fixed.writestr(zipfile.ZipInfo(name), member)  # the first date that zip files can hold
    files.write_atomic(path, content.getvalue())


_WRITERS: dict[Format, Callable[[ExportSource, Path], None]] = {
    "saved-model": _write_saved_model,
    "onnx": _write_onnx,
    "litert": _write_litert,
    "litert-float16": partial(_write_litert, weights="float16"),
    "litert-int8": partial(_write_litert, weights="int8"),
    "litert-micro": partial(_write_litert, weights="int8", micro=True),
    "keras": _write_keras,
}
