"""Carries out a search with worker processes. If a worker dies, is killed or hangs, only time is lost."""

import dataclasses
import json
import subprocess
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

from cnn_trainer.errors import CnnTrainError, DeviceError, StoppedError
from cnn_trainer.machine import child, stopping
from cnn_trainer.search.board import Board
from cnn_trainer.search.journal import OpenSearch, trial_dir
from cnn_trainer.search.proposals import new_schedule
from cnn_trainer.search.run import SearchFeedback
from cnn_trainer.search.schedule import Job
from cnn_trainer.search.worker import WorkerAnswer

HANG_SECONDS = 600.0  # without a sign of life; reading large data or compiling a large network takes minutes
MAX_DEATHS = 3  # workers that may die in a row on the same job
MAX_JOBS = 50  # after which a worker is replaced: TensorFlow keeps 7 MB for each network that it has compiled
GRACE_SECONDS = 1.5  # for workers to write a checkpoint; a job killed after that continues from the one before
_LOOK_SECONDS = 0.2  # interval between checks for signals and for workers that hang
_FUNCTION = "cnn_trainer.search.worker:work"


@dataclass(eq=False)
class Worker:
    """A worker process, as its supervisor sees it."""

    process: "subprocess.Popen[str]"
    job: Job | None = None
    num_jobs: int = 0
    """Number of jobs that it has finished."""
    silent_seconds: float = 0.0
    """Seconds since it was given its job or last sent a line, not counting time in which this process was stopped."""
    messages: deque[str] = field(default_factory=lambda: deque(maxlen=50))
    """The last lines that it wrote to stderr."""


Heard = SimpleQueue[tuple[Worker | None, str | None]]
"""Lines from workers; None means that the worker has ended. Without a worker, the board has changed."""


def supervise(opened: OpenSearch, feedback: SearchFeedback, board: Board, num_workers: int) -> None:
    """Do jobs of a search with ``num_workers`` processes until the board has all results.

    Raises:
        StoppedError: within 2 s if a signal asked to stop; the search can be resumed.
        DeviceError: if ``MAX_DEATHS`` workers died or hung on the same job, or no process can be started.
        CnnTrainError: if a job failed in a way that would happen again, such as a full disk.
    """
    schedule, results = new_schedule(opened.search), board.results()
    num_shown = len(results)
    workers: list[Worker] = []
    heard: Heard = SimpleQueue()
    deaths: Counter[str] = Counter()
    told: set[str] = set()
    board.notify(lambda: heard.put((None, None)))
    with stopping.stop_requests() as stop:
        try:
            plan = schedule.plan(results)
            while True:
                results = board.results()
                if len(results) > num_shown:
                    for result in results[num_shown:]:
                        feedback.display.finish(result)
                    num_shown, plan = len(results), schedule.plan(results)
                if plan.is_done:
                    break
                _hand_out(opened, plan.jobs, board, workers, num_workers, heard, feedback)
                feedback.display.draw()
                began = time.monotonic()
                worker, line = _next(heard)
                _note_silence(workers, min(_LOOK_SECONDS, time.monotonic() - began))
                if stop.signal_number is not None:
                    raise StoppedError("the search was stopped", stop.signal_number)
                if worker is None:
                    continue
                if line is None:
                    if worker in workers:
                        workers.remove(worker)
                        _note_death(opened, worker, deaths, feedback)
                    continue
                worker.silent_seconds = 0.0
                answer = WorkerAnswer(**json.loads(line))
                if answer.kind == "failed":
                    raise _failure(answer)
                if answer.kind == "warning" and answer.text not in told:
                    told.add(answer.text)
                    feedback.warn(answer.text)
                if answer.result is not None:
                    board.add(answer.result)
                    _note_success(worker, workers, deaths)
        finally:
            _end(workers)
        if stop.signal_number is not None:  # it came while the last result was written or the workers ended
            raise StoppedError("the search was stopped", stop.signal_number)


def _hand_out(
    opened: OpenSearch,
    jobs: Sequence[Job],
    board: Board,
    workers: list[Worker],
    num_workers: int,
    heard: Heard,
    feedback: SearchFeedback,
) -> None:
    """Claim a job for each of ``num_workers`` workers that has none, and give it to an idle worker or to a new one."""
    taken = [worker.job for worker in workers if worker.job is not None]
    waiting = [job for job in jobs if job not in taken]
    for job in board.claim(waiting, num_workers - len(taken)):
        worker = next((one for one in workers if one.job is None), None)
        if worker is None:
            worker = _start(opened, heard)
            workers.append(worker)
        worker.job, worker.silent_seconds = job, 0.0
        feedback.display.start(job)
        child.send(worker.process, dataclasses.asdict(job))


def _start(opened: OpenSearch, heard: Heard) -> Worker:
    try:
        worker = Worker(child.start_child(_FUNCTION, str(opened.dir)))
    except OSError as error:
        problem, remedy = f"cannot start a worker process: {error.strerror}", "use fewer workers with --workers"
        raise DeviceError(problem, remedy=remedy) from None
    child.hear(worker.process, worker.messages, lambda line: heard.put((worker, line)))
    return worker


def _next(heard: Heard) -> tuple[Worker | None, str | None]:
    try:
        return heard.get(timeout=_LOOK_SECONDS)
    except Empty:
        return None, None


def _note_silence(workers: Iterable[Worker], seconds: float) -> None:
    """Kill every worker that has a job and has given no sign of life for too long."""
    for worker in workers:
        if worker.job is not None:
            worker.silent_seconds += seconds
            if worker.silent_seconds > HANG_SECONDS:
                worker.process.kill()


def _note_success(worker: Worker, workers: list[Worker], deaths: Counter[str]) -> None:
    """The worker is idle now; it is replaced if it has done ``MAX_JOBS``."""
    if worker.job is not None:
        del deaths[worker.job.label]
    worker.job, worker.num_jobs = None, worker.num_jobs + 1
    if worker.num_jobs == MAX_JOBS:
        workers.remove(worker)
        worker.process.kill()


def _note_death(opened: OpenSearch, worker: Worker, deaths: Counter[str], feedback: SearchFeedback) -> None:
    """Warn that a worker has died on a job. Raises DeviceError if ``MAX_DEATHS`` have died on it."""
    if worker.job is None:
        return
    label = worker.job.label
    deaths[label] += 1
    messages = [line.rstrip() for line in worker.messages if line.strip()]
    reason = child.how_it_ended(worker.process.returncode, messages).failure or "its process ended"
    if deaths[label] < MAX_DEATHS:
        feedback.warn(f"the worker on trial {label} died ({reason}); the trial continues from its last checkpoint")
        return
    for line in messages:
        feedback.warn(line)
    place = trial_dir(opened.dir, opened.search, worker.job)
    remedy = "if memory is short, use fewer workers with --workers"
    raise DeviceError(
        f"{MAX_DEATHS} workers died on this trial; the last failure: {reason}", place=place, remedy=remedy
    )


def _failure(answer: WorkerAnswer) -> CnnTrainError:
    error = CnnTrainError(answer.text, place=answer.place, remedy=answer.remedy)
    if answer.exit_code is not None:
        error.exit_code = answer.exit_code
    return error


def _end(workers: Iterable[Worker]) -> None:
    """Let all workers write a checkpoint and end, and kill those that take too long."""
    child.end_children([worker.process for worker in workers], GRACE_SECONDS)
