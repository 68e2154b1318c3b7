"""Requests that are too large, slow or many, or for another host, get an error in JSON; the server goes on."""

import gzip
import json
import socket
import time

import httpx
import pytest
from harness import Server
from wire import BLACK, GET, JSON, PREDICT, connect, head, is_closed, read_answer

SHORT = (
    "from cnn_trainer.serve import limits, server\n"
    "limits.BODY_SECONDS = server.HEAD_SECONDS = 0.5\nlimits._MAX_FORGOTTEN_BYTES = 2**22"
)


@pytest.fixture(scope="module")
def hasty(tiny_export, tmp_path_factory):
    """A server that waits half a second at most."""
    with Server(tiny_export, tmp_path_factory.mktemp("log") / "log", patch=SHORT) as server:
        yield server


def test_a_body_of_ten_megabytes_is_413_and_the_connection_lives_on(server):
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for _ in range(2):
            answer = client.post(PREDICT, content=b"0" * 10_000_000, headers=JSON)
            assert answer.status_code == 413
            assert "1,048,576 bytes" in answer.json()["error"]
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
    """Send a byte every tenth of a second until there is an answer."""
    connection.settimeout(0.1)
    for place in range(100):
        connection.sendall(content[place : place + 1])
        try:
            return read_answer(connection)
        except TimeoutError:
            continue
    raise AssertionError("no answer")


def seconds_until_closed(connection, content):
    """Send the same way until the other side closes the connection; it must not answer."""
    started = time.monotonic()
    connection.settimeout(0.1)
    for place in range(100):
        try:
            connection.sendall(content[place : place + 1])
            assert connection.recv(1) == b""
        except TimeoutError:
            continue
        except OSError:  # a reset or a broken pipe
            pass
        return time.monotonic() - started
    raise AssertionError("never closed")


SLOW_HEAD = GET + b"A: " + b"a" * 100


def test_a_slow_head_is_cut_off(hasty):
    with connect(hasty) as connection:
        assert seconds_until_closed(connection, SLOW_HEAD) < 5


def test_the_second_head_of_a_connection_is_timed_as_well(hasty):
    with connect(hasty) as connection:
        connection.sendall(head(len(BLACK)) + BLACK)
        assert read_answer(connection)[0] == 200
        assert seconds_until_closed(connection, SLOW_HEAD) < 5


def test_a_connection_that_says_nothing_is_closed(hasty):
    with connect(hasty) as connection:
        started = time.monotonic()
        assert is_closed(connection)
        assert time.monotonic() - started < 5


@pytest.mark.parametrize("pause", [0, 0.001])
def test_a_head_of_60_kilobytes_is_431_however_it_arrives(server, pause):
    with connect(server) as connection:
        connection.sendall(GET + b"A: ")
        for _ in range(60 if pause else 1):
            connection.sendall(b"a" * (1000 if pause else 60_000))
            time.sleep(pause)
            if pause and server_has_answered(connection):
                break
        assert read_answer(connection)[0] == 431
        assert is_closed(connection)


def server_has_answered(connection):
    connection.setblocking(False)
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False
    finally:
        connection.settimeout(20)


POST = b"POST / HTTP/1.1\r\nHost: localhost\r\n"
ODD = {
    b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n": 404,
    b"CONNECT a:1 HTTP/1.1\r\nHost: localhost\r\n\r\n": 404,
    b"GET http://localhost/v2/%ff%00 HTTP/1.1\r\nHost: localhost\r\n\r\n": 404,
    b"GET /v2/x HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n": 404,
    POST + b"Transfer-Encoding: chunked\r\n\r\nx\r\n": 400,
    b"GET /v2 HTTP/1.1\r\n\r\n": 400,
    b"GET /v2 HTTP/1.1\r\nHost:\r\n\r\n": 400,
    b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n": 400,
    b"GET /v2 HTTP/1.1\r\nHost: localhost:80@evil.example\r\n\r\n": 400,
    b"GET /v2 HTTP/1.1\r\nHost: localhost/evil.example\r\n\r\n": 400,
    b"GET /v2 HTTP/1.1\r\nHost: [::1\r\n\r\n": 400,
    b"POST /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n": 405,
}


@pytest.mark.parametrize("sent", ODD)
def test_odd_requests_are_answered_in_json(server, sent):
    with connect(server) as connection:
        connection.sendall(sent)
        status, headers, answer = read_answer(connection)
    assert (status, headers["content-type"]) == (ODD[sent], "application/json")
    assert answer.keys() == {"error"}


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01 hello\r\n\r\n",
        POST + b"Content-Length: -1\r\n\r\n",
        POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nab",
        POST + b"Transfer-Encoding: identity\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nHost : localhost\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nA: b\r\n c\r\n\r\n",
    ],
)
def test_what_is_no_http_is_400_and_the_connection_is_closed(server, sent):
    """The web server answers by itself, without a body."""
    with connect(server) as connection:
        connection.sendall(sent)
        assert read_answer(connection)[0] == 400
        assert is_closed(connection)


def test_of_two_lengths_the_chunks_count_and_nothing_can_hide_behind_them(server):
    hidden = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with connect(server) as connection:
        both = head(len(hidden), "Transfer-Encoding: chunked") + b"%x\r\n%b\r\n0\r\n\r\n" % (len(BLACK), BLACK)
        connection.sendall(both + hidden)
        assert read_answer(connection)[0] == 200
        assert is_closed(connection)


def test_http_1_0_needs_no_host(server):
    with connect(server) as connection:
        connection.sendall(b"GET /v2/health/live HTTP/1.0\r\n\r\n")
        assert read_answer(connection)[0] == 200
        assert is_closed(connection)


@pytest.mark.parametrize("path", ["/", "/docs", "/v2", "/metrics", "/openapi.json", "/v1/models/tiny"])
def test_head_is_get_without_its_content(client, path):
    answer, found = client.head(path), client.get(path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == found.headers["content-type"]
    if path != "/metrics":
        assert answer.headers["content-length"] == str(len(found.content))


def test_a_gzipped_body_is_read(client):
    headers = {**JSON, "content-encoding": "gzip"}
    expected = client.post(PREDICT, content=BLACK, headers=JSON).json()
    assert client.post(PREDICT, content=gzip.compress(BLACK), headers=headers).json() == expected
    in_two = gzip.compress(BLACK[:100]) + gzip.compress(BLACK[100:])
    assert client.post(PREDICT, content=in_two, headers=headers).json() == expected


@pytest.mark.parametrize(
    ("content", "coding", "status"),
    [
        (gzip.compress(b"0" * 2**20), "gzip", 400),
        (gzip.compress(b"0" * (2**20 + 1)), "gzip", 413),
        (gzip.compress(b"0" * 2**27), "gzip", 413),
        (gzip.compress(BLACK)[:-1], "gzip", 400),
        (b"x" + gzip.compress(BLACK), "gzip", 400),
        (gzip.compress(BLACK) + b"x", "gzip", 400),
        (BLACK, "br", 415),
        (gzip.compress(gzip.compress(BLACK)), "gzip, gzip", 415),
    ],
)
def test_a_body_that_is_compressed_wrongly_or_to_hide_its_size_is_refused(client, content, coding, status):
    answer = client.post(PREDICT, content=content, headers={**JSON, "content-encoding": coding})
    assert answer.status_code == status
    assert answer.json().keys() == {"error"}


def test_the_size_of_a_body_is_an_option(tiny_export, tmp_path):
    with Server(tiny_export, tmp_path / "log", "--max-body-bytes", "20000000") as server:
        fitting, larger = BLACK.ljust(20_000_000), BLACK.ljust(20_000_001)
        with httpx.Client(base_url=server.url, timeout=60) as client:
            assert client.post(PREDICT, content=fitting, headers=JSON).status_code == 200
            answer = client.post(PREDICT, content=larger, headers=JSON)
        assert answer.status_code == 413
        assert "20,000,000 bytes" in answer.json()["error"]
        assert "--max-body-bytes" in answer.json()["error"]


SLOW_MODEL = """\
import time
from cnn_trainer.serve import model
compute = model.Served._compute_all
model.Served._compute_all = lambda *all: (time.sleep(2), compute(*all))[1]
"""


def test_more_requests_than_may_be_in_flight_are_503_and_the_others_are_answered(tiny_export, tmp_path):
    many = json.dumps({"instances": [[[[0]] * 28] * 28] * 20}).encode()  # too many for the event loop itself
    with Server(tiny_export, tmp_path / "log", "--max-in-flight", "2", patch=SLOW_MODEL) as server:
        first, second = connect(server), connect(server)
        with first, second, httpx.Client(base_url=server.url, timeout=60) as client:
            for connection in first, second:
                connection.sendall(head(len(many)) + many)
            while "in_flight 2.0" not in client.get("/metrics").text:
                time.sleep(0.01)
            answer = client.post(PREDICT, content=BLACK, headers=JSON)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert "busy with 2 requests already" in answer.json()["error"]
            assert client.get("/v2/health/ready").status_code == 200, "a health check is always answered"
            for connection in first, second:
                assert read_answer(connection)[0] == 200
            assert client.post(PREDICT, content=BLACK, headers=JSON).status_code == 200


def test_a_body_that_arrives_slowly_takes_no_slot(tiny_export, tmp_path):
    with Server(tiny_export, tmp_path / "log", "--max-in-flight", "1") as server, connect(server) as connection:
        connection.sendall(head(len(BLACK)) + BLACK[:100])
        time.sleep(0.2)
        assert httpx.post(f"{server.url}{PREDICT}", content=BLACK, headers=JSON).status_code == 200
        connection.sendall(BLACK[100:])
        assert read_answer(connection)[0] == 200


def test_the_oldest_unfinished_bodies_make_way_for_others(tiny_export, tmp_path):
    with Server(tiny_export, tmp_path / "log") as server:
        stuck = [connect(server) for _ in range(14)]
        for connection in stuck:
            connection.sendall(head(2**20) + b" " * (2**20 - 1))
        time.sleep(1)
        assert httpx.post(f"{server.url}{PREDICT}", content=BLACK, headers=JSON).status_code == 200
        status, headers, answer = read_answer(stuck[0])
        assert (status, headers["retry-after"]) == (503, "1")
        assert "memory" in answer["error"]
        for connection in stuck:
            connection.close()


def test_bodies_that_are_too_large_make_nothing_else_give_way(tiny_export, tmp_path):
    with Server(tiny_export, tmp_path / "log") as server, connect(server) as oldest:
        oldest.sendall(head(len(BLACK)) + BLACK[:100])
        time.sleep(0.3)
        large = [connect(server) for _ in range(14)]
        for connection in large:
            connection.sendall(head(2**21) + b" " * (2**20 + 1))
            time.sleep(0.05)
        oldest.sendall(BLACK[100:])
        assert read_answer(oldest)[0] == 200
        for connection in large:
            connection.close()


def test_a_client_that_leaves_is_no_defect(tiny_export, tmp_path):
    with Server(tiny_export, tmp_path / "log") as server:
        for _ in range(20):
            with connect(server) as connection:
                connection.sendall(head(len(BLACK)) + BLACK[:100])
            with connect(server) as connection:
                connection.sendall(head(len(BLACK)) + BLACK)
        server.wait_for_status(400, PREDICT)
        assert httpx.get(f"{server.url}/v2").status_code == 200
        assert not [line for line in server.log() if "path" not in line or "traceback" in line]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:9", "[::1]:8501"])
def test_on_loopback_the_names_of_this_machine_are_answered(client, host):
    assert client.get("/v2", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["attacker.example", "localhost.attacker.example:8501", "127.0.0.1.example", "[::2]"])
def test_on_loopback_no_other_name_is_answered(client, host):
    """Otherwise a web page could point its own name at 127.0.0.1 and read answers."""
    for answer in client.get("/", headers={"host": host}), client.post(PREDICT, content=BLACK, headers={"host": host}):
        assert answer.status_code == 421
        assert "--allow-host" in answer.json()["error"]


def test_names_are_allowed_by_an_option(tiny_export, tmp_path):
    options = ["--allow-host", "Digits.example", "--allow-host", "10.0.0.1"]
    with Server(tiny_export, tmp_path / "log", *options) as server:
        found = {
            host: httpx.get(f"{server.url}/v2", headers={"host": host}).status_code
            for host in ("digits.example", "DIGITS.example:443", "10.0.0.1", "localhost", "other.example")
        }
    assert list(found.values()) == [200, 200, 200, 200, 421], found


def test_no_page_from_elsewhere_may_read_answers(client):
    answer = client.get("/v2", headers={"origin": "https://page.example"})
    assert "access-control-allow-origin" not in answer.headers
    preflight = {"origin": "https://page.example", "access-control-request-method": "POST"}
    assert client.options(PREDICT, headers=preflight).status_code == 405


def test_pages_from_an_allowed_origin_may_read_answers_and_refusals(tiny_export, tmp_path):
    origin = {"origin": "https://page.example"}
    with Server(tiny_export, tmp_path / "log", "--allow-origin", "https://page.example") as server:
        url = f"{server.url}{PREDICT}"
        asked = {**origin, "access-control-request-method": "POST", "access-control-request-headers": "content-type"}
        answer = httpx.options(url, headers=asked)
        assert answer.status_code == 200
        assert "POST" in answer.headers["access-control-allow-methods"]
        private = httpx.options(url, headers={**asked, "access-control-request-private-network": "true"})
        assert private.headers["access-control-allow-private-network"] == "true"
        refused = httpx.options(url, headers={**asked, "access-control-request-method": "DELETE"})
        assert (refused.status_code, refused.text) == (400, "Disallowed CORS method")
        for content, status in (BLACK, 200), (b"{}", 400), (b"0" * 2**21, 413):
            answer = httpx.post(url, content=content, headers={**JSON, **origin})
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == "https://page.example"
            exposed = answer.headers["access-control-expose-headers"]
            assert exposed == "Inference-Header-Content-Length, Retry-After"
        other = httpx.post(url, content=BLACK, headers={**JSON, "origin": "https://other.example"})
        assert "access-control-allow-origin" not in other.headers
        assert [line["method"] for line in server.log()][:1] == ["OPTIONS"]
