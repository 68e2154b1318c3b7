"""Many malformed requests from a seeded generator: each is refused, and the server still works.

The full form, with ``CNN_TRAIN_SOAK=1``, sends 1,000 of them; the quick form 200.
"""

import json
import os
import random

import httpx
import numpy as np
import pytest
from harness import Server, probabilities
from wire import connect

COUNT = 1000 if os.environ.get("CNN_TRAIN_SOAK") else 200
PATHS = ["/v1/models/tiny:predict", "/v2/models/tiny/infer", "/page/picture", "/page/drawing"]
TYPES = ["application/json", "application/json", "application/json", "image/png", "text/plain", ""]
VALUES = [None, True, -1, 256, 0.5, 1e999, 10**40, "0", [], {}, [[[[]]]], {"b64": "AAAA"}, {"image": 1}, "\ud800"]


def value(random, depth=0):
    """Some JSON, rarely deep."""
    kind = random.random()
    if depth > 4 or kind < 0.5:
        return random.choice(VALUES)
    if kind < 0.75:
        return [value(random, depth + 1) for _ in range(random.randrange(5))]
    keys = ["instances", "inputs", "signature_name", "outputs", "name", "shape", "data", "datatype", "id", "b64"]
    return {random.choice(keys): value(random, depth + 1) for _ in range(random.randrange(5))}


def nearly_right(random):
    """A right request with one thing wrong."""
    image = np.zeros((28, 28, 1), int).tolist()
    spot = image[random.randrange(28)][random.randrange(28)]
    change = random.randrange(4)
    if change == 0:
        spot[0] = random.choice(VALUES[:12])
    elif change == 1:
        spot.append(0)
    elif change == 2:
        del image[random.randrange(28)][random.randrange(27)]
    body = json.dumps({"instances": [image]}).encode()
    return body[: random.randrange(len(body))] if change == 3 else body


def malformed(random):
    """The path, type and body of one request; nearly all of them must be refused."""
    kind = random.randrange(6)
    if kind == 0:
        body = random.randbytes(random.randrange(3000))
    elif kind == 1:
        body = random.choice([b"[", b'{"a":', b'{"instances":[']) * random.randrange(1, 60_000)
    elif kind == 2:
        body = b"0" * random.randrange(2**20, 2**21)
    elif kind == 3:
        body = json.dumps(value(random)).encode()
    elif kind == 4:
        body = b"\x89PNG\r\n\x1a\n" + random.randbytes(random.randrange(500))
    else:
        return PATHS[0], "application/json", nearly_right(random)
    return random.choice(PATHS), random.choice(TYPES), body


@pytest.fixture
def own_server(tiny_export, tmp_path):
    with Server(tiny_export, tmp_path / "log") as server:
        yield server


def ask(client, batch):
    answer = client.post(PATHS[0], json={"instances": batch.tolist()})
    np.testing.assert_allclose(answer.json()["predictions"], probabilities(batch), atol=1e-6)


def test_malformed_requests_are_refused_and_leave_server_and_memory_as_they_were(own_server, batch, record_property):
    generator = random.Random(20)  # noqa: S311
    sizes = []
    with httpx.Client(base_url=own_server.url, timeout=60) as client:
        ask(client, batch)
        for number in range(COUNT):
            path, kind, body = malformed(generator)
            answer = client.post(path, content=body, headers={"content-type": kind} if kind else {})
            assert 400 <= answer.status_code < 500, (number, path, kind, body[:200])
            assert answer.json().keys() == {"error"}, number
            assert "Traceback" not in answer.text
            if number % 10 == 0:
                with connect(own_server) as connection:
                    connection.sendall(generator.randbytes(generator.randrange(1, 3000)))
            if number in (COUNT // 2, COUNT - 1):
                sizes.append(own_server.resident_bytes())
        ask(client, batch)
    assert not [line for line in own_server.log() if "traceback" in line]
    record_property("resident_bytes_half_way_and_in_the_end", sizes)
    assert sizes[1] < sizes[0] + 8 * 2**20, sizes
