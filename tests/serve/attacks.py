"""What hostile clients do, on loopback. Each attack is limited in bytes, connections and seconds."""

import contextlib
import json
import socket
import threading
import time

import numpy as np
from wire import GET, head

SECONDS = 20.0  # no attack lasts longer

_IMAGES = np.zeros((300, 28, 28, 1), int).tolist()
_BODY = json.dumps({"instances": _IMAGES}, separators=(",", ":")).encode()
LONG = head(len(_BODY)) + _BODY


def send_until_refused(connection, part, num_bytes):
    """Send until the other side closes the connection, or accepts nothing for a second."""
    connection.settimeout(1)
    end = time.monotonic() + SECONDS
    with contextlib.suppress(OSError):
        for _ in range(num_bytes // len(part) + 1):
            connection.sendall(part)
            if time.monotonic() > end:
                return


class Attack:
    """Open connections, and threads that send on them, until the end of a with block."""

    def __init__(self, port):
        self.port, self.connections, self.threads, self.over = port, [], [], threading.Event()

    def connect(self, receive_bytes=None):
        connection = socket.socket()
        if receive_bytes:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        connection.settimeout(20)
        connection.connect(("127.0.0.1", self.port))
        self.connections.append(connection)
        return connection

    def start(self, work, *arguments):
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        thread.start()
        self.threads.append(thread)

    def drip(self, connections, content, pause):
        """Send a byte on each connection, over and over."""
        for place in range(len(content)):
            for connection in connections:
                with contextlib.suppress(OSError):
                    connection.send(content[place : place + 1])
            if self.over.wait(pause):
                return

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.over.set()
        for connection in self.connections:
            connection.close()
        for thread in self.threads:
            thread.join(SECONDS)


def trailers(attack):
    """A chunked request that is complete except for its trailers, which go on for 64 MiB."""
    connection = attack.connect()
    connection.sendall(head(None, "Transfer-Encoding: chunked") + b"2\r\n{}\r\n0\r\n")
    attack.start(send_until_refused, connection, b"A: " + b"a" * 1000 + b"\r\n", 2**26)


def heads(attack):
    """50 heads of 60 KB, each in one piece, and one endless head."""
    for _ in range(50):
        attack.start(send_until_refused, attack.connect(), GET + b"A: " + b"a" * 60_000 + b"\r\n", 1)
    connection = attack.connect()
    connection.sendall(GET)
    attack.start(send_until_refused, connection, b"A: " + b"a" * 1000 + b"\r\n", 2**26)


def slow_senders(attack):
    """100 heads and 100 bodies that come a byte at a time; of the bodies, 15 of 16 parts are sent at once."""
    slow = []
    for number in range(200):
        connection = attack.connect()
        if number % 2:
            connection.sendall(head(2**20))
            attack.start(send_until_refused, connection, b"0" * 2**16, 15 * 2**16)
        else:
            connection.sendall(GET)
        slow.append(connection)
    attack.start(attack.drip, slow, b"A" * 1000, 0.5)


def deaf_clients(attack):
    """64 clients that keep asking for long answers and read none of them."""
    for _ in range(64):
        attack.start(send_until_refused, attack.connect(receive_bytes=4096), LONG, 2**24)


def idle_connections(attack):
    """500 connections that never say anything."""
    for _ in range(500):
        attack.connect()


def pipelining(attack):
    """5,000 requests at once on each of 50 connections, which read none of the answers."""
    for _ in range(50):
        attack.start(send_until_refused, attack.connect(), (GET + b"\r\n") * 5000, 1)


ATTACKS = [trailers, heads, slow_senders, deaf_clients, idle_connections, pipelining]
