"""What is too much, too slow, too many at a time or for another host is refused in JSON, and the server goes on."""

import asyncio
import json
import socket
import time

import httpx
import pytest
from harness import Server

from cnn_trainer.serve.limits import _Joining

PREDICT = "/v1/models/tiny:predict"
JSON = {"content-type": "application/json"}
SHORT = (
    "from cnn_trainer.serve import limits\n"
    "limits.BODY_SECONDS = limits.HEAD_SECONDS = 0.5\nlimits._MAX_FORGOTTEN_BYTES = 2**22"
)
BLACK = json.dumps({"instances": [[[[0]] * 28] * 28]}).encode()


@pytest.fixture(scope="module")
def hasty(tiny_export, tmp_path_factory):
    """A server that waits half a second at most."""
    with Server(tiny_export, tmp_path_factory.mktemp("log") / "log", patch=SHORT) as server:
        yield server


def connect(server):
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def head(length, *more):
    lines = [f"POST {PREDICT} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *more]
    return "\r\n".join([*lines, *([f"Content-Length: {length}"] if length is not None else []), "\r\n"]).encode()


def read_answer(connection):
    """Status, headers and JSON of one answer."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        assert part, f"closed after {data!r}"
        data += part
    first, _, body = data.partition(b"\r\n\r\n")
    lines = first.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    while len(body) < int(headers["content-length"]):
        body += connection.recv(65536)
    return int(lines[0].split()[1]), headers, json.loads(body)


def is_closed(connection):
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_a_body_of_ten_megabytes_is_413_and_the_connection_lives_on(server):
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for _ in range(2):
            answer = client.post(PREDICT, content=b"0" * 10_000_000, headers=JSON)
            assert answer.status_code == 413
            assert "1048576 bytes" in answer.json()["error"]
        assert client.post(PREDICT, content=BLACK, headers=JSON).status_code == 200


def test_so_is_one_that_does_not_say_its_length(server):
    with httpx.Client(base_url=server.url, timeout=60) as client:
        answer = client.post(PREDICT, content=(b"0" * 100_000 for _ in range(100)), headers=JSON)
        assert answer.status_code == 413


def test_one_mebibyte_is_read(client):
    answer = client.post(PREDICT, content=BLACK.ljust(2**20), headers=JSON)
    assert answer.status_code == 200
    assert client.post(PREDICT, content=BLACK.ljust(2**20 + 1), headers=JSON).status_code == 413


def test_a_body_without_end_is_cut_off(hasty):
    with connect(hasty) as connection, pytest.raises(OSError):  # noqa: PT011, PT012 -- a reset or a broken pipe
        connection.sendall(head(None, "Transfer-Encoding: chunked"))
        for _ in range(1000):
            connection.sendall(b"10000\r\n" + b"0" * 65536 + b"\r\n")
    hasty.wait_for_status(413, PREDICT)


def test_a_client_that_asks_first_is_told_before_it_sends(server):
    with connect(server) as connection:
        connection.sendall(head(10_000_000, "Expect: 100-continue"))
        assert read_answer(connection)[0] == 413
        assert is_closed(connection)


def test_a_client_that_asks_first_may_send_what_is_small(server):
    with connect(server) as connection:
        connection.sendall(head(len(BLACK), "Expect: 100-continue"))
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(BLACK)
        assert read_answer(connection)[0] == 200


def test_a_slow_body_is_408(hasty):
    with connect(hasty) as connection:
        connection.sendall(head(len(BLACK)))
        started = time.monotonic()
        status, headers, answer = read_answer_while_sending(connection, BLACK)
        assert (status, headers["connection"]) == (408, "close")
        assert "within 0.5 seconds" in answer["error"]
        assert time.monotonic() - started < 5


def read_answer_while_sending(connection, content):
    """A byte every tenth of a second, until there is an answer."""
    connection.settimeout(0.1)
    for place in range(100):
        connection.sendall(content[place : place + 1])
        try:
            return read_answer(connection)
        except TimeoutError:
            continue
    raise AssertionError("no answer")


def test_a_slow_head_is_408(hasty):
    with connect(hasty) as connection:
        status, _, answer = read_answer_while_sending(connection, b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A" * 100)
        assert status == 408
        assert "head" in answer["error"]


def test_the_second_head_of_a_connection_is_timed_as_well(hasty):
    with connect(hasty) as connection:
        connection.sendall(head(len(BLACK)) + BLACK)
        assert read_answer(connection)[0] == 200
        assert read_answer_while_sending(connection, b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A" * 100)[0] == 408


def test_a_connection_that_says_nothing_is_closed(hasty):
    with connect(hasty) as connection:
        started = time.monotonic()
        assert read_answer(connection)[0] == 408
        assert is_closed(connection)
        assert time.monotonic() - started < 5


def test_a_head_without_end_is_431(server):
    with connect(server) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nA: ")
        with pytest.raises(OSError):  # noqa: PT011, PT012 -- a reset or a broken pipe
            for _ in range(1000):
                connection.sendall(b"a" * 1000)
                time.sleep(0.001)
    server.wait_for_status(431)


ODD = {
    b"\x16\x03\x01 hello\r\n\r\n": 400,
    b"CONNECT a:1 HTTP/1.1\r\nHost: localhost\r\n\r\n": 400,
    b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n": 404,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n": 400,
    b"GET http://localhost/v2/%ff%00 HTTP/1.1\r\nHost: localhost\r\n\r\n": 404,
    b"GET /v2/x HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n": 404,
    b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n": 400,
    b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n": 400,
    b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nab": 400,
}


@pytest.mark.parametrize("sent", ODD)
def test_odd_http_is_answered_in_json(server, sent):
    with connect(server) as connection:
        connection.sendall(sent)
        status, headers, answer = read_answer(connection)
    assert (status, headers["content-type"]) == (ODD[sent], "application/json")
    assert answer.keys() == {"error"}


def test_more_requests_than_may_be_in_flight_are_503_and_the_others_are_answered(tiny_export, tmp_path):
    with Server(tiny_export, tmp_path / "log", "--max-in-flight", "2") as server:
        first, second = connect(server), connect(server)
        with first, second, httpx.Client(base_url=server.url, timeout=60) as client:
            for connection in first, second:
                connection.sendall(head(len(BLACK)) + BLACK[:100])
            while "in_flight 2.0" not in client.get("/metrics").text:
                time.sleep(0.01)
            answer = client.post(PREDICT, content=BLACK, headers=JSON)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert "2 requests are in flight" in answer.json()["error"]
            assert client.get("/v2/health/ready").status_code == 200, "a health check is always answered"
            for connection in first, second:
                connection.sendall(BLACK[100:])
                assert read_answer(connection)[0] == 200
            assert client.post(PREDICT, content=BLACK, headers=JSON).status_code == 200


def test_a_client_that_leaves_is_no_fault(server):
    with connect(server) as connection:
        connection.sendall(head(len(BLACK)) + BLACK[:100])
    server.wait_for_status(499, PREDICT)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:9", "[::1]:8501"])
def test_on_loopback_the_names_of_this_machine_are_answered(client, host):
    assert client.get("/v2", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["attacker.example", "localhost.attacker.example:8501", "127.0.0.1.example", "[::2]", ""]
)
def test_on_loopback_no_other_name_is_answered(client, host):
    """A page could else read answers through a name that it has pointed at 127.0.0.1."""
    for answer in client.get("/", headers={"host": host}), client.post(PREDICT, content=BLACK, headers={"host": host}):
        assert answer.status_code == 421
        assert "--host" in answer.json()["error"]


class Transport:
    """Remembers what it is told."""

    def __init__(self):
        self.calls = []

    def write(self, data):
        self.calls.append(data)

    def close(self):
        self.calls.append("close")

    def is_closing(self):
        return self.calls[-1:] == ["close"]


def test_what_is_written_in_one_turn_of_the_loop_goes_out_at_once_and_in_order():
    transport = Transport()

    async def talk():
        joining = _Joining(transport, asyncio.get_running_loop())
        joining.write(b"head ")
        joining.write(b"body")
        assert transport.calls == []
        await asyncio.sleep(0)
        assert transport.calls == [b"head body"]
        joining.write(b"next")
        await asyncio.sleep(0)
        assert transport.calls == [b"head body", b"next"]

    asyncio.run(talk())


def test_nothing_is_lost_at_the_close():
    transport = Transport()

    async def talk():
        joining = _Joining(transport, asyncio.get_running_loop())
        joining.write(b"last")
        joining.close()
        assert joining.is_closing()
        await asyncio.sleep(0)

    asyncio.run(talk())
    assert transport.calls == [b"last", "close"]
