"""What is shown while a run trains: on a terminal, in a pipe, and nowhere."""

import fcntl
import io
import os
import pty
import re
import struct
import termios
import threading

import pytest

from cnn_trainer.training.display import Display, choose_mode, format_seconds

CONTROL = re.compile(r"\x1b\[(?P<numbers>[?0-9;]*)(?P<letter>[A-Za-z])")


class Screen:
    """Simulates a terminal with ``columns``; understands only the control codes that Rich sends."""

    def __init__(self, columns):
        self.columns, self.lines, self.row, self.column, self.cursor_shown = columns, [""], 0, 0, True

    def write(self, text):
        place = 0
        while place < len(text):
            control = CONTROL.match(text, place)
            if control:
                self._obey(control["letter"], control["numbers"])
                place = control.end()
                continue
            self._put(text[place])
            place += 1
        return self

    def _obey(self, letter, numbers):
        if numbers == "?25":
            self.cursor_shown = letter == "h"
        elif letter == "K":
            assert numbers == "2"
            self.lines[self.row] = ""
        elif letter == "A":
            self.row -= int(numbers)
        else:
            assert letter == "m", f"{letter} is not understood"

    def _put(self, letter):
        if letter == "\r":
            self.column = 0
            return
        if letter == "\n" or self.column == self.columns:
            self.row += 1
            self.column = 0 if letter != "\n" else self.column
            if self.row == len(self.lines):
                self.lines.append("")
        if letter != "\n":
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[: self.column] + letter + line[self.column + 1 :]
            self.column += 1


@pytest.fixture
def on_terminal(cnn_train, tmp_path):
    """A function that runs a command line with stderr on a terminal of this width, and returns its output."""

    def run(columns, *words, **environment):
        primary, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        received = bytearray()

        def read():
            try:
                while part := os.read(primary, 65_536):
                    received.extend(part)
            except OSError:  # the terminal was closed
                pass

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        environment = {"TERM": "xterm-256color"} | environment
        answer = cnn_train(*words, cwd=tmp_path, stderr=os.ttyname(terminal), env=environment)
        os.close(terminal)
        reader.join(timeout=10)
        os.close(primary)
        return answer.code, received.decode()

    return run


@pytest.mark.parametrize("columns", [80, 20])
def test_a_live_line_is_drawn_on_a_terminal_and_removed(on_terminal, small_config, columns):
    code, received = on_terminal(columns, "train", small_config, "--set", "training.epochs=3")
    assert code == 0, received
    bars = re.findall("━+", received)
    assert bool(bars) == (columns == 80)
    assert len(max(bars, default="", key=len)) <= 20

    screen = Screen(columns).write(received)
    assert screen.cursor_shown
    shown = "\n".join(screen.lines)
    assert "━" not in shown
    assert "starting" not in shown
    assert "left" not in shown
    # Each epoch appears once and nothing between them, but wrapped if the terminal is narrow.
    words = " ".join(shown.split())
    words = words[words.index("epoch 1/3") : words.index("test accuracy")]
    figures = r"epoch {}/3 loss \d\.\d{{4}} accuracy \d+\.\d\d% [\d,]+ images/s \d+\.\d s "
    assert re.fullmatch("".join(figures.format(epoch) for epoch in (1, 2, 3)), words)


def test_no_line_of_the_live_display_is_wider_than_the_terminal(on_terminal, small_config):
    """A line that wraps cannot be removed: the wrapped part would stay."""
    _, received = on_terminal(20, "train", small_config, "--set", "training.epochs=2")
    frames = re.findall(r"(?:^|\n|2K)((?:epoch|epo…)[^\r\n]*)\r\x1b\[2K", received)
    assert frames
    assert all(len(CONTROL.sub("", frame)) <= 20 for frame in frames)


def test_a_terminal_without_control_codes_gets_plain_lines(on_terminal, small_config):
    code, received = on_terminal(80, "train", small_config, TERM="dumb")
    assert code == 0
    assert "\x1b" not in received
    assert len(re.findall("^epoch ./2  loss", received, re.MULTILINE)) == 2


def test_quiet_draws_nothing_on_a_terminal(on_terminal, small_config):
    assert on_terminal(80, "train", small_config, "--quiet") == (0, "")


def test_failed_training_shows_the_cursor_again(on_terminal, small_config):
    words = [
        "--set",
        "training.optimizer=sgd",
        "--set",
        "training.learning_rate=1000",
        "--set",
        "model.activation=linear",
    ]
    code, received = on_terminal(80, "train", small_config, *words)
    assert code == 8
    assert "\x1b[?25l" in received
    screen = Screen(80).write(received)
    assert screen.cursor_shown
    assert not [line for line in screen.lines if "━" in line]
    assert any(line.startswith("error: the training loss became infinite or NaN") for line in screen.lines)


def test_a_pipe_gets_lines_a_terminal_a_live_line_and_quiet_nothing():
    primary, terminal = pty.openpty()
    with os.fdopen(terminal, "w") as stream:
        assert choose_mode(stream, quiet=False) == "live"
        assert choose_mode(stream, quiet=True) == "quiet"
    os.close(primary)
    assert choose_mode(io.StringIO(), quiet=False) == "lines"


def test_lines_name_each_epoch_of_all_and_nothing_of_the_steps():
    stream = io.StringIO()
    display = Display(stream, "lines")
    display.begin(epoch=3, step=5, epochs=4, steps_per_epoch=10, batch_size=128)
    for step in (6, 10):
        display.step(3, step, 0.5, 0.75)
    display.epoch(3, "loss 0.5")
    display.epoch(4, "loss [bold]0.4")
    display.end()
    assert stream.getvalue() == "epoch 3/4  loss 0.5\nepoch 4/4  loss [bold]0.4\n"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 00 min"),
        (7845, "2 h 10 min"),
    ],
)
def test_times_have_at_most_two_units(seconds, words):
    assert format_seconds(seconds) == words
