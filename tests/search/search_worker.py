"""Workers that compute their answers instead of training, and some that do worse."""

import hashlib
import json
import math
import os
import random
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from cnn_trainer.search.records import JobResult
from cnn_trainer.search.schedule import Job
from cnn_trainer.search.worker import WorkerAnswer


def computed(job, diverges=lambda changes: False):
    """What a worker would answer, if training were this function of the job's parameters and epochs."""
    changes = dict(job.changes)
    facts = {"trial": job.trial, "final": job.final, "rung": job.rung, "changes": changes}
    times = {"seconds": 2.0, "step_seconds": 1.5}
    if diverges(changes):
        return JobResult(**facts, **times, status="diverged", epochs=1)
    distance = abs(math.log10(changes["training.learning_rate"]) + 2) if "training.learning_rate" in changes else 1.0
    text = json.dumps([changes, job.last_epoch], sort_keys=True)
    noise = int(hashlib.sha256(text.encode()).hexdigest()[:6], 16) / 16**6 / 10
    loss = (0.2 + distance) / job.last_epoch**0.5 + noise
    return JobResult(
        **facts,
        **times,
        status="ok",
        epochs=job.last_epoch,
        best_epoch=job.last_epoch,
        validation_loss=loss,
        validation_accuracy=1 / (1 + loss),
        weights_sha256=hashlib.sha256(text.encode()).hexdigest(),
    )


def _answers(answer_job):
    """In a worker process: answer each job with what ``answer_job`` gives."""
    for line in sys.stdin:
        _tell(answer_job(Job(**json.loads(line))))


def _tell(answer):
    sys.stdout.write(f"{json.dumps(answer.model_dump())}\n")
    sys.stdout.flush()


def compute_one(job):
    """The answer to one job."""
    return WorkerAnswer(kind="result", result=computed(job))


def compute():
    """A worker whose results take no time."""
    _answers(compute_one)


def compute_slowly():
    """A worker whose results take as long as those of a small trial."""

    def answer(job):
        time.sleep(0.3)
        return compute_one(job)

    _answers(answer)


def compute_and_die():
    """A worker that takes some time, and dies of every eighth job or so, sometimes in the middle of its answer."""
    rng = random.Random()  # noqa: S311

    def answer(job):
        time.sleep(rng.random() / 50)
        found = compute_one(job)
        if rng.random() < 0.12:
            if rng.random() < 0.5:
                sys.stdout.write(json.dumps(found.model_dump())[: rng.randrange(1, 50)])
                sys.stdout.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    _answers(answer)


def die_of_trial_3():
    """A worker that trial 3 kills."""

    def answer(job):
        if job.trial == 3:
            sys.stderr.write("out of everything\n")
            sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return compute_one(job)

    _answers(answer)


def die_twice_of_each_job():
    """A worker that every job kills when it is done for the first and the second time."""

    def answer(job):
        for number in (1, 2):
            with suppress(FileExistsError):
                (Path(sys.argv[1]) / f"{job.label}-{job.rung}-{number}").touch(exist_ok=False)
                os.kill(os.getpid(), signal.SIGKILL)
        return compute_one(job)

    _answers(answer)


def hang_once():
    """A worker that hangs in its first job, unless another one has done so before."""

    def answer(job):
        with suppress(FileExistsError):
            (Path(sys.argv[1]) / "hung").touch(exist_ok=False)
            time.sleep(3600)
        return compute_one(job)

    _answers(answer)


def never_end():
    """A worker that does not hear that it should end."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _tell(WorkerAnswer(kind="alive"))
    time.sleep(3600)


def fail():
    """A worker whose disk is full."""
    _answers(lambda job: WorkerAnswer(kind="failed", text="No space left", place=f"trial {job.trial}", exit_code=6))


def warn():
    """A worker that has the same to say about every job."""
    _answers(lambda job: _tell(WorkerAnswer(kind="warning", text="slow")) or compute_one(job))
