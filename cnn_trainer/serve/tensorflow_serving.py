"""The REST interface of TensorFlow Serving, https://www.tensorflow.org/tfx/serving/api_rest.

In addition, an image may be a picture file: ``{"b64": "..."}`` instead of its pixels, the file itself as the body,
or files in a form. In TensorFlow Serving such a value is a string tensor, which an exported SavedModel does not take.
"""

import json
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from cnn_trainer.export.manifest import INPUT_NAME, OUTPUT_NAME
from cnn_trainer.export.runtimes import SIGNATURE
from cnn_trainer.serve import bodies, images, operations
from cnn_trainer.serve.limits import RefusedError
from cnn_trainer.serve.model import VERSION, Served
from cnn_trainer.serve.operations import PICTURE_TYPES, Route, Schema, array_schema, object_schema, operation
from cnn_trainer.serve.traces import Traces

# The last is what curl -d sends by default, as in TensorFlow Serving's own examples; TensorFlow Serving reads any type.
_JSON_TYPES: Final = ("", "application/json", "application/x-www-form-urlencoded")
_FORM_TYPE: Final = "multipart/form-data"
_MEDIA_TYPES: Final = (*_JSON_TYPES, _FORM_TYPE, *PICTURE_TYPES)


def tensorflow_routes(served: Served, traces: Traces) -> list[Route]:
    """The routes under ``/v1``."""
    shape = served.image_shape
    signature = json.dumps(_metadata(served))
    fine = {"error_code": "OK", "error_message": ""}
    loaded = json.dumps({"model_version_status": [{"version": VERSION, "state": "AVAILABLE", "status": fine}]})

    async def predict(request: Request) -> Response:
        media_type = bodies.check_media_type(request, _MEDIA_TYPES)
        key = "instances"
        if media_type in _JSON_TYPES:
            key, value = _parse(request.scope["body"], shape)
            batch = await _read_batch(served, value, key)
        else:
            files, places = [request.scope["body"]], ["body"]
            if media_type == _FORM_TYPE:
                files, places = images.read_form(request.scope["body"], request.headers["content-type"])
                bodies.check_count(len(files), "form")
            batch = await _read_files(served, files, places)
        bodies.check_count(len(batch), key)
        probabilities = await served.predict(batch)
        traces.num_images.inc(len(batch))
        name = "predictions" if key == "instances" else "outputs"
        return Response(f'{{"{name}": {bodies.format_rows(probabilities)}}}', media_type="application/json")

    about = "TensorFlow Serving"
    asked = operation("Whether the model is loaded.", about)
    described = operation("Names, types and shapes of input and output; -1 is the batch.", about)
    rows = array_schema({"type": "number", "minimum": 0, "maximum": 1}, (None, served.num_classes))
    answer = {"oneOf": [object_schema({"predictions": rows}), object_schema({"outputs": rows})]}
    words = (
        "Probabilities of images, given as ``instances`` (a list of images) or ``inputs`` (the same by name). An image "
        'is its pixels, or ``{"b64": ...}``: a PNG, JPEG, WebP, TIFF, GIF or BMP file in base64. The body may also be '
        "such a file, or a form with files."
    )
    predicted = operation(words, about, answer, body=_body_schemas(shape))
    found = []
    for path in (f"/v1/models/{served.manifest.name}", f"/v1/models/{served.manifest.name}/versions/{VERSION}"):
        found += [
            Route("POST", f"{path}:predict", predict, predicted),
            operations.fixed_route(path, loaded, asked),
            operations.fixed_route(f"{path}/metadata", signature, described),
        ]
    return found


def _parse(body: bytes, shape: tuple[int, int, int]) -> tuple[str, Any]:
    """The key of the images in a JSON body, and its value. Raises RefusedError."""
    document = bodies.parse_object(body, shape)
    if "signature_name" in document and document["signature_name"] not in (SIGNATURE, "", None):
        raise RefusedError(400, f"signature_name: this model has only the signature {SIGNATURE}")
    keys = document.keys() & {"instances", "inputs"}
    if len(keys) != 1:
        raise RefusedError(400, "the body must have one of the keys instances and inputs")
    (key,) = keys
    return key, document[key]


async def _read_batch(served: Served, value: object, key: str) -> NDArray[np.uint8]:
    """The images in the value of ``instances`` or ``inputs``. Raises RefusedError."""
    if key == "inputs":
        value = _without_name(value, key)
    if isinstance(value, dict):
        raise RefusedError(400, f"{key}: expected a list of images")
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        bodies.check_count(len(value), key)
        places = [f"{key}[{number}]" for number in range(len(value))]
        value = [_without_name(item, place) for item, place in zip(value, places, strict=True)]
        if any(isinstance(item, dict) for item in value):
            files = [_picture(item, place) for item, place in zip(value, places, strict=True)]
            return await _read_files(served, files, places)
    return bodies.to_images(value, served.image_shape, key)


def _without_name(value: Any, where: str) -> Any:
    """The value of the one input, if ``value`` is an object that gives inputs by name."""
    if not isinstance(value, dict) or value.keys() == {"b64"}:
        return value
    if value.keys() != {INPUT_NAME}:
        raise RefusedError(400, f"{where}: expected the one key {INPUT_NAME}, this model's input")
    return value[INPUT_NAME]


def _picture(item: Any, where: str) -> bytes:
    if not isinstance(item, dict) or item.keys() != {"b64"}:
        raise RefusedError(400, f"{where}: expected a picture in base64, like the others in this request")
    return images.decode_base64(item["b64"], where)


async def _read_files(served: Served, files: list[bytes], places: list[str]) -> NDArray[np.uint8]:
    return await served.in_worker(images.read_picture_files, served.while_running(files), served.manifest.data, places)


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


def _body_schemas(shape: tuple[int, int, int]) -> dict[str, Schema]:
    """What ``predict`` accepts, by media type, with examples."""
    signature = {"signature_name": {"enum": [SIGNATURE, "", None]}}
    kinds = array_schema(operations.PIXEL, shape), object_schema({"b64": {"type": "string", "format": "picture"}})
    batches = [operations.images_schema({"anyOf": [kind, object_schema({INPUT_NAME: kind})]}) for kind in kinds]
    plain = [operations.images_schema(kind) for kind in kinds]
    by_name = {"anyOf": [*plain, *(object_schema({INPUT_NAME: batch}) for batch in plain)]}
    rows = object_schema({"instances": {"anyOf": batches}, **signature}, ["signature_name"], closed=False)
    columns = object_schema({"inputs": by_name, **signature}, ["signature_name"], closed=False)
    either = [{**rows, "not": {"required": ["inputs"]}}, {**columns, "not": {"required": ["instances"]}}]
    text = {"schema": {"oneOf": either}, "example": {"instances": [{"b64": images.example_picture(shape)}]}}
    files = {"type": "array", "items": operations.FILE, "minItems": 1}
    form = {"schema": object_schema({"file": files}, closed=False)}
    return {"application/json": text, _FORM_TYPE: form, **operations.PICTURES}
