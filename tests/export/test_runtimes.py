"""ONNX Runtime and LiteRT run exported models, without TensorFlow, and refuse other files."""

import subprocess
import sys

import numpy as np
import onnx
import pytest

from cnn_trainer.errors import DeviceError, RunDirectoryError
from cnn_trainer.export import runtimes
from cnn_trainer.export.manifest import PATHS
from cnn_trainer.machine import facts

FORMATS = ["onnx", "litert", "litert-float16", "litert-int8", "litert-micro"]


@pytest.fixture(scope="module")
def images(strokes):
    return strokes["x_test"][..., None]


@pytest.mark.parametrize("name", FORMATS)
def test_a_batch_of_any_size_gives_probabilities_and_the_same_for_each_image(exported, images, name):
    folder, _ = exported
    predict = runtimes.load(folder / PATHS[name], name, threads=1)
    whole = predict(images)
    assert (whole.shape, whole.dtype) == ((96, 3), np.float32)
    np.testing.assert_allclose(whole.sum(axis=1), 1, atol=0.01)
    for start, size in (0, 1), (1, 7), (8, 1), (9, 30):
        np.testing.assert_allclose(predict(images[start : start + size]), whole[start : start + size], atol=1e-6)


@pytest.mark.parametrize("name", FORMATS)
def test_the_images_of_a_strided_view_are_read_correctly(exported, images, name):
    folder, _ = exported
    predict = runtimes.load(folder / PATHS[name], name, threads=1)
    np.testing.assert_array_equal(predict(images[::3]), predict(np.ascontiguousarray(images[::3])))


def test_neither_tensorflow_nor_keras_is_loaded(exported):
    folder, _ = exported
    program = (
        "import sys\nfrom pathlib import Path\nfrom cnn_trainer.export import folder as exports, runtimes\n"
        "folder = Path(sys.argv[1])\nmanifest = exports.read(folder)\n"
        f"for name in {FORMATS}:\n"
        "    runtimes.load(exports.verify(folder, manifest.models[name]), name, 1)\n"
        "print(*{'tensorflow', 'keras', 'onnx', 'tf2onnx'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", program, folder], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("onnx", "onnxruntime", "cnn-trainer[onnx]"),
        ("litert-int8", "ai_edge_litert.interpreter", "cnn-trainer[litert]"),
    ],
)
def test_a_missing_runtime_is_named_with_the_command_that_installs_it(exported, monkeypatch, name, module, package):
    folder, _ = exported
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DeviceError) as caught:
        runtimes.load(folder / PATHS[name], name, threads=1)
    assert str(caught.value).endswith(f"; install it with: {facts.install_command(package)}")


@pytest.mark.parametrize("name", ["onnx", "litert"])
@pytest.mark.parametrize("content", [b"", b"not a model", b"\x00" * 4096])
def test_a_file_that_is_not_a_model_is_refused(tmp_path, name, content):
    path = tmp_path / PATHS[name]
    path.write_bytes(content)
    with pytest.raises(RunDirectoryError) as caught:
        runtimes.load(path, name, threads=1)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).endswith("; export the run again with: cnn-train export RUN")


def test_a_file_for_microcontrollers_is_distinguished_from_others(exported):
    paths = {name: exported[0] / PATHS[name] for name in ("litert-int8", "litert-micro")}
    with pytest.raises(RunDirectoryError, match=r"its input and output are \[\('uint8', 4, \(0.0, 0\)\)"):
        runtimes.load(paths["litert-int8"], "litert-micro", threads=1)
    with pytest.raises(RunDirectoryError, match=r"its input and output are \[\('int8', 4, \(1.0, -128\)\)"):
        runtimes.load(paths["litert-micro"], "litert-int8", threads=1)


@pytest.mark.parametrize("pixel", [0, 1, 127, 128, 255])
def test_int8_input_is_the_pixel_minus_128_and_output_has_256_steps(pixel):
    seen = []

    def run(image):
        seen.append(image)
        return np.array([[-128, 0, 127]], np.int8)

    found = runtimes.through_int8(run)(np.full((2, 3, 4, 1), pixel, np.uint8))
    assert [(image.shape, image.dtype, {*image.ravel()}) for image in seen] == [
        ((1, 3, 4, 1), np.int8, {pixel - 128})
    ] * 2
    assert (found.dtype, found.tolist()) == (np.float32, [[0, 0.5, 255 / 256]] * 2)


@pytest.mark.parametrize("change", ["name", "type"])
def test_a_model_of_another_input_is_refused(exported, tmp_path, change):
    folder, _ = exported
    model = onnx.load(folder / "model.onnx")
    cast = next(node for node in model.graph.node if "image" in node.input)
    if change == "name":
        model.graph.input[0].name = cast.input[0] = "picture"
    else:
        model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(RunDirectoryError, match="its input and output are"):
        runtimes.load(tmp_path / "other.onnx", "onnx", threads=1)
