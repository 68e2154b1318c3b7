"""What a route is, and how it is described in OpenAPI, https://spec.openapis.org/oas/v3.1.0."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from cnn_trainer.serve.bodies import MAX_IMAGES

Schema = dict[str, Any]

PICTURE_TYPES: Final = ("image/png", "image/jpeg", "image/webp", "image/tiff", "image/gif", "image/bmp")
FILE: Final[Schema] = {"type": "string", "format": "binary"}
PICTURES: Final[Schema] = {media_type: {"schema": FILE} for media_type in PICTURE_TYPES}
PIXEL: Final[Schema] = {"type": "integer", "minimum": 0, "maximum": 255}

_FAULTS: Final = {
    400: "The request is malformed; the message says where.",
    421: "The server does not answer to this host.",
}
_FAULTS_OF_BODIES: Final = {
    408: "The body took too long to arrive.",
    413: "The body is too large.",
    415: "The type or the encoding of the body is not supported.",
    500: "A defect of the server.",
    503: "Too many requests are in flight, or the server is stopping.",
}


class Route(NamedTuple):
    """A path with one method, the function that answers it, and its OpenAPI operation; None if it is for browsers."""

    method: str
    path: str
    answer: Callable[[Request], Awaitable[Response]]
    operation: Schema | None = None


def fixed_route(path: str, content: str, operation: Schema | None = None) -> Route:
    """A route that answers GET with constant JSON text."""

    async def answer(_: Request) -> Response:
        return Response(content, media_type="application/json")

    return Route("GET", path, answer, operation)


def operation(
    description: str, tag: str, answer: Schema | None = None, kind: str = "application/json", body: Schema | None = None
) -> Schema:
    """An OpenAPI operation of the interface ``tag``, whose answer has the schema ``answer``, or is any object.

    ``body`` maps each media type to the ``schema`` of what may be sent, and a valid ``example``.
    """
    content = {kind: {"schema": answer or {"type": "object"}}}
    responses: Schema = {"200": {"description": "The answer.", "content": content}}
    fault = {"content": {"application/json": {"schema": object_schema({"error": {"type": "string"}})}}}
    for status, words in sorted((_FAULTS if body is None else _FAULTS | _FAULTS_OF_BODIES).items()):
        responses[str(status)] = {"description": words, **fault}
    found: Schema = {"description": description, "tags": [tag], "responses": responses}
    return found if body is None else {**found, "requestBody": {"required": True, "content": body}}


def object_schema(properties: Mapping[str, Schema], optional: Sequence[str] = (), closed: bool = True) -> Schema:
    """JSON schema of an object with these keys, and with no others if it is ``closed``."""
    required = [name for name in properties if name not in optional]
    rest = {"additionalProperties": False} if closed else {}
    return {"type": "object", "properties": dict(properties), "required": required, **rest}


def images_schema(image: Schema) -> Schema:
    """JSON schema of the images of a request."""
    return {"type": "array", "items": image, "minItems": 1, "maxItems": MAX_IMAGES}


def array_schema(items: Schema, shape: Sequence[int | None]) -> Schema:
    """JSON schema of nested lists; a size of None is any size."""
    for size in reversed(shape):
        items = {"type": "array", "items": items, **({} if size is None else {"minItems": size, "maxItems": size})}
    return items
