"""``cnn-train serve``: what it refuses to serve, what it says, and how it ends."""

import hashlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
from importlib import metadata
from pathlib import Path

import httpx
import onnx
import onnxruntime
import pytest
from granian.server.common import AbstractServer
from harness import Server, write_export
from support import invoke
from wire import BLACK, JSON, PREDICT, connect, head, read_answer

from cnn_trainer.serve.images import example_picture
from cnn_trainer.serve.server import _JsonLog, address, answered_hosts, is_loopback, listen

EVERYWHERE = "0.0.0.0"  # noqa: S104


def test_a_run_without_an_export_is_refused_with_the_command_that_makes_one(finished_run):
    code, _, err = invoke("serve", finished_run)
    assert code == 6
    assert (
        err
        == f"error: {finished_run}: has no export yet; make one with: cnn-train export {finished_run} --format onnx\n"
    )


def test_a_folder_that_is_neither_run_nor_export_is_refused(tmp_path):
    code, _, err = invoke("serve", tmp_path)
    assert code == 6
    assert "neither an export" in err
    assert "nor a run" in err


def test_what_does_not_exist_is_refused(tmp_path):
    assert invoke("serve", "nothing", "--runs-dir", tmp_path)[0] == 6


def test_a_model_file_that_was_changed_is_refused(tmp_path):
    export = write_export(tmp_path / "export")
    content = bytearray((export / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (export / "model.onnx").write_bytes(content)
    code, _, err = invoke("serve", export)
    assert code == 6
    assert "model.onnx: " in err
    assert "manifest.json" in err


def test_weights_beside_the_model_that_no_digest_covers_are_refused(tmp_path, monkeypatch):
    export = write_export(tmp_path / "export")
    manifest = json.loads((export / "manifest.json").read_text())
    model = onnx.load(export / "model.onnx")
    onnx.save_model(model, export / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    content = (export / "model.onnx").read_bytes()
    manifest["models"]["onnx"] |= {
        "num_bytes": len(content),
        "sha256": {"model.onnx": hashlib.sha256(content).hexdigest()},
    }
    (export / "manifest.json").write_text(json.dumps(manifest))
    assert onnxruntime.InferenceSession(export / "model.onnx", providers=["CPUExecutionProvider"])
    for place in tmp_path, export:  # ONNX Runtime would find them at the second path
        monkeypatch.chdir(place)
        code, _, err = invoke("serve", export)
        assert code == 6
        assert "model.onnx: ONNX Runtime cannot run it: " in err


def test_an_export_without_a_format_that_is_served_is_refused(tmp_path):
    export = write_export(tmp_path / "export")
    manifest = json.loads((export / "manifest.json").read_text())
    model = manifest["models"].pop("onnx")
    model |= {"format": "keras", "path": "model.keras", "sha256": {"model.keras": "0" * 64}}
    (export / "manifest.json").write_text(json.dumps({**manifest, "models": {"keras": model}}))
    code, _, err = invoke("serve", export)
    assert code == 6
    assert "cnn-train export 20261124-000000-tiny --format onnx" in err


def test_a_model_that_does_not_fit_its_manifest_is_refused(tmp_path):
    export = write_export(tmp_path / "export")
    manifest = json.loads((export / "manifest.json").read_text())
    manifest["data"]["class_names"] = ["a", "b"]
    (export / "manifest.json").write_text(json.dumps(manifest))
    code, _, err = invoke("serve", export)
    assert code == 6
    assert "(1, 10)" in err


def test_a_port_in_use_is_one_line_and_exit_code_2(tiny_export):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, _, err = invoke("serve", tiny_export, "--port", port)
    assert code == 2
    assert err.splitlines()[-1].startswith(f"error: --host 127.0.0.1 --port {port}: cannot listen there")


def test_a_host_that_is_not_this_machine_is_one_line_and_exit_code_2(tiny_export):
    code, _, err = invoke("serve", tiny_export, "--host", "host.invalid")
    assert code == 2
    assert err.startswith("error: --host host.invalid --port 8501: cannot listen there")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--allow-host", "digits.example:443"),
        ("--allow-host", "https://digits.example"),
        ("--allow-host", "::1"),
        ("--allow-host", ""),
        ("--allow-origin", "page.example"),
        ("--allow-origin", "https://page.example/"),
        ("--allow-origin", "https://Page.example"),
    ],
)
def test_a_name_that_no_request_can_give_is_one_line_and_exit_code_2(tiny_export, option, value):
    code, _, err = invoke("serve", tiny_export, option, value)
    assert code == 2
    assert err.startswith(f"error: {option} {value}: is not ")


def test_a_missing_package_is_named_with_the_command_that_installs_it(tiny_export, monkeypatch):
    monkeypatch.setitem(sys.modules, "cnn_trainer.serve", None)
    code, _, err = invoke("serve", tiny_export)
    assert code == 5
    assert "pip install 'cnn-trainer[serve]'" in err


def test_neither_tensorflow_nor_keras_is_loaded(tiny_export):
    program = (
        "import sys\nfrom pathlib import Path\nfrom cnn_trainer.serve import model, server\n"
        "model.open_export(Path(sys.argv[1]))\nprint({'tensorflow', 'keras'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", program, tiny_export], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_no_runtime_reports_to_its_maker(tiny_export, tmp_path):
    """By default, ONNX Runtime stores an id of the machine in the home folder, and sends it with its usage."""
    program = "import sys\nfrom pathlib import Path\nfrom cnn_trainer.serve import model\n"
    program += "model.open_export(Path(sys.argv[1]))"
    hidden = {"ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"}
    env = {name: value for name, value in os.environ.items() if name not in hidden} | {"HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program, tiny_export], check=True, env=env)
    assert list(tmp_path.iterdir()) == []


def test_it_says_what_it_serves_and_where(server):
    first, second, *_ = server.log_path.read_text().splitlines()
    assert first == "model: tiny, test accuracy 99.00% on 10,000 test images of mnist"
    assert second.startswith("model.onnx in ONNX Runtime ")
    assert second.endswith(f" at {server.url}/; stop with Ctrl-C")


def test_it_warns_when_others_can_reach_it_and_answers_to_any_name(tiny_export, tmp_path):
    with Server(tiny_export, tmp_path / "log", "--host", EVERYWHERE) as server:
        assert f"WARNING: {EVERYWHERE} is not only this machine" in server.log_path.read_text()
        assert httpx.get(f"{server.url}/v2", headers={"host": "digits.example"}).status_code == 200


@pytest.mark.parametrize(
    ("host", "is_own"), [("127.0.0.1", True), ("127.1.2.3", True), ("localhost", True), (EVERYWHERE, False)]
)
def test_loopback_is_known_from_other_addresses(host, is_own):
    with listen(host, 0) as listener:
        assert is_loopback(listener) is is_own


def test_an_address_of_ip_version_6_can_be_listened_at():
    if not socket.has_ipv6:
        pytest.skip("this Python has no IP version 6")
    try:
        listener = listen("::1", 0)
    except Exception as error:
        pytest.skip(f"this machine has no ::1: {error}")
    with listener:
        assert address(listener) == f"http://[::1]:{listener.getsockname()[1]}/"
        assert is_loopback(listener)


def test_every_address_of_both_ip_versions_can_be_listened_at(tiny_export, tmp_path):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"this machine has no ::1: {error}")
    with Server(tiny_export, tmp_path / "log", "--host", "::") as server:
        assert server.url == f"http://localhost:{server.port}"
        assert "WARNING: :: is not only this machine" in server.log_path.read_text()
        for host in "127.0.0.1", "[::1]":
            assert httpx.get(f"http://{host}:{server.port}/v2").status_code == 200


def test_names_are_allowed_beside_ones_own_or_where_others_reach_the_server_instead_of_any():
    with listen("127.0.0.1", 0) as listener:
        assert answered_hosts(listener, []) == {"localhost", "127.0.0.1", "[::1]"}
        assert answered_hosts(listener, ["A.example"]) == {"localhost", "127.0.0.1", "[::1]", "a.example"}
    with listen(EVERYWHERE, 0) as listener:
        assert answered_hosts(listener, []) is None
        assert "a.example" in answered_hosts(listener, ["a.example"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_a_request_in_flight_finish_and_ends_with_exit_code_0(tiny_export, tmp_path, number):
    with Server(tiny_export, tmp_path / "log") as server, connect(server) as connection, connect(server) as idle:
        connection.sendall(head(len(BLACK)) + BLACK[:100])
        let_it_arrive()
        server.process.send_signal(number)
        assert idle.recv(1) == b"", "a connection without a request is closed at once"
        connection.sendall(BLACK[100:])
        status, headers, _ = read_answer(connection)
        assert (status, headers["connection"]) == (200, "close")
        assert server.process.wait(timeout=5) == 0
        assert "Traceback" not in server.log_path.read_text()


def test_it_ends_within_five_seconds_whatever_is_in_flight(tiny_export, tmp_path):
    with Server(tiny_export, tmp_path / "log") as server, connect(server) as connection:
        connection.sendall(head(len(BLACK)) + BLACK[:100])
        let_it_arrive()
        code, seconds = server.stop()
        assert read_answer(connection)[0] == 503
        assert (code, seconds < 5) == (0, True), seconds
        assert "Traceback" not in server.log_path.read_text()


SLOW_PICTURES = """\
import time
from cnn_trainer.serve import images
fit = images.like_mnist.fit
images.like_mnist.fit = lambda *all: (time.sleep(0.05), fit(*all))[1]
"""


def test_work_in_the_thread_is_cut_off_with_503_and_the_log_stays_json(tiny_export, tmp_path):
    body = json.dumps({"instances": [{"b64": example_picture((28, 28, 1))}] * 1000}).encode()  # 50 seconds of work
    with Server(tiny_export, tmp_path / "log", patch=SLOW_PICTURES) as server, connect(server) as connection:
        connection.sendall(head(len(body)) + body)
        let_it_arrive()
        code, seconds = server.stop()
        assert (code, seconds < 5) == (0, True), seconds
        status, headers, answer = read_answer(connection)
        assert (status, headers["connection"]) == (503, "close")
        assert answer == {"error": "the server is stopping; try again later"}
        (line,) = map(json.loads, log_lines(server))
        assert line["status"] == 503


def test_what_a_form_is_wrong_in_is_not_in_the_log(tiny_export, tmp_path):
    with Server(tiny_export, tmp_path / "log") as server:
        kind = {"content-type": "multipart/form-data; boundary=XX"}
        answer = httpx.post(f"{server.url}{PREDICT}", content=b"--XXjunk\r\n", headers=kind)
        assert answer.status_code == 400
        server.stop()
        (line,) = map(json.loads, log_lines(server))
        assert line["status"] == 400


LOUD = """\
import logging
from cnn_trainer.serve.model import Served
original = Served.predict
def predict(*all):
    logging.getLogger("asyncio").error("loud")
    return original(*all)
Served.predict = predict
"""


def test_what_other_packages_say_is_json_too(tiny_export, tmp_path):
    with Server(tiny_export, tmp_path / "log", patch=LOUD) as server:
        httpx.post(f"{server.url}{PREDICT}", content=BLACK, headers=JSON)
        server.stop()
        loud, request = map(json.loads, log_lines(server))
    assert (loud["error"], request["status"]) == ("loud", 200)


def log_lines(server):
    """All lines but those that announce the model."""
    return server.log_path.read_text().splitlines()[2:]


def let_it_arrive():
    time.sleep(0.3)


def test_every_request_is_a_line_of_json_in_the_log(tiny_export, tmp_path):
    with Server(tiny_export, tmp_path / "log") as server:
        httpx.get(f"{server.url}/v2/%22%0A\u00e9")
        httpx.post(f"{server.url}{PREDICT}", content=BLACK, headers=JSON)
        server.stop()
        odd, found = server.log()
    assert (odd["path"], odd["status"]) == ('/v2/"\n\u00e9', 404)
    assert found.keys() == {"time", "method", "path", "status", "seconds", "bytes", "client"}
    assert (found["method"], found["path"], found["status"], found["client"]) == ("POST", PREDICT, 200, "127.0.0.1")
    assert 0 < found["seconds"] < 60
    assert found["bytes"] > 100


def test_the_metrics_count_requests_and_images(client):
    def value(name):
        lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith(name)]
        return float(lines[0].rpartition(" ")[2]) if lines else 0

    ok = f'cnn_train_requests_total{{route="{PREDICT}",status="200"}}'
    names = [ok, "cnn_train_images_total", f'cnn_train_request_seconds_count{{route="{PREDICT}"}}']
    before = [value(name) for name in names]
    client.post(PREDICT, content=BLACK, headers=JSON)
    assert [value(name) for name in names] == [number + 1 for number in before]
    assert value("cnn_train_model{") == 1
    assert value("process_resident_memory_bytes") > 1e6


def test_unknown_paths_make_no_further_series(client):
    before = client.get("/metrics").text.count("\n")
    client.get("/nowhere")
    first = client.get("/metrics").text.count("\n")
    for number in range(20):
        client.get(f"/nowhere/{number}")
    assert client.get("/metrics").text.count("\n") == first >= before


def test_what_the_web_server_itself_says_is_json_too():
    lines = []
    handler = _JsonLog(lines.append)
    try:
        raise ZeroDivisionError("secret")
    except ZeroDivisionError:
        handler.handle(logging.LogRecord("_granian", logging.ERROR, "", 0, "failed: %s", ("why",), sys.exc_info()))
    (found,) = map(json.loads, lines)
    assert found["error"].startswith("failed: why\nTraceback")
    assert found["time"].endswith("Z")


def test_the_private_method_of_the_web_server_is_where_it_was_and_its_version_is_bounded():
    assert "_init_shared_socket" in vars(AbstractServer)
    bounds = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert "granian>=2.8,<2.9" in bounds["project"]["optional-dependencies"]["serve"]
    assert metadata.version("granian").startswith("2.8.")
