"""The run directory: created once, locked while a process works on it, read without trusting what it holds.

    runs/20261123-224601-mnist-cnn/
      config.yaml        the resolved config, every default written out
      run.json           what happened: a RunRecord
      metrics.jsonl      one EpochMetrics an epoch
      checkpoints/       see checkpoint.py
      evaluation.json    the scores on the test split
      .lock              held by the process that works on the run

A run.json is the last file that creation writes: a directory that has one is a run.
"""

import fcntl
import os
import re
import shlex
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from cnn_trainer import config, files, strict_yaml
from cnn_trainer.errors import ConfigError, RunDirectoryError
from cnn_trainer.files import printable
from cnn_trainer.records import EpochMetrics, EvaluationRecord, RunRecord, utc_now
from cnn_trainer.run_dirs import (
    CHECKPOINTS_DIR,
    CONFIG_FILE,
    EVALUATION_FILE,
    LOCK_FILE,
    METRICS_FILE,
    RECORD_FILE,
    run_dirs,
)
from cnn_trainer.schema import Experiment

MAX_JSON_BYTES = 1024 * 1024
MAX_METRICS_BYTES = 64 * 1024 * 1024  # twice what the schema's most epochs, 100,000, need at 320 bytes each
LOCK_SECONDS = 0.25  # how long to try: ``runs list`` holds a lock for some microseconds to see whether it is free

_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

Record = TypeVar("Record", bound=BaseModel)


@dataclass
class Run:
    """One run: its directory, what it was asked to do, and its record as it was last read or written."""

    dir: Path
    experiment: Experiment
    record: RunRecord


@dataclass(frozen=True)
class RunSummary:
    """One line of ``runs list``. Text in ``record`` is as the file holds it: show it through ``files.printable``."""

    dir: Path
    name: str  # of the directory
    status: str  # one of records.Status, or broken
    reason: str | None  # why the run is broken, failed, or is not what its record says
    record: RunRecord | None  # None where the run is broken
    epochs_done: int | None  # while it trains, as many as metrics.jsonl has lines; None where the run is broken
    test_accuracy: float | None  # a fraction from 0 to 1


def create_run(runs_dir: Path, name: str, experiment: Experiment, record: RunRecord) -> Run:
    """Create the directory of a new run, ``runs_dir/<UTC time>-<name>``, with config.yaml and run.json.

    Raises:
        RunDirectoryError: where ``name`` is not a plain file name, or the system refuses; nothing is left behind then.
    """
    if not _RUN_NAME.fullmatch(name):
        allowed = "letters, digits, dots, hyphens and underscores, the first a letter or a digit, 128 at most"
        raise RunDirectoryError(f"run name {printable(name)[:60]!r}: allowed are {allowed}")
    missing: list[Path] = []
    try:
        with files.reported(runs_dir, "created"):
            missing += [folder for folder in (runs_dir, *runs_dir.parents) if not folder.exists()]
            runs_dir.mkdir(parents=True, exist_ok=True)
        run_dir = _new_folder(runs_dir, name)
        try:
            _fill(run_dir, experiment, record)
        except BaseException:
            shutil.rmtree(run_dir, ignore_errors=True)
            raise
    except BaseException:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()
        raise
    return Run(run_dir, experiment, record)


def _new_folder(runs_dir: Path, name: str) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    for number in count(1):
        run_dir = runs_dir / (f"{stamp}-{name}" if number == 1 else f"{stamp}-{name}-{number}")
        with files.reported(run_dir, "created"), suppress(FileExistsError):
            run_dir.mkdir()
            return run_dir
    raise AssertionError("count has no end")


def _fill(run_dir: Path, experiment: Experiment, record: RunRecord) -> None:
    with files.reported(run_dir, "created"):
        (run_dir / CHECKPOINTS_DIR).mkdir()
    write_config(Run(run_dir, experiment, record))
    files.write_atomic(run_dir / RECORD_FILE, to_json(record))
    files.sync_folder(run_dir.parent)


def write_config(run: Run) -> None:
    """Write config.yaml: at the start, and again where a run is asked for more epochs. Raises RunDirectoryError."""
    header = (
        f"# The config of the run {run.dir.name}, every default written out.\n"
        "# To repeat the run: cnn-train train <this file>\n"
    )
    files.write_atomic(run.dir / CONFIG_FILE, f"{header}{config.dump(run.experiment)}".encode())


def to_json(record: BaseModel) -> bytes:
    """A record as strict JSON in UTF-8, indented, with an end of line."""
    return f"{files.format_json(record.model_dump(), indent=2)}\n".encode()


def read_json(path: Path) -> Any:
    """The value of a JSON file of at most ``MAX_JSON_BYTES``, strictly read. Raises RunDirectoryError naming it."""
    data = files.read_bounded(path, MAX_JSON_BYTES)
    try:
        return files.parse_json(data)
    except RunDirectoryError as error:
        raise RunDirectoryError(f"{printable(path)}: {error}") from None


def validated(kind: type[Record], value: Any, place: str) -> Record:
    """``value`` as a record of this kind. Raises RunDirectoryError with ``place`` and the first fault."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False)[0]
        key = printable(".".join(map(str, fault["loc"])))[:60]
        problem = f"{key}: {fault['msg'][0].lower()}{fault['msg'][1:]}" if key else "not a mapping of the known keys"
        raise RunDirectoryError(f"{place}: {problem}; the file was changed, or another version wrote it") from None


def read_record(run_dir: Path) -> RunRecord:
    """What run.json says. Raises RunDirectoryError naming the file and the fault."""
    path = run_dir / RECORD_FILE
    return validated(RunRecord, read_json(path), printable(path))


def open_run(run_dir: Path) -> Run:
    """Read config.yaml and run.json of a run that any stranger may have written.

    Raises:
        RunDirectoryError: naming the file and the fault.
    """
    record = read_record(run_dir)
    path = run_dir / CONFIG_FILE
    files.read_bounded(path, strict_yaml.MAX_BYTES)
    try:
        experiment = config.load(path).experiment
    except ConfigError as error:
        raise RunDirectoryError(printable("; ".join(error.faults))) from None
    return Run(run_dir, experiment, record)


def update_record(run: Run, **changes: Any) -> None:
    """Rewrite run.json atomically with ``changes`` and the time now. Raises RunDirectoryError."""
    record = RunRecord.model_validate({**dict(run.record), "updated_at": utc_now(), **changes})
    files.write_atomic(run.dir / RECORD_FILE, to_json(record))
    run.record = record


def note_failure(run: Run, error: Exception, **changes: Any) -> None:
    """Write into run.json that the run failed, and why; where that fails too, ``error`` alone is to be shown."""
    words = printable(f"{type(error).__name__}: {error}")[:500]
    with suppress(RunDirectoryError):
        update_record(run, status="failed", error=words, **changes)


@contextmanager
def lock_run(run: Run) -> Iterator[None]:
    """Hold the run for this process alone, until the block ends or the process dies.

    Once held, ``run.record`` is read again, and the temporary files that dead writers left are removed.

    Raises:
        RunDirectoryError: within ``LOCK_SECONDS`` where another process holds the run, naming it; nothing was written.
    """
    path = run.dir / LOCK_FILE
    with files.reported(path, "opened"):
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:  # another name of the file may stand elsewhere
            raise RunDirectoryError(f"{printable(path)}: is not a regular file with one name; move it away")
        _acquire(file, path)
        with suppress(OSError):  # the process id is for messages alone: a full disk need not stop the run here
            os.ftruncate(file, 0)
            os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        files.remove_stray(run.dir)
        files.remove_stray(run.dir / CHECKPOINTS_DIR)
        run.record = read_record(run.dir)
        yield
    finally:
        os.close(file)


def _acquire(file: int, path: Path) -> None:
    give_up = time.monotonic() + LOCK_SECONDS
    while True:
        with files.reported(path, "locked"):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                pass
        if time.monotonic() >= give_up:
            holder = os.pread(file, 20, 0).strip()
            who = f"process {int(holder)}" if holder.isdigit() else "another process"
            raise RunDirectoryError(f"{printable(path.parent)}: {who} works on this run; wait for it, or stop it first")
        time.sleep(LOCK_SECONDS / 10)


def is_locked(run_dir: Path) -> bool:
    """Whether a living process holds the run. Never raises, and writes nothing."""
    try:
        file = os.open(run_dir / LOCK_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(file)
    return False


def append_metrics(run: Run, metrics: EpochMetrics) -> None:
    """Add the line of one epoch to metrics.jsonl. Raises RunDirectoryError."""
    files.append_line(run.dir / METRICS_FILE, files.format_json(metrics.model_dump()))


def rewrite_metrics(run: Run, history: Sequence[EpochMetrics]) -> None:
    """Make ``history`` the whole of metrics.jsonl, atomically. Raises RunDirectoryError."""
    lines = "".join(f"{files.format_json(metrics.model_dump())}\n" for metrics in history)
    files.write_atomic(run.dir / METRICS_FILE, lines.encode())


def read_metrics(run: Run) -> list[EpochMetrics]:
    """The epochs in metrics.jsonl, none where it is missing. What stands after the last end of a line is dropped.

    Raises:
        RunDirectoryError: for a file of more than ``MAX_METRICS_BYTES``, or naming the first line that is wrong.
    """
    path = run.dir / METRICS_FILE
    if not os.path.lexists(path):
        return []
    *lines, _half = files.read_bounded(path, MAX_METRICS_BYTES).split(b"\n")
    history = []
    for number, line in enumerate(lines, start=1):
        place = f"{printable(path)}:{number}"
        try:
            value = files.parse_json(line)
        except RunDirectoryError as error:
            raise RunDirectoryError(f"{place}: {error}") from None
        history.append(validated(EpochMetrics, value, place))
    return history


def require_result(run: Run) -> None:
    """Refuse a run that has no result to score yet, naming the remedy. Raises RunDirectoryError."""
    if run.record.weights_sha256 is None:
        deed = "runs show" if run.record.status == "diverged" else "resume"
        remedy = f"cnn-train {deed} {shlex.quote(str(run.dir))}"
        raise RunDirectoryError(f"{run.dir}: the run is {run.record.status} and has no result yet; next: {remedy}")


def read_evaluation(run_dir: Path) -> EvaluationRecord | None:
    """What evaluation.json says, None where it is missing. Raises RunDirectoryError naming the file and the fault."""
    path = run_dir / EVALUATION_FILE
    return validated(EvaluationRecord, read_json(path), printable(path)) if os.path.lexists(path) else None


def list_runs(runs_dir: Path) -> list[RunSummary]:
    """Every run under ``runs_dir``, newest first, broken ones too; empty where there is no such folder.

    A run whose record says ``training``, but which no process holds, is ``interrupted``.

    Raises:
        RunDirectoryError: where ``runs_dir`` itself cannot be read; never for what stands in it.
    """
    return [summarize(run_dir) for run_dir in run_dirs(runs_dir)]


def summarize(run_dir: Path) -> RunSummary:
    """What became of the run in ``run_dir``. Never raises; a symbolic link is broken, so resolve the user's own."""
    name = printable(run_dir.name)
    try:
        files.require_folder(run_dir)
        record = open_run(run_dir).record
        died = record.status == "training" and not is_locked(run_dir)
        if died:  # or finished since the record was read
            record = read_record(run_dir)
            died = record.status == "training"
    except RunDirectoryError as error:
        return RunSummary(run_dir, name, "broken", str(error), None, None, None)
    epochs, accuracy = _epochs_done(run_dir, record), _test_accuracy(run_dir)
    if died:
        reason = f"its process ended without a word; go on with: cnn-train resume {name}"
        return RunSummary(run_dir, name, "interrupted", reason, record, epochs, accuracy)
    return RunSummary(run_dir, name, record.status, record.error and printable(record.error), record, epochs, accuracy)


def _epochs_done(run_dir: Path, record: RunRecord) -> int:
    """run.json is written when a session of training begins and ends; what came after stands in metrics.jsonl."""
    if record.status != "training":
        return record.epochs_done
    try:
        return files.read_bounded(run_dir / METRICS_FILE, MAX_METRICS_BYTES).count(b"\n")
    except RunDirectoryError:
        return record.epochs_done


def _test_accuracy(run_dir: Path) -> float | None:
    """The accuracy in evaluation.json, where there is one that was measured on the test split."""
    try:
        scores = read_json(run_dir / EVALUATION_FILE)
    except RunDirectoryError:
        return None
    if not isinstance(scores, dict) or not scores.keys() >= {"split", "accuracy"} or scores["split"] != "test":
        return None
    accuracy = scores["accuracy"]
    return float(accuracy) if type(accuracy) in (int, float) and 0 <= accuracy <= 1 else None
