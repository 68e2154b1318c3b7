"""Runs exported models in the runtimes that do not need TensorFlow: ONNX Runtime and LiteRT.

Neither TensorFlow nor Keras is imported here, so that a server of models can be small. A model file is treated as data:
no custom operators are loaded into either runtime, and LiteRT has only its built-in operators.
"""

import os
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cnn_trainer.errors import DeviceError, RunDirectoryError
from cnn_trainer.export.manifest import INPUT_NAME, MICRO_QUANTIZATION, OUTPUT_NAME, Format
from cnn_trainer.machine import facts

Predict: TypeAlias = Callable[[NDArray[np.uint8]], NDArray[np.float32]]

SIGNATURE: Final = "serving_default"
"""The signature with the named input and output, in a SavedModel and in a LiteRT file."""


def load(
    path: Path,
    format: Format,  # noqa: A002 -- the manifest's word
    threads: int,
    content: bytes | None = None,
) -> Predict:
    """Load an exported model, which must be a single file: external weights next to an ONNX file are refused.

    Returns a function that takes images, uint8 (batch, height, width, channels) with a batch of 1 or more, and returns
    probabilities, float32 (batch, classes). Only one thread may call it at a time.

    Args:
        path: The model's file.
        format: onnx, litert, litert-float16, litert-int8 or litert-micro.
        threads: Number of threads that one call uses.
        content: The bytes to run, from ``folder.read_verified``; None reads the file without checking its digest.

    Raises:
        DeviceError: if the runtime is not installed, with the command that installs it.
        RunDirectoryError: if the runtime refuses the file, or its input or output is not that of an export.
    """
    start = _start_onnx if format == "onnx" else _start_litert_micro if format == "litert-micro" else _start_litert
    title, _, install = _runtime(format)
    try:
        return start(path.read_bytes() if content is None else content, threads)
    except ImportError as error:
        raise DeviceError(f"{title} cannot be imported ({error})", remedy=install) from None
    except Exception as error:  # there are many kinds, which are not documented
        problem = str(error) or type(error).__name__[:200]
        remedy = "export the run again with: cnn-train export RUN"
        raise RunDirectoryError(f"{title} cannot run it: {problem}", place=path, remedy=remedy) from None


def version(name: Format) -> str:
    """Name and version of the runtime that ``load`` uses, such as ``ONNX Runtime 1.23.0``. Raises DeviceError."""
    title, package, install = _runtime(name)
    try:
        return f"{title} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        raise DeviceError(f"{title} is not installed", remedy=install) from None


def _runtime(name: Format) -> tuple[str, str, str]:
    """Title and package of the runtime of a format, and how to install it."""
    if name == "onnx":
        return "ONNX Runtime", "onnxruntime", f"install it with: {facts.install_command('cnn-trainer[onnx]')}"
    return "LiteRT", "ai-edge-litert", f"install it with: {facts.install_command('cnn-trainer[litert]')}"


def _start_onnx(content: bytes, threads: int) -> Predict:
    # By default it reports its use to its vendor over the network, and stores an identifier of this machine for that.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # External weights are not covered by the digest; given bytes, it would look for them in the working folder.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    options.log_severity_level = 3  # only errors, which are also raised
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    found = [(value.name, value.type, len(value.shape)) for value in (*session.get_inputs(), *session.get_outputs())]
    _require(found, [(INPUT_NAME, "tensor(uint8)", 4), (OUTPUT_NAME, "tensor(float)", 2)])
    return lambda images: session.run([OUTPUT_NAME], {INPUT_NAME: images})[0]


def _start_litert(content: bytes, threads: int) -> Predict:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=threads)
    source, target = _litert_ends(interpreter, [("uint8", 4, (0.0, 0)), ("float32", 2, (0.0, 0))])
    batch = 0  # the signature's runner would repeat all this in every call

    def predict(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        nonlocal batch
        if len(images) != batch:
            interpreter.resize_tensor_input(source["index"], images.shape, strict=True)
            interpreter.allocate_tensors()
            batch = len(images)
        interpreter.set_tensor(source["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(target["index"])

    return predict


def _start_litert_micro(content: bytes, threads: int) -> Predict:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=threads)
    of_input = (MICRO_QUANTIZATION.input_scale, MICRO_QUANTIZATION.input_zero_point)
    of_output = (MICRO_QUANTIZATION.output_scale, MICRO_QUANTIZATION.output_zero_point)
    source, target = _litert_ends(interpreter, [("int8", 4, of_input), ("int8", 2, of_output)])
    interpreter.allocate_tensors()

    def run(image: NDArray[np.int8]) -> NDArray[np.int8]:
        interpreter.set_tensor(source["index"], image)
        interpreter.invoke()
        return interpreter.get_tensor(target["index"])

    return through_int8(run)


def _litert_ends(interpreter: Any, wanted: list[tuple[str, int, tuple[float, int]]]) -> tuple[Any, Any]:
    """The details of input and output, whose types, dimensions and quantizations must be as ``wanted``."""
    signature = interpreter.get_signature_list()[SIGNATURE]
    _require([*signature["inputs"], *signature["outputs"]], [INPUT_NAME, OUTPUT_NAME])
    runner = interpreter.get_signature_runner(SIGNATURE)
    ends = runner.get_input_details()[INPUT_NAME], runner.get_output_details()[OUTPUT_NAME]
    _require([(np.dtype(end["dtype"]).name, len(end["shape"]), end["quantization"]) for end in ends], wanted)
    return ends


def through_int8(run: Callable[[NDArray[np.int8]], NDArray[np.int8]]) -> Predict:
    """Turn ``run``, which has the int8 input and output of a litert-micro file, into a function of uint8 images.

    ``run`` takes one image, (1, height, width, channels), and returns (1, classes), in ``MICRO_QUANTIZATION``.
    """
    sizes = MICRO_QUANTIZATION

    def predict(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        numbers = (images / np.float32(sizes.input_scale) + sizes.input_zero_point).astype(np.int8)
        outputs = np.concatenate([run(numbers[place : place + 1]) for place in range(len(numbers))])
        return (outputs.astype(np.float32) - sizes.output_zero_point) * np.float32(sizes.output_scale)

    return predict


def _require(found: list[Any], wanted: list[Any]) -> None:
    if found != wanted:
        raise ValueError(f"its input and output are {found}, expected {wanted}")
