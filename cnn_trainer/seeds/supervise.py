"""Trains a group of runs with worker processes. What goes wrong in one run does not harm the others."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from subprocess import Popen

from cnn_trainer.config.load import Config
from cnn_trainer.errors import CnnTrainError, DeviceError
from cnn_trainer.machine import child, stopping
from cnn_trainer.runs.records import RunOutcome
from cnn_trainer.seeds.display import SeedsDisplay
from cnn_trainer.seeds.worker import Assignment, News

MAX_RUNS = 50  # after which a worker is replaced: TensorFlow keeps 7 MB for each network that it has compiled
GROUP_STOP_SECONDS = 1.5  # for workers to write a checkpoint; a run killed after that continues from the one before
_LOOK_SECONDS = 0.2  # interval between checks for signals
_FUNCTION = "cnn_trainer.seeds.worker:work_on_seeds"


@dataclass(eq=False)
class SeedRun:
    """One run of a group."""

    seed: int
    dir: Path | None = None
    """None if it has not begun."""
    outcome: RunOutcome | None = None
    """None unless it is finished."""
    failure: CnnTrainError | None = None
    """Why it failed or diverged. None if it did not; if there is no outcome either, it was stopped."""


@dataclass(frozen=True)
class SeedsFeedback:
    """Where a group reports what happens. All functions are called from the thread that trains the group."""

    warn: Callable[[str], None]
    download: Callable[[int, int | None], None]
    began: Callable[[Path], None]
    """Called with the first run directory: everything was checked, and training begins."""
    ended: Callable[[SeedRun], None]
    """Called with each run that finished or failed."""
    display: SeedsDisplay


@dataclass(eq=False)
class _Worker:
    process: "Popen[str]"
    run: SeedRun | None = None
    num_runs: int = 0
    has_ended: bool = False
    messages: deque[str] = field(default_factory=lambda: deque(maxlen=50))
    """The last lines that it wrote to stderr."""


_Heard = SimpleQueue[tuple[_Worker, str | None]]


def train_seeds(
    config: Config, seeds: Sequence[int], runs_dir: Path, num_workers: int, feedback: SeedsFeedback
) -> tuple[list[SeedRun], int | None]:
    """Train the experiment once for each seed, ``num_workers`` at a time, each run as ``train_config`` does.

    The first run is prepared before the second begins, so that what is wrong with the config, the data or the device
    is found, and the data downloaded, once.

    Returns:
        The runs in the order of ``seeds``, and the signal that stopped the group; None if there was none.

    Raises:
        CnnTrainError: what made a run fail before any run directory existed.
        DeviceError: if no process can be started.
    """
    for line in config.notes:
        feedback.warn(line)
    with stopping.stop_requests() as stop:
        group = _Group(config, [SeedRun(seed) for seed in seeds], runs_dir, feedback, stop)
        try:
            while group.is_left() and stop.signal_number is None:
                group.hand_out(num_workers)
                feedback.display.draw()
                group.listen(_LOOK_SECONDS)
        finally:
            group.end()
            feedback.display.end()
    return group.runs, stop.signal_number if group.is_left() else None


class _Group:
    """The runs of a group, and the workers that train them."""

    def __init__(
        self, config: Config, runs: list[SeedRun], runs_dir: Path, feedback: SeedsFeedback, stop: stopping.StopRequest
    ) -> None:
        self.runs = runs
        self._stop = stop
        self._waiting = deque(runs)
        self._workers: list[_Worker] = []
        self._heard: _Heard = SimpleQueue()
        self._told: set[str] = set()
        self._feedback = feedback
        self._assignment = Assignment(
            experiment=config.experiment.model_dump(mode="json"),
            file=config.file,
            places=[([*key], place) for key, place in config.places.items()],
            runs_dir=str(runs_dir),
        )

    def is_left(self) -> bool:
        """Whether a run has neither finished nor failed."""
        return any(run.outcome is None and run.failure is None for run in self.runs)

    def hand_out(self, num_workers: int) -> None:
        """Give the next runs to workers that have none, and to new ones while there are fewer than ``num_workers``."""
        is_checked = any(run.dir is not None for run in self.runs)
        for idle in [worker for worker in self._workers if worker.run is None]:
            if idle.num_runs == MAX_RUNS or not self._waiting:
                self._workers.remove(idle)
                child.end_children([idle.process], 0.0)
        while self._waiting:
            worker = next((worker for worker in self._workers if worker.run is None), None)
            if worker is None:
                if len(self._workers) >= (num_workers if is_checked else 1):
                    break
                worker = self._start()
            worker.run = self._waiting.popleft()
            child.send(worker.process, worker.run.seed)

    def _start(self) -> _Worker:
        try:
            worker = _Worker(child.start_child(_FUNCTION))
        except OSError as error:
            problem, remedy = f"cannot start a worker process: {error.strerror}", "use fewer workers with --workers"
            raise DeviceError(problem, remedy=remedy) from None
        child.hear(worker.process, worker.messages, lambda line: self._heard.put((worker, line)))
        child.send(worker.process, self._assignment.model_dump())
        self._workers.append(worker)
        return worker

    def listen(self, seconds: float) -> bool:
        """Take note of the next news. False if there are none within ``seconds``."""
        try:
            worker, line = self._heard.get(timeout=seconds)
        except Empty:
            return False
        if line is not None:
            self._note(worker, News.model_validate_json(line))
            return True
        worker.has_ended = True
        if worker in self._workers:
            self._workers.remove(worker)
            if worker.run is not None:
                time.sleep(_LOOK_SECONDS)  # if all processes were sent a signal, ours comes now
                if self._stop.signal_number is None:
                    self._note_death(worker, worker.run)
        return True

    def _note(self, worker: _Worker, news: News) -> None:
        match news.kind, worker.run:
            case "warning", _ if news.text not in self._told:
                self._told.add(news.text)
                self._feedback.warn(news.text)
            case "download", _:
                self._feedback.download(news.done, news.total)
            case "created", SeedRun() as run:
                is_first = all(other.dir is None for other in self.runs)
                run.dir = Path(str(news.run))
                if is_first:
                    self._feedback.began(run.dir)
            case "step", SeedRun() as run:
                self._feedback.display.step(run.seed, news)
            case "finished", SeedRun() as run:
                run.outcome = news.outcome
                self._end_run(worker, run)
            case "failed", SeedRun() as run:
                run.failure = CnnTrainError(news.text, place=news.place, remedy=news.remedy)
                run.failure.exit_code = news.exit_code or CnnTrainError.exit_code
                self._end_run(worker, run)

    def _note_death(self, worker: _Worker, run: SeedRun) -> None:
        messages = [line.rstrip() for line in worker.messages if line.strip()]
        for line in messages:
            self._feedback.warn(line)
        reason = child.how_it_ended(worker.process.returncode, messages).failure or "its process ended"
        remedy = "if memory is short, use fewer workers with --workers"
        run.failure = DeviceError(f"the worker died ({reason})", remedy=remedy)
        self._end_run(worker, run)

    def _end_run(self, worker: _Worker, run: SeedRun) -> None:
        worker.run, worker.num_runs = None, worker.num_runs + 1
        if run.failure is not None and all(other.dir is None for other in self.runs):
            raise run.failure
        self._feedback.display.end_run(run.seed)
        self._feedback.ended(run)

    def end(self) -> None:
        """Let all workers write a checkpoint and end, and take note of what they have finished in the meantime."""
        workers = list(self._workers)
        self._workers.clear()  # so that their ends are not taken for deaths
        child.end_children([worker.process for worker in workers], GROUP_STOP_SECONDS)
        while not all(worker.has_ended for worker in workers) and self.listen(_LOOK_SECONDS):
            pass
