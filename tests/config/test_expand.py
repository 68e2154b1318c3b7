"""Paths of configs: what is filled in, what is not, and how a path with any signs is written."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnn_trainer.config.expand import expand_path, literal_path
from cnn_trainer.errors import DataError


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DATA", "/data")
    monkeypatch.setenv("HERE", "~/here")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("ODD", "/$DATA/~")
    monkeypatch.delenv("NONE", raising=False)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/a/b", "/a/b"),
        ("~/a", "/home/me/a"),
        ("~", "/home/me"),
        ("$DATA/a", "/data/a"),
        ("${DATA}/a", "/data/a"),
        ("${DATA}a", "/dataa"),
        ("/x$DATA$DATA", "/x/data/data"),
        ("$HERE/a", "/home/me/here/a"),
        ("$ODD", "/$DATA/~"),
        ("/a/~", "/a/~"),
        ("/cash$", "/cash$"),
        ("/5$/$1", "/5$/$1"),
        ("/$$DATA", "/$DATA"),
        ("/$$$DATA", "/$/data"),
    ],
)
def test_home_and_variables_are_filled_in(text: str, path: str) -> None:
    assert expand_path(text) == Path(path)


def test_a_relative_path_is_seen_from_here(tmp_path: Path) -> None:
    assert expand_path("a") == tmp_path / "a"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("$NONE/a", "the environment variable NONE is not set; set NONE, or write the path out; $$ stands for a "),
        ("/a/${EMPTY}", "the environment variable EMPTY is empty; set EMPTY, or write the path out"),
        ("${oc.env:DATA}", "${oc.env:DATA} is not filled in here; write the path out, or an environment"),
        ("${DATA:-/x}", "${DATA:-/x} is not filled in here"),
        ("${DATA", "${DATA is not filled in here"),
        ("${}", "${} is not filled in here"),
        ("~nobody-of-that-name/a", "the home folder for ~ is not known; write the path out"),
    ],
)  # fmt: skip
def test_what_cannot_be_filled_in_is_refused(text: str, fault: str) -> None:
    with pytest.raises(DataError) as caught:
        expand_path(text)
    assert str(caught.value).startswith(f"{text}: {fault}")


@given(st.text(st.sampled_from("$~{}DATA/ a"), max_size=12))
def test_a_literal_path_is_read_as_it_is(text: str) -> None:
    path = Path("/", text)
    assert expand_path(literal_path(path)) == path
