"""The OpenAPI document is true: schemathesis sends what it allows and what it forbids.

The full form, with ``CNN_TRAIN_SOAK=1``, makes ten times as many requests, from another seed.
"""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from harness import Server, write_export

SEED, NUM_EXAMPLES = (2, 200) if os.environ.get("CNN_TRAIN_SOAK") else (1, 20)
HOOKS = {"SCHEMATHESIS_HOOKS": "openapi_hooks", "PYTHONPATH": str(Path(__file__).parent), "NO_COLOR": "1"}


def check(document, folder, *options):
    """The output of schemathesis, with all of its checks."""
    command = [Path(sys.executable).with_name("schemathesis"), "run", document, "--checks", "all"]
    bounds = ["--seed", str(SEED), "--max-examples", str(NUM_EXAMPLES)]
    words = [str(word) for word in (*command, *bounds, *options)]
    how = {"capture_output": True, "text": True, "cwd": folder, "env": {**os.environ, **HOOKS}, "timeout": 900}
    done = subprocess.run(words, check=False, **how)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def small_server(tmp_path):
    """Its images have 16 pixels, so that schemathesis can write many of them."""
    with Server(write_export(tmp_path / "export", (4, 4, 1), source="folder"), tmp_path / "log") as server:
        yield server


def test_every_operation_is_as_described(small_server, tmp_path):
    code, words = check(f"{small_server.url}/openapi.json", tmp_path)
    assert code == 0, words
    assert "No issues found" in words
    assert not [line for line in small_server.log() if "traceback" in line]


def test_so_are_pictures_and_drawings_of_digits(server, tmp_path):
    code, words = check(f"{server.url}/openapi.json", tmp_path, "--include-path-regex", "^/page/")
    assert code == 0, words
    assert "2/17" in words or "2/18" in words, words


def test_the_checks_would_find_a_server_that_does_otherwise(small_server, tmp_path):
    """Schemathesis gets a document that allows pixels up to 300, which the server refuses."""
    document = httpx.get(f"{small_server.url}/openapi.json").text.replace('"maximum": 255', '"maximum": 300')
    (tmp_path / "openapi.json").write_text(document)
    options = ["--url", small_server.url, "--include-path-regex", "tiny/infer"]
    code, words = check(tmp_path / "openapi.json", tmp_path, *options)
    assert code == 1, words
    assert "Schema-valid request rejected" in words


def test_every_operation_names_what_can_go_wrong(client):
    document = client.get("/openapi.json").json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            expected = {"200", "400", "421"}
            if method == "post":
                expected |= {"408", "413", "415", "500", "503"}
                assert all("schema" in body for body in operation["requestBody"]["content"].values()), path
            assert operation["responses"].keys() == expected, path
