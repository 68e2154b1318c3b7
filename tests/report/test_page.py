"""The page of a run as a file: where it is written, what it says if something is missing, and what cannot harm it."""

import base64
import hashlib
import io
import itertools
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from reading import read_html, rows_of
from support import read_json

from cnn_trainer.errors import RunDirectoryError
from cnn_trainer.report import publish

HOSTILE = [
    "<b>bold</b>", "\"'><script>alert(1)</script>", "&lt;", "{{ 7 * 7 }}", "\u202eevil", "\x1b[2J", "a\nb", "é", "日本",
    "x" * 300,
]  # fmt: skip


@pytest.fixture
def run(scored_run, tmp_path):
    """A copy of the run, with the data where it was."""
    return shutil.copytree(scored_run, tmp_path / "digits")


def page_of(cnn_train, run, *options):
    """The page that the command writes, and what it says."""
    answer = cnn_train("report", run, *options)
    assert answer.code == 0, answer.err
    return (run / "report.html").read_text("utf-8"), answer


def change(path, **fields):
    path.write_text(json.dumps({**read_json(path), **fields}))


def test_it_is_written_into_the_run_and_says_where(cnn_train, run):
    answer = cnn_train("report", run, "--json")
    assert answer.json == {"report": str(run / "report.html"), "bytes": (run / "report.html").stat().st_size}
    assert f"report: {run}/report.html, " in answer.err
    assert (run / "report.html").stat().st_size <= 1_000_000


def test_equal_input_gives_equal_bytes(cnn_train, run, tmp_path):
    first, _ = page_of(cnn_train, run)
    again = tmp_path / "again.html"
    assert cnn_train("report", run, "--output", again, env={"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}).code == 0
    assert again.read_text("utf-8") == first
    page_of(cnn_train, run)  # replaces its own page
    assert sorted(path.name for path in run.iterdir() if path.name.startswith(".tmp")) == []


def test_another_file_is_not_replaced(cnn_train, run):
    answer = cnn_train("report", run, "--output", run / "config.yaml")
    assert answer.code == 6
    assert "config.yaml: is already there, and is not a report; choose another file with --output FILE" in answer.err
    assert (run / "config.yaml").read_text().startswith("# The config")
    (run / "report.html").write_text("<!doctype html>\n<title>My own page</title>\n")
    assert cnn_train("report", run).code == 6
    assert "My own page" in (run / "report.html").read_text()
    (run / "report.html").unlink()
    (run / "report.html").symlink_to("run.json")
    assert cnn_train("report", run).code == 6
    assert read_json(run / "run.json")["name"] == "digits"


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_run_that_cannot_be_written_to_needs_output(cnn_train, run):
    run.chmod(0o500)
    answer = cnn_train("report", run)
    run.chmod(0o700)
    assert answer.code == 6
    assert "cannot be written to; choose another file with --output FILE" in answer.err


def test_a_folder_that_is_missing_is_named(cnn_train, run, tmp_path):
    answer = cnn_train("report", run, "--output", tmp_path / "no" / "page.html")
    assert answer.code == 6
    assert f"{tmp_path}/no: there is no such folder; choose another file with --output FILE" in answer.err


def test_the_policy_allows_the_style_of_the_page_and_nothing_else(reported):
    page = reported.page
    [policy] = [meta.attrs["content"] for meta in page.all("meta") if "http-equiv" in meta.attrs]
    style = page.one("style").children[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    parts = ["default-src 'none'", f"style-src 'sha256-{digest}'", "img-src data:", "base-uri 'none'"]
    assert policy == "; ".join([*parts, "form-action 'none'"])
    assert not page.all("script")
    for node in page.walk():
        assert not any(name == "style" or name.startswith("on") for name in node.attrs)
        for name in ("href", "src", "xlink:href"):
            assert node.attrs.get(name, "#").startswith(("#", "data:image/png;base64,"))
    assert not re.search(r"@import|url\(", style)


def test_ids_are_unique_and_references_lead_somewhere(reported):
    ids = [node.attrs["id"] for node in reported.page.walk() if "id" in node.attrs]
    assert len(ids) == len(set(ids))
    for node in reported.page.walk():
        for name in ("popovertarget", "aria-labelledby"):
            assert node.attrs.get(name, ids[0]) in ids
        if node.tag in ("a", "use"):
            assert node.attrs["href"][1:] in ids


def test_headings_are_in_order_and_tables_have_scopes(reported):
    levels = [int(node.tag[1]) for node in reported.page.walk() if re.fullmatch("h[1-6]", node.tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert all(cell.attrs["scope"] in ("row", "col") for cell in reported.page.all("th"))
    assert all(image.attrs["alt"] for image in reported.page.all("img"))
    assert all(image.attrs["aria-label"] for image in reported.page.all("svg", role="img"))


def test_data_that_is_gone_leaves_the_images_out_and_says_so(cnn_train, scored_run, tmp_path):
    folder = shutil.copytree(scored_run.parents[1], tmp_path / "moved")
    run = folder / "runs" / scored_run.name
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace(str(scored_run.parents[1]), str(tmp_path / "gone")))
    change(
        run / "run.json", data={**read_json(run / "run.json")["data"], "location": str(tmp_path / "gone/digits.npz")}
    )
    page, answer = page_of(cnn_train, run)
    assert "WARNING: the page has no images" in answer.err
    root = read_html(page)
    note = root.one("section", aria_labelledby="confusion").one(class_="note").text
    assert note.startswith("The images cannot be shown.")
    assert f"cnn-train report {run} --data PATH" in note
    assert not root.all(id="sprite")
    assert not root.all("use")
    matrix = root.one(class_="matrix")
    assert matrix.all("td")
    assert not matrix.all("button")
    page, answer = page_of(cnn_train, run, "--data", folder / "digits.npz")
    assert answer.err.count("WARNING") == 0
    assert read_html(page).one(id="sprite")


def test_other_images_than_the_scored_ones_are_not_shown(cnn_train, run, scored_run, tmp_path):
    with np.load(scored_run.parents[1] / "digits.npz") as arrays:
        np.savez(tmp_path / "other.npz", **{**arrays, "x_test": arrays["x_test"][::-1]})
    page, answer = page_of(cnn_train, run, "--data", tmp_path / "other.npz")
    assert "other.npz: does not hold the test images that the run was scored on" in answer.err
    assert not read_html(page).all("use")


def test_a_score_of_an_earlier_version_has_a_remedy(cnn_train, run):
    evaluation = read_json(run / "evaluation.json")
    old = {name: value for name, value in evaluation.items() if name not in ("calibration", "probabilities_sha256")}
    (run / "evaluation.json").write_text(json.dumps({**old, "schema_version": 1}))
    (run / "probabilities.safetensors").unlink()
    page, answer = page_of(cnn_train, run)
    assert f"score the run again: cnn-train evaluate {run}" in answer.err
    root = read_html(page)
    assert f"cnn-train evaluate {run}" in root.one("section", aria_labelledby="confusion").one(class_="note").text
    assert [section.attrs["aria-labelledby"] for section in root.all("section")] == [
        "curves", "confusion", "classes", "network", "about",
    ]  # fmt: skip


def test_a_damaged_file_of_probabilities_is_not_shown(cnn_train, run):
    content = bytearray((run / "probabilities.safetensors").read_bytes())
    content[-1] ^= 1
    (run / "probabilities.safetensors").write_bytes(content)
    _, answer = page_of(cnn_train, run)
    assert "probabilities.safetensors: does not belong to the run's score, or is damaged" in answer.err


@pytest.mark.parametrize(
    "fault",
    [
        {"confusion_matrix": [[1]]},
        {"num_examples": 3},
        {"accuracy": 0.5},
        {"accuracy_interval": []},
        {"confusion_matrix": [[-1] * 10] * 10},
        {"classes": []},
    ],
)
def test_a_score_that_contradicts_itself_is_refused(cnn_train, run, fault):
    change(run / "evaluation.json", **fault)
    answer = cnn_train("report", run)
    assert answer.code == 6
    assert "evaluation.json: its figures contradict each other, or the run; score the run again" in answer.err


def test_an_unfinished_run_has_its_curves_and_its_config(cnn_train, run):
    for name in ("evaluation.json", "predictions.csv", "probabilities.safetensors", "weights.safetensors"):
        (run / name).unlink()
    change(run / "run.json", status="paused", epochs_done=2, weights_sha256=None, best_epoch=None)
    page, _ = page_of(cnn_train, run)
    root = read_html(page)
    resume = f"To continue it: cnn-train resume {run}"
    assert (
        root.one(class_="verdict").text
        == f"An unfinished run (paused, 3 epochs done), which has no test score. {resume}"
    )
    assert [section.attrs["aria-labelledby"] for section in root.all("section")] == ["curves", "about"]
    (run / "metrics.jsonl").unlink()
    page, _ = page_of(cnn_train, run)
    assert [section.attrs["aria-labelledby"] for section in read_html(page).all("section")] == ["about"]


def test_a_score_of_other_weights_is_not_shown(cnn_train, run):
    change(run / "run.json", weights_sha256="0" * 64)
    page, _ = page_of(cnn_train, run)
    root = read_html(page)
    words = "A run (finished, 3 epochs done) without a test score of its weights. To score it: cnn-train evaluate"
    assert root.one(class_="verdict").text == f"{words} {run}"
    assert not root.all("section", aria_labelledby="confusion")


def test_a_run_that_diverged_says_why(cnn_train, run):
    (run / "evaluation.json").unlink()
    change(run / "run.json", status="diverged", weights_sha256=None, error="the loss is not finite")
    page, _ = page_of(cnn_train, run)
    words = "An unfinished run (diverged, 3 epochs done), which has no test score: the loss is not finite"
    assert read_html(page).one(class_="verdict").text == words


def test_weights_that_are_gone_are_said_to_be(cnn_train, run):
    (run / "weights.safetensors").unlink()
    page, _ = page_of(cnn_train, run)
    note = read_html(page).one("section", aria_labelledby="network").one(class_="note").text
    assert note.startswith("The weights cannot be shown.")


@pytest.fixture
def hostile_run(cnn_train, tmp_path):
    """A run with hostile names of classes and versions, on tall images in colour."""
    random = np.random.default_rng(2)
    labels = np.arange(60) % len(HOSTILE)
    arrays = {name: random.integers(0, 256, (60, 9, 5, 3), np.uint8) for name in ("x_train", "x_test")}
    np.savez(tmp_path / "noise.npz", **arrays, y_train=labels, y_test=labels)
    (tmp_path / "noise.yaml").write_text(
        "name: noise\ndata: {source: npz, path: noise.npz}\nmodel: {builder: mlp, hidden_units: [3]}\n"
        "training: {epochs: 1, batch_size: 20}\nruntime: {device: cpu}\n"
    )
    answer = cnn_train("train", "noise.yaml", "--json", cwd=tmp_path)
    assert answer.code == 0, answer.err
    run = tmp_path / answer.run
    record, evaluation = read_json(run / "run.json"), read_json(run / "evaluation.json")
    change(
        run / "run.json",
        name="<img src=x>\u202e",
        data={**record["data"], "class_names": HOSTILE, "requested": "<i>\x07"},
        versions={"<b>": "</dl>\x00"},
        git_commit="</html>",
    )
    classes = [{**score, "name": name} for score, name in zip(evaluation["classes"], HOSTILE, strict=True)]
    change(run / "evaluation.json", classes=classes, source="<u>")
    return run


def test_text_from_files_never_becomes_markup(cnn_train, hostile_run):
    page, _ = page_of(cnn_train, hostile_run)
    root = read_html(page)
    assert not any(root.all(tag) for tag in ("i", "u", "script"))
    assert all(re.fullmatch(r"#\d+", node.text) for node in root.all("b"))
    assert all(node.attrs["src"].startswith("data:") for node in root.all("img"))
    assert root.one("h1").text == r"<img src=x>\u202e, seed 1"
    heads = [cell.text for cell in root.one(class_="matrix").one("thead").all("th")][1:-1]
    shown = [name if len(name) <= 24 else f"{name[:23]}…" for name in HOSTILE]
    shown = [r"\u202eevil" if "\u202e" in name else name for name in shown]
    assert heads == [name.replace("\x1b", r"\x1b").replace("\n", r"\n") for name in shown]
    assert all(letter.isprintable() for letter in page.replace("\n", ""))
    assert "</dl>\\x00" in root.one("section", aria_labelledby="about").text


def test_the_config_is_compared_with_the_defaults_of_its_own_kinds(cnn_train, hostile_run):
    page, _ = page_of(cnn_train, hostile_run)
    rows = rows_of(read_html(page).one("section", aria_labelledby="about").one("table"))
    assert [row for row in rows if row[0] != "data.path"] == [
        ["name", '"noise"', '"experiment"'],
        ["data.source", '"npz"', '"mnist"'],
        ["model.builder", '"mlp"', '"cnn"'],
        ["model.hidden_units", "[3]", "[64]"],
        ["training.epochs", "1", "10"],
        ["training.batch_size", "20", "128"],
    ]


def test_images_in_colour_of_any_shape_are_shown_as_they_are(cnn_train, hostile_run):
    page, _ = page_of(cnn_train, hostile_run)
    root = read_html(page)
    content = root.one(id="sprite").attrs["href"].split(",")[1]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
    with np.load(hostile_run.parents[1] / "noise.npz") as arrays:
        images = arrays["x_test"]
    tiles = root.all("li")
    shown = [tile for tile in tiles if tile.all("use")]
    assert len(shown) >= 60
    for tile in shown:
        left, top, width, height = map(int, tile.one("svg").attrs["viewbox"].split())
        assert (width, height) == (5, 9)
        index = int(tile.one("b").text[1:])
        assert np.array_equal(pixels[top : top + 9, left : left + 5], images[index])
        assert (tile.one("svg").attrs["width"], tile.one("svg").attrs["height"]) == ("37", "68")


def test_tensorflow_is_not_loaded(scored_run, tmp_path):
    program = (
        "import sys\nfrom cnn_trainer.__main__ import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        "print(sorted({'tensorflow', 'keras', 'mlxtend', 'optuna'} & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", program, "report", scored_run, "--output", tmp_path / "page.html"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("missing", ["jinja2", "vl_convert"])
def test_without_the_extra_it_says_how_to_install_it(cnn_train, run, tmp_path, missing):
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / f"{missing}.py").write_text(f"raise ModuleNotFoundError('no', name='{missing}')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "without")}
    command = [sys.executable, "-m", "cnn_trainer", "report", run]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 5
    assert f"error: {missing} is not installed; install what report needs with: " in done.stderr
    assert "cnn-trainer[report]" in done.stderr


def test_a_folder_that_cannot_be_written_to_is_found_before_any_work(run, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(RunDirectoryError, match="cannot be written to; choose another file with --output FILE"):
        publish.require_place(run / "report.html")


def test_open_shows_the_page_in_the_browser(cnn_train, run, tmp_path):
    script = tmp_path / "browser"
    script.write_text(f'#!/bin/sh\necho "$1" > {tmp_path / "shown"}\n')
    script.chmod(0o755)
    answer = cnn_train("report", run, "--open", env={"BROWSER": f"{script} %s"})
    assert answer.code == 0, answer.err
    assert (tmp_path / "shown").read_text().strip() == (run / "report.html").as_uri()
    answer = cnn_train("report", run, "--open", env={"BROWSER": "/bin/false %s", "PATH": ""})
    assert answer.code == 1
    assert f"error: --open: no browser was found; open {run / 'report.html'} yourself" in answer.err
