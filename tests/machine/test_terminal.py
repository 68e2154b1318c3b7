"""What is written to a terminal, and what is not written to anything else."""

import io
import sys

import pytest

from cnn_trainer.machine import terminal


class Terminal(io.StringIO):
    def isatty(self):
        return True


def contrast(number, background):
    """That of one of the 256 colours (WCAG 2.1, https://www.w3.org/TR/WCAG21/#dfn-contrast-ratio)."""
    levels = [0, 95, 135, 175, 215, 255]
    grey = number >= 232
    values = [8 + 10 * (number - 232)] * 3 if grey else [levels[(number - 16) // 6**at % 6] for at in (2, 1, 0)]
    shares = [value / 255 for value in values]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    light = 0.05 + sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return max(light, background) / min(light, background)


@pytest.mark.parametrize("colour", ["GOOD", "FIGURE", "CAUTION", "BAD", "_GREY"])
def test_colours_are_read_on_light_and_on_dark_backgrounds(colour):
    number = getattr(terminal, colour)
    assert contrast(number, 1.05) >= 3.9
    assert contrast(number, 0.05) >= 3.9


@pytest.mark.parametrize(
    ("stream", "environment", "draws", "colours"),
    [
        (Terminal(), {"TERM": "xterm"}, True, True),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": ""}, True, True),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": "1"}, True, False),
        (Terminal(), {"TERM": "dumb"}, False, False),
        (io.StringIO(), {"TERM": "xterm"}, False, False),
        (None, {"TERM": "xterm"}, False, False),
    ],
)
def test_only_terminals_are_drawn_on_and_coloured_if_wanted(stream, environment, draws, colours, monkeypatch):
    for name in ("TERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (terminal.can_draw(stream), terminal.takes_colour(stream)) == (draws, colours)


def test_results_on_their_way_to_a_file_are_not_drawn(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    file, screen = io.StringIO(), Terminal()
    monkeypatch.setattr(sys, "stdout", file)
    with terminal.progress_bar(screen) as bar:
        bar.add_task("working")
        sys.stdout.write("result\n")
    assert file.getvalue() == "result\n"
    assert "working" in screen.getvalue()
    assert "result" not in screen.getvalue()


def test_nothing_is_written_to_what_is_no_terminal():
    file = io.StringIO()
    with terminal.cursor_shown_when_stopped(file):
        pass
    assert not file.getvalue()
