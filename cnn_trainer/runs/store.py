"""The run directory: created once, locked while a process works on it, read without trusting its content.

When a run is created, run.json is written last, so a directory that has one is a run.

The functions that read and write configs import what they need themselves, which halves the time of ``runs list``.
"""

import os
import re
import shlex
import shutil
import stat
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnn_trainer.errors import CnnTrainError, ConfigError, RunDirectoryError, raised_as
from cnn_trainer.runs.paths import CHECKPOINTS_DIR, CONFIG_FILE, LOCK_FILE, METRICS_FILE, RECORD_FILE, evaluation_file
from cnn_trainer.runs.records import EpochMetrics, EvaluationRecord, RunRecord
from cnn_trainer.storage import files, strict_json
from cnn_trainer.storage.strict_json import utc_now

if TYPE_CHECKING:
    from cnn_trainer.config.schema import Experiment

MAX_METRICS_BYTES = 64 * 1024 * 1024  # twice the 320 bytes of each of at most 100,000 epochs (schema's limit)
MAX_EVALUATION_BYTES = 16 * 1024 * 1024  # the confusion matrix of 1000 classes, the limit, takes 9 MB
LOCK_SECONDS = 0.25  # how long to try: ``runs list`` holds a lock for microseconds to see whether it is free

# The lock files that this process holds, because a POSIX lock does not exclude its own process.
_held: list[os.stat_result] = []

_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass
class Run:
    """One run: its directory, its experiment, and its record as last read or written."""

    dir: Path
    experiment: "Experiment"
    record: RunRecord


@raised_as(RunDirectoryError)
def create_run(
    runs_dir: Path, name: str, experiment: "Experiment", record: RunRecord, folder: str | None = None
) -> Run:
    """Create the directory of a new run, ``runs_dir/<UTC time>-<name>``, with config.yaml and run.json.

    ``folder`` is another name for the directory. Only one process may create it: what a killed creation left there is
    replaced.

    Raises:
        RunDirectoryError: if ``name`` is not a plain file name, or the system refuses; nothing is left behind then.
    """
    if not _RUN_NAME.fullmatch(name):
        allowed = "at most 128 letters, digits, dots, hyphens and underscores, and begin with a letter or a digit"
        raise RunDirectoryError(f"must have {allowed}", place=f"run name {name[:60]!r}")
    missing: list[Path] = []
    try:
        with files.reported(runs_dir, "created"):
            missing += [folder for folder in (runs_dir, *runs_dir.parents) if not folder.exists()]
            runs_dir.mkdir(parents=True, exist_ok=True)
        run_dir = new_folder(runs_dir, name) if folder is None else _named_folder(runs_dir / folder)
        try:
            run = Run(run_dir, experiment, record)
            with files.reported(run_dir, "created"):
                (run_dir / CHECKPOINTS_DIR).mkdir()
                (run_dir / LOCK_FILE).touch()  # created now, because later the disk may be full
            write_config(run)
            files.write_atomic(run_dir / RECORD_FILE, strict_json.to_json(record))
            files.sync_folder(runs_dir)
            return run
        except BaseException:
            shutil.rmtree(run_dir, ignore_errors=True)
            raise
    except BaseException:
        for parent in missing:
            with suppress(OSError):
                parent.rmdir()
        raise


def new_folder(runs_dir: Path, name: str) -> Path:
    """Create ``runs_dir/<UTC time>-<name>``, with a number behind it if there is such a folder. Raises StorageError."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    for number in count(1):
        run_dir = runs_dir / (f"{stamp}-{name}" if number == 1 else f"{stamp}-{name}-{number}")
        with files.reported(run_dir, "created"), suppress(FileExistsError):
            run_dir.mkdir()
            return run_dir
    raise AssertionError("count has no end")


def _named_folder(run_dir: Path) -> Path:
    with files.reported(run_dir, "created"):
        if run_dir.is_dir() and not os.path.lexists(run_dir / RECORD_FILE):
            shutil.rmtree(run_dir)
        run_dir.mkdir()
    return run_dir


@raised_as(RunDirectoryError)
def write_config(run: Run) -> None:
    """Write config.yaml, at the start and again if the run is given more epochs. Raises RunDirectoryError."""
    from cnn_trainer.config.load import dump_config

    header = f"# The config of the run {run.dir.name}, with every default written out.\n"
    header += "# To repeat the run: cnn-train train <this file>\n"
    files.write_atomic(run.dir / CONFIG_FILE, f"{header}{dump_config(run.experiment)}".encode())


@raised_as(RunDirectoryError)
def read_run_record(run_dir: Path) -> RunRecord:
    """Read run.json. Raises RunDirectoryError naming the file and the fault."""
    return strict_json.read_record(RunRecord, run_dir / RECORD_FILE)


def open_run(run_dir: Path) -> Run:
    """Read config.yaml and run.json without trusting them. Raises RunDirectoryError naming the fault."""
    from cnn_trainer.config import strict_yaml
    from cnn_trainer.config.load import load_config

    record = read_run_record(run_dir)
    path = run_dir / CONFIG_FILE
    with raised_as(RunDirectoryError):
        files.read_bounded(path, strict_yaml.MAX_BYTES)
    try:
        experiment = load_config(path).experiment
    except ConfigError as error:
        raise RunDirectoryError("; ".join(error.lines())) from None
    return Run(run_dir, experiment, record)


@raised_as(RunDirectoryError)
def update_record(run: Run, **changes: Any) -> None:
    """Rewrite run.json atomically with ``changes`` and the current time. Raises RunDirectoryError."""
    record = strict_json.changed(run.record, **{"updated_at": utc_now(), **changes})
    files.write_atomic(run.dir / RECORD_FILE, strict_json.to_json(record))
    run.record = record


def note_failure(run: Run, error: Exception, **changes: Any) -> None:
    """Record in run.json that the run failed, and why. If that fails too, ignore it, so that ``error`` is shown."""
    words = str(error) if isinstance(error, CnnTrainError) else f"{type(error).__name__}: {error}"
    words = words[:500].encode(errors="backslashreplace").decode()  # a path may not be valid Unicode
    with suppress(RunDirectoryError):
        update_record(run, status="failed", error=words, **changes)


@contextmanager
def lock_run(run: Run, warn: Callable[[str], None] = warnings.warn) -> Iterator[None]:
    """Lock the run for this process only, until the block ends or the process dies.

    Once it is locked, ``run.record`` is read again, and temporary files left by dead writers are removed. If the file
    system cannot lock files, ``warn`` is called, and nothing keeps other processes out.

    Raises:
        RunDirectoryError: within ``LOCK_SECONDS`` if another process holds the run, naming it; nothing is written.
    """
    path = run.dir / LOCK_FILE
    if _is_held_here(path):
        raise _in_use(run.dir, b"%d" % os.getpid())
    with raised_as(RunDirectoryError), files.reported(path, "opened"):
        file = os.open(path, os.O_RDWR | os.O_CREAT | files.NOT_FOLLOWED, 0o666)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:  # another name may be elsewhere
            raise RunDirectoryError("is not a regular file with a single name", place=path, remedy="move it away")
        _acquire(file, run.dir, warn)
        _held.append(status)
        try:
            with suppress(OSError):  # the process id is only for messages: a full disk does not matter here
                os.ftruncate(file, 0)
                os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
            files.remove_stray(run.dir)
            files.remove_stray(run.dir / CHECKPOINTS_DIR)
            run.record = read_run_record(run.dir)
            yield
        finally:
            _held.remove(status)
    finally:
        os.close(file)


def _is_held_here(path: Path) -> bool:
    with suppress(OSError):
        return any(os.path.samestat(path.lstat(), held) for held in _held)
    return False


def _acquire(file: int, run_dir: Path, warn: Callable[[str], None]) -> None:
    give_up = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            if files.try_lock(file):
                return
        except OSError as error:
            problem = f"the file system cannot lock files ({error.strerror})"
            warn(f"{run_dir}: {problem}; make sure that no other process works on this run at the same time")
            return
        if time.monotonic() >= give_up:
            raise _in_use(run_dir, os.pread(file, 20, 0).strip())
        time.sleep(LOCK_SECONDS / 10)


def _in_use(run_dir: Path, holder: bytes) -> RunDirectoryError:
    who = f"process {int(holder)}" if holder.isdigit() else "another process"
    return RunDirectoryError(f"{who} is working on this run", place=run_dir, remedy="wait for it, or stop it first")


def is_locked(run_dir: Path) -> bool | None:
    """Whether a living process holds the run; None if the file system cannot lock files. Never raises or writes."""
    path = run_dir / LOCK_FILE
    if _is_held_here(path):  # opening and closing the file would release a POSIX lock
        return True
    with suppress(OSError), files.opened(path, os.O_RDONLY | files.NOT_FOLLOWED) as file:
        try:
            return not files.try_lock(file, shared=True)
        except OSError:
            return None
    return False


@raised_as(RunDirectoryError)
def append_metrics(run: Run, metrics: EpochMetrics) -> None:
    """Append the line of one epoch to metrics.jsonl. Raises RunDirectoryError."""
    files.append_line(run.dir / METRICS_FILE, strict_json.format_json(metrics.model_dump()))


@raised_as(RunDirectoryError)
def rewrite_metrics(run: Run, history: Sequence[EpochMetrics]) -> None:
    """Replace metrics.jsonl with ``history``, atomically. Raises RunDirectoryError."""
    lines = "".join(f"{strict_json.format_json(metrics.model_dump())}\n" for metrics in history)
    files.write_atomic(run.dir / METRICS_FILE, lines.encode())


@raised_as(RunDirectoryError)
def read_metrics(run: Run) -> list[EpochMetrics]:
    """Read the epochs in metrics.jsonl; empty if it is missing. An incomplete last line is ignored.

    Raises:
        RunDirectoryError: if the file is larger than ``MAX_METRICS_BYTES``, or a line is wrong; it names the first.
    """
    path = run.dir / METRICS_FILE
    if not os.path.lexists(path):
        return []
    *lines, _half = files.read_bounded(path, MAX_METRICS_BYTES).split(b"\n")
    numbered = ((f"{path}:{number}", line) for number, line in enumerate(lines, start=1))
    return [strict_json.validated(EpochMetrics, strict_json.parse_json(line, place), place) for place, line in numbered]


def require_result(run: Run) -> None:
    """Refuse a run that has no result yet, and name the remedy. Raises RunDirectoryError."""
    if run.record.weights_sha256 is None:
        problem = f"the run is {run.record.status} and has no result yet"
        deed = "runs show" if run.record.status == "diverged" else "resume"
        raise RunDirectoryError(problem, place=run.dir, remedy=f"next: cnn-train {deed} {shlex.quote(str(run.dir))}")


@raised_as(RunDirectoryError)
def read_evaluation(run_dir: Path, split: str = "test") -> EvaluationRecord | None:
    """Read the score on a split; None if it is missing. Raises RunDirectoryError naming the file and the fault."""
    path = run_dir / evaluation_file(split)
    return strict_json.read_record(EvaluationRecord, path, MAX_EVALUATION_BYTES) if os.path.lexists(path) else None
