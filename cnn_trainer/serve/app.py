"""The application: a table of paths, the answer to requests for any other, and a list of them all for programs."""

import json
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Scope

from cnn_trainer import __version__
from cnn_trainer.serve import open_inference, pages, tensorflow_serving
from cnn_trainer.serve.limits import Guard, Limits, RefusedError
from cnn_trainer.serve.model import Served
from cnn_trainer.serve.operations import Route, operation
from cnn_trainer.serve.traces import Traces


def build_app(served: Served, traces: Traces, limits: Limits) -> tuple[ASGIApp, Guard]:
    """The whole application for one model, and its guard, which must be told when the server stops."""

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(traces.registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    async def listed(_: Request) -> Response:
        return Response(document, media_type="application/json")

    measured = operation("Counts and times for Prometheus.", "Operation", {"type": "string"}, "text/plain")
    routes = [
        *tensorflow_serving.tensorflow_routes(served, traces),
        *open_inference.inference_routes(served, traces),
        *pages.page_routes(served, traces),
        Route("GET", "/metrics", metrics, measured),
        Route("GET", "/openapi.json", listed, operation("This list, for programs.", "Operation")),
    ]
    # The routes that have a description, as an OpenAPI document.
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    for route in routes:
        if route.operation is not None:
            paths[route.path][route.method.lower()] = route.operation
    name = served.manifest.name
    listing = {"openapi": "3.1.0", "info": {"title": name, "version": __version__}, "paths": dict(paths)}
    document = json.dumps(listing)
    guard = Guard(_dispatcher([*routes, pages.docs_route(served, listing)], name), limits, traces)
    app: ASGIApp = guard
    if limits.origins:
        app = CORSMiddleware(
            app,
            allow_origins=list(limits.origins),
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["*"],
            allow_private_network=True,  # a public page may ask a server in the visitor's own network
            expose_headers=["Inference-Header-Content-Length", "Retry-After"],
        )
    return traces.watch(app), guard


def _dispatcher(routes: Iterable[Route], name: str) -> Callable[[Scope], Awaitable[Response]]:
    """Hands each request to the route at its path. Raises RefusedError if there is none."""
    paths: dict[str, dict[str, Route]] = defaultdict(dict)
    for route in routes:
        paths[route.path][route.method] = route

    async def dispatch(scope: Scope) -> Response:
        path, method = scope["path"], scope["method"]
        if path not in paths:
            remedy = f"the model here is {name}, version 1; GET /docs lists every path"
            raise RefusedError(404, f"nothing is at {path[:200]}; {remedy}")
        methods = paths[path]
        found = "GET" if method == "HEAD" else method  # the web server keeps the body back
        if found not in methods:
            allowed = ", ".join(sorted({*methods, *(["HEAD"] if "GET" in methods else [])}))
            raise RefusedError(405, f"{method[:20]}: is not answered at {path}; send {allowed}", allow=allowed)
        scope["route"] = path
        return await methods[found].answer(Request(scope))

    return dispatch
