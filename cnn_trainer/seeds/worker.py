"""A process that trains runs one after the other. Lines of JSON arrive on stdin, and news go to stdout.

The first line is an ``Assignment``, and each further line is a seed. TensorFlow is imported once, with the first run.
The process ends at once when stdin is closed; its run can be resumed from its last checkpoint.
"""

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from cnn_trainer.config.load import Config, change_experiment
from cnn_trainer.config.schema import Experiment
from cnn_trainer.errors import CnnTrainError, ConfigError, StoppedError
from cnn_trainer.machine import child, streams
from cnn_trainer.runs.records import RunOutcome
from cnn_trainer.storage.strict_json import Record
from cnn_trainer.training.display import Display
from cnn_trainer.training.prepare import Feedback
from cnn_trainer.training.run import train_config


class Assignment(Record):
    """What all runs of a group have in common."""

    experiment: dict[str, Any]
    file: str
    places: list[tuple[list[str | int], str]]
    """The place where each key was written, for messages."""
    runs_dir: str

    def config(self) -> Config:
        """The config whose seed is to be replaced."""
        places = {tuple(key): place for key, place in self.places}
        return Config(Experiment.model_validate(self.experiment), self.file, places)


class News(Record):
    """A line from a worker about its present run."""

    kind: Literal["warning", "download", "created", "step", "finished", "failed"]
    """download: bytes were read; created: everything was checked, and the run directory exists."""
    text: str = ""
    """The warning, or the problem that made the run fail."""
    place: str | None = None
    remedy: str | None = None
    exit_code: int | None = None
    run: str | None = None
    """The run directory."""
    done: int = 0
    """Number of bytes, or of training steps."""
    total: int | None = None
    epoch: int = 0
    """Counted from 1."""
    accuracy: float = 0.0
    """The mean over the epoch's steps so far."""
    outcome: RunOutcome | None = None


Tell = Callable[[News], None]


def work_on_seeds() -> None:
    """Train the runs that the parent asks for until it closes stdin or sends SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to all processes; the parent decides
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers, streams.redirected(1, 2):

        def tell(news: News) -> None:
            text = json.dumps(news.model_dump())  # in ASCII, because a path need not be valid Unicode
            answers.write(f"{text}\n")
            answers.flush()

        lines = child.sent_lines()
        assignment = Assignment.model_validate_json(lines.get())
        config, runs_dir = assignment.config(), Path(assignment.runs_dir)
        try:
            while True:
                tell(_train(config, json.loads(lines.get()), runs_dir, tell))
        except StoppedError:
            return


def _train(base: Config, seed: int, runs_dir: Path, tell: Tell) -> News:
    config = replace(base, experiment=change_experiment(base.experiment, {"seed": seed}))
    feedback = Feedback(
        warn=lambda line: tell(News(kind="warning", text=line)),
        download=lambda done, total: tell(News(kind="download", done=done, total=total)),
        created=lambda run: tell(News(kind="created", run=str(run.dir))),
        display=_Steps(tell),
    )
    failed = partial(News, kind="failed")
    try:
        return News(kind="finished", outcome=train_config(config, runs_dir, feedback))
    except StoppedError:
        raise
    except ConfigError as error:
        return failed(text="; ".join(error.lines()), exit_code=error.exit_code)
    except CnnTrainError as error:
        return failed(text=error.problem, place=error.place, remedy=error.remedy, exit_code=error.exit_code)


class _Steps(Display):
    """Tells the parent how far the run is."""

    def __init__(self, tell: Tell) -> None:
        super().__init__()
        self._tell = tell

    def step(self, epoch: int, step: int, loss: float, accuracy: float) -> None:
        """Some steps have finished."""
        super().step(epoch, step, loss, accuracy)
        done, total = (epoch - 1) * self._steps_per_epoch + step, self._epochs * self._steps_per_epoch
        self._tell(News(kind="step", epoch=epoch, done=done, total=total, accuracy=accuracy))
