"""How the process starts and leaves."""

import subprocess
import sys

# As process 1 of a container has it: without a handler of its own, SIGTERM is not heard.
DEAF_AND_TERMINATED = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
from cnn_trainer import __main__
__main__._exit_code = lambda: os.kill(os.getpid(), signal.SIGTERM) or 0
__main__.main()
"""


def test_sigterm_is_heard_from_the_start_on() -> None:
    done = subprocess.run([sys.executable, "-c", DEAF_AND_TERMINATED], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "")
