"""What an export leaves behind: the files that passed, and nothing else, no matter what happens meanwhile."""

import errno
import fcntl
import json
import os
import shutil
from pathlib import Path

import pytest
import tensorflow as tf  # noqa: F401 -- starts the tests' TensorFlow before a run does
from support import read_json

from cnn_trainer.errors import DataError, DeviceError, RunDirectoryError, UsageError
from cnn_trainer.export import folder as exports
from cnn_trainer.export import formats, publish
from cnn_trainer.export.manifest import PATHS
from cnn_trainer.machine import facts
from cnn_trainer.runs import store
from cnn_trainer.storage import strict_json


@pytest.fixture
def export_to(run_copy, tmp_path):
    """A function that exports the run in some formats to ``tmp_path / "export"`` in this process."""

    def export_formats(*wanted, run_dir=run_copy, say=lambda _: None):
        return publish.export_run(store.open_run(run_dir), wanted, tmp_path / "export", None, say)

    return export_formats


@pytest.fixture
def wrong_onnx(monkeypatch, tamper):
    """The ONNX file gets other weights than the run."""
    write = formats._WRITERS["onnx"]

    def write_and_tamper(source, path):
        write(source, path)
        tamper(path, path, 1.01)

    monkeypatch.setitem(formats._WRITERS, "onnx", write_and_tamper)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def change_manifest(folder, **changes):
    path = folder / "manifest.json"
    path.write_text(json.dumps(read_json(path) | changes))


def test_an_export_that_differs_is_refused_and_the_others_are_kept(export_to, tmp_path, wrong_onnx):
    found = export_to("onnx", "litert")
    assert list(found.refused) == ["onnx"]
    assert "onnx: differs from the run: a probability differs by " in found.refused["onnx"]
    assert names(tmp_path / "export") == ["manifest.json", "model.tflite"]
    assert exports.read(tmp_path / "export") == found.manifest
    assert list(found.manifest.models) == ["litert"]


def test_an_earlier_export_stays_if_a_new_one_is_refused(export_to, tmp_path, request):
    export_to("onnx")
    before = contents(tmp_path / "export")
    request.getfixturevalue("wrong_onnx")
    found = export_to("onnx")
    assert (list(found.refused), found.manifest) == (["onnx"], None)
    assert contents(tmp_path / "export") == before


def test_if_no_format_passes_nothing_is_left(export_to, tmp_path, wrong_onnx):
    assert export_to("onnx").manifest is None
    assert not (tmp_path / "export").exists()


def test_formats_are_added_to_an_export_and_equal_files_are_not_touched(run_copy, exported, export_to, tmp_path):
    shutil.copytree(exported[0], tmp_path / "export")
    (tmp_path / "export/model.tflite").unlink()
    before = {path: path.stat().st_ino for path in (tmp_path / "export").rglob("*") if path.name != "manifest.json"}
    said = []
    found = export_to("litert-int8", say=said.append)
    # Removed files are no longer listed; no other file was replaced.
    assert list(found.manifest.models) == [
        "saved-model",
        "onnx",
        "litert-float16",
        "litert-int8",
        "litert-micro",
        "keras",
    ]
    assert [line for line in said if line.startswith("WARNING: ") and "model.tflite" in line]
    changed = {path for path, number in before.items() if path.stat().st_ino != number}
    assert changed <= {tmp_path / "export/model-int8.tflite"}
    for model in found.manifest.models.values():
        exports.verify(tmp_path / "export", model)


def test_a_saved_model_is_replaced(exported, export_to, tmp_path, monkeypatch):
    shutil.copytree(exported[0], tmp_path / "export")
    record = exports.read(tmp_path / "export").models["saved-model"].parity
    monkeypatch.setattr(
        "cnn_trainer.export.parity.check_parity", lambda *_: record
    )  # TensorFlow takes a while to start
    (tmp_path / "export/saved-model/1/saved_model.pb").write_bytes(b"damaged")
    found = export_to("saved-model")
    assert len(found.manifest.models) == len(PATHS)
    exports.verify(tmp_path / "export", found.manifest.models["saved-model"])


def test_models_of_weights_that_the_run_no_longer_has_are_removed(exported, export_to, tmp_path):
    shutil.copytree(exported[0], tmp_path / "export")
    change_manifest(tmp_path / "export", weights_sha256="0" * 64)
    said = []
    found = export_to("onnx", say=said.append)
    assert list(found.manifest.models) == ["onnx"]
    assert names(tmp_path / "export") == ["manifest.json", "model.onnx", "saved-model"]
    assert names(tmp_path / "export/saved-model") == []
    assert "keras: removed, because it was exported from earlier weights of the run" in said


@pytest.mark.parametrize("change", ["manifest of another run", "file of another program"])
def test_files_that_do_not_belong_to_this_run_are_not_replaced(exported, export_to, tmp_path, change):
    shutil.copytree(exported[0], tmp_path / "export")
    if change == "manifest of another run":
        change_manifest(tmp_path / "export", weights_sha256="0" * 64, run="another")
    else:
        (tmp_path / "export/manifest.json").unlink()
    before = contents(tmp_path / "export")
    with pytest.raises(RunDirectoryError, match=r"; (remove it|move it away), or name another place with --output$"):
        export_to("onnx")
    assert contents(tmp_path / "export") == before


@pytest.mark.parametrize("place", [1, 2])
def test_a_failure_while_files_get_their_names_leaves_a_manifest_of_what_is_there(
    exported, export_to, tmp_path, monkeypatch, place
):
    folder = tmp_path / "export"
    shutil.copytree(exported[0], folder)
    for name in ("model.onnx", "model.tflite"):
        (folder / name).write_bytes(b"damaged")
    rename, moved = Path.rename, []

    def fail(path, target):
        moved.append(target)
        if len(moved) == place:
            raise OSError(28, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(RunDirectoryError, match="No space left"):
        export_to("onnx", "litert")
    manifest = exports.read(folder)
    assert list(manifest.models) == ["saved-model", "litert-float16", "litert-int8", "litert-micro", "keras"]
    for model in manifest.models.values():
        exports.verify(folder, model)
    assert not list(folder.glob(".tmp*"))


def test_a_skipped_check_by_tensorflow_lite_micro_gives_a_warning(export_to, no_tflite_micro):
    said = []
    found = export_to("litert-micro", say=said.append)
    assert found.manifest.models["litert-micro"].parity.micro is None
    install = facts.install_command("cnn-trainer[litert-micro]")
    words = "it was checked only with LiteRT, not with TensorFlow Lite Micro; install it on Linux on x86-64 with"
    words += f": {install}"
    assert said[-1] == f"WARNING: litert-micro: {words}"


def test_two_exports_to_one_place_do_not_mix(export_to, tmp_path):
    (tmp_path / "export").mkdir()
    folder = os.open(tmp_path / "export", os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    try:
        with pytest.raises(RunDirectoryError, match="another process is exporting to this place; wait for it, or name"):
            export_to("onnx")
    finally:
        os.close(folder)
    assert export_to("onnx").manifest


def test_a_folder_that_cannot_be_locked_is_exported_to_with_a_warning(export_to, tmp_path, monkeypatch):
    """As on NFS, which cannot lock a folder because a folder cannot be opened for writing."""

    def refused(*_):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(fcntl, "flock", refused)
    told = []
    assert export_to("keras", say=told.append).manifest
    assert told[0].startswith(f"WARNING: {tmp_path / 'export'}: the file system cannot lock this folder (Bad file")
    assert names(tmp_path / "export") == ["manifest.json", "model.keras"]


def test_what_a_killed_export_left_is_removed(export_to, tmp_path):
    stray = tmp_path / "export/.tmp-export-abc/saved-model/1"
    stray.mkdir(parents=True)
    (stray / "saved_model.pb").write_bytes(b"half")
    export_to("onnx")
    assert names(tmp_path / "export") == ["manifest.json", "model.onnx"]


def test_a_run_in_float64_is_exported_in_float32(cnn_train, finished_run, export_to, tmp_path):
    words = ("--set", "runtime.precision=float64", "--set", "training.epochs=1", "--runs-dir", tmp_path / "runs")
    answer = cnn_train("train", "small.yaml", *words, "--json", cwd=finished_run.parents[1])
    found = export_to("onnx", run_dir=answer.run)
    assert found.manifest.models["onnx"].parity.max_difference < 1e-5


def stop(*_):
    raise AssertionError("work was begun")


@pytest.mark.parametrize(
    ("wanted", "error", "words"),
    [
        ("onnx", DeviceError, "--format onnx: onnxruntime cannot be found; install what it needs with: "),
        ("litert", DeviceError, "--format litert: ai_edge_litert cannot be found; install what it needs with: "),
    ],
)
def test_a_missing_runtime_is_named_before_any_work(export_to, tmp_path, monkeypatch, wanted, error, words):
    missing = ("onnxruntime", "ai_edge_litert")
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None if module in missing else object())
    monkeypatch.setattr(publish, "_prepare", stop)
    with pytest.raises(error) as caught:
        export_to(wanted)
    assert str(caught.value).startswith(words)
    assert not (tmp_path / "export").exists()


def test_a_place_that_cannot_be_written_is_refused_before_any_work(run_copy, tmp_path, monkeypatch):
    monkeypatch.setattr(publish, "_prepare", stop)
    (tmp_path / "file").touch()
    with pytest.raises(RunDirectoryError) as caught:
        publish.export_run(store.open_run(run_copy), ["onnx"], tmp_path / "file/export", None, print)
    assert str(caught.value).startswith(f"{tmp_path}/file/export: cannot be written: ")
    assert str(caught.value).endswith("; or name another place with --output")


def test_a_linked_export_folder_in_a_run_is_not_followed(run_copy, tmp_path, monkeypatch):
    monkeypatch.setattr(publish, "_prepare", stop)
    (tmp_path / "elsewhere").mkdir()
    (run_copy / "export").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunDirectoryError, match="is a symbolic link"):
        publish.export_run(store.open_run(run_copy), ["onnx"], None, None, print)
    assert names(tmp_path / "elsewhere") == []


def test_a_network_too_large_for_a_file_is_refused(export_to, tmp_path, monkeypatch):
    monkeypatch.setattr(publish, "_prepare", stop)
    monkeypatch.setattr(publish, "count_weights", lambda *_: 2**29)
    monkeypatch.setattr("cnn_trainer.evaluation.evaluate.refuse_small", lambda *_: None)
    with pytest.raises(UsageError, match="has 536,870,912 weights, but such a file holds at most 2 GiB; use --format"):
        export_to("saved-model", "onnx")
    assert not (tmp_path / "export").exists()


def test_missing_data_is_named_and_nothing_is_left(finished_run, run_copy, tmp_path):
    with pytest.raises(DataError, match=r"gone\.npz: no such file"):
        publish.export_run(store.open_run(run_copy), ["onnx"], None, tmp_path / "gone.npz", print)
    assert not (run_copy / "export").exists()


def test_the_name_of_a_run_in_a_manifest_is_text(run_copy):
    odd = run_copy.rename(os.fsdecode(os.fsencode(run_copy) + b"\xff"))
    name = publish._run_name(store.open_run(odd))
    assert name == f"{run_copy.name}\\udcff"
    assert strict_json.parse_json(strict_json.format_json(name)) == name
