"""HTTP written by hand, for requests that no client library sends."""

import json
import socket

PREDICT = "/v1/models/tiny:predict"
JSON = {"content-type": "application/json"}
BLACK = json.dumps({"instances": [[[[0]] * 28] * 28]}).encode()
GET = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n"  # without the empty line at the end of a head


def connect(server):
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def head(length, *more):
    lines = [f"POST {PREDICT} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *more]
    return "\r\n".join([*lines, *([f"Content-Length: {length}"] if length is not None else []), "\r\n"]).encode()


def read_answer(connection):
    """The status, headers and content of one answer; if the content is JSON, it is parsed."""
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
    is_json = "content-type" in headers and headers["content-type"] == "application/json"
    return int(lines[0].split()[1]), headers, json.loads(body) if is_json else body


def is_closed(connection):
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True
