"""Searches over a small space."""

import json
import sys
from pathlib import Path

import pytest

from cnn_trainer.search.journal import create_search
from cnn_trainer.search.load import load_search

sys.path.insert(0, str(Path(__file__).parent))

SPACE = """
  training.learning_rate: {low: 0.0001, high: 0.1, log: true}
  training.batch_size: {choices: [50, 100, 200]}
  model.filters: {choices: [[4], [8, 16], [16, 32]]}
  model.dense_units: {choices: [[16], [64]]}
"""
RUNGS = "{first: 1, factor: 3, last: 9}"


@pytest.fixture
def write_space(tmp_path):
    """A function of keys of the space file that writes it; ``space`` and ``rungs`` are YAML text, None leaves out."""

    def write(space=SPACE, rungs=RUNGS, **keys):
        (tmp_path / "base.yaml").write_text("{name: small, data: {source: mnist-5k}, model: {builder: cnn}}\n")
        spec = {"name": "try", "trials": 24, "experiment": "base.yaml", **keys}
        lines = [f"{key}: {json.dumps(value)}" for key, value in spec.items() if value is not None]
        path = tmp_path / "space.yaml"
        path.write_text("\n".join([*lines, f"rungs: {rungs}", f"space: {space}\n"]))
        return path

    return write


@pytest.fixture
def make_search(write_space):
    """A function of keys of the space file that gives a search on mnist-5k."""
    return lambda *words, **keys: load_search(write_space(*words, **keys), pytest.fail, lambda *_: None)[0]


@pytest.fixture
def make_opened(write_space, tmp_path):
    """A function of keys of the space file that gives a new search with its folder."""

    def make(*words, **keys):
        path = write_space(*words, **keys)
        search, data = load_search(path, pytest.fail, lambda *_: None)
        return create_search(tmp_path / "searches", path, search, data)

    return make
