"""Standard streams, in separate processes, because pytest replaces those of a test."""

import subprocess
import sys

import pytest

PROGRAM = """
import os, sys
from cnn_trainer.machine import streams
def write(text): print(text, flush=True); os.write(1, f"{text} below\\n".encode())
"""


def output_of(script, **options):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + script], capture_output=True, text=True, check=True, **options
    )
    return done.stdout, done.stderr


@pytest.mark.parametrize(("target", "err"), [("2", "inside\ninside below\n"), ("None", "")])
def test_output_in_the_block_is_redirected_and_afterwards_restored(target, err):
    script = f"""
print("buffered before", end="\\n")
try:
    with streams.redirected(1, {target}):
        write("inside")
        raise ValueError
except ValueError:
    write("after")
"""
    assert output_of(script) == ("buffered before\nafter\nafter below\n", err)


def test_discarded_output_does_not_come_back():
    assert output_of("write('before'); streams.discard(1); write('after')") == ("before\nbefore below\n", "")


def test_closed_streams_are_opened_on_the_null_device():
    script = """
os.close(0), os.close(1)
sys.stdin = sys.stdout = None
streams.open_closed()
write("nowhere")
sys.stderr.write(f"{sys.stdin.read()!r} {os.open(os.devnull, os.O_RDONLY) > 2}")
"""
    assert output_of(script) == ("", "'' True")
