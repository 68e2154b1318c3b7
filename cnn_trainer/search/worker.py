"""A process that trains trials one after the other. Jobs arrive as lines of JSON on stdin; answers go to stdout.

TensorFlow is imported once, with the first job. The process ends at once when stdin is closed, because nobody is left
to use its result, and the trial can continue from its checkpoints.
"""

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, TextIO

from cnn_trainer.config.load import change_experiment
from cnn_trainer.errors import CnnTrainError, ConfigError, DivergedError, StoppedError
from cnn_trainer.machine import child, streams
from cnn_trainer.runs import store
from cnn_trainer.runs.checkpoint import checkpoint_paths, step_of
from cnn_trainer.runs.paths import CHECKPOINTS_DIR
from cnn_trainer.runs.records import EpochMetrics
from cnn_trainer.search.journal import OpenSearch, open_search, trial_dir
from cnn_trainer.search.records import JobResult
from cnn_trainer.search.schedule import Job
from cnn_trainer.storage.strict_json import Record
from cnn_trainer.training.display import Display
from cnn_trainer.training.prepare import Feedback
from cnn_trainer.training.run import train_until

SIGN_SECONDS = 1.0  # interval between signs of life during training


class WorkerAnswer(Record):
    """A line from a worker."""

    kind: Literal["alive", "warning", "result", "failed"]
    """alive: training continues; failed: the job failed, and would fail again."""
    text: str = ""
    """The warning, or the problem that made the job fail."""
    place: str | None = None
    remedy: str | None = None
    exit_code: int | None = None
    result: JobResult | None = None


def work() -> None:
    """Work on jobs of the search in the folder ``sys.argv[1]`` until stdin is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to all processes; the supervisor decides
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers, streams.redirected(1, 2):
        jobs = child.sent_lines()
        try:
            opened = open_search(Path(sys.argv[1]))
            while True:
                result = train_job(opened, Job(**json.loads(jobs.get())), partial(_tell, answers))
                _tell(answers, WorkerAnswer(kind="result", result=result))
        except StoppedError:
            return
        except ConfigError as error:
            _tell(answers, WorkerAnswer(kind="failed", text="; ".join(error.lines()), exit_code=error.exit_code))
        except CnnTrainError as error:
            place, remedy, code = error.place, error.remedy, error.exit_code
            _tell(answers, WorkerAnswer(kind="failed", text=error.problem, place=place, remedy=remedy, exit_code=code))


def _tell(answers: TextIO, answer: WorkerAnswer) -> None:
    text = json.dumps(answer.model_dump())  # in ASCII, because a path need not be valid Unicode
    answers.write(f"{text}\n")
    answers.flush()


class _Signs(Display):
    """Shows nothing, but sends a sign of life from time to time during training."""

    def __init__(self, tell: Callable[[WorkerAnswer], None]) -> None:
        super().__init__()
        self._tell, self._told = tell, 0.0

    def step(self, epoch: int, step: int, loss: float, accuracy: float) -> None:
        """Some steps have finished."""
        super().step(epoch, step, loss, accuracy)
        if time.monotonic() - self._told >= SIGN_SECONDS:
            self._tell(WorkerAnswer(kind="alive"))
            self._told = time.monotonic()


# 2026-11-25: steps that were compiled once for all trials with the same graph, and read learning rate, weight decay,
# momentum, smoothing, Dropout and seed from variables, saved 0.3 s per job, 8 to 10 % of a search on mnist-5k. It took
# 160 lines, and several of these numbers are rounded differently in a variable. So each job compiles its own steps.
def train_job(opened: OpenSearch, job: Job, tell: Callable[[WorkerAnswer], None]) -> JobResult:
    """Train a trial up to its next rung, from where it stopped. Raises what ``train_until`` raises."""
    began = time.monotonic()
    base = opened.search.base
    run_dir = trial_dir(opened.dir, opened.search, job)
    config = replace(base, experiment=change_experiment(base.experiment, job.changes))
    feedback = Feedback(warn=lambda line: tell(WorkerAnswer(kind="warning", text=line)), display=_Signs(tell))
    steps_per_epoch = -(-opened.search.num_train // config.experiment.training.batch_size)
    _begin_again_if_beyond(run_dir, job.last_epoch * steps_per_epoch, tell)
    digest: str | None = None
    with suppress(DivergedError):
        digest = train_until(config, run_dir, job.last_epoch, feedback).weights_sha256
    run = store.open_run(run_dir)
    metrics = store.read_metrics(run)
    best = next((line for line in metrics if line.epoch == run.record.best_epoch), None)
    is_sound = digest is not None and best is not None and best.validation_loss is not None
    return JobResult(
        trial=job.trial,
        final=job.final,
        rung=job.rung,
        changes=dict(job.changes),
        status="ok" if is_sound else "diverged",
        epochs=len(metrics),
        best_epoch=best.epoch if is_sound and best else None,
        validation_loss=best.validation_loss if is_sound and best else None,
        validation_accuracy=best.validation_accuracy if is_sound and best else None,
        weights_sha256=digest if is_sound else None,
        seconds=time.monotonic() - began,
        step_seconds=_step_seconds(opened.search.num_train, metrics[job.first_epoch - 1 :]),
    )


def _begin_again_if_beyond(run_dir: Path, last_step: int, tell: Callable[[WorkerAnswer], None]) -> None:
    """Remove a run that was trained beyond a rung whose result is lost: its weights at that rung may be gone."""
    newest = checkpoint_paths(run_dir / CHECKPOINTS_DIR)[:1]
    if newest and step_of(newest[0]) > last_step:
        tell(
            WorkerAnswer(
                kind="warning", text=f"{run_dir}: was trained beyond a rung whose result is lost; it starts again"
            )
        )
        shutil.rmtree(run_dir)


def _step_seconds(num_train: int, metrics: list[EpochMetrics]) -> float:
    return sum(num_train / line.images_per_second for line in metrics if line.images_per_second)
