"""An export on disk is read without being trusted."""

import json
import shutil
import subprocess
import sys

import pytest
from support import read_json

from cnn_trainer.errors import RunDirectoryError
from cnn_trainer.export import folder
from cnn_trainer.export.manifest import PATHS


@pytest.fixture
def export_dir(exported, tmp_path):
    """A copy of the export that a test may change."""
    return shutil.copytree(exported[0], tmp_path / "export")


def refused(function, *arguments):
    with pytest.raises(RunDirectoryError) as caught:
        function(*arguments)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_every_model_of_an_export_is_verified(export_dir):
    manifest = folder.read(export_dir)
    assert len(manifest.models) == len(PATHS)
    for model in manifest.models.values():
        assert folder.verify(export_dir, model) == export_dir / model.path


def test_a_folder_without_a_manifest_is_not_an_export(tmp_path):
    message = refused(folder.read, tmp_path)
    assert message == f"{tmp_path}: is not an export: it has no manifest.json; make one with: cnn-train export RUN"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content.update(more=1), "manifest.json: more: extra inputs"),
        (lambda content: content.update(models={}), "manifest.json: models: "),
        (lambda content: content.update(test_accuracy=2), "manifest.json: test_accuracy: "),
        (
            lambda content: content["models"].update(onnx=content["models"]["keras"]),
            "models.onnx: has the wrong format or path",
        ),
        (
            lambda content: content["models"]["onnx"].update(path="../model.onnx"),
            "models.onnx: has the wrong format or path",
        ),
        (lambda content: content["models"]["onnx"]["sha256"].update(more="00"), "manifest.json: models.onnx.sha256"),
    ],
)
def test_a_manifest_that_this_program_would_not_write_is_refused(export_dir, change, words):
    content = read_json(export_dir / "manifest.json")
    change(content)
    (export_dir / "manifest.json").write_text(json.dumps(content))
    assert words in refused(folder.read, export_dir)


def test_a_huge_manifest_is_not_read(export_dir):
    with (export_dir / "manifest.json").open("ab") as file:
        file.truncate(2**30)
    assert "is too large" in refused(folder.read, export_dir)


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def append_gigabytes(path):
    with path.open("ab") as file:
        file.truncate(2**40)


def replace_by_link(path):
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


@pytest.mark.parametrize("damage", [flip_a_bit, append_gigabytes, replace_by_link, lambda path: path.unlink()])
@pytest.mark.parametrize(
    ("name", "file"), [("onnx", "model.onnx"), ("saved-model", "saved-model/1/variables/variables.index")]
)
def test_a_model_that_does_not_match_the_manifest_is_refused(export_dir, name, file, damage):
    manifest = folder.read(export_dir)
    damage(export_dir / file)
    assert str(export_dir / "") in refused(folder.verify, export_dir, manifest.models[name])
    assert folder.verify(export_dir, manifest.models["litert"])


def test_a_file_added_to_a_saved_model_is_found(export_dir):
    model = folder.read(export_dir).models["saved-model"]
    (export_dir / "saved-model/1/assets").mkdir(exist_ok=True)
    (export_dir / "saved-model/1/assets/more").write_bytes(b"")
    assert "does not match its entry in manifest.json" in refused(folder.verify, export_dir, model)


def test_a_linked_folder_is_not_followed(export_dir):
    model = folder.read(export_dir).models["saved-model"]
    replace_by_link(export_dir / "saved-model")
    assert "is a symbolic link" in refused(folder.verify, export_dir, model)


def test_a_folder_of_countless_files_is_not_read_to_its_end(export_dir):
    model = folder.read(export_dir).models["saved-model"]
    for number in range(folder.MAX_FILES):
        (export_dir / f"saved-model/1/{number}").touch()
    assert "holds more than 100 files" in refused(folder.verify, export_dir, model)


def test_reading_an_export_needs_neither_numpy_nor_tensorflow(export_dir):
    program = (
        "import sys\nfrom pathlib import Path\nfrom cnn_trainer.export import folder as exports\n"
        "folder = Path(sys.argv[1])\n"
        "for model in exports.read(folder).models.values(): exports.verify(folder, model)\n"
        "print(*{'numpy', 'tensorflow', 'keras'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", program, export_dir], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
