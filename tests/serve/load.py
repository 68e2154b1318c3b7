"""Load test: 2,000 requests of one image each from 16 connections on loopback, next to a bare application.

    python tests/serve/load.py RUN_OR_EXPORT [ROUNDS]

The bare application reads the same requests with the same web server, event loop and settings, parses their JSON and
answers a constant: the difference in rate is the cost of everything else. The two take turns, so that other load on the
machine affects both. Each round's figures go to stdout, then the medians.
"""

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import uvloop

NUM_REQUESTS = 2000
NUM_CONNECTIONS = 16

BARE = """
import asyncio, json, sys, uvloop
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server
ANSWER = json.dumps({"predictions": [[0.1] * 10]}).encode()
HEAD = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(ANSWER))]
async def app(scope, receive, send):
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message["body"], message["more_body"]
    json.loads(body)
    await send({"type": "http.response.start", "status": 200, "headers": HEAD})
    await send({"type": "http.response.body", "body": ANSWER})
async def main():
    settings = HTTP1Settings(header_read_timeout=10_000, max_buffer_size=2**14)
    options = {"interface": Interfaces.ASGINL, "http": HTTPModes.http1, "websockets": False, "log_enabled": False}
    await Server(app, port=int(sys.argv[1]), backlog=2048, http1_settings=settings, **options).serve()
uvloop.run(main())
"""


class Connection(asyncio.Protocol):
    """One connection that sends the next request as soon as it has an answer."""

    def __init__(self, load):
        self.load, self.data = load, b""

    def connection_made(self, transport):
        self.transport = transport
        self.ask()

    def ask(self):
        if not self.load.left:
            self.transport.close()
            return
        self.load.left -= 1
        self.started = time.perf_counter()
        self.transport.write(self.load.requests[self.load.left % len(self.load.requests)])

    def data_received(self, data):
        self.data += data
        head, found, body = self.data.partition(b"\r\n\r\n")
        if not found or len(body) < int(re.search(rb"content-length: (\d+)", head)[1]):
            return
        self.load.seconds.append(time.perf_counter() - self.started)
        self.load.num_right += head.startswith(b"HTTP/1.1 200 ") and body.startswith(b'{"predictions": [[')
        self.data = b""
        self.ask()

    def connection_lost(self, _):
        self.load.open -= 1
        if not self.load.open:
            self.load.done.set_result(None)


class Load:
    """One round of the load test on one server."""

    def __init__(self, requests):
        self.requests, self.left, self.open = requests, NUM_REQUESTS, NUM_CONNECTIONS
        self.seconds, self.num_right = [], 0

    async def run(self, port):
        loop = asyncio.get_running_loop()
        self.done = loop.create_future()
        started = time.perf_counter()
        for _ in range(NUM_CONNECTIONS):
            await loop.create_connection(lambda: Connection(self), "127.0.0.1", port)
        await asyncio.wait_for(self.done, 120)
        rate = NUM_REQUESTS / (time.perf_counter() - started)
        p50, p99 = np.percentile(self.seconds, [50, 99]) * 1000
        return {"requests_per_second": rate, "p50_ms": p50, "p99_ms": p99, "lost": NUM_REQUESTS - self.num_right}


def make_requests(path, shape):
    """64 requests, each with a different image. Two thirds of the pixels are black, as in MNIST."""
    random = np.random.default_rng(0)
    requests = []
    for _ in range(64):
        image = random.integers(0, 256, shape) * (random.random(shape) < 0.33)
        body = json.dumps({"instances": [image.tolist()]}).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        )
        requests.append(f"{head}\r\n\r\n".encode() + body)
    return requests


def start_served(export, log):
    """The process, its port, and the path and image shape of its model."""
    words = [sys.executable, "-m", "cnn_trainer", "serve", export, "--port", "0"]
    process = subprocess.Popen(words, stderr=log.open("wb"))
    while not (found := re.search(r"^model: (\S+), (?s:.*)http://127.0.0.1:(\d+)/; stop", log.read_text())):
        if process.poll() is not None:
            sys.exit(log.read_text())
        time.sleep(0.05)
    return process, int(found[2]), f"/v1/models/{found[1]}"


def read_shape(port, path):
    from urllib.request import urlopen

    with urlopen(f"http://127.0.0.1:{port}{path}/metadata") as answer:
        signature = json.load(answer)["metadata"]["signature_def"]["signature_def"]["serving_default"]
    return [int(size["size"]) for size in signature["inputs"]["image"]["tensor_shape"]["dim"]][1:]


def start_bare():
    """The process and its port."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-c", BARE, str(port)])
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
        else:
            return process, port


def main(export, num_rounds=9):
    found = {"bare": [], "serve": []}
    with tempfile.TemporaryDirectory() as folder:
        served, port, path = start_served(export, Path(folder) / "log")
        bare, bare_port = start_bare()
        try:
            requests = make_requests(f"{path}:predict", read_shape(port, path))
            for at in bare_port, port:
                uvloop.run(Load(requests).run(at))  # not counted: in the first round everything is cold
            for _ in range(num_rounds):
                for name, at in (("bare", bare_port), ("serve", port)):
                    found[name].append(uvloop.run(Load(requests).run(at)))
        finally:
            for process in served, bare:
                process.terminate()
                process.wait()
    report(found)


def report(found):
    lines = []
    for name, rounds in found.items():
        lines += [
            f"{name:6}" + "  ".join(f"{key} {value:8.2f}" for key, value in figures.items()) for figures in rounds
        ]
    ratios = [
        mine["requests_per_second"] / other["requests_per_second"]
        for mine, other in zip(found["serve"], found["bare"], strict=True)
    ]
    for name, rounds in found.items():
        medians = {
            key: np.median([figures[key] for figures in rounds]) for key in ("requests_per_second", "p50_ms", "p99_ms")
        }
        lost = sum(figures["lost"] for figures in rounds)
        words = "{requests_per_second:,.0f} requests/s, p50 {p50_ms:.2f} ms, p99 {p99_ms:.2f} ms".format(**medians)
        lines.append(
            f"{name}: {words}, {lost} of {NUM_REQUESTS * len(rounds):,} lost (medians of {len(rounds)} rounds)"
        )
    spread = f"{min(ratios):.0%} to {max(ratios):.0%}"
    lines.append(
        f"serve has {np.median(ratios):.0%} of the bare application's rate (median; {spread}), {os.cpu_count()} cores"
    )
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:3]))
