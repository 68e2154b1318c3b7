"""The Open Inference Protocol, version 2, over REST: https://github.com/kserve/open-inference-protocol."""

import json
from enum import Enum
from typing import Any

import numpy as np
from fastapi import FastAPI
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from cnn_trainer import __version__
from cnn_trainer.export.manifest import INPUT_NAME, OUTPUT_NAME
from cnn_trainer.serve import bodies
from cnn_trainer.serve.limits import RefusedError
from cnn_trainer.serve.model import VERSION, Served
from cnn_trainer.serve.traces import Traces


def add_routes(app: FastAPI, served: Served, traces: Traces) -> None:
    """Answer under ``/v2``."""
    name = served.manifest.name
    tags: list[str | Enum] = ["Open Inference Protocol"]

    async def server_metadata() -> dict[str, Any]:
        """The server's name and version."""
        return {"name": "cnn-trainer", "version": __version__, "extensions": []}

    async def live() -> dict[str, bool]:
        """Whether the server answers."""
        return {"live": True}

    async def ready() -> dict[str, bool]:
        """Whether the server can predict; it listens only once its model is loaded."""
        return {"ready": True}

    async def model_ready() -> dict[str, Any]:
        """Whether the model is there."""
        return {"name": name, "ready": True}

    async def model_metadata() -> dict[str, Any]:
        """Names, types and shapes of input and output; -1 is the batch."""
        platform = "onnxruntime_onnx" if served.exported.format == "onnx" else "litert_tflite"
        source = {"name": INPUT_NAME, "datatype": "UINT8", "shape": [-1, *served.image_shape]}
        target = {"name": OUTPUT_NAME, "datatype": "FP32", "shape": [-1, served.num_classes]}
        return {"name": name, "versions": [VERSION], "platform": platform, "inputs": [source], "outputs": [target]}

    async def infer(request: Request) -> Response:
        """Probabilities of the images in the tensor ``image``."""
        if "inference-header-content-length" in request.headers:
            raise RefusedError(400, "binary tensors are not supported; send them in the JSON")
        bodies.check_media_type(request, ("", "application/json"))
        document = bodies.parse_object(request.scope["body"])
        batch = _read_tensor(document, served.image_shape)
        _check_outputs(document)
        probabilities = await served.predict(batch)
        traces.num_images.inc(len(batch))
        target = {"name": OUTPUT_NAME, "shape": list(probabilities.shape), "datatype": "FP32"}
        answer: dict[str, Any] = {"model_name": name, "model_version": VERSION}
        if "id" in document and document["id"] is not None:
            answer["id"] = document["id"]
        answer["outputs"] = [{**target, "data": probabilities.ravel().tolist()}]
        return Response(json.dumps(answer), media_type="application/json")

    tensor = {"name": INPUT_NAME, "shape": [1, *served.image_shape], "datatype": "UINT8", "data": ["..."]}
    extra = {"requestBody": {"content": {"application/json": {"example": {"inputs": [tensor]}}}}}
    app.get("/v2", tags=tags)(server_metadata)
    app.get("/v2/health/live", tags=tags)(live)
    app.get("/v2/health/ready", tags=tags)(ready)
    for path in (f"/v2/models/{name}", f"/v2/models/{name}/versions/{VERSION}"):
        app.post(f"{path}/infer", openapi_extra=extra, tags=tags)(infer)
        app.get(path, tags=tags)(model_metadata)
        app.get(f"{path}/ready", tags=tags)(model_ready)


def _read_tensor(document: dict[str, Any], image_shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """The images of a request. Raises RefusedError."""
    tensor = _one_of(document, "inputs", INPUT_NAME)
    if missing := {"shape", "datatype", "data"} - tensor.keys():
        raise RefusedError(400, f"inputs[0]: the key {min(missing)} is missing")
    if tensor["datatype"] != "UINT8":
        raise RefusedError(400, "inputs[0].datatype: expected UINT8")
    shape, values = tensor["shape"], tensor["data"]
    expected = list(image_shape)
    if type(shape) is not list or set(map(type, shape)) != {int} or shape[1:] != expected:
        raise RefusedError(400, f"inputs[0].shape: expected [n, {', '.join(map(str, expected))}]")
    bodies.check_count(shape[0], "inputs[0].shape")
    if type(values) is not list:
        raise RefusedError(400, "inputs[0].data: expected a list")
    if values and type(values[0]) is list:
        batch = bodies.to_images(values, image_shape, "inputs[0].data")
    elif len(values) == np.prod(shape):
        batch = bodies.to_pixels(values, "inputs[0].data").reshape(shape)
    else:
        raise RefusedError(400, f"inputs[0].data: {len(values)} values where the shape has {np.prod(shape)}")
    if len(batch) != shape[0]:
        raise RefusedError(400, f"inputs[0].data: {len(batch)} images where the shape has {shape[0]}")
    return batch


def _check_outputs(document: dict[str, Any]) -> None:
    """Refuse a request for what this model does not give. Raises RefusedError."""
    if "id" in document and not isinstance(document["id"], str | None):
        raise RefusedError(400, "id: expected a text")
    wanted = [document]
    if "outputs" in document and document["outputs"] not in (None, []):
        wanted.append(_one_of(document, "outputs", OUTPUT_NAME))
    for asked in wanted:
        parameters = asked["parameters"] if "parameters" in asked else None
        if isinstance(parameters, dict) and any(
            key in parameters and parameters[key] for key in ("binary_data", "binary_data_output", "classification")
        ):
            raise RefusedError(400, "parameters: binary tensors and classifications are not supported; leave them out")


def _one_of(document: dict[str, Any], key: str, name: str) -> dict[str, Any]:
    """The one entry of a list of tensors, which must be of this name. Raises RefusedError."""
    tensors = document[key] if key in document else None
    if type(tensors) is not list or len(tensors) != 1 or type(tensors[0]) is not dict:
        raise RefusedError(400, f"{key}: expected a list of one tensor, {name}")
    if "name" not in tensors[0] or tensors[0]["name"] != name:
        raise RefusedError(400, f"{key}[0].name: this model has {name} alone")
    return tensors[0]
