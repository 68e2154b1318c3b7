"""What children of the zygote do instead of a plain command line. Arguments are strings."""

import errno
import fcntl
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from cnn_trainer.__main__ import main
from cnn_trainer.runs import checkpoint
from cnn_trainer.training import loop


def hurry(config: str, runs_dir: str, run: str, call: str, wanted: str) -> None:
    """Train or resume with a checkpoint after nearly every step; die as from kill -9 at one system call.

    An empty ``run`` starts a new run; with an empty ``call`` the process does not die.
    """
    loop._PYTHON_EVERY_SECONDS = 0.01
    loop.time = SimpleNamespace(monotonic=lambda: 20 * time.monotonic())
    if call:
        die_at(call, wanted)
    sys.argv = ["cnn-train", *(["resume", run] if run else ["train", config]), "--runs-dir", runs_dir]
    main()


def die_at(call: str, wanted: str) -> None:
    """Make one call of ``os.<call>`` the last thing that this process does; a write gets half done.

    ``wanted``: which call, counted from 1; or for rename also the new name, as in ``run.json:2``.
    """
    real, made = getattr(os, call), 0
    name, colon, number = wanted.rpartition(":")

    def dying(*arguments, **options):
        nonlocal made
        made += not colon or arguments[1] == name
        if made == int(number) and (not colon or arguments[1] == name):
            if call == "write":
                real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)

    setattr(os, call, dying)


def without_locks(calls: str, rename: str, *words: str) -> None:
    """Run ``cnn-train words`` without these calls of fcntl, separated by commas: ``flock,lockf``.

    It dies at the given rename (see ``die_at``), if there is one.
    """

    def refused(*_):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    for call in calls.split(","):
        setattr(fcntl, call, refused)
    if rename:
        die_at("rename", rename)
    sys.argv = ["cnn-train", *words]
    main()


def without_writing(run: str, error: str, *words: str) -> None:
    """Run ``cnn-train words`` while the system refuses to open anything in the run directory except for reading."""
    real, number = os.open, getattr(errno, error)

    def refusing(path, flags, *arguments, dir_fd=None, **options):
        place = Path(path).parent if dir_fd is None else f"/proc/self/fd/{dir_fd}"
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and os.path.realpath(place).startswith(run):
            raise OSError(number, os.strerror(number))
        return real(path, flags, *arguments, dir_fd=dir_fd, **options)

    os.open = refusing
    sys.argv = ["cnn-train", *words]
    main()


def evaluate_and_die(run: str, call: str, wanted: str) -> None:
    die_at(call, wanted)
    sys.argv = ["cnn-train", "evaluate", run]
    main()


def resume_and_die(run: str, epochs: str, call: str, wanted: str) -> None:
    """Train further, to this many epochs, and die at one call."""
    die_at(call, wanted)
    sys.argv = ["cnn-train", "resume", run, "--epochs", epochs]
    main()


def write_checkpoint_and_die(folder: str, call: str, wanted: str) -> None:
    """Write the checkpoint of step 3, and die at one call."""
    die_at(call, wanted)
    arrays = {"weights": np.full((100, 100), 3, np.float32)}
    checkpoint.write_checkpoint(Path(folder), 3, checkpoint.Checkpoint(arrays, {"step": 3}))


def train_on_a_jumping_clock(config: str, runs_dir: str) -> None:
    """Train while the wall clock goes back by a day each time it is read."""
    from datetime import UTC, datetime, timedelta

    from cnn_trainer.runs import store
    from cnn_trainer.storage import strict_json

    day = 0

    class Jumping(datetime):
        @classmethod
        def now(cls, zone=None):
            nonlocal day
            day += 1
            return datetime(2030, 1, 1, tzinfo=UTC) - timedelta(days=day)

    strict_json.datetime = store.datetime = Jumping
    time.time = lambda: Jumping.now().timestamp()
    sys.argv = ["cnn-train", "train", config, "--runs-dir", runs_dir]
    main()


def resume_with_slow_checkpoints(run: str) -> None:
    """Resume, with checkpoints that take ten seconds each."""
    write = loop._write_checkpoint
    loop._write_checkpoint = lambda *arguments: (time.sleep(10), write(*arguments))
    sys.argv = ["cnn-train", "resume", run]
    main()


def resume_from_damaged_checkpoints(run: str, count: str, seed: str) -> None:
    """Damage the newest checkpoint of a finished run, each time in another place, and train from the one before."""
    from cnn_trainer.config.load import Config
    from cnn_trainer.machine.stopping import StopRequest
    from cnn_trainer.runs import store
    from cnn_trainer.training.display import Display
    from cnn_trainer.training.prepare import Feedback, prepare

    chance, run_dir = np.random.default_rng(int(seed)), Path(run)
    opened = store.open_run(run_dir)
    digest = opened.record.weights_sha256
    session = prepare(Config(opened.experiment, run), Feedback()).session
    newest, before = checkpoint.checkpoint_paths(run_dir / "checkpoints")
    whole, content = newest.read_bytes(), before.read_bytes()
    for number in range(int(count)):
        damaged = bytearray(whole)
        if number % 4 == 3:
            del damaged[chance.integers(len(whole)) :]
        else:
            place = chance.integers(len(whole) if number % 2 else 9000)  # the header is short, and more code reads it
            damaged[place] ^= 1 << chance.integers(8)
        newest.write_bytes(damaged)
        warnings: list[str] = []
        with store.lock_run(opened):
            found = loop.train_run(opened, session, Display(), StopRequest(), warnings.append, resume=True)
        assert len(warnings) == 1, warnings
        assert "using the previous checkpoint" in warnings[0]
        assert found == digest
        assert newest.read_bytes()[-1000:] == whole[-1000:]  # written anew, the same arrays
        before.write_bytes(content)
