"""``cnn-train export``, as a user and as a program see it."""

import json

import pytest
from support import read_json

from cnn_trainer.export.manifest import PATHS

HEADING = ["format", "file", "bytes", "accuracy", "equal", "difference", "ms", "per", "image", "images/s"]


def test_all_formats_have_the_accuracy_of_the_run(exported, finished_run):
    _, answer = exported
    accuracy = read_json(finished_run / "evaluation.json")["accuracy"]
    manifest = answer.json["manifest"]
    assert (list(manifest["models"]), answer.json["refused"]) == (list(PATHS), {})
    assert manifest["test_accuracy"] == accuracy
    assert {model["parity"]["accuracy"] for model in manifest["models"].values()} == {accuracy}
    assert manifest["weights_sha256"] == read_json(finished_run / "run.json")["weights_sha256"]
    images = read_json(finished_run / "evaluation.json")["images_sha256"]
    assert {model["parity"]["images_sha256"] for model in manifest["models"].values()} == {images}
    assert manifest["data"]["location"] == "strokes.npz"


def test_the_run_itself_is_left_as_it_was(exported, finished_run):
    assert not (finished_run / "export").exists()
    assert not list(finished_run.glob(".tmp*"))


def test_text_output_shows_the_progress_and_a_table(exported):
    folder, answer = exported
    lines = answer.err.splitlines()
    assert lines[0] == "scoring the run itself on its test split"
    assert lines[1:8] == [f"{name}: writing it, then running it on 96 test images" for name in PATHS]
    assert lines[8].split() == HEADING
    for line, (name, path) in zip(lines[9:16], PATHS.items(), strict=True):
        assert line.split()[:2] == [name, path]
        assert len(line.split()) == 8
    assert lines[16].startswith("the run itself gets 0.")
    assert lines[17] == "litert-micro: an input is pixel - 128, a probability is (output + 128) / 256"
    assert lines[18:] == [f"next: cnn-train serve {folder}"]


def test_chosen_formats_go_into_the_run_directory_with_the_bytes_of_every_export(cnn_train, exported, run_copy):
    answer = cnn_train("export", run_copy, "--format", "litert", "--format", "onnx", "--json")
    assert answer.code == 0, answer.err
    litert = {"model.tflite", "model-float16.tflite", "model-int8.tflite", "model-micro.tflite"}
    expected = {"manifest.json", "model.onnx", *litert}
    assert {path.name for path in (run_copy / "export").iterdir()} == expected
    assert answer.err.splitlines()[-1] == f"next: cnn-train serve {run_copy}/export"
    for name, model in answer.json["manifest"]["models"].items():
        assert model["sha256"] == exported[1].json["manifest"]["models"][name]["sha256"]


def test_a_model_for_microcontrollers_says_how_to_run_it_and_cannot_be_served(cnn_train, run_copy):
    answer = cnn_train("export", run_copy, "--format", "litert-micro", "--json")
    assert answer.code == 0, answer.err
    model = answer.json["manifest"]["models"]["litert-micro"]
    ends = {"input_scale": 1, "input_zero_point": -128, "output_scale": 1 / 256, "output_zero_point": -128}
    assert model["quantization"] == ends
    assert {path.name for path in (run_copy / "export").iterdir()} == {"manifest.json", "model-micro.tflite"}
    assert "next:" not in answer.err
    answer = cnn_train("serve", run_copy)
    formats = "has none of the formats that can be served: onnx, litert, litert-float16, litert-int8"
    assert (answer.code, formats in answer.err) == (6, True)


def test_a_refused_format_ends_with_exit_code_7(cnn_train, run_copy, tmp_path):
    """The checking process gives its probabilities in the wrong order."""
    (tmp_path / "sitecustomize.py").write_text(
        """\
import safetensors.numpy

save = safetensors.numpy.save_file
safetensors.numpy.save_file = lambda arrays, path: save({name: arrays[name][::-1].copy() for name in arrays}, path)
"""
    )
    environment = {"PYTHONPATH": str(tmp_path)}  # only the checking process sees it, because it is started anew
    answer = cnn_train("export", run_copy, "--format", "onnx", "--json", env=environment)
    assert answer.code == 7
    assert answer.json["manifest"] is None
    assert answer.err.splitlines()[-1] == f"error: {answer.json['refused']['onnx']}"
    assert "next:" not in answer.err
    assert not (run_copy / "export").exists()


def test_a_run_without_a_result_is_refused(cnn_train, run_copy):
    record = read_json(run_copy / "run.json") | {"status": "interrupted", "weights_sha256": None}
    (run_copy / "run.json").write_text(json.dumps(record))
    answer = cnn_train("export", run_copy)
    assert (answer.code, answer.out) == (6, "")
    assert f"has no result yet; next: cnn-train resume {run_copy}" in answer.err
    assert not (run_copy / "export").exists()


@pytest.mark.parametrize("words", [["--format", "tflite"], []])
def test_wrong_arguments_are_usage_errors(cnn_train, run_copy, words):
    answer = cnn_train("export", *words, *([run_copy] if words else []))
    assert answer.code == 2
    assert not (run_copy / "export").exists()
