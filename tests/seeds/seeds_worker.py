"""Workers that do not train, and some that do worse."""

import json
import os
import signal
import sys
import threading
import time

from cnn_trainer.runs.records import RunOutcome
from cnn_trainer.seeds.worker import Assignment, News


def outcome_of(seed, runs_dir):
    """What a run would come to."""
    return RunOutcome(
        run=f"{runs_dir}/{seed}",
        status="finished",
        data="mnist",
        requested_data="mnist",
        data_location="mnist.npz",
        epochs=2,
        best_epoch=None,
        train_seconds=1.0,
        test_loss=0.1,
        test_accuracy=seed / 100,
        test_accuracy_interval=[0.0, 1.0],
        test_balanced_accuracy=0.9,
        test_examples=100,
        test_images_sha256="0" * 64,
        weights_sha256=str(seed),
    )


def _tell(**news):
    sys.stdout.write(f"{json.dumps(News(**news).model_dump())}\n")
    sys.stdout.flush()


def _work(end=lambda _: None, begin=lambda _: None):
    """Train one run after the other; ``begin`` is called before each is checked, and ``end`` before it finishes."""
    assignment = Assignment.model_validate_json(sys.stdin.readline())
    for line in sys.stdin:
        seed = json.loads(line)
        if begin(seed):
            continue
        _tell(kind="created", run=f"{assignment.runs_dir}/{seed}")
        _tell(kind="step", epoch=1, done=1, total=2, accuracy=0.5)
        if not end(seed):
            _tell(kind="finished", outcome=outcome_of(seed, assignment.runs_dir))


def compute():
    """A worker that takes no time."""
    _work()


def die_of_2():
    """A worker that the run with seed 2 kills."""
    _work(lambda seed: seed == 2 and os.kill(os.getpid(), signal.SIGKILL))


def crash_of_2():
    """A worker with a defect."""

    def crash(seed):
        if seed == 2:
            raise ZeroDivisionError("a defect")

    _work(crash)


def diverge_of_2():
    """A worker whose run with seed 2 diverges."""

    def diverge(seed):
        if seed == 2:
            _tell(kind="failed", text="diverged", remedy="train slowly", exit_code=8)
        return seed == 2

    _work(diverge)


def refuse():
    """A worker that finds the data broken."""

    def tell(_):
        _tell(kind="failed", text="broken", place="mnist.npz", remedy="repair it", exit_code=4)
        return True

    _work(begin=tell)


def warn():
    """A worker that warns of the same thing in each run."""
    _work(begin=lambda _: _tell(kind="warning", text="slow"))


def never_end():
    """A worker that does not hear SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _work(lambda _: time.sleep(1000))


def end_when_stopped():
    """A worker whose run finishes just as it is stopped."""
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    _work(lambda _: not stopped.wait(1000))


def stop_with_the_parent():
    """A worker that dies of a signal that its parent receives a little later."""

    def stop(_):
        os.system(f"(sleep 0.1; kill -TERM {os.getppid()}) &")  # noqa: S605 -- our own words
        os.kill(os.getpid(), signal.SIGTERM)

    _work(stop)
