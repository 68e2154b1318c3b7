"""Finished runs that many test files use: a small one with all of its exports, and one that reads digits."""

import shutil

import numpy as np
import pytest
from support import read_json

CONFIG = """\
name: small
data: {source: npz, path: strokes.npz}
model: {builder: cnn, filters: [4], dense_units: [8]}
training: {epochs: 2, batch_size: 16, learning_rate: 0.01}
runtime: {device: cpu, towers: 2, intra_op_threads: 1, inter_op_threads: 2}
"""


DIGITS_CONFIG = """\
name: digits
data: {source: mnist-5k}
model: {builder: cnn, filters: [16, 32]}
training:
  epochs: 12
  batch_size: 64
  learning_rate: 0.006
  label_smoothing: 0.05
  schedule: {name: one-cycle}
  augmentation: {shift_pixels: 2, rotation_radians: 0.2, zoom: 0.12, shear: 0.15}
runtime: {device: cpu, towers: 2, intra_op_threads: 1, inter_op_threads: 2}
"""


@pytest.fixture(scope="session")
def digits_run(cnn_train, tmp_path_factory):
    """The directory of a run that reads digits, with 98 % right; tests must not write into it."""
    folder = tmp_path_factory.mktemp("digits")
    (folder / "digits.yaml").write_text(DIGITS_CONFIG)
    answer = cnn_train("train", "digits.yaml", "--json", cwd=folder)
    assert answer.code == 0, answer.err
    return folder / answer.run


@pytest.fixture(scope="session")
def finished_run(cnn_train, strokes, tmp_path_factory):
    """The directory of a run; tests must not write into it."""
    folder = tmp_path_factory.mktemp("finished")
    np.savez(folder / "strokes.npz", **strokes)
    (folder / "small.yaml").write_text(CONFIG)
    answer = cnn_train("train", "small.yaml", "--json", cwd=folder)
    assert answer.code == 0, answer.err
    return folder / answer.run


@pytest.fixture
def run_copy(finished_run, tmp_path):
    """A copy of the run that a test may change."""
    return shutil.copytree(finished_run, tmp_path / finished_run.name)


@pytest.fixture(scope="session")
def exported(cnn_train, finished_run, tmp_path_factory):
    """The folder of its export in every format, and the command's answer; tests must not write into the folder."""
    folder = tmp_path_factory.mktemp("export") / "strokes"
    answer = cnn_train("export", finished_run, "--output", folder, "--json")
    assert answer.code == 0, answer.err
    assert read_json(folder / "manifest.json") == answer.json["manifest"]
    return folder, answer


@pytest.fixture
def no_tflite_micro(tmp_path, monkeypatch):
    """Child processes do not find the package tflite_micro, as on platforms for which it has no build."""
    (tmp_path / "without").mkdir()
    (tmp_path / "without/sitecustomize.py").write_text(
        "import importlib.util\nfind = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: None if name == 'tflite_micro' else find(name, *more)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "without"))


@pytest.fixture(scope="session")
def tamper():
    """A function that rewrites an ONNX file with its largest array of weights multiplied by a factor."""
    import onnx
    from onnx import numpy_helper

    def write(source, target, factor):
        model = onnx.load(source)
        weights = max(model.graph.initializer, key=lambda array: np.prod(array.dims))
        values = numpy_helper.to_array(weights) * np.float32(factor)
        weights.CopyFrom(numpy_helper.from_array(values, weights.name))
        onnx.save(model, target)

    return write
