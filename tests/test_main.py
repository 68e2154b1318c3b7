"""How the process starts and leaves."""

import subprocess
import sys

import pytest

# As for process 1 of a container: without its own handler, it does not receive SIGTERM.
DEAF_AND_TERMINATED = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
from cnn_trainer import __main__
__main__._exit_code = lambda: os.kill(os.getpid(), signal.SIGTERM) or 0
__main__.main()
"""

# The callback of a weak reference runs while the interpreter ignores exceptions, and so may be when a signal arrives.
UNRAISABLE = """
import os, signal, time, weakref
from cnn_trainer import __main__
def lose_the_exit():
    thing = type("Thing", (), {})()
    reference = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    del thing
    time.sleep(30)
    return 0
__main__._exit_code = lose_the_exit
__main__.main()
"""

# As some supervisors start it: if SIGCHLD is ignored, no process learns how its children end.
CHILDLESS = """
import signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
from cnn_trainer import __main__
from cnn_trainer.machine.child import run_child
__main__._exit_code = lambda: print(run_child("os:abort").signal_name) or 0
__main__.main()
"""

# As compiled modules made with pybind11 do: whatever is raised while they are imported becomes an ImportError.
STOPPED_IMPORT = """
import os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from cnn_trainer import __main__, cli
from cnn_trainer.errors import DeviceError
def app(prog_name):
    try:
        try:
            os.kill(os.getpid(), signal.SIGNAL)
        except BaseException as error:
            raise ImportError("initialization failed") from error
    except ImportError as error:
        FAILURE
cli.app = app
__main__.main()
"""


def test_sigterm_is_heard_from_the_start_on() -> None:
    done = subprocess.run([sys.executable, "-c", DEAF_AND_TERMINATED], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "")


def test_sigterm_ends_the_process_even_if_it_arrives_while_exceptions_are_ignored() -> None:
    done = subprocess.run([sys.executable, "-c", UNRAISABLE], capture_output=True, text=True, check=False, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "")


def test_how_a_child_ended_is_known_even_if_the_parent_ignores_that() -> None:
    done = subprocess.run([sys.executable, "-c", CHILDLESS], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "SIGABRT\n", "")


@pytest.mark.parametrize(
    "failure", ["raise", "raise DeviceError(f'TensorFlow cannot be imported ({error})') from None"]
)
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_during_an_import_is_not_taken_for_a_broken_module(name: str, code: int, failure: str) -> None:
    program = STOPPED_IMPORT.replace("SIGNAL", name).replace("FAILURE", failure)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")
