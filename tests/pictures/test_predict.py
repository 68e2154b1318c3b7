"""``cnn-train predict`` as a user sees it: pictures go in, classes come out."""

import csv
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cnn_trainer import data
from cnn_trainer.config.schema.data import Mnist5k

from . import photographs


@pytest.fixture(scope="module")
def digits():
    """The test split of mnist-5k: 1,000 images of 28x28."""
    return data.load_split(Mnist5k(source="mnist-5k"), 1, "test")


def lines(answer):
    return [json.loads(line) for line in answer.out.splitlines()]


def test_pictures_as_people_take_them_are_read(cnn_train, digits_run, digits, tmp_path):
    """40 pictures of seven kinds: scans, photographs, shadows, small on a page, ruled paper, a blackboard, a desk."""
    kinds = list(photographs.KINDS)
    labels = {}
    for number in range(40):
        content, suffix = photographs.photograph(digits.images[number * 24, ..., 0], kinds[number % len(kinds)], number)
        path = tmp_path / f"{number:02}{suffix}"
        path.write_bytes(content)
        labels[str(path)] = str(digits.labels[number * 24])
    answer = cnn_train("predict", digits_run, tmp_path, "--json")
    assert answer.code == 0, answer.err
    found = lines(answer)
    assert [line["picture"] for line in found] == sorted(labels)
    assert sum(line["class_name"] == labels[line["picture"]] for line in found) >= 36


def test_drawings_with_a_thin_pen_are_read_at_every_size(cnn_train, digits_run, tmp_path):
    for name in photographs.STROKES:
        small = photographs.drawn(name)
        for times in (1, 10):
            image = Image.fromarray(np.kron(small, np.ones((times, times), np.uint8)))
            image.save(tmp_path / f"{name}-{times}.png")
            Image.eval(image, lambda level: 255 - level).save(tmp_path / f"{name}-{times}-light.jpg")
    answer = cnn_train("predict", digits_run, tmp_path, "--json")
    assert answer.code == 0, answer.err
    found = {line["picture"][len(str(tmp_path)) + 1 :]: line["class_name"] for line in lines(answer)}
    assert len(found) == 4 * len(photographs.STROKES)
    wrong = [name for name, class_name in found.items() if name[0] != class_name]
    assert len(wrong) <= 1, wrong


@pytest.mark.parametrize("suffix", ["webp", "tif", "tiff", "gif", "jfif", "WEBP"])
def test_pictures_of_every_format_are_read(cnn_train, digits_run, digits, tmp_path, suffix):
    for number in range(10):
        image = Image.fromarray(255 - digits.images[number * 100, ..., 0]).resize((280, 280))
        image.save(tmp_path / f"{number}.{suffix}")
    found = [line["label"] for line in lines(cnn_train("predict", digits_run, tmp_path, "--json"))]
    assert len(found) == 10
    assert np.mean(found == digits.labels[::100]) >= 0.9


def test_images_of_the_data_set_itself_are_taken_as_they_are(cnn_train, digits_run, digits, tmp_path):
    with (digits_run / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    for number in range(200):
        Image.fromarray(digits.images[number, ..., 0]).save(tmp_path / f"{number:03}.png")
    found = lines(cnn_train("predict", digits_run, tmp_path, "--json"))
    assert len(found) == 200
    for line, row in zip(found, rows[:200], strict=True):
        assert line["label"] == int(row["prediction"])
        assert line["probability"] == pytest.approx(float(row["probability"]), abs=2e-6)


@pytest.fixture
def picture(digits, tmp_path):
    """A digit as a PNG file."""
    path = tmp_path / "digit.png"
    Image.fromarray(digits.images[0, ..., 0]).save(path)
    return path


def test_the_likeliest_classes_come_first(cnn_train, digits_run, picture):
    [line] = lines(cnn_train("predict", digits_run, picture, "--json", "--top", "10"))
    shares = [entry["probability"] for entry in line["top"]]
    assert len(shares) == 10
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1)
    assert (line["class_name"], line["probability"]) == tuple(line["top"][0].values())
    answer = cnn_train("predict", digits_run, picture, "--top", "2")
    heading, row = answer.out.splitlines()
    assert heading.split() == ["picture", "prediction", "2."]
    assert row.split() == [str(picture), line["class_name"], f"{shares[0]:.1%}", *row.split()[3:]]


def test_a_bad_file_is_named_and_the_others_go_on(cnn_train, digits_run, picture):
    broken = picture.with_name("broken.png")
    broken.write_bytes(picture.read_bytes()[:60])
    blank = picture.with_name("blank.jpg")
    Image.new("L", (300, 200), "white").save(blank)
    answer = cnn_train("predict", digits_run, picture, broken, "no.png", blank, picture, "--json")
    assert answer.code == 4
    assert [line["picture"] for line in lines(answer)] == [str(picture)] * 2
    told = answer.err.splitlines()
    assert [line for line in told if line.startswith(f"error: {broken}: broken picture")]
    assert [line for line in told if line.startswith("error: no.png: no such file")]
    assert [line for line in told if line.startswith(f"error: {blank}: nothing stands out")]
    assert told[-1] == "error: 3 of 5 pictures could not be read"
    assert "Traceback" not in answer.err


def test_a_folder_is_searched_for_pictures(cnn_train, digits_run, picture, tmp_path):
    for place in ("b/two.PNG", "a/one.png", ".hidden/three.png", "b/.four.png", "b/notes.txt"):
        path = tmp_path / "folder" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture.read_bytes())
    answer = cnn_train("predict", digits_run, tmp_path / "folder", "--json")
    assert [line["picture"] for line in lines(answer)] == [
        str(tmp_path / "folder/a/one.png"),
        str(tmp_path / "folder/b/two.PNG"),
    ]
    (tmp_path / "empty").mkdir()
    answer = cnn_train("predict", digits_run, tmp_path / "empty")
    assert answer.code == 4
    assert "holds no picture" in answer.err


def test_standard_input_is_a_picture_too(digits_run, digits):
    file = io.BytesIO()
    Image.fromarray(digits.images[0, ..., 0]).save(file, "BMP")
    words = [sys.executable, "-m", "cnn_trainer", "predict", str(digits_run), "-", "--json"]
    done = subprocess.run(words, input=file.getvalue(), capture_output=True, check=True)
    assert json.loads(done.stdout)["picture"] == "-"
    assert json.loads(done.stdout)["class_name"] == str(digits.labels[0])


@pytest.mark.parametrize(("encoding", "shade"), [("utf-8", "█"), ("ascii", "#")])
def test_what_the_network_sees_is_shown(encoding, shade, digits_run, picture):
    words = [sys.executable, "-m", "cnn_trainer", "predict", str(digits_run), str(picture), "--show"]
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    environment["PYTHONIOENCODING"] = encoding
    done = subprocess.run(words, capture_output=True, encoding=encoding, env=environment, check=True)
    shown = done.stderr.splitlines()
    assert shown[0] == f"{picture}:"
    assert len(shown) == 1 + 28
    assert any(shade * 2 in line for line in shown[1:])


def test_other_shapes_are_resized_and_never_prepared(cnn_train, finished_run, picture):
    [line] = lines(cnn_train("predict", finished_run, picture, "--json"))
    assert line["class_name"] in ("0", "1", "2")
    answer = cnn_train("predict", finished_run, picture, "--prepare")
    assert answer.code == 2
    assert "the run was trained on 12x12x1" in answer.err


def test_nothing_is_written_into_the_run(cnn_train, digits_run, picture):
    before = {path: path.stat().st_mtime_ns for path in digits_run.rglob("*")}
    assert cnn_train("predict", digits_run, picture).code == 0
    assert {path: path.stat().st_mtime_ns for path in digits_run.rglob("*")} == before


def test_more_pictures_than_fit_a_batch_stay_in_order(cnn_train, digits_run, digits, tmp_path):
    names = []
    for number in range(130):
        Image.fromarray(digits.images[number * 7, ..., 0]).save(tmp_path / f"{number:03}.png")
        names.append(os.fspath(tmp_path / f"{number:03}.png"))
    (tmp_path / "064.png").write_bytes(b"nothing")
    answer = cnn_train("predict", digits_run, *names, "--json")
    assert answer.code == 4
    found = {line["picture"]: line["label"] for line in lines(answer)}
    assert list(found) == [name for name in names if not name.endswith("064.png")]
    right = [label == digits.labels[names.index(name) * 7] for name, label in found.items()]
    assert np.mean(right) > 0.9


def test_each_row_of_a_csv_file_is_answered_for(cnn_train, digits_run, digits, tmp_path):
    """Kaggle's test.csv: pixels without labels. Rows look like the images of the data set."""
    path = tmp_path / "test.csv"
    flat = digits.images[:200].reshape(200, -1).tolist()
    text = (
        ",".join(f"pixel{number}" for number in range(784))
        + "\n"
        + "".join(f"{','.join(map(str, row))}\n" for row in flat)
    )
    path.write_text(text)
    found = lines(cnn_train("predict", digits_run, path, "--json"))
    assert [line["picture"] for line in found] == [f"{path}:{number}" for number in range(2, 202)]
    with (digits_run / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    assert [line["label"] for line in found] == [int(row["prediction"]) for row in rows[:200]]


def test_a_wrong_row_of_a_csv_file_is_named(cnn_train, digits_run, tmp_path):
    path = tmp_path / "test.csv"
    path.write_text(",".join(["0"] * 784) + "\n" + ",".join(["0"] * 783 + ["x"]) + "\n")
    answer = cnn_train("predict", digits_run, path, "--json")
    assert answer.code == 4
    assert f"{path}:2: column 784 holds 'x'; expected a number" in answer.err
    path.write_text("label,pixel0\n1,2\n")
    assert "has 1 value per row; an image of 28x28x1 takes 784" in cnn_train("predict", digits_run, path).err
