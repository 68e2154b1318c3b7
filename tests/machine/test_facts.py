"""What the program knows about its environment."""

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

from cnn_trainer.machine import facts


@pytest.mark.parametrize(
    ("pip_found", "pip_imported", "command"),
    [
        ("/a venv/bin/pip", True, "pip install --no-deps 'onnx>=1'"),
        ("/usr/bin/pip", True, "'/a venv/bin/python' -m pip install --no-deps 'onnx>=1'"),
        (None, True, "'/a venv/bin/python' -m pip install --no-deps 'onnx>=1'"),
        ("/usr/bin/pip", False, "uv pip install --python '/a venv/bin/python' --no-deps 'onnx>=1'"),
        (None, False, "uv pip install --python '/a venv/bin/python' --no-deps 'onnx>=1'"),
    ],
)
def test_packages_are_installed_for_the_python_that_runs(
    monkeypatch: pytest.MonkeyPatch, pip_found: str | None, pip_imported: bool, command: str
) -> None:
    spec = importlib.util.spec_from_loader("pip", None) if pip_imported else None
    monkeypatch.setattr(sys, "executable", "/a venv/bin/python")
    monkeypatch.setattr(shutil, "which", {"pip": pip_found}.get)
    monkeypatch.setattr(importlib.util, "find_spec", {"pip": spec}.get)
    assert facts.install_command("--no-deps", "onnx>=1") == command


def test_the_command_begins_with_a_program_that_exists() -> None:
    first = facts.install_command("onnx").split()[0]
    assert shutil.which(first) or Path(first).is_file()
