"""A run directory from a stranger can be shown, evaluated and resumed without running any code from it."""

import json

import pytest

from .harness import FOLDER

EXPECTED = {0, 3, 4, 6}
MORE_MEGABYTES = 1024  # than a normal run takes, including TensorFlow


@pytest.fixture(scope="module")
def meeting(zygote, reference, tmp_path_factory) -> tuple[dict, str]:
    child = zygote.call("meet", reference.dir, tmp_path_factory.mktemp("strangers"), file="strangers.py")
    return json.loads(child.stdout.splitlines()[-1]), child.stderr


def test_every_strangers_run_is_accepted_or_refused_with_a_message(meeting):
    report, words = meeting
    assert len(report) >= 50
    assert report["nothing wrong"]["codes"] == [0, 0, 0]
    for name, found in report.items():
        assert set(found["codes"]) <= EXPECTED, name
    assert "Traceback" not in words
    assert "\x1b" not in words


def test_what_a_stranger_made_up_about_progress_is_refused(meeting):
    for name, found in meeting[0].items():
        if name.startswith("a state with "):
            assert found["codes"] == [6], name


def test_networks_too_large_are_refused_before_they_are_built(meeting):
    for name in ("a huge dense layer", "sixteen huge dense layers", "a huge convolution", "a wide network"):
        assert set(meeting[0][name]["codes"][1:]) <= {3, 6}, name
    assert meeting[0]["huge images"]["codes"][1:] == [3, 3]


def test_nothing_outside_is_touched_nothing_runs_and_memory_stays_bounded(meeting):
    for name, found in meeting[0].items():
        assert found["untouched"], name  # so the canary was not made
        assert found["more_megabytes"] < MORE_MEGABYTES, name


def test_the_canary_would_sing(tmp_path):
    import pickle
    import runpy

    strangers = runpy.run_path(str(FOLDER / "strangers.py"))
    pickle.loads(strangers["pickled"](tmp_path))  # noqa: S301
    assert (tmp_path / strangers["CANARY"]).exists()
