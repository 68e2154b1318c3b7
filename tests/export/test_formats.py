"""Every format holds the same function of raw images, with the same names, and nothing about this machine."""

import dataclasses
import getpass
import os
import platform
from pathlib import Path

import numpy as np
import onnx
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from cnn_trainer.errors import DeviceError
from cnn_trainer.export import formats, runtimes
from cnn_trainer.export.manifest import PATHS
from cnn_trainer.network.build import build_model

KINDS = {
    "documented": ({"filters": [4, 6], "dense_units": [8]}, (20, 17, 1)),
    "gelu, rgb, normalised, dropped out": (
        {
            "filters": [4],
            "activation": "gelu",
            "batch_normalization": True,
            "conv_dropout": 0.2,
            "dropout": 0.3,
            "padding": "same",
            "pool_size": 3,
        },
        (12, 15, 3),
    ),
    "silu, no pooling, no dense layer": (
        {"filters": [3], "activation": "silu", "pool_size": 1, "dense_units": []},
        (9, 9, 1),
    ),
    "fully connected, tanh, normalised": (
        {"builder": "mlp", "activation": "tanh", "batch_normalization": True, "dropout": 0.2},
        (8, 8, 3),
    ),
    "softmax regression": ({"builder": "mlp", "hidden_units": []}, (8, 8, 1)),
}
BOUNDS = {"onnx": 1e-5, "litert": 1e-5, "litert-float16": 5e-3, "litert-int8": 0.05, "litert-micro": 0.05}


def make_source(make_experiment, model, image_shape):
    built = build_model(make_experiment(model), image_shape, 5)
    random = np.random.default_rng(3)
    for variable in built.weights:
        if variable.path.split("/")[-1] in ("gamma", "beta", "moving_mean", "moving_variance"):
            variable.assign(random.uniform(0.5, 2, variable.shape))
    images = random.integers(0, 256, (50, *image_shape), np.uint8)
    return formats.ExportSource(built, "2026-01-02T03:04:05Z", images)


@pytest.mark.parametrize("kind", KINDS)
def test_every_network_is_the_same_function_in_every_format(make_experiment, tmp_path, kind):
    source = make_source(make_experiment, *KINDS[kind])
    images = source.calibration
    wanted = source.model(images, training=False).numpy()
    for name, bound in BOUNDS.items():
        path = tmp_path / PATHS[name]
        formats.write(name, source, path)
        found = runtimes.load(path, name, threads=1)(images)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, atol=bound, err_msg=name)
    formats.write("saved-model", source, tmp_path / "saved-model")
    compute = tf.saved_model.load(str(tmp_path / "saved-model")).signatures["serving_default"]
    np.testing.assert_allclose(compute(image=images)["probabilities"], wanted, atol=1e-5)


def test_input_and_output_have_the_same_names_types_and_a_free_batch_in_every_format(exported):
    folder, _ = exported
    graph = onnx.load(folder / "model.onnx").graph
    (image,), (probabilities,) = graph.input, graph.output
    assert (image.name, probabilities.name) == ("image", "probabilities")
    types = image.type.tensor_type, probabilities.type.tensor_type
    assert [kind.elem_type for kind in types] == [onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT]
    assert [[side.dim_value for side in kind.shape.dim] for kind in types] == [[0, 12, 12, 1], [0, 3]]  # 0: free
    signature = tf.saved_model.load(str(folder / "saved-model/1")).signatures["serving_default"]
    assert signature.structured_input_signature[1] == {"image": tf.TensorSpec((None, 12, 12, 1), tf.uint8, "image")}
    assert signature.structured_outputs == {"probabilities": tf.TensorSpec((None, 3), tf.float32, "probabilities")}
    for name in ("litert", "litert-float16", "litert-int8"):
        interpreter = Interpreter(str(folder / PATHS[name]))
        assert interpreter.get_signature_list() == {
            "serving_default": {"inputs": ["image"], "outputs": ["probabilities"]}
        }
        (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
        assert (source["dtype"], target["dtype"]) == (np.uint8, np.float32)
        assert [*source["shape_signature"]] == [-1, 12, 12, 1]


def test_int8_is_int8_inside(exported):
    """All weights and values except those at the two ends; biases and shapes are int32."""
    folder, _ = exported
    interpreter = Interpreter(str(folder / PATHS["litert-int8"]))
    tensors = interpreter.get_tensor_details()
    floats = [tensor["name"] for tensor in tensors if tensor["dtype"] == np.float32]
    assert len(floats) == 2, floats  # the image as numbers, and the probabilities
    assert sum(tensor["dtype"] == np.int8 for tensor in tensors) >= 8


def test_a_microcontroller_gets_int8_at_both_ends_one_image_and_nothing_else(exported):
    """It cannot cast from uint8, and has no memory for float32. Biases and the shape for flattening are int32."""
    interpreter = Interpreter(str(exported[0] / PATHS["litert-micro"]))
    assert interpreter.get_signature_list() == {"serving_default": {"inputs": ["image"], "outputs": ["probabilities"]}}
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (source["dtype"], source["quantization"], [*source["shape_signature"]]) == (
        np.int8,
        (1, -128),
        [1, 12, 12, 1],
    )
    assert (target["dtype"], target["quantization"], [*target["shape_signature"]]) == (np.int8, (1 / 256, -128), [1, 3])
    assert {tensor["dtype"] for tensor in interpreter.get_tensor_details()} == {np.int8, np.int32}


def test_the_input_of_a_microcontroller_is_the_pixel_minus_128_even_if_all_images_are_dark(make_experiment, tmp_path):
    source = make_source(make_experiment, *KINDS["documented"])
    dark = dataclasses.replace(source, calibration=source.calibration // 4)
    formats.write("litert-micro", dark, tmp_path / "micro")
    [details] = Interpreter(str(tmp_path / "micro")).get_input_details()
    assert details["quantization"] == (1.0, -128)
    assert dark.calibration.max() == 63


@pytest.mark.parametrize("kind", KINDS)
def test_tensorflow_lite_micro_runs_every_network(make_experiment, tmp_path, kind):
    tflm = pytest.importorskip("tflite_micro", reason="tflite-micro has no build for this platform").runtime
    source = make_source(make_experiment, *KINDS[kind])
    formats.write("litert-micro", source, tmp_path / "micro")
    interpreter = tflm.Interpreter.from_file(str(tmp_path / "micro"), arena_size=2**24)
    found = []
    for image in source.calibration:
        interpreter.set_input((image[np.newaxis].astype(np.int16) - 128).astype(np.int8), 0)
        interpreter.invoke()
        found.append((interpreter.get_output(0)[0].astype(np.float32) + 128) / 256)
    np.testing.assert_allclose(found, source.model(source.calibration, training=False).numpy(), atol=0.05)


def test_float16_takes_half_the_bytes_and_int8_a_quarter(make_experiment, tmp_path):
    source = make_source(make_experiment, {"builder": "mlp", "hidden_units": [200]}, (20, 20, 1))
    sizes = []
    for name in ("litert", "litert-float16", "litert-int8"):
        formats.write(name, source, tmp_path / PATHS[name])
        sizes.append((tmp_path / PATHS[name]).stat().st_size)
    assert sizes[0] / sizes[1] == pytest.approx(2, rel=0.1)
    assert sizes[0] / sizes[2] == pytest.approx(4, rel=0.1)


def test_nothing_of_this_machine_is_in_the_files(exported, finished_run):
    folder, _ = exported
    places = (Path(formats.__file__).parents[2], Path.home(), folder.parent, finished_run.parent)
    words = {*map(str, places), platform.node(), f"/{getpass.getuser()}/", "/tmp/"}  # noqa: S108
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert [word for word in words if os.fsencode(word) in content] == [], path


def test_keras_files_of_one_model_are_equal_whenever_they_are_written(make_experiment, tmp_path, monkeypatch):
    source = make_source(make_experiment, *KINDS["documented"])
    formats.write("keras", source, tmp_path / "first")
    monkeypatch.setattr("time.time", lambda: 2e9)
    monkeypatch.setattr("time.localtime", lambda *_: (2033, 5, 18, 3, 33, 20, 2, 138, 0))
    again = make_source(make_experiment, *KINDS["documented"])
    formats.write("keras", again, tmp_path / "second")
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    assert b"2026-01-02@03:04:05" in (tmp_path / "first").read_bytes()


def test_what_a_format_needs_is_asked_for_by_name(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None if module == "tf2onnx" else object())
    formats.require(["saved-model", "litert", "keras"])
    with pytest.raises(DeviceError) as caught:
        formats.require(["keras", "onnx"])
    remedy = "install what it needs with: "
    assert str(caught.value).startswith(f"--format onnx: tf2onnx cannot be found; {remedy}")
    assert str(caught.value).endswith("pip install 'cnn-trainer[onnx]'")
