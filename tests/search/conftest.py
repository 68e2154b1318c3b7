"""Searches over a small space."""

import json
import sys
from pathlib import Path

import pytest

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
def make_search(tmp_path):
    """A function of keys of the space file that gives a search on mnist-5k; ``space`` and ``rungs`` are YAML text."""

    def make(space=SPACE, rungs=RUNGS, **keys):
        (tmp_path / "base.yaml").write_text("{name: small, data: {source: mnist-5k}, model: {builder: cnn}}\n")
        spec = {"name": "try", "trials": 24, "experiment": "base.yaml", **keys}
        path = tmp_path / "space.yaml"
        path.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in spec.items()))
        with path.open("a") as file:
            file.write(f"rungs: {rungs}\nspace: {space}\n")
        return load_search(path, pytest.fail, lambda *_: None)[0]

    return make
