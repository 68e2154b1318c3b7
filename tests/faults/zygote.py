"""Starts processes of cnn-train that can be killed, each within a fraction of a second.

A process that has imported everything, but started nothing, forks one child for each request. A child is like a newly
started process: it has its own session, arguments, folder, environment and standard streams.

Reads one JSON object a line from stdin: ``argv``, ``cwd``, ``env`` and ``streams``, three paths, null for a closed one;
instead of ``argv`` it may have ``call``: the path of a Python file, the name of a function in it and its arguments.
A child ignores only the signals with the numbers in ``ignored``, even if the tests ignore others.
With ``hasty`` the child skips the interpreter's shutdown, which takes longer than many commands.
Writes JSON lines to stdout: ``{"pid": 1}`` when the child lives, ``{"pid": 1, "code": 0}`` when it has ended.
"""

import json
import os
import runpy
import select
import signal
import sys
import tempfile

MAX_SECONDS = 600  # for one child


def import_everything() -> None:
    from cnn_trainer.machine import backend

    with backend._quiet():
        backend._import_tensorflow()


def become(request: dict) -> None:
    """Become the process that ``request`` asks for."""
    os.setsid()
    hear_signals(request["ignored"] if "ignored" in request else [])
    signal.alarm(MAX_SECONDS)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    tempfile.tempdir = None  # the imports have already looked it up
    for number, path in enumerate(request["streams"]):
        name = ("stdin", "stdout", "stderr")[number]
        if path is None:
            os.close(number)
            setattr(sys, name, None)
            continue
        # The first terminal that is opened here becomes this session's controlling terminal.
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND if number else os.O_RDONLY)
        if file != number:
            os.dup2(file, number)
            os.close(file)
        if number:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
    if "call" in request:
        path, function, arguments = request["call"]
        runpy.run_path(path)[function](*arguments)
        sys.stdout.flush()
        os._exit(0)  # the interpreter's shutdown takes as long as many calls
    sys.argv = ["cnn-train", *request["argv"]]

    from cnn_trainer.__main__ import main

    try:
        main()
    except SystemExit as end:
        if "hasty" not in request:
            raise
        os._exit(end.code)  # main has flushed


def hear_signals(ignored: list[int]) -> None:
    """Reset signals as for a process started from a terminal, no matter how nohup or a shell started the tests."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM):
        heard = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if number in ignored else heard)


def serve() -> None:
    """Answer requests until stdin ends; more than one child may live at a time."""
    import_everything()
    children: set[int] = set()
    os.set_blocking(0, False)
    unread = b""
    while True:
        if select.select([0], [], [], 0.01 if children else None)[0]:
            part = os.read(0, 65_536)
            if not part:
                return
            *lines, unread = (unread + part).split(b"\n")
            for line in lines:
                child = os.fork()
                if not child:
                    become(json.loads(line))
                children.add(child)
                tell({"pid": child})
        for child in [*children]:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                children.remove(child)
                tell({"pid": child, "code": os.waitstatus_to_exitcode(status)})


def tell(answer: dict) -> None:
    os.write(1, f"{json.dumps(answer)}\n".encode())


if __name__ == "__main__":
    serve()
