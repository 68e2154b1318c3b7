"""What is shown while a run trains: on a terminal, in a pipe, and nowhere."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time

import pytest
from screen import CONTROL, Screen
from support import signals_heard

from cnn_trainer.training.display import Display, format_seconds


def frames(received):
    """The live line as it was drawn from time to time, without colours."""
    drawn = re.findall(r"(?:^|\n|2K)((?:epoch|epo…)[^\r\n]*)\r\x1b\[2K", received)
    return [CONTROL.sub("", frame) for frame in drawn]


@pytest.mark.parametrize("columns", [120, 80, 50, 20])
def test_a_live_line_is_drawn_on_a_terminal_and_goes_away(on_terminal, small_config, columns):
    code, received = on_terminal(columns, "train", small_config, "--set", "training.epochs=3")
    assert code == 0, received
    assert ("━" in received) == (columns >= 50)

    screen = Screen(columns).write(received)
    assert screen.cursor_shown
    shown = "\n".join(screen.lines)
    assert "━" not in shown
    assert "starting" not in shown
    assert "left" not in shown
    # Each epoch once and nothing in between, even if a narrow terminal wraps it.
    words = " ".join(shown.split())
    words = words[words.index("epoch 1/3") : words.index("loss, on a" if columns >= 80 else "test accuracy")]
    figures = r"epoch {}/3 loss \d\.\d{{4}} accuracy \d+\.\d\d% [\d,]+ images/s \d+\.\d s "
    assert re.fullmatch("".join(figures.format(epoch) for epoch in (1, 2, 3)), words)


@pytest.mark.parametrize("columns", [120, 80, 50])
def test_the_live_line_keeps_epoch_percentage_accuracy_and_time_left(on_terminal, small_config, columns):
    _, received = on_terminal(columns, "train", small_config, "--set", "training.epochs=100")
    line = re.compile(r"epoch (\d+)/100 [━╸╺]+ (\d+)% .*\baccuracy \d+\.\d\d%.* [\d-]+:[\d-]{2} left *")
    drawn = [frame for frame in frames(received) if "starting" not in frame]
    assert len(drawn) > 5
    for frame in drawn:
        found = line.fullmatch(frame)
        assert found, frame
        assert abs(int(found[2]) - int(found[1])) <= 1  # the bar is that of the whole run
    assert any("loss" in frame for frame in drawn) == (columns >= 80)
    assert any("images/s" in frame for frame in drawn) == (columns >= 100)


def test_no_line_of_the_live_display_is_wider_than_the_terminal(on_terminal, small_config):
    """A line that wraps cannot be erased: the part beyond the edge would stay."""
    _, received = on_terminal(20, "train", small_config, "--set", "training.epochs=2")
    assert frames(received)
    assert all(len(frame) <= 20 for frame in frames(received))


def test_the_accuracy_is_coloured_unless_the_user_wants_no_colours(on_terminal, small_config):
    coloured = r"accuracy (\x1b\[[0-9;]+m)+\d+\.\d\d%\x1b\["
    assert re.search(f"epoch 1/2.*{coloured}", on_terminal(80, "train", small_config)[1])
    plain = on_terminal(80, "train", small_config, NO_COLOR="1")[1]
    assert re.search(r"epoch 1/2.*accuracy \d+\.\d\d%", plain)
    assert not re.search(r"\x1b\[[0-9;]*[34]\d[0-9;]*m", plain)


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


def test_without_a_terminal_each_epoch_is_said_and_nothing_of_the_steps():
    said = []
    display = Display(said.append)
    display.begin(epoch=3, step=5, epochs=4, steps_per_epoch=10, batch_size=128)
    for step in (6, 10):
        display.step(3, step, 0.5, 0.75)
    display.epoch(3, "loss 0.5")
    display.epoch(4, "loss [bold]0.4")
    display.end()
    assert said == ["epoch 3/4  loss 0.5", "epoch 4/4  loss [bold]0.4"]


TRAINING = """
import sys, time
from cnn_trainer.cli.output import say
from cnn_trainer.training.display import Display
display = Display(say, sys.stderr)
display.begin(epoch=1, step=0, epochs=500, steps_per_epoch=1, batch_size=128)
try:
    for epoch in range(1, 501):
        display.step(epoch, 1, 0.5, 0.75)
        time.sleep(0.02)
        if epoch % 50 == 0:
            display.epoch(epoch, "said")
finally:
    display.end()
"""


@pytest.fixture
def shell():
    """A shell on a terminal: a function that types, waits for a pattern, and gives all that came until then."""
    primary, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 50, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "PS1": "ready> ", "COLUMNS": ""}
    command = ["setsid", "--ctty", "bash", "--norc", "--noediting", "-i"]
    with signals_heard():
        process = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment)
    os.close(terminal)
    os.set_blocking(primary, False)

    def type_and_wait(keys, pattern, seconds=30):
        os.write(primary, keys.encode())
        received, give_up = "", time.monotonic() + seconds
        while not re.search(pattern, received, re.DOTALL):
            assert time.monotonic() < give_up, received
            try:
                received += os.read(primary, 65_536).decode(errors="replace")
            except BlockingIOError:
                time.sleep(0.01)
        return received

    yield type_and_wait
    process.kill()
    process.wait()
    os.close(primary)


def test_ctrl_z_gives_the_cursor_back_until_the_run_continues_in_the_foreground(shell, tmp_path):
    (tmp_path / "training.py").write_text(TRAINING)
    started = shell(f"{sys.executable} {tmp_path}/training.py\n", r"epoch \d+/500 .* left")
    assert started.rindex("\x1b[?25l") > started.rfind("\x1b[?25h")
    for _ in range(2):
        stopped = shell("\x1a", "Stopped.*ready> ")
        assert "\x1b[?25h" in stopped
        assert "\x1b[?25l" not in stopped
        continued = shell("fg\n", r"\x1b\[\?25l.*epoch \d+/500 .* left")
        assert "\x1b[?25h" not in continued
    shell("\x1a", "Stopped.*ready> ")
    shell("bg\n", r"epoch \d+/500  said")  # by now the line is gone
    background = shell("", r"epoch \d+/500  said.*epoch \d+/500  said")
    assert "left" not in background
    assert "\x1b[?25l" not in background
    foreground = shell("fg\n", r"\x1b\[\?25l.*epoch \d+/500 .* left")
    assert "epoch" in foreground
    interrupted = shell("\x03", "KeyboardInterrupt.*ready> ")
    assert interrupted.rfind("\x1b[?25h") > interrupted.rfind("\x1b[?25l")


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
