"""What the lines of the program look like on a terminal, and what others make of them."""

import io
import re
import sys

import pytest

from cnn_trainer.cli import output
from cnn_trainer.errors import count


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def shown(monkeypatch):
    """A function: what stderr, a terminal, gets of a line."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)

    def show(line):
        monkeypatch.setattr(sys, "stderr", Terminal())
        output.say(line)
        return sys.stderr.getvalue()

    return show


@pytest.mark.parametrize(
    ("line", "coloured"),
    [
        ("error: no such file: error: it", ["error:"]),
        ("WARNING: slow", ["WARNING:"]),
        ("test accuracy 97.50% (95 % interval 90.00% to 99.00%)", ["97.50%"]),
        ("digits  finished  mnist  12  97.50%  3 s", ["finished", "97.50%"]),
        ("status  diverged", ["diverged"]),
        ("a.yaml: ok: 3 epochs", ["ok"]),
        ("a run that is not finished: no error", []),
    ],
)
def test_what_informs_is_coloured_and_nothing_else(shown, line, coloured):
    found = shown(line)
    assert re.sub(r"\x1b\[[0-9;]*m", "", found) == line + "\n"
    assert re.findall(r"m([^\x1b]+)\x1b\[0m", found) == coloured


def test_colours_in_a_text_from_elsewhere_are_escaped(shown):
    assert "\x1b[5m" not in shown("error: \x1b[5mblinks")


def test_no_colours_if_the_user_wants_none(shown, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    assert shown("error: no such file") == "error: no such file\n"


def test_no_colours_in_a_pipe(monkeypatch, capsys):
    monkeypatch.setenv("TERM", "xterm")
    output.say("error: no such file")
    assert capsys.readouterr().err == "error: no such file\n"


def test_a_count_has_its_noun_in_the_right_number():
    assert [count(number, "epoch") for number in (0, 1, 2, 1000)] == ["0 epochs", "1 epoch", "2 epochs", "1,000 epochs"]
    assert [count(number, "class", "classes") for number in (1, 2)] == ["1 class", "2 classes"]
