import subprocess
import sys
from pathlib import Path

import pytest

from cnn_trainer.errors import RunDirectoryError
from cnn_trainer.runs.paths import resolve_run, run_names


@pytest.fixture
def runs_dir(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("20260101-000000-digits", "20260303-000000-clothes", "20260202-000000-digits", "mine"):
        make(tmp_path / "runs" / name)
    return Path("runs")


def make(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "run.json").write_bytes(b"")
    return path


def test_a_run_is_found_by_name_by_path_and_as_the_latest(runs_dir, tmp_path):
    newest = runs_dir / "20260303-000000-clothes"
    assert resolve_run("20260303-000000-clothes", runs_dir) == newest
    assert resolve_run("latest", runs_dir) == newest
    assert resolve_run("mine", runs_dir) == runs_dir / "mine"
    for text in ("runs/mine", "./runs/mine/", str(tmp_path / "runs" / "mine"), "runs/../runs/mine"):
        assert resolve_run(text, runs_dir) == Path(text)
    (runs_dir / "link").symlink_to("mine")
    assert resolve_run("runs/link", runs_dir) == Path("runs/link")  # a path given by the user is followed


def test_latest_skips_links_and_runs_that_were_not_fully_created(runs_dir, tmp_path):
    (runs_dir / "20260404-000000-half").mkdir()
    (runs_dir / "20260505-000000-link").symlink_to(make(tmp_path / "elsewhere"))
    assert resolve_run("latest", runs_dir).name == "20260303-000000-clothes"


def test_latest_without_a_run_says_how_to_start_one(tmp_path):
    (tmp_path / "20260404-000000-half").mkdir()
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(RunDirectoryError, match=r"there is no run under .* yet; start one with: cnn-train train"):
            resolve_run("latest", folder)


@pytest.mark.parametrize(
    "text", ["..", ".", "", "../secret", "x/../../secret", "a\0b", "n" * 300, "n/" * 3000, "\x1b[2J"]
)
def test_a_name_never_leaves_the_runs_directory(runs_dir, tmp_path, text):
    make(tmp_path / "runs" / "inner" / "runs")
    make(tmp_path / "runs" / "inner" / "secret")
    (tmp_path / "runs" / "inner" / "run.json").write_bytes(b"")
    with pytest.raises(RunDirectoryError, match=r"no such path|is not a run directory"):
        resolve_run(text, tmp_path / "runs" / "inner" / "runs")


def test_a_link_under_the_runs_directory_is_not_followed(runs_dir, tmp_path):
    (runs_dir / "20260505-000000-link").symlink_to(make(tmp_path / "elsewhere"))
    (runs_dir / "loop").symlink_to("loop")
    for name in ("20260505-000000-link", "loop"):
        with pytest.raises(RunDirectoryError, match="is a symbolic link, which is not followed here"):
            resolve_run(name, runs_dir)


def test_a_folder_that_is_not_a_run_is_refused(runs_dir, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (runs_dir / "empty").mkdir()
    for text in ("file", "empty", str(tmp_path), "runs"):
        with pytest.raises(RunDirectoryError, match=r"is not a run directory: it has no run\.json"):
            resolve_run(text, runs_dir)
    (runs_dir / "file").write_bytes(b"")
    with pytest.raises(RunDirectoryError, match="is a file, not a folder"):
        resolve_run("file", runs_dir)


def test_an_unknown_name_is_answered_with_similar_ones(runs_dir):
    with pytest.raises(RunDirectoryError) as raised:
        resolve_run("digit", runs_dir)
    assert str(raised.value) == (
        "'digit': no such path, and no such run under runs; did you mean 20260202-000000-digits?; "
        "see: cnn-train runs list"
    )
    with pytest.raises(RunDirectoryError, match="did you mean 20260303-000000-clothes"):
        resolve_run("20260303-000000-cloths", runs_dir)


def test_names_for_completion_are_newest_first_and_never_fail(runs_dir, tmp_path):
    (runs_dir / "notes").mkdir()
    (runs_dir / "20260909-000000-odd\n").mkdir()
    expected = ["20260303-000000-clothes", "20260202-000000-digits", "20260101-000000-digits", "mine"]
    assert run_names(runs_dir) == expected
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path / "file", tmp_path / "missing"):
        assert run_names(folder) == []


def test_completion_loads_nothing_slow():
    script = "import sys, cnn_trainer.runs.paths; print({'pydantic', 'yaml', 'numpy'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "set()\n"
