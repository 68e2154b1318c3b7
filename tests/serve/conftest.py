"""One export, and one server of it for all tests that do not change it."""

import sys
from pathlib import Path

import httpx
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from harness import Server, write_export


@pytest.fixture(scope="session")
def tiny_export(tmp_path_factory):
    """An export of a model of 28x28 images and ten classes."""
    return write_export(tmp_path_factory.mktemp("serve") / "export")


@pytest.fixture(scope="session")
def server(tiny_export, tmp_path_factory):
    """Its server, with the options' defaults."""
    with Server(tiny_export, tmp_path_factory.mktemp("log") / "log") as server:
        yield server


@pytest.fixture(scope="session")
def client(server):
    """An HTTP client of the server."""
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def batch():
    """Three images of random pixels."""
    return np.random.default_rng(1).integers(0, 256, (3, 28, 28, 1), np.uint8)
