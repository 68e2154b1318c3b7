"""The application: every route, and what becomes of faults."""

from collections.abc import Collection

from fastapi import FastAPI
from fastapi.routing import APIRoute
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from cnn_trainer import __version__
from cnn_trainer.serve import open_inference, pages, tensorflow_serving
from cnn_trainer.serve.limits import DEFECT, RefusedError, error_response, guard
from cnn_trainer.serve.model import Served
from cnn_trainer.serve.traces import Traces


def build_app(served: Served, traces: Traces, hosts: Collection[str] | None, max_in_flight: int) -> ASGIApp:
    """The whole application for one model, with its bounds; ``guard`` says what the arguments mean."""
    app = FastAPI(
        title=served.manifest.name, version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    tensorflow_serving.add_routes(app, served, traces)
    open_inference.add_routes(app, served, traces)
    pages.add_routes(app, served, traces)

    async def metrics() -> Response:
        """Counts and times for Prometheus."""
        return Response(generate_latest(traces.registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    async def refused(_: Request, error: RefusedError) -> Response:
        return error_response(error.status, str(error), error.headers)

    async def not_routed(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404:
            served_here = f"the model here is {served.manifest.name}, version 1; GET /docs lists every path"
            return error_response(404, f"nothing is at {request.url.path[:200]}; {served_here}")
        return error_response(error.status_code, f"{request.method}: {error.detail}", error.headers)

    async def failed(_: Request, __: Exception) -> Response:
        return error_response(500, DEFECT)

    app.get("/metrics", tags=["Operation"])(metrics)
    app.exception_handler(RefusedError)(refused)
    app.exception_handler(HTTPException)(not_routed)
    app.exception_handler(Exception)(failed)  # and is raised on to the guard, which logs it
    direct = {route.path: route for route in app.routes if isinstance(route, APIRoute) and route.methods == {"POST"}}
    return guard(app, direct, hosts, max_in_flight, traces)
