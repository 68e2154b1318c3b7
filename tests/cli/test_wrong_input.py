"""Wrong configs, data files and arguments on the real command line: each gives a line or a short list, the right exit
code, no traceback, and leaves nothing behind.
"""

import gzip
import io
import os
import re
import zipfile

import numpy as np
import pytest
from PIL import Image

USAGE, CONFIG, DATA, DEVICE, RUN = 2, 3, 4, 5, 6


def npz(**arrays):
    """The bytes of an npz file."""
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def member_cut_short(content):
    """An npz file with an intact table of contents and a truncated first array."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as whole, zipfile.ZipFile(file, "w") as cut:
        for name in whole.namelist():
            array = whole.read(name)
            cut.writestr(name, array[: len(array) // 2] if name == "x_train.npy" else array)
    return file.getvalue()


@pytest.fixture
def refused(cnn_train, small_config, tmp_path):
    """A function that runs a command in ``tmp_path``, and expects an exit code, a message, and no files left behind."""

    def check(code, pattern, *words, env=None):
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        answer = cnn_train(*words, cwd=tmp_path, env=env)
        assert answer.code == code, answer.err
        assert answer.out == ""
        assert "Traceback" not in answer.err
        lines = answer.err.splitlines()
        if code == USAGE:
            assert len(lines) <= 4
        else:
            assert len(lines) <= 12
            told = lines[-1:] if code == RUN else lines  # by then the program has said what it would train
            assert all(line.startswith("error: ") for line in told)
        assert re.search(pattern, answer.err), answer.err
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
        return lines

    return check


# Each is a fault in one key of an otherwise right config.
WRONG_SETTINGS = {
    "training.learning_rte=0.1": r"training\.learning_rte: unknown key; did you mean learning_rate\?",
    "training.epochs=0": r"training\.epochs: got 0; must be at least 1",
    "training.epochs=2.5": r"training\.epochs: .*2\.5",
    "training.batch_size=193": r"training\.batch_size: got 193; at most 192, the size of the training split",
    "training.optimizer=adm": r"training\.optimizer: got 'adm'; .*did you mean adam\?",
    "training.learning_rate=.nan": r"training\.learning_rate: .*nan",
    "training.learning_rate=fast": r"training\.learning_rate: got 'fast'; expected a number",
    "training.early_stopping={patience: 3}": r"early_stopping: needs a validation split; set data\.validation_fraction",
    "training.schedule={name: cosin}": r"training\.schedule\.name: .*cosin.*cosine",
    "training.schedule={name: constant, factor: 2}": r"training\.schedule\.factor: unknown key",
    "model.kernel_size=13": r"model\.kernel_size: got 13 for block 1, but the image that reaches it is 12x12",
    "model.filters=[4, 4, 4]": r"model\.(kernel|pool)_size: got [23] for block 3, but the image that reaches it is 1x1",
    "model.filters=[]": r"model\.filters: ",
    "model.filters=4": r"model\.filters: ",
    "model.dropout=1": r"model\.dropout: ",
    "model.dense_units=[65536, 65536]": r"model\.dense_units: the network has .* parameters up to this layer; at most",
    "data.source=minst": r"data\.source: got 'minst'; .*did you mean mnist\?",
    "data={source: mnist-5k, validation_fraction: 0.0001}": r"got 0\.0001, which leaves no validation example out of 4",
    "name=../../etc/passwd": r"name: got '\.\./\.\./etc/passwd'",
    "runtime.towers=0": r"runtime\.towers: got 0",
    "nonsense": r"--set nonsense: not of the form key=value, such as training\.epochs=3",
    "=3": r"--set =3: not of the form key=value",
    "training=[1": r"--set training=\[1",
    "training.epochs.more=1": r"--set training\.epochs\.more=1: epochs is a value, not a section",
}


@pytest.mark.parametrize("setting", WRONG_SETTINGS)
def test_a_wrong_setting_is_named_with_its_value(refused, small_config, setting):
    lines = refused(CONFIG, WRONG_SETTINGS[setting], "train", small_config, "--set", setting)
    assert len(lines) == 1


def test_all_faults_of_a_config_are_listed_with_their_lines(refused, tmp_path):
    (tmp_path / "wrong.yaml").write_text(
        "name: no good\nseed: -1\ndata: {source: mnist-5k}\nmodel:\n  builder: cnn\n  filters: [0]\ntraning: {}\n"
    )
    lines = refused(CONFIG, r"wrong\.yaml:7: traning: unknown key; did you mean training\?", "train", "wrong.yaml")
    assert [line.split(":")[2] for line in lines] == ["1", "2", "6", "7"]


WRONG_FILES = {
    "empty": (b"", r"wrong\.yaml"),
    "not a mapping": (b"- 1\n", r"wrong\.yaml:1: a config is a mapping of keys; start one with: cnn-train config init"),
    "duplicate key": (b"seed: 1\nseed: 2\n", r"wrong\.yaml:2: .*seed"),
    "tab": (b"data:\n\tsource: mnist\n", r"wrong\.yaml:2: "),
    "alias": (b"a: &a [1]\nb: *a\n", r"wrong\.yaml:[12]: "),
    "deep": (b"[" * 3000, r"wrong\.yaml:1: "),
    "not text": (b"\xff\xfe\x00", r"wrong\.yaml"),
    "too large": (b"#" * 70_000, r"wrong\.yaml"),
    "object tag": (b"!!python/object/apply:os.system ['touch here']\n", r"wrong\.yaml:1: "),
}


@pytest.mark.parametrize("kind", WRONG_FILES)
def test_a_file_that_is_no_config_is_refused(refused, tmp_path, kind):
    content, pattern = WRONG_FILES[kind]
    (tmp_path / "wrong.yaml").write_bytes(content)
    refused(CONFIG, pattern, "train", "wrong.yaml")


def test_a_config_that_is_not_there_is_refused(refused):
    refused(CONFIG, r"error: nowhere\.yaml: ", "train", "nowhere.yaml")
    refused(CONFIG, r"error: \.: ", "train", ".")


WRONG_DATA = {
    "empty": (lambda _: b"", "empty"),
    "a web page": (lambda _: b"<!DOCTYPE html><html><body>Log in</body></html>", "web page"),
    "another format": (lambda _: gzip.compress(b"123" * 100), "not a zip file"),
    "truncated": (lambda right: npz(**right)[:-2000], "is not a zip file"),
    "truncated inside": (lambda right: member_cut_short(npz(**right)), "x_train.*bytes"),
    "one byte changed": (lambda right: npz(**right).replace(right["x_train"][7].tobytes(), bytes(144)), "x_train"),
    "no labels": (lambda right: npz(x_train=right["x_train"]), "y_train: no such array; the file holds x_train"),
    "two scales": (
        lambda right: npz(**right | {"x_train": right["x_train"] / 255}),
        "the training images from 0 to 1; convert the test images to 0 to 1: x / 255",
    ),
    "normalised": (lambda right: npz(**right | {"x_train": right["x_train"] / 128 - 1}), r"\(\(x \+ 1\) \* 127\.5\)"),
    "dark": (lambda right: npz(**right | {"x_train": right["x_train"] // 128}), "is 1 of 255, .*multiply by 255"),
    "NaN": (lambda right: npz(**right | {"x_train": np.full((192, 12, 12), np.nan)}), "float64 with NaN or infinity"),
    "flat images": (lambda right: npz(**right | {"x_train": right["x_train"].reshape(192, 144)}), "shape .192, 144."),
    "no images": (lambda right: npz(**right | {"x_train": right["x_train"][:0]}), "shape .0, 12, 12.*holds nothing"),
    "fewer labels": (lambda right: npz(**right | {"y_train": right["y_train"][:5]}), "5 labels for the 192 images"),
    "negative label": (lambda right: npz(**right | {"y_train": right["y_train"].astype(int) - 1}), "the label -1"),
    "huge label": (lambda right: npz(**right | {"y_train": right["y_train"].astype(int) * 10**9}), "label 2000000000"),
    "a gap": (lambda right: npz(**right | {"y_train": right["y_train"] * 2}), "no training example has the label 1"),
    "one class": (lambda right: npz(**right | {"y_train": right["y_train"] * 0}), "two classes or more"),
    "one-hot labels": (lambda right: npz(**right | {"y_train": np.eye(3, dtype="i4")[right["y_train"]]}), "argmax"),
    "NaN labels": (lambda right: npz(**right | {"y_train": np.full(192, np.nan)}), "labels are float64"),
    "objects": (lambda right: npz(**right | {"x_train": np.array([print] * 192)}), "x_train"),
}


@pytest.mark.parametrize("kind", WRONG_DATA)
def test_a_broken_data_file_is_refused_before_anything_is_written(refused, small_config, strokes, tmp_path, kind):
    make, pattern = WRONG_DATA[kind]
    path = tmp_path / "strokes.npz"
    path.write_bytes(make(strokes))
    lines = refused(DATA, pattern, "train", small_config)
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {path}: ")


def test_data_that_is_not_there_is_refused(refused, small_config, tmp_path):
    for data in (
        "{source: npz, path: nowhere.npz}",
        "{source: idx, path: nowhere}",
        "{source: folder, path: nowhere}",
        "{source: mnist, path: nowhere}",
        "{source: npz, path: .}",
    ):
        lines = refused(DATA, f"error: {tmp_path}", "train", small_config, "--set", f"data={data}")
        assert len(lines) == 1


def test_another_file_is_not_taken_for_mnist(refused, small_config, tmp_path):
    refused(
        DATA,
        "MNIST has 60000 of 28x28",
        "train",
        small_config,
        "--set",
        "data={source: mnist, path: strokes.npz}",
    )


@pytest.fixture
def pictures(tmp_path):
    """A folder of twelve pictures in two classes."""
    for name, level in (("dark", 20), ("light", 220)):
        folder = tmp_path / "pictures" / name
        folder.mkdir(parents=True)
        for number in range(6):
            Image.new("L", (20, 16), level + number).save(folder / f"{number}.png")
    return tmp_path / "pictures"


def test_pictures_too_small_for_the_network_are_refused(refused, small_config, pictures):
    words = ["train", small_config, "--set", "data={source: folder, path: pictures, image_size: 9}"]
    words += ["--set", "training.batch_size=4"]
    refused(
        CONFIG,
        "kernel_size: got 11 for block 1, but the image that reaches it is 9x9",
        *words,
        "--set",
        "model.kernel_size=11",
    )


def test_a_broken_picture_and_an_empty_class_are_refused(refused, small_config, pictures):
    words = ["train", small_config, "--set", "data={source: folder, path: pictures}", "--set", "training.batch_size=2"]
    broken = pictures / "dark" / "2.png"
    content = broken.read_bytes()
    for wrong in (content[:40], b"", b"<html>"):
        for path in (pictures / "dark").iterdir():
            path.write_bytes(wrong)  # no matter which ones are chosen for training
        refused(DATA, r"pictures/dark/\d\.png", *words)
    for path in (pictures / "dark").iterdir():
        path.unlink()
    refused(DATA, "dark", *words)


WRONG_WORDS = {
    "no such command": (["trian"], USAGE, "No such command 'trian'"),
    "no such option": (["train", "small.yaml", "--epochs", "3"], USAGE, "No such option"),
    "no config": (["train"], USAGE, "Missing argument 'CONFIG'"),
    "no such device": (["train", "small.yaml", "--device", "tpu"], USAGE, "'tpu' is not one of 'auto', 'cpu', 'gpu'"),
    "accuracy above 1": (["evaluate", "latest", "--min-accuracy", "2"], USAGE, "less than or equal to 1"),
    "accuracy of a word": (["evaluate", "latest", "--min-accuracy", "high"], USAGE, "should be a valid number"),
    "no such split": (["evaluate", "latest", "--split", "tset"], USAGE, "'tset' is not one of"),
    "no run yet": (["evaluate", "latest"], RUN, "there is no run under runs yet; start one with: cnn-train train"),
    "unknown run": (["evaluate", "20260101-mnist"], RUN, "no such path, and no such run under runs"),
    "run that climbs": (["evaluate", "../../etc"], RUN, r"'\.\./\.\./etc': no such path|no run\.json"),
    "folder that is no run": (["resume", "."], RUN, r"is not a run directory: it has no run\.json"),
    "no epochs to resume to": (["resume", "latest", "--epochs", "0"], USAGE, "greater than or equal to 1"),
    "name that climbs": (["train", "small.yaml", "--name", "../out"], CONFIG, r"name: got '\.\./out'"),
    "empty name": (["train", "small.yaml", "--name", ""], CONFIG, "name: "),
    "no GPU": (["train", "small.yaml", "--device", "gpu"], DEVICE, "TensorFlow finds none"),
}


@pytest.mark.parametrize("kind", WRONG_WORDS)
def test_wrong_words_are_refused(refused, kind):
    words, code, pattern = WRONG_WORDS[kind]
    refused(code, pattern, *words, env={"CUDA_VISIBLE_DEVICES": "-1"})


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_runs_folder_that_cannot_be_written_is_refused(refused, small_config, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    refused(
        RUN, "closed.*no run can be created: .*closed cannot be written to", "train", small_config, "--runs-dir", closed
    )


def test_a_place_that_cannot_hold_runs_is_refused(refused, small_config):
    for place in ("/proc/runs", small_config, small_config / "runs"):
        refused(
            RUN, f"error: {place}: (cannot|no run can) be created: .*; ", "train", small_config, "--runs-dir", place
        )


def test_a_validation_split_without_every_class_is_refused(refused, small_config):
    words = ["train", small_config, "--set", "data.validation_fraction=0.001"]
    refused(DATA, r"data\.validation_fraction: a share of 0\.001 of 192 examples in 3 classes", *words)
