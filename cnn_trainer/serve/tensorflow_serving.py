"""The REST interface of TensorFlow Serving, https://www.tensorflow.org/tfx/serving/api_rest, for its clients unchanged.

Beyond it, an image may be a picture's file in base64: ``{"b64": "..."}`` in the place of its pixels. In TensorFlow
Serving such a value is a string tensor, which an exported SavedModel does not take.
"""

from typing import Any

import numpy as np
from fastapi import FastAPI
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from cnn_trainer.export.manifest import INPUT_NAME, OUTPUT_NAME
from cnn_trainer.serve import bodies, images
from cnn_trainer.serve.limits import RefusedError
from cnn_trainer.serve.model import VERSION, Served
from cnn_trainer.serve.traces import Traces

SIGNATURE = "serving_default"

# The last is what curl -d sends unless told otherwise, as in the examples of TensorFlow Serving, which reads any.
_MEDIA_TYPES = ("", "application/json", "application/x-www-form-urlencoded")


def add_routes(app: FastAPI, served: Served, traces: Traces) -> None:
    """Answer under ``/v1``."""
    shape = served.image_shape

    async def status() -> dict[str, Any]:
        """Whether the model is there."""
        fine = {"error_code": "OK", "error_message": ""}
        return {"model_version_status": [{"version": VERSION, "state": "AVAILABLE", "status": fine}]}

    async def metadata() -> dict[str, Any]:
        """The signature: names, types and shapes of input and output; -1 is the batch."""
        return _metadata(served)

    async def predict(request: Request) -> Response:
        """Probabilities of images, given as ``instances`` (a list of images) or ``inputs`` (the same by name)."""
        bodies.check_media_type(request, _MEDIA_TYPES)
        document = bodies.parse_object(request.scope["body"], shape)
        if "signature_name" in document and document["signature_name"] not in (SIGNATURE, ""):
            raise RefusedError(400, f"signature_name: this model has the signature {SIGNATURE} alone")
        keys = document.keys() & {"instances", "inputs"}
        if len(keys) != 1:
            raise RefusedError(400, "the body must have one of the keys instances and inputs")
        (key,) = keys
        value = document[key]
        batch = value if isinstance(value, np.ndarray) else await _read_batch(served, value, key)
        bodies.check_count(len(batch), key)
        probabilities = await served.predict(batch)
        traces.num_images.inc(len(batch))
        name = "predictions" if key == "instances" else "outputs"
        return Response(f'{{"{name}": {bodies.format_rows(probabilities)}}}', media_type="application/json")

    extra = {"requestBody": {"content": {"application/json": {"example": {"instances": [{"b64": "..."}]}}}}}
    for path in (f"/v1/models/{served.manifest.name}", f"/v1/models/{served.manifest.name}/versions/{VERSION}"):
        app.post(f"{path}:predict", openapi_extra=extra, tags=["TensorFlow Serving"])(predict)
        app.get(path, tags=["TensorFlow Serving"])(status)
        app.get(f"{path}/metadata", tags=["TensorFlow Serving"])(metadata)


async def _read_batch(served: Served, value: object, key: str) -> NDArray[np.uint8]:
    """Images from what stands under ``instances`` or ``inputs``. Raises RefusedError."""
    if key == "inputs" and isinstance(value, dict) and value.keys() != {"b64"}:
        value = _named(value, key)
    if isinstance(value, dict):
        raise RefusedError(400, f"{key}: expected a list of images")
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        bodies.check_count(len(value), key)
        items = [
            _named(item, f"{key}[{number}]") if isinstance(item, dict) and item.keys() != {"b64"} else item
            for number, item in enumerate(value)
        ]
        if any(isinstance(item, dict) for item in items):
            return await _decode(served, items, key)
        value = items
    return bodies.to_images(value, served.image_shape, key)


def _named(value: dict[str, Any], where: str) -> Any:
    """The value of the one input there is, of an object that gives inputs by name."""
    if value.keys() != {INPUT_NAME}:
        raise RefusedError(400, f"{where}: expected the one key {INPUT_NAME}, this model's input")
    return value[INPUT_NAME]


async def _decode(served: Served, items: list[Any], key: str) -> NDArray[np.uint8]:
    places = [f"{key}[{number}]" for number in range(len(items))]
    files = []
    for item, place in zip(items, places, strict=True):
        if not isinstance(item, dict) or item.keys() != {"b64"}:
            raise RefusedError(400, f"{place}: expected a picture in base64, as the others of this request are")
        files.append(images.decode_base64(item["b64"], place))
    return await served.in_worker(images.read_pictures, files, served.manifest.data, places)


def _metadata(served: Served) -> dict[str, Any]:
    def tensor(name: str, kind: str, shape: tuple[int, ...]) -> dict[str, Any]:
        dimensions = [{"size": str(size), "name": ""} for size in (-1, *shape)]
        return {"dtype": kind, "tensor_shape": {"dim": dimensions, "unknown_rank": False}, "name": f"{name}:0"}

    signature = {
        "inputs": {INPUT_NAME: tensor(INPUT_NAME, "DT_UINT8", served.image_shape)},
        "outputs": {OUTPUT_NAME: tensor(OUTPUT_NAME, "DT_FLOAT", (served.num_classes,))},
        "method_name": "tensorflow/serving/predict",
    }
    return {
        "model_spec": {"name": served.manifest.name, "signature_name": "", "version": VERSION},
        "metadata": {"signature_def": {"signature_def": {SIGNATURE: signature}}},
    }
