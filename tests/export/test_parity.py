"""An exported model that differs from the run's is detected, in a process that has only its file."""

import dataclasses

import numpy as np
import pytest
from support import read_json

from cnn_trainer.errors import CheckFailedError
from cnn_trainer.export import parity, runtimes
from cnn_trainer.export.manifest import PATHS


@pytest.fixture(scope="module")
def expected(exported, strokes):
    """The run's answers on the test split, up to the rounding of ONNX Runtime."""
    images = strokes["x_test"][..., None]
    probabilities = runtimes.load(exported[0] / "model.onnx", "onnx", threads=1)(images)
    return parity.Expected(images, strokes["y_test"].astype(np.int32), probabilities, "0" * 64)


@pytest.fixture
def check(expected, tmp_path):
    """A function that checks a format and a path against what is expected."""
    images_path = tmp_path / "images.safetensors"
    parity.write_images(images_path, expected)
    return lambda name, path, wanted=expected: parity.check_parity(name, path, images_path, wanted)


def reason(function, *arguments):
    with pytest.raises(CheckFailedError) as caught:
        function(*arguments)
    assert str(caught.value).endswith("; this format is left out of the export")
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_an_honest_export_passes_with_its_figures(exported, check, expected):
    record = check("onnx", exported[0] / "model.onnx")
    assert record.runtime == runtimes.version("onnx")
    assert (record.num_examples, record.max_difference_allowed, record.equal_predictions) == (96, 1e-5, 1)
    assert record.max_difference < 1e-6
    assert record.accuracy == (expected.probabilities.argmax(1) == expected.labels).mean()
    assert 0 < record.latency_seconds < 1
    assert record.images_per_second > 100


@pytest.mark.parametrize(("factor", "passes"), [(1.0, True), (1 + 1e-3, False), (0.5, False), (np.nan, False)])
def test_weights_that_were_changed_are_found(exported, check, tamper, tmp_path, factor, passes):
    tamper(exported[0] / "model.onnx", tmp_path / "model.onnx", factor)
    if passes:
        assert check("onnx", tmp_path / "model.onnx")
    else:
        message = reason(check, "onnx", tmp_path / "model.onnx")
        words = "not probabilities" if np.isnan(factor) else "onnx: differs from the run: a probability differs by "
        assert words in message


def test_float16_is_not_accepted_as_float32(exported, check):
    path = exported[0] / PATHS["litert-float16"]
    assert check("litert-float16", path)
    assert "at most 1e-05 is allowed" in reason(check, "litert", path)


def test_int8_has_a_bound_on_its_accuracy(exported, check, expected):
    path = exported[0] / PATHS["litert-int8"]
    record = check("litert-int8", path)
    assert record.max_difference > 1e-4
    assert record.max_difference_allowed is None
    perfect = np.eye(3, dtype=np.float64)[expected.labels]
    better = dataclasses.replace(expected, probabilities=perfect)
    message = reason(check, "litert-int8", path, better)
    assert f"the accuracy is {record.accuracy:.4f}, the run's is 1.0000; it may be at most 0.005 lower" in message


def test_tensorflow_lite_micro_runs_its_format_as_well(exported, check):
    pytest.importorskip("tflite_micro", reason="tflite-micro has no build for this platform")
    record = check("litert-micro", exported[0] / PATHS["litert-micro"])
    assert record.runtime == runtimes.version("litert-micro")
    assert record.micro.runtime.startswith("TensorFlow Lite Micro 0.")
    assert record.micro.num_examples == 96
    assert record.micro.mean_difference <= record.micro.max_difference <= 3 / 256
    assert check("litert-int8", exported[0] / PATHS["litert-int8"]).micro is None


WRONG_MICRO = """\
import numpy as np

class Interpreter:
    from_bytes = classmethod(lambda cls, content, arena_size: cls())
    set_input = lambda self, image, index: None
    invoke = lambda self: None
    get_output = lambda self, index: np.full((1, 3), -43, np.int8)
"""


def test_a_model_with_other_results_in_tensorflow_lite_micro_is_refused(exported, check, tmp_path, monkeypatch):
    pytest.importorskip("tflite_micro", reason="tflite-micro has no build for this platform")
    (tmp_path / "tflite_micro").mkdir()
    (tmp_path / "tflite_micro/__init__.py").touch()
    (tmp_path / "tflite_micro/runtime.py").write_text(WRONG_MICRO)
    monkeypatch.syspath_prepend(tmp_path)
    message = reason(check, "litert-micro", exported[0] / PATHS["litert-micro"])
    assert "litert-micro: differs from the run: the probabilities of TensorFlow Lite Micro 0." in message
    assert "on average; at most 0.01 is allowed" in message


def test_without_tensorflow_lite_micro_the_record_says_so(exported, check, no_tflite_micro):
    assert check("litert-micro", exported[0] / PATHS["litert-micro"]).micro is None


def test_other_classes_are_found(exported, check, expected):
    other = dataclasses.replace(expected, probabilities=np.full((96, 4), 0.25))
    message = reason(check, "onnx", exported[0] / "model.onnx", other)
    assert "returns float32 (96, 3), expected float32 (96, 4)" in message


@pytest.mark.parametrize("name", ["onnx", "litert"])
def test_a_model_that_does_not_run_is_refused_with_the_message_of_its_runtime(check, tmp_path, name):
    path = tmp_path / "broken"
    path.write_bytes(b"broken")
    message = reason(check, name, path)
    assert f"{name}: its own runtime cannot run it (exit code 1: " in message
    assert str(path) in message


@pytest.mark.parametrize("name", PATHS)
def test_every_format_of_the_export_was_measured(exported, name):
    found = read_json(exported[0] / "manifest.json")["models"][name]["parity"]
    assert (found["split"], found["num_examples"], found["equal_predictions"]) == ("test", 96, 1)
    titles = {"saved-model": "TensorFlow", "keras": "Keras", "onnx": "ONNX Runtime"}
    assert found["runtime"].startswith(titles[name] if name in titles else "LiteRT")
    assert found["max_difference"] <= (found["max_difference_allowed"] or 1)
