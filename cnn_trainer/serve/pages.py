"""What people see in a browser: a page to draw on, and the list of interfaces. All scripts and fonts are our own."""

import base64
import json
import re
from collections.abc import Callable, Mapping
from html import escape
from importlib import resources
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from cnn_trainer.errors import count
from cnn_trainer.pictures import like_mnist
from cnn_trainer.serve import bodies, images
from cnn_trainer.serve.model import Served
from cnn_trainer.serve.operations import PICTURE_TYPES, PICTURES, Route, array_schema, object_schema, operation
from cnn_trainer.serve.traces import Traces

SECURITY_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}

_FILES = {"style.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}
_DIGITS = [str(digit) for digit in range(10)]

_KEYS = "Keys: arrows move the pen, Space puts it down and lifts it, Ctrl+Z undoes, Delete clears."
# The page's words for a network that takes other pictures, and for one that reads drawings.
_WORDS = {
    "draws": ("false", "true"),
    "task": ("Show a picture", "Draw @"),
    "lead": ("Drop a picture, and the network says what it is.", "Draw, or drop a picture."),
    "hint": ("Drop a picture here", "Draw here"),
    "keys": ("Keys: Ctrl+Z undoes, Delete clears.", _KEYS),
    "canvas_label": ("The picture", "Paper to draw on"),
    "canvas_role": ("img", "application"),
    "canvas_tab": ("-1", "0"),
}


def page_routes(served: Served, traces: Traces) -> list[Route]:
    """The routes ``/`` and those under ``/page``."""
    folder = resources.files(__package__) / "page"
    data = served.manifest.data

    schema = array_schema({"type": "number"}, [served.num_classes])
    seen = object_schema({"probabilities": schema, "seen": {"type": "string"}})

    def read_by(read: Callable[[bytes], NDArray[np.uint8]], path: str, words: str) -> Route:
        async def answer(request: Request) -> Response:
            bodies.check_media_type(request, PICTURE_TYPES)
            batch = await served.in_worker(read, request.scope["body"])
            probabilities = await served.predict(batch)
            traces.num_images.inc()
            png = base64.b64encode(images.as_png(batch[0])).decode()
            content = json.dumps({"probabilities": probabilities[0].tolist(), "seen": png})
            return Response(content, media_type="application/json")

        return Route("POST", path, answer, operation(words, "Page", seen, body=PICTURES))

    words = (
        "What the network makes of a picture (PNG, JPEG, WebP, TIFF, GIF, BMP): ``probabilities``, and ``seen``, a PNG "
        "of its input."
    )
    found = [read_by(lambda content: images.read_picture_files([content], data, ["picture"]), "/page/picture", words)]
    if like_mnist.prepares(data):
        words = "The same for a drawing of light strokes on black, all of which count."
        found.append(read_by(lambda content: images.read_drawing(content, data), "/page/drawing", words))
    page = Template((folder / "index.html").read_text("utf-8")).substitute(_words(served))
    files = [_page(f"/page/{name}", (folder / name).read_text("utf-8"), kind) for name, kind in _FILES.items()]
    return [*found, _page("/", page, "text/html"), *files]


def docs_route(served: Served, openapi: Mapping[str, Any]) -> Route:
    """``/docs``: the operations of ``openapi``, for people."""
    height, width, channels = map(str, served.image_shape)
    words = {"name": served.manifest.name, "height": height, "width": width, "classes": str(served.num_classes)}
    words["channels"] = count(int(channels), "value")
    docs_page = Template((resources.files(__package__) / "page" / "docs.html").read_text("utf-8"))
    return _page("/docs", docs_page.substitute(words, operations=_operations(openapi)), "text/html")


def _page(path: str, content: str, kind: str) -> Route:
    async def say(_: Request) -> Response:
        return Response(content, headers=SECURITY_HEADERS, media_type=kind)

    return Route("GET", path, say)


def _words(served: Served) -> dict[str, str]:
    """The values for the page's template, escaped for HTML."""
    manifest, data = served.manifest, served.manifest.data
    height, width, _ = served.image_shape
    source = data.source if data.source == data.requested else f"{data.source}, as {data.requested} was not at hand"
    drawn = "a digit" if data.class_names == _DIGITS else f"one of {', '.join(data.class_names)[:200]}"
    measured = f"{count(manifest.test_examples, 'image')} in the test split of {source}"
    words = {
        "name": manifest.name,
        **{key: pair[like_mnist.prepares(data)] for key, pair in _WORDS.items()},
        "classes": json.dumps(data.class_names),
        "width": str(width),
        "height": str(height),
        "data": f"{source}, {count(data.num_train, 'image')}",
        "accuracy": f"{manifest.test_accuracy:.2%} of the {measured}",
        "runtime": served.runtime,
    }
    words["task"] = words["task"].replace("@", drawn)
    return {key: escape(word) for key, word in words.items()}


def _operations(openapi: Mapping[str, Any]) -> str:
    """Each path with what it does and how to call it, as HTML."""
    groups: dict[str, list[str]] = {}
    for path, operations in openapi["paths"].items():
        if "/versions/" in path:  # the same again
            continue
        for method, described in operations.items():
            words = re.sub("``(.+?)``", r"<code>\1</code>", escape(described["description"]))
            lines = [f"<h3>{method.upper()} {escape(path)}</h3>", f"<p>{words}</p>"]
            if "requestBody" in described:
                (kind, body), *_ = described["requestBody"]["content"].items()
                sent = f"-d '{json.dumps(body['example'])}'" if "example" in body else "--data-binary @7.png"
                call = f"curl -H 'Content-Type: {kind}' {sent} http://HOST{path}"
                lines.append(f'<pre tabindex="0">{escape(call)}</pre>')
            groups.setdefault(described["tags"][0], []).append("\n".join(lines))
    return "\n".join(f"<h2>{escape(tag)}</h2>\n" + "\n".join(parts) for tag, parts in groups.items())
