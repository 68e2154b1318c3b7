"""Runs command lines of cnn-train in processes of their own, without the seconds that importing TensorFlow takes.

A process that has imported everything, but started nothing, forks one child for each request. A child has its own
arguments, folder, environment and files, and leaves with its own exit code, as a process started anew has.

Reads one JSON object a line from stdin (argv, cwd, env, stdin, stdout, stderr, the last three being paths) and answers
each with the child's exit code on a line of stdout.
"""

import json
import os
import signal
import sys

MAX_SECONDS = 120  # for one command


def _import_everything() -> None:
    from cnn_trainer import backend

    with backend._quiet(), backend._hidden(backend._NOT_NEEDED_BY_KERAS):
        backend._import_tensorflow()
        import cnn_trainer.cli
        import cnn_trainer.commands
        import cnn_trainer.evaluation
        import cnn_trainer.training  # noqa: F401


def _run(request: dict) -> None:
    """Become the process of one command line."""
    signal.alarm(MAX_SECONDS)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOCTTY
    for number, file in enumerate(
        (os.open(request["stdin"], os.O_RDONLY), *(os.open(request[name], flags) for name in ("stdout", "stderr")))
    ):
        os.dup2(file, number)
        os.close(file)
    for number, name in enumerate(("stdout", "stderr"), start=1):
        setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", closefd=False, buffering=1))
    sys.argv = ["cnn-train", *request["argv"]]

    from cnn_trainer.__main__ import main

    main()


def serve() -> None:
    """Answer requests until stdin ends."""
    _import_everything()
    for line in sys.stdin:
        child = os.fork()
        if not child:
            _run(json.loads(line))
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
