"""The Open Inference Protocol, version 2, over REST: https://github.com/kserve/open-inference-protocol.

With Triton's extensions for binary tensors and for classification, which Triton's clients use by default:
https://github.com/triton-inference-server/server/tree/main/docs/protocol.
"""

import json
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from cnn_trainer import __version__
from cnn_trainer.errors import count
from cnn_trainer.export.manifest import INPUT_NAME, OUTPUT_NAME
from cnn_trainer.serve import bodies, operations
from cnn_trainer.serve.limits import RefusedError
from cnn_trainer.serve.model import VERSION, Served
from cnn_trainer.serve.operations import Route, Schema, array_schema, object_schema
from cnn_trainer.serve.traces import Traces

_BINARY_TYPE: Final = "application/octet-stream"
_HEAD_LENGTH: Final = "inference-header-content-length"
_EXTENSIONS: Final = ["binary_tensor_data", "classification"]
_TAG: Final = "Open Inference Protocol"


def inference_routes(served: Served, traces: Traces) -> list[Route]:
    """The routes under ``/v2``."""
    name = served.manifest.name

    async def infer(request: Request) -> Response:
        bodies.check_media_type(request, ("", "application/json", _BINARY_TYPE))
        head, tail = _split(request)
        document = bodies.parse_object(head)
        batch = _read_tensor(document, served.image_shape, tail)
        is_binary, num_classes = _read_wishes(document, served.num_classes)
        probabilities = await served.predict(batch)
        traces.num_images.inc(len(batch))
        answer: dict[str, Any] = {"model_name": name, "model_version": VERSION}
        if document.get("id") is not None:
            answer["id"] = document["id"]
        output, content = _write_tensor(probabilities, num_classes, served.manifest.data.class_names, is_binary)
        text = json.dumps({**answer, "outputs": [output]}).encode()
        if not is_binary:
            return Response(text, media_type="application/json")
        return Response(text + content, headers={_HEAD_LENGTH: str(len(text))}, media_type=_BINARY_TYPE)

    def fixed(path: str, description: str, answer: dict[str, Any]) -> Route:
        return operations.fixed_route(path, json.dumps(answer), operations.operation(description, _TAG))

    platform = "onnxruntime_onnx" if served.exported.format == "onnx" else "litert_tflite"
    source = {"name": INPUT_NAME, "datatype": "UINT8", "shape": [-1, *served.image_shape]}
    target = {"name": OUTPUT_NAME, "datatype": "FP32", "shape": [-1, served.num_classes]}
    model = {"name": name, "versions": [VERSION], "platform": platform, "inputs": [source], "outputs": [target]}
    server = {"name": "cnn-trainer", "version": __version__, "extensions": _EXTENSIONS}
    words = (
        "Probabilities of the images in the tensor ``image``. Binary tensors follow the JSON; the header "
        "``Inference-Header-Content-Length`` gives the length of the JSON. With the output's parameter "
        "``classification``, the answer is that many of the likeliest classes, each as ``probability:index:name``."
    )
    inferred = operations.operation(words, _TAG, body=_body_schemas(served.image_shape))
    found = [
        fixed("/v2", "The server's name, version and extensions.", server),
        fixed("/v2/health/live", "Whether the server answers.", {"live": True}),
        # It listens only once its model is loaded.
        fixed("/v2/health/ready", "Whether the server can predict.", {"ready": True}),
    ]
    for path in (f"/v2/models/{name}", f"/v2/models/{name}/versions/{VERSION}"):
        found += [
            Route("POST", f"{path}/infer", infer, inferred),
            fixed(path, "Names, types and shapes of input and output; -1 is the batch.", model),
            fixed(f"{path}/ready", "Whether the model is loaded.", {"name": name, "ready": True}),
        ]
    return found


def _split(request: Request) -> tuple[bytes, bytes]:
    """The JSON of a request, and the binary tensors behind it. Raises RefusedError."""
    body: bytes = request.scope["body"]
    length = request.headers[_HEAD_LENGTH] if _HEAD_LENGTH in request.headers else str(len(body))
    if not (length.isascii() and length.isdigit() and len(length) < 12 and int(length) <= len(body)):
        raise RefusedError(400, f"{_HEAD_LENGTH}: got {length[:20]}; expected 0 to {len(body)}, the bytes of the body")
    return body[: int(length)], body[int(length) :]


def _read_tensor(document: dict[str, Any], image_shape: tuple[int, int, int], tail: bytes) -> NDArray[np.uint8]:
    """The images of a request. Raises RefusedError."""
    tensor = _one_of(document, "inputs", INPUT_NAME)
    size = _parameter(tensor, "binary_data_size")
    if size is None and tail:
        raise RefusedError(400, f"inputs[0]: {count(len(tail), 'byte')} after the JSON, but no binary_data_size")
    if missing := {"shape", "datatype", *(["data"] if size is None else [])} - tensor.keys():
        raise RefusedError(400, f"inputs[0]: the key {min(missing)} is missing")
    if tensor["datatype"] != "UINT8":
        raise RefusedError(400, "inputs[0].datatype: expected UINT8")
    shape = tensor["shape"]
    if type(shape) is not list or set(map(type, shape)) != {int} or shape[1:] != list(image_shape):
        raise RefusedError(400, f"inputs[0].shape: expected [n, {', '.join(map(str, image_shape))}]")
    bodies.check_count(shape[0], "inputs[0].shape")
    num_values = int(np.prod(shape))
    if size is None:
        return _read_data(tensor["data"], shape, num_values)
    if "data" in tensor:
        raise RefusedError(400, "inputs[0]: has both data and binary_data_size; send one of them")
    if not size == len(tail) == num_values:
        found = f"binary_data_size is {json.dumps(size)[:20]}, with {count(len(tail), 'byte')} after the JSON"
        raise RefusedError(400, f"inputs[0]: {found}; the shape has {num_values}")
    return np.frombuffer(tail, np.uint8).reshape(shape)


def _read_data(values: Any, shape: list[int], num_values: int) -> NDArray[np.uint8]:
    if type(values) is not list:
        raise RefusedError(400, "inputs[0].data: expected a list")
    if values and type(values[0]) is list:
        batch = bodies.to_images(values, shape[1:], "inputs[0].data")
        if len(batch) != shape[0]:
            raise RefusedError(400, f"inputs[0].data: {count(len(batch), 'image')}, but the shape has {shape[0]}")
        return batch
    if len(values) != num_values:
        raise RefusedError(400, f"inputs[0].data: {count(len(values), 'value')}, but the shape has {num_values}")
    return bodies.to_pixels(values, "inputs[0].data").reshape(shape)


def _read_wishes(document: dict[str, Any], num_classes: int) -> tuple[bool, int]:
    """Whether the output is binary, and how many classes are asked for; 0 asks for probabilities."""
    if not isinstance(document.get("id"), str | None):
        raise RefusedError(400, "id: expected a string")
    is_binary, count = _parameter(document, "binary_data_output"), None
    if document.get("outputs") not in (None, []):
        output = _one_of(document, "outputs", OUTPUT_NAME)
        own, count = _parameter(output, "binary_data"), _parameter(output, "classification")
        is_binary = is_binary if own is None else own
    if type(is_binary) not in (bool, type(None)):
        raise RefusedError(400, "parameters: binary_data and binary_data_output are true or false")
    if count is not None and (type(count) is not int or count < 0):
        raise RefusedError(400, "outputs[0].parameters.classification: expected a number of classes")
    return bool(is_binary), min(count or 0, num_classes)


def _parameter(place: dict[str, Any], name: str) -> Any:
    """A parameter of a request or a tensor; None if there is none."""
    parameters = place.get("parameters")
    if not isinstance(parameters, dict | None):
        raise RefusedError(400, "parameters: expected an object")
    return parameters.get(name) if parameters else None


def _write_tensor(
    probabilities: NDArray[np.float32], num_classes: int, names: list[str], is_binary: bool
) -> tuple[dict[str, Any], bytes]:
    """The one output, and the bytes after the JSON. As in Triton: little-endian, with each string after its length."""
    if num_classes:
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, :num_classes]
        ranked = zip(probabilities, best, strict=True)
        texts = [f"{row[at]:.9g}:{at}:{names[at]}" for row, order in ranked for at in order]
        output: dict[str, Any] = {"name": OUTPUT_NAME, "datatype": "BYTES", "shape": list(best.shape)}
        content = b"".join(len(text.encode()).to_bytes(4, "little") + text.encode() for text in texts)
        values: list[Any] = texts
    else:
        output = {"name": OUTPUT_NAME, "datatype": "FP32", "shape": list(probabilities.shape)}
        content = probabilities.astype("<f4").tobytes()
        values = [] if is_binary else probabilities.ravel().tolist()
    if is_binary:
        return {**output, "parameters": {"binary_data_size": len(content)}}, content
    return {**output, "data": values}, b""


def _one_of(document: dict[str, Any], key: str, name: str) -> dict[str, Any]:
    """The one entry of a list of tensors, which must be of this name. Raises RefusedError."""
    tensors = document.get(key)
    if type(tensors) is not list or len(tensors) != 1 or type(tensors[0]) is not dict:
        raise RefusedError(400, f"{key}: expected a list of one tensor, {name}")
    if tensors[0].get("name") != name:
        raise RefusedError(400, f"{key}[0].name: this model has only {name}")
    return tensors[0]


def _body_schemas(shape: tuple[int, int, int]) -> dict[str, Schema]:
    """What ``infer`` accepts, by media type. A schema cannot tie the length of ``data`` to ``shape``."""
    pixel = operations.PIXEL
    sizes = [{"type": "integer", "minimum": 1, "maximum": bodies.MAX_IMAGES}, *({"const": size} for size in shape)]
    num_values = int(np.prod(shape))
    flat = {**array_schema(pixel, [None]), "minItems": num_values}
    tensor: dict[str, Schema] = {
        "name": {"const": INPUT_NAME},
        "datatype": {"const": "UINT8"},
        "shape": {"type": "array", "prefixItems": sizes, "minItems": 4, "maxItems": 4},
        "data": {"anyOf": [flat, operations.images_schema(array_schema(pixel, shape))]},
    }
    output = object_schema({"name": {"const": OUTPUT_NAME}}, closed=False)
    request: dict[str, Schema] = {
        "id": {"type": ["string", "null"]},
        "inputs": array_schema(object_schema(tensor, closed=False), [1]),
        "outputs": {"anyOf": [{**array_schema(output, [None]), "maxItems": 1}, {"type": "null"}]},
    }
    example = {"name": INPUT_NAME, "datatype": "UINT8", "shape": [1, *shape], "data": [0] * num_values}
    text = {"schema": object_schema(request, ["id", "outputs"], closed=False), "example": {"inputs": [example]}}
    return {"application/json": text, _BINARY_TYPE: {"schema": operations.FILE}}
