"""A board in a database, for any number of supervisors on any number of machines.

A thread of its own talks to the database, so that a slow database, or one that is away, never holds up the supervisor:
workers continue to train, and what they finish is added when the database answers again. Another thread copies run
directories to and from the artifact store, if there is one.
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

from cnn_trainer.errors import RunDirectoryError, StoppedError, UsageError, raised_as
from cnn_trainer.machine import stopping
from cnn_trainer.machine.facts import machine
from cnn_trainer.runs import store
from cnn_trainer.runs.records import DataRecord
from cnn_trainer.search import artifacts, journal
from cnn_trainer.search.artifacts import ArtifactStore
from cnn_trainer.search.connect import OUTAGES, open_storage, reason_of
from cnn_trainer.search.database import LOST_SECONDS, SCORING, StudyDatabase, job_key, study_name
from cnn_trainer.search.journal import OpenSearch, has_result, trial_dir
from cnn_trainer.search.records import JobResult, SharedFacts, WinnerScore
from cnn_trainer.search.schedule import Job
from cnn_trainer.search.spec import Search
from cnn_trainer.storage.strict_json import utc_now

POLL_SECONDS = 1.0  # interval between looks at what others have done
BEAT_SECONDS = 5.0  # interval between signs of life for the jobs of this supervisor
COPY_SECONDS = 2.0  # interval between copies of the results to journal.jsonl
GIVE_UP_SECONDS = 600.0  # how long to wait for a database that does not answer
CLOSE_SECONDS = 0.4  # for giving back jobs; if that fails, others take them over after LOST_SECONDS
_LOOK_SECONDS = 0.2
_MAX_PAUSE_SECONDS = 8.0  # between attempts to reach the database


def join_board(
    space_file: Path,
    loaded: tuple[Search, DataRecord],
    searches_dir: Path,
    url: str,
    artifacts_at: str | None,
    warn: Callable[[str], None],
) -> "tuple[OpenSearch, SharedBoard]":
    """Join the search in a database, or begin it there.

    Args:
        space_file: The space file.
        loaded: What ``load_search`` returned for it.
        searches_dir: The folder for the search's folder on this machine; machines may share it.
        url: URL of the database.
        artifacts_at: Where run directories are kept for other machines, as for ``open_artifacts``; None if nowhere.
        warn: Called with each warning, also from other threads.

    Raises:
        UsageError: if the database or the artifact store cannot be used; nothing was written on this machine.
        RunDirectoryError: if the search's folder cannot be created or read.
    """
    search, data = loaded
    store_of_runs = None if artifacts_at is None else artifacts.open_artifacts(artifacts_at)
    storage = open_storage(url)
    database = StudyDatabase(storage, study_name(search, data), search)
    processor = machine()["processor"] if "processor" in machine() else machine()["architecture"]
    here = SharedFacts(created_at=utc_now(), versions=journal.search_versions(), processor=processor)
    try:
        facts = database.join(here)
        for line in journal.version_differences(facts):
            warn(f"{line} on this machine; its results may differ from those of the other machines")
        if facts.processor != processor:
            warn(f"this processor is {processor}, the search began on {facts.processor}; their results may differ")
        opened = journal.join_search(searches_dir, space_file, search, data, database.study, facts)
        return opened, SharedBoard(opened, database, store_of_runs, warn)
    except OUTAGES as error:
        problem = f"the database stopped answering: {reason_of(error, storage.engine.url)}"
        raise UsageError(problem, place="--storage", remedy="run the same command again") from None


class SharedBoard:
    """The jobs and results of a search in a database.

    Args:
        opened: The search. Its journal.jsonl becomes a copy of the results in the database.
        database: The search in the database, joined.
        artifacts_in: Where run directories are kept for other machines; None if nowhere.
        warn: Called with each warning, also from other threads.
    """

    def __init__(
        self,
        opened: OpenSearch,
        database: StudyDatabase,
        artifacts_in: ArtifactStore | None,
        warn: Callable[[str], None],
    ) -> None:
        self._opened, self._database, self._store, self._warn = opened, database, artifacts_in, warn
        self._lock = threading.Lock()
        self._results: dict[str, JobResult] = {}
        self._wanted: tuple[tuple[Job, ...], int] = ((), 0)
        self._added: set[str] = set()  # jobs that this supervisor has finished
        self._claimed: set[str] = set()  # jobs that it is to do or is doing
        self._ready: set[str] = set()  # those of them whose run directory is here, if there is one
        self._finished: dict[str, JobResult] = {}  # results that are not in the database yet
        self._score: WinnerScore | None = None  # in the database
        self._own_score: WinnerScore | None = None  # computed here, not in the database yet
        self._awaits_score = self._wants_scoring = self._has_scoring = False
        self._failure: BaseException | None = None
        self._is_closing = False
        self._wake: Callable[[], None] = lambda: None
        self._call = threading.Event()  # wakes the thread
        self._copied_at = self._beat_at = time.monotonic()
        self._num_copied = 0
        self._transfers: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._turn()  # whatever is there already
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()
        if artifacts_in is not None:
            threading.Thread(target=self._transfer, daemon=True).start()

    def notify(self, wake: Callable[[], None]) -> None:
        """See ``Board``."""
        self._wake = wake

    def results(self) -> Sequence[JobResult]:
        """The results in the database. Raises RunDirectoryError if it has not answered for ``GIVE_UP_SECONDS``."""
        self._raise_failure()
        with self._lock:
            return list(self._results.values())

    def claim(self, jobs: Sequence[Job], number: int) -> list[Job]:
        """See ``Board``. A trial whose run directory another process has locked is not started."""
        with self._lock:
            is_new = self._wanted != (tuple(jobs), number)
            self._wanted = tuple(jobs), number
            ready = [job for job in jobs if job_key(job) in self._ready][:number]
        if is_new and len(ready) < number:
            self._call.set()
        return [job for job in ready if not store.is_locked(trial_dir(self._opened.dir, self._opened.search, job))]

    def add(self, result: JobResult) -> None:
        """Add a result in the background, after its run directory has been copied to the artifact store."""
        key = job_key(result)
        with self._lock:
            self._ready.discard(key)
            self._claimed.discard(key)
            self._added.add(key)
        if self._store is None:
            self._finish(key, result)
        else:
            self._transfers.put(lambda: self._upload(key, result))

    def score_once(self, winner: JobResult, score: Callable[[], WinnerScore]) -> WinnerScore:
        """See ``Board``. Preferably a machine that has the winner's run, or can fetch it, computes the score.

        Raises:
            StoppedError: if a signal asked to stop while another supervisor computes the score.
        """
        run_dir = trial_dir(self._opened.dir, self._opened.search, winner)
        if self._store is not None and not has_result(run_dir, winner):
            self._fetch(job_key(winner), run_dir)
        began, self._awaits_score = time.monotonic(), True
        with stopping.stop_requests() as stop:
            while True:
                self._raise_failure()
                if self._score is not None:
                    return self._score
                if self._has_scoring:
                    break
                if has_result(run_dir, winner) or time.monotonic() - began > LOST_SECONDS:
                    self._wants_scoring = True
                if stop.signal_number is not None:
                    raise StoppedError("the search was stopped", stop.signal_number)
                time.sleep(_LOOK_SECONDS)
        found = score()
        self._own_score = found
        self._call.set()
        with stopping.stop_requests() as stop:
            while self._score is None:
                self._raise_failure()
                if stop.signal_number is not None:
                    raise StoppedError("the search was stopped", stop.signal_number)
                time.sleep(_LOOK_SECONDS / 10)
        return self._score

    def close(self) -> None:
        """See ``Board``."""
        self._is_closing = True
        self._call.set()
        self._thread.join(CLOSE_SECONDS)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        """In the thread: take turns until the board is closed, and wait for a database that does not answer."""
        away_since, pause = None, POLL_SECONDS
        while not self._is_closing:
            self._call.wait(pause)
            self._call.clear()
            try:
                self._turn()
                if away_since is not None:
                    self._warn("the database answers again")
                away_since, pause = None, POLL_SECONDS
            except OUTAGES as error:
                self._database.forget_beats()
                now = time.monotonic()
                if away_since is None:
                    away_since, pause = now, POLL_SECONDS / 2
                    self._warn("the database does not answer; waiting for it, and training goes on")
                if now - away_since > GIVE_UP_SECONDS:
                    self._failure = _no_answer(error)
                    self._wake()
                    return
                pause = min(2 * pause, _MAX_PAUSE_SECONDS, GIVE_UP_SECONDS)
            except BaseException as error:  # the supervisor raises it
                self._failure = error
                self._wake()
                return
        with suppress(*OUTAGES):
            self._database.release()
        self._database.close()

    def _turn(self) -> None:
        """Add what is finished, look what others have done, give a sign of life, and claim what is wanted."""
        with self._lock:
            finished = list(self._finished.items())
        for key, result in finished:
            self._database.add(result)
            with self._lock:
                del self._finished[key]
                self._results[key] = result
        new = self._database.new_results(self._results, len(self._results))
        with self._lock:
            self._results |= new
            self._claimed -= new.keys()
            self._ready -= new.keys()
        if time.monotonic() - self._beat_at >= BEAT_SECONDS:
            self._database.beat()
            self._beat_at = time.monotonic()
        is_changed = bool(new) or self._claim_wanted()
        self._settle_score()
        self._copy()
        if is_changed or self._num_copied != len(self._results):
            self._wake()

    def _claim_wanted(self) -> bool:
        with self._lock:
            jobs, number = self._wanted
        wanted = {job_key(job): job for job in jobs}
        num_free, is_changed = number - len(self._claimed & wanted.keys()), False
        for key, job in wanted.items():
            if num_free <= 0 or self._is_closing:
                break
            if key in self._claimed | self._added or key in self._results or not self._database.claim(key, job):
                continue
            num_free, is_changed = num_free - 1, True
            self._claimed.add(key)
            if self._store is None:
                self._make_ready(key)
            else:
                self._transfers.put(lambda key=key, job=job: self._download(key, job))  # type: ignore[misc]
        return is_changed

    def _settle_score(self) -> None:
        if self._own_score is not None and self._score is None:
            self._database.finish(self._own_score)
        if self._awaits_score and self._score is None:
            self._score = self._database.test_score()
            self._has_scoring = self._score is None and self._wants_scoring and self._database.claim(SCORING, None)

    def _copy(self) -> None:
        if self._num_copied != len(self._results) and time.monotonic() - self._copied_at >= COPY_SECONDS:
            journal.write_results(self._opened.dir, list(self._results.values()))
            self._copied_at, self._num_copied = time.monotonic(), len(self._results)

    def _finish(self, key: str, result: JobResult) -> None:
        with self._lock:
            self._finished[key] = result
        self._call.set()

    def _make_ready(self, key: str) -> None:
        with self._lock:
            if key in self._claimed:
                self._ready.add(key)
        self._wake()

    def _transfer(self) -> None:
        """In its thread: copy run directories to and from the artifact store, one after the other."""
        while True:
            self._transfers.get()()

    def _upload(self, key: str, result: JobResult) -> None:
        run_dir = trial_dir(self._opened.dir, self._opened.search, result)
        self._attempt("saved", lambda: artifacts.save_run(self._store, self._name(key), run_dir))
        self._finish(key, result)

    def _download(self, key: str, job: Job) -> None:
        before = f"{job.label}-{job.rung - 1}"
        run_dir = trial_dir(self._opened.dir, self._opened.search, job)
        if job.rung > 1 and job.final is None and artifacts.num_epochs(run_dir) < job.first_epoch - 1:
            self._fetch(before, run_dir)
        self._make_ready(key)

    def _fetch(self, key: str, run_dir: Path) -> None:
        data = self._opened.search.base.experiment.data
        self._attempt("fetched", lambda: artifacts.fetch_run(self._store, self._name(key), run_dir, data))

    def _name(self, key: str) -> str:
        return f"{self._database.study}-{key}.tar"

    def _attempt(self, deed: str, copy: Callable[[], None]) -> None:
        try:
            with raised_as(RunDirectoryError):
                copy()
        except Exception as error:  # stores raise exceptions of many packages; only time is lost
            self._warn(f"a trial cannot be {deed}: {error}; a machine without it trains it from its first epoch")


def _no_answer(error: BaseException) -> RunDirectoryError:
    minutes = GIVE_UP_SECONDS / 60
    problem = f"the database has not answered for {minutes:.0f} minutes"
    remedy = "run the same command again when it does; finished jobs are read from their run directories"
    failure = RunDirectoryError(problem, place="--storage", remedy=remedy)
    failure.__cause__ = error
    return failure
