"""A run on 1,000 test images of real digits, and its page, read without the package's own code."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "serve"))  # for its browser

from reading import read_html

from cnn_trainer import data
from cnn_trainer.config.schema.data import Mnist5k

CONFIG = """\
name: digits
data: {source: npz, path: digits.npz, validation_fraction: 0.1}
model: {builder: cnn, filters: [6, 8], dense_units: [16]}
training: {epochs: 3, batch_size: 32, learning_rate: 0.004}
runtime: {device: cpu, towers: 1, intra_op_threads: 1, inter_op_threads: 1}
"""


@dataclass(frozen=True)
class Reported:
    """A run, its page, and the images and labels that it was scored on."""

    run: Path
    file: Path
    page: Any
    images: np.ndarray
    labels: np.ndarray


@pytest.fixture(scope="session")
def scored_run(cnn_train, tmp_path_factory):
    """The directory of a run on digits that makes some mistakes; tests must not write into it."""
    folder = tmp_path_factory.mktemp("reported")
    train, test = (data.load_split(Mnist5k(source="mnist-5k"), 1, split) for split in ("train", "test"))
    chosen = np.random.default_rng(4).permutation(len(train.labels))[:2000]
    arrays = {"x_train": train.images[chosen, ..., 0], "y_train": train.labels[chosen]}
    arrays |= {"x_test": test.images[..., 0], "y_test": test.labels}
    np.savez(folder / "digits.npz", **arrays)
    (folder / "digits.yaml").write_text(CONFIG)
    answer = cnn_train("train", "digits.yaml", "--json", cwd=folder)
    assert answer.code == 0, answer.err
    return folder / answer.run


@pytest.fixture(scope="session")
def reported(cnn_train, scored_run, tmp_path_factory):
    """The run with its page."""
    file = tmp_path_factory.mktemp("page") / "digits.html"
    answer = cnn_train("report", scored_run, "--output", file)
    assert answer.code == 0, answer.err
    with np.load(scored_run.parents[1] / "digits.npz") as arrays:
        return Reported(scored_run, file, read_html(file.read_text("utf-8")), arrays["x_test"], arrays["y_test"])
