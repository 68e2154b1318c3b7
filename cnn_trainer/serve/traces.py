"""The server's log, one line of JSON for each request, and its metrics for Prometheus."""

import asyncio
import json
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cnn_trainer.export.manifest import Manifest

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Traces:
    """The log and the metrics of one server.

    ``in_flight`` requests are being answered, ``num_images`` were classified; /metrics shows the ``registry``.
    """

    def __init__(self, manifest: Manifest, format: str, write: Callable[..., None]) -> None:  # noqa: A002
        disable_created_metrics()  # type: ignore[no-untyped-call]  # would add a second series to each, with its creation time
        self.in_flight = 0
        self.registry = CollectorRegistry()
        self.num_images = Counter("cnn_train_images", "Images classified.", registry=self.registry)
        self._write = write
        self._lines: list[str] = []
        labels: tuple[str, ...] = ("route", "status")
        self._requests = Counter("cnn_train_requests", "Requests answered.", labels, registry=self.registry)
        name, words = "cnn_train_request_seconds", "From the header of a request to the end of its answer."
        self._seconds = Histogram(name, words, ("route",), buckets=_SECONDS, registry=self.registry)
        self._of_route: dict[tuple[str, int], tuple[Counter, Histogram]] = {}  # a look-up by labels takes longer
        in_flight = Gauge("cnn_train_requests_in_flight", "Requests being answered.", registry=self.registry)
        in_flight.set_function(lambda: self.in_flight)
        labels = ("name", "format", "weights_sha256")
        model = Gauge("cnn_train_model", "Always 1; its labels say what is served.", labels, registry=self.registry)
        model.labels(manifest.name, format, manifest.weights_sha256).set(1)
        ProcessCollector(registry=self.registry)

    def watch(self, app: ASGIApp) -> ASGIApp:
        """The application, with a log line and counts for every request."""

        async def watched(scope: Scope, receive: Receive, send: Send) -> None:
            started, status, num_bytes = time.perf_counter(), 0, 0

            async def note(message: Message) -> None:
                nonlocal status, num_bytes
                if message["type"] == "http.response.start":
                    status = message["status"]
                else:
                    num_bytes += len(message["body"]) if scope["method"] != "HEAD" else 0
                await send(message)

            try:
                await app(scope, receive, note)
            finally:
                self._record(scope, status, num_bytes, time.perf_counter() - started)

        return watched

    def _record(self, scope: Mapping[str, Any], status: int, num_bytes: int, seconds: float) -> None:
        route = scope["route"] if "route" in scope else ""  # an unknown path: there may be any number of these
        if (route, status) not in self._of_route:
            self._of_route[route, status] = self._requests.labels(route, status), self._seconds.labels(route)
        requests, histogram = self._of_route[route, status]
        requests.inc()
        histogram.observe(seconds)
        client = scope["client"][0] if scope["client"] else ""
        self._log(  # put together by hand for every request, in a third of the time
            f'{{"time": "{log_time()}", "method": {_as_json(scope["method"])}, "path": {_as_json(scope["path"])}, '
            f'"status": {status}, "seconds": {seconds:.6f}, "bytes": {num_bytes}, "client": "{client}"}}'
        )

    def log_failure(self, scope: Scope, error: Exception) -> None:
        """Note a defect, with its traceback."""
        fields = {"time": log_time(), "method": scope["method"], "path": scope["path"], "error": repr(error)}
        self._log(json.dumps({**fields, "traceback": traceback.format_exception(error)}))

    def _log(self, line: str) -> None:
        """Write a line together with all others of this turn of the event loop."""
        self._lines.append(line)
        if len(self._lines) == 1:
            asyncio.get_running_loop().call_soon(self._write_lines)

    def _write_lines(self) -> None:
        lines, self._lines = self._lines, []
        self._write(*lines)


def log_time() -> str:
    """The time in UTC, ISO 8601, to the millisecond."""
    seconds, fraction = divmod(time.time(), 1)
    return f"{_as_second(seconds)}.{int(fraction * 1000):03}Z"


@lru_cache(maxsize=1)
def _as_second(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


_as_json = lru_cache(maxsize=128)(json.dumps)
