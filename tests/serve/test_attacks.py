"""Under attack, the server's memory stays level, it still answers others, and it stops when told to."""

import json
import time

import httpx
import pytest
from attacks import ATTACKS, LONG, Attack
from harness import Server
from wire import BLACK, JSON, PREDICT, connect, read_answer

MAX_GROWTH_BYTES = 50_000_000


def seconds_to_answer(server):
    """How long another client waits for the answer to one image."""
    started = time.monotonic()
    assert httpx.post(f"{server.url}{PREDICT}", content=BLACK, headers=JSON, timeout=20).status_code == 200
    return time.monotonic() - started


def warm_up(server):
    """Let the server grow to its size after the largest requests of an honest client."""
    for _ in range(5):
        seconds_to_answer(server)
        with connect(server) as connection:
            connection.sendall(LONG)
            assert read_answer(connection)[0] == 200


def wait_until_let_go(server, num_files):
    """Wait until no more is open than before, except for a few connections of honest clients."""
    end = time.monotonic() + 20
    while server.num_files() > num_files + 5:
        assert time.monotonic() < end, (num_files, server.num_files())
        time.sleep(0.2)


@pytest.mark.parametrize("hit", ATTACKS, ids=lambda hit: hit.__name__)
def test_the_server_stands(tiny_export, tmp_path, hit, record_property):
    sizes, waits = [], []

    def watch(seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            sizes.append(server.resident_bytes())
            time.sleep(0.1)
        waits.append(seconds_to_answer(server))

    with Server(tiny_export, tmp_path / "log") as server:
        warm_up(server)
        before, num_files = server.resident_bytes(), server.num_files()
        with Attack(server.port) as attack:
            hit(attack)
            watch(2)
            at_work = server.num_files()
            watch(10)
            wait_until_let_go(server, num_files)
            hit(attack)
            time.sleep(1)
            code, stop_seconds = server.stop()
        growth = max(sizes) - before
        lines = server.log_path.read_text().splitlines()[2:]
        found = {"growth_bytes": growth, "files": [num_files, at_work], "waits": waits, "stop_seconds": stop_seconds}
        record_property("found", found)
        assert growth < MAX_GROWTH_BYTES, found
        assert max(waits) < 1, found
        assert (code, stop_seconds < 5) == (0, True), found
        assert [line for line in map(json.loads, lines) if "traceback" in line] == []


def test_every_one_of_5000_pipelined_requests_is_answered(server):
    with connect(server) as connection:
        connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n" * 5000)
        data = b""
        while data.count(b'{"live": true}') < 5000:
            part = connection.recv(2**16)
            assert part, data.count(b"HTTP/1.1 ")
            data += part
    assert data.count(b"HTTP/1.1 200 OK") == 5000
