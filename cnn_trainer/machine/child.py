"""Runs functions of this package in a separate process, which may hang, print anything, or be killed by a signal."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from cnn_trainer.machine import streams

# The child imports this package from the same place as its parent, and nothing from the working folder.
_CHILD = (
    "import importlib, json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "module, function = sys.argv.pop(1).split(':'); getattr(importlib.import_module(module), function)()"
)


@dataclass(frozen=True)
class Ended:
    """How a child ended."""

    failure: str | None
    """Why it failed, in one line; None if its exit code was 0."""
    exit_code: int | None
    """None if it was stopped by a signal or the time limit, or did not start."""
    signal_name: str | None
    """The signal that ended it, such as SIGILL; None if there was none."""
    stdout: str
    messages: list[str]
    """The lines that it wrote to stderr, without empty ones."""


def run_child(
    function: str,
    *words: str,
    timeout_seconds: float | None = None,
    environment: Mapping[str, str] | None = None,
    folder: str | None = None,
) -> Ended:
    """Call ``function`` in a new process of this interpreter, without stdin, and wait until it ends. Never raises.

    Args:
        function: ``package.module:function``, which takes no arguments.
        words: The function finds these in ``sys.argv[1:]``.
        timeout_seconds: The child is killed after this time.
        environment: Variables to set in addition to those of this process.
        folder: A folder to import from in addition to ``sys.path``.
    """
    try:
        done = subprocess.run(  # noqa: S603 -- this interpreter, and our own arguments
            _command(function, words, folder),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_seconds,
            env={**os.environ, **(environment or {})},
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Ended(f"its process did not end within {timeout_seconds:.0f} seconds", None, None, "", [])
    except OSError as error:
        return Ended(f"no process could be started: {error.strerror}", None, None, "", [])
    messages = [line for line in done.stderr.splitlines() if line.strip()]
    return how_it_ended(done.returncode, messages, done.stdout)


def _command(function: str, words: Sequence[str], folder: str | None = None) -> list[str]:
    path = [*sys.path, *([folder] if folder else [])]
    return [sys.executable, "-P", "-c", _CHILD, json.dumps(path), function, *words]


def start_child(function: str, *words: str) -> "subprocess.Popen[str]":
    """Call ``function`` in a new process, as ``run_child`` does, with pipes for stdin, stdout and stderr.

    Raises OSError if no process can be started.
    """
    pipe = subprocess.PIPE
    return subprocess.Popen(  # noqa: S603 -- this interpreter, and words of ours
        _command(function, words),
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        encoding="utf-8",
        errors="replace",
    )


def hear(process: "subprocess.Popen[str]", messages: deque[str], tell: Callable[[str | None], None]) -> None:
    """From a new thread, call ``tell`` with each line that a child writes to stdout, and with None once it has ended.

    A line that was cut off when the child died is left out. What it writes to stderr is added to ``messages``.
    """

    def listen() -> None:
        with suppress(OSError), process:  # closing its stdin fails if it died before it read everything
            reader = threading.Thread(target=messages.extend, args=(process.stderr or (),), daemon=True)
            reader.start()
            for line in process.stdout or ():
                if line.endswith("\n"):
                    tell(line)
            reader.join()
        process.wait()
        tell(None)

    threading.Thread(target=listen, daemon=True).start()


def send(process: "subprocess.Popen[str]", value: Any) -> None:
    """Write ``value`` to a child's stdin as a line of JSON in ASCII. If the child has died, nothing happens."""
    if process.stdin is not None:
        with suppress(OSError, ValueError):
            process.stdin.write(f"{json.dumps(value)}\n")
            process.stdin.flush()


def end_children(processes: Sequence["subprocess.Popen[str]"], grace_seconds: float) -> None:
    """Send all children SIGTERM, and kill those that have not ended after ``grace_seconds``."""
    for process in processes:
        process.terminate()
    give_up = time.monotonic() + grace_seconds
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, give_up - time.monotonic()))
        process.kill()
        process.wait()


def sent_lines() -> "SimpleQueue[str]":
    """In the child: the lines that its parent sends. The process ends at once if stdin is closed."""
    lines: SimpleQueue[str] = SimpleQueue()

    def listen() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    return lines


def how_it_ended(code: int, messages: list[str], stdout: str = "") -> Ended:
    """What ``code``, negative for a signal, says of a child that has ended, and what it wrote."""
    if code < 0:
        name = next((known.name for known in signal.Signals if known == -code), f"signal {-code}")
        return Ended(f"its process was ended by {name}", None, name, stdout, messages)
    last = f": {messages[-1][:300]}" if messages else ""
    return Ended(f"exit code {code}{last}" if code else None, code, None, stdout, messages)


def answer(compute: Callable[[], Any]) -> None:
    """In the child: print the value of ``compute()`` as JSON. Anything it prints itself goes to stderr."""
    with streams.redirected(1, 2):
        value = compute()
    sys.stdout.write(f"{json.dumps(value)}\n")
