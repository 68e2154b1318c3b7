"""What a signal does to work that can be killed at any time, and to work that notes it."""

import os
import pty
import signal
import subprocess
import sys

import pytest
from support import signals_heard

AT_ONCE = """
import os, signal, sys
from cnn_trainer.machine import stopping
with stopping.leaving_at_once("go on"):
    os.close(2)  # as if it were redirected
    if sys.argv[2] == "noted":
        with stopping.stop_requests() as stop:
            os.kill(os.getpid(), int(sys.argv[1]))
            assert stop.signal_number == int(sys.argv[1])
            os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), int(sys.argv[1]))
"""


def ended(*words):
    with signals_heard():
        return subprocess.run([sys.executable, "-c", AT_ONCE, *words], capture_output=True, check=False)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_what_can_be_killed_with_the_last_words(number):
    done = ended(str(int(number)), "")
    assert (done.returncode, done.stderr) == (128 + number, b"go on\n")


def test_a_second_ctrl_c_has_the_last_words_of_the_block_around_it():
    done = ended("2", "noted")
    assert (done.returncode, done.stderr) == (130, b"go on\n")


def test_a_terminal_has_its_cursor_back():
    primary, terminal = pty.openpty()
    with signals_heard():
        process = subprocess.Popen([sys.executable, "-c", AT_ONCE, "15", ""], stderr=terminal)
    os.close(terminal)
    assert process.wait() == 143
    assert os.read(primary, 100) == b"\x1b[?25h\r\ngo on\r\n"
    os.close(primary)


def test_the_handlers_of_before_are_back_after_the_block():
    from cnn_trainer.machine import stopping

    before = [signal.getsignal(number) for number in stopping.SIGNALS]
    with stopping.leaving_at_once("go on"):
        assert [signal.getsignal(number) for number in stopping.SIGNALS] != before
    assert [signal.getsignal(number) for number in stopping.SIGNALS] == before
