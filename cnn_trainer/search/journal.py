"""The folder of a search: created once, locked while a process works on it, and read without trusting its contents.

    searches/20261125-081500-mnist/
      search.yaml        the space file as it was given
      experiment.yaml    the experiment that trials change, with all defaults written out
      search.json        status, versions, data, times
      journal.jsonl      one line for each finished job; the rest follows from it and the files above
      trials/            ordinary run directories, 0007-… for trial 7 and 0007-final-2-… for its second fresh seed
      best.yaml          the winner's config

search.json is the last file written when a search is created: a folder that has one is a search.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from cnn_trainer.config import strict_yaml
from cnn_trainer.config.load import dump_config
from cnn_trainer.errors import CnnTrainError, ConfigError, RunDirectoryError, StoppedError, raised_as
from cnn_trainer.machine import facts
from cnn_trainer.runs.paths import LOCK_FILE
from cnn_trainer.runs.records import DataRecord
from cnn_trainer.runs.store import is_locked, new_folder, read_run_record
from cnn_trainer.search.load import restore_search
from cnn_trainer.search.paths import EXPERIMENT_FILE, JOURNAL_FILE, SEARCH_FILE, SPACE_FILE, TRIALS_DIR
from cnn_trainer.search.records import JobResult, SearchRecord, SharedFacts
from cnn_trainer.search.schedule import Job, label
from cnn_trainer.search.spec import Search
from cnn_trainer.storage import files, strict_json
from cnn_trainer.storage.strict_json import utc_now

MAX_JOURNAL_BYTES = 64 * 1024 * 1024  # 10,000 trials with four rungs need half of it


@dataclass
class OpenSearch:
    """One search: its folder, its settings, and its record as last read or written."""

    dir: Path
    search: Search
    record: SearchRecord


@raised_as(RunDirectoryError)
def create_search(searches_dir: Path, space_file: Path, search: Search, data: DataRecord) -> OpenSearch:
    """Create the folder of a new search, ``searches_dir/<UTC time>-<name>``.

    Args:
        searches_dir: Created if it is missing.
        space_file: The file that ``search`` was loaded from.
        search: The loaded search.
        data: The data that its trials use.

    Raises:
        RunDirectoryError: if the folder cannot be created; nothing of the search is left behind.
    """
    text = files.read_bounded(space_file.resolve(), strict_yaml.MAX_BYTES)
    with files.reported(searches_dir, "created"):
        searches_dir.mkdir(parents=True, exist_ok=True)
    search_dir = new_folder(searches_dir, search.spec.name)
    now, name = utc_now(), search.spec.name
    record = SearchRecord(
        status="interrupted", name=name, created_at=now, updated_at=now, versions=search_versions(), data=data
    )
    opened = OpenSearch(search_dir, search, record)
    try:
        _fill(opened, text)
        files.sync_folder(searches_dir)
    except BaseException:
        shutil.rmtree(search_dir, ignore_errors=True)
        raise
    return opened


@raised_as(RunDirectoryError)
def join_search(
    searches_dir: Path, space_file: Path, search: Search, data: DataRecord, study: str, facts: SharedFacts
) -> OpenSearch:
    """The folder of a search in a database, ``searches_dir/<UTC time>-<study>``, created if it is not there.

    All machines give it the same name, and any number of processes may do so at the same time in a shared folder.

    Args:
        searches_dir: Created if it is missing.
        space_file: The file that ``search`` was loaded from.
        search: The loaded search.
        data: The data that its trials use.
        study: Its name in the database.
        facts: What the database knows of it.

    Raises:
        RunDirectoryError: if the folder cannot be created or read.
    """
    text = files.read_bounded(space_file.resolve(), strict_yaml.MAX_BYTES)
    stamp = re.sub(r"[-:Z]", "", facts.created_at).replace("T", "-")
    search_dir = searches_dir / f"{stamp}-{study}"
    if not os.path.lexists(search_dir / SEARCH_FILE):
        record = SearchRecord(
            status="interrupted",
            name=search.spec.name,
            created_at=facts.created_at,
            updated_at=utc_now(),
            versions=search_versions(),
            data=data,
            study=study,
        )
        with files.reported(search_dir, "created"):
            searches_dir.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=searches_dir, prefix=".tmp-", ignore_cleanup_errors=True) as folder:
                new = Path(folder) / search_dir.name
                new.mkdir()
                _fill(OpenSearch(new, search, record), text)
                try:
                    new.rename(search_dir)
                except OSError:
                    if not os.path.lexists(search_dir / SEARCH_FILE):  # another process was not faster
                        raise
            files.sync_folder(searches_dir)
    return open_search(search_dir)


def _fill(opened: OpenSearch, space_text: bytes) -> None:
    """Write the first files of a search into its new folder."""
    header = "# The experiment that the trials of this search change, with all defaults written out.\n"
    config = f"{header}{dump_config(opened.search.base.experiment)}"
    with files.reported(opened.dir, "created"):
        (opened.dir / TRIALS_DIR).mkdir()
    files.write_atomic(opened.dir / SPACE_FILE, space_text)
    files.write_atomic(opened.dir / EXPERIMENT_FILE, config.encode())
    files.write_atomic(opened.dir / SEARCH_FILE, strict_json.to_json(opened.record))


def open_search(search_dir: Path) -> OpenSearch:
    """Read a search's folder, which may come from an untrusted source. Raises RunDirectoryError naming the fault."""
    record = read_search_record(search_dir)
    try:
        search = restore_search(search_dir / SPACE_FILE, search_dir / EXPERIMENT_FILE, record.data)
    except ConfigError as error:
        raise RunDirectoryError("; ".join(error.lines())) from None
    return OpenSearch(search_dir, search, record)


@raised_as(RunDirectoryError)
def read_search_record(search_dir: Path) -> SearchRecord:
    """The contents of search.json; ``interrupted`` if no process works on it any more. Raises RunDirectoryError."""
    record = strict_json.read_record(SearchRecord, search_dir / SEARCH_FILE)
    if record.status == "searching" and not is_locked(search_dir):
        record = strict_json.read_record(SearchRecord, search_dir / SEARCH_FILE)  # it may have ended in between
        if record.status == "searching":
            return strict_json.changed(record, status="interrupted")
    return record


@raised_as(RunDirectoryError)
def update_search_record(opened: OpenSearch, **changes: Any) -> None:
    """Rewrite search.json atomically with ``changes`` and the current time. Raises RunDirectoryError."""
    record = strict_json.changed(opened.record, **{"updated_at": utc_now(), **changes})
    files.write_atomic(opened.dir / SEARCH_FILE, strict_json.to_json(record))
    opened.record = record


@contextmanager
def lock_search(opened: OpenSearch, is_shared: bool = False) -> Iterator[None]:
    """Lock the search for this process until the block ends or the process dies. The status becomes ``searching``.

    If the block raises, that is recorded: a stop by a signal as ``interrupted``, anything else as ``failed``. If the
    search ``is_shared``, another process may hold the lock; it then records the status.

    Raises:
        RunDirectoryError: if another process holds the lock; nothing was written.
    """
    path = opened.dir / LOCK_FILE
    with raised_as(RunDirectoryError), files.reported(path, "opened"):
        file = os.open(path, os.O_RDWR | os.O_CREAT | files.NOT_FOLLOWED, 0o666)
    try:
        with raised_as(RunDirectoryError), files.reported(path, "locked"):
            is_holder = files.try_lock(file)
            if not is_holder and not is_shared:
                remedy = "wait for it, or stop it first"
                raise RunDirectoryError("another process works on this search", place=opened.dir, remedy=remedy)
        if is_holder:
            files.remove_stray(opened.dir)
            update_search_record(opened, status="searching", error=None)
        yield
    except BaseException as error:
        if is_holder and opened.record.status == "searching":
            _note_end(opened, error)
        raise
    finally:
        os.close(file)


def _note_end(opened: OpenSearch, error: BaseException) -> None:
    """Record how the search ended; if that fails too, only ``error`` is shown."""
    stopped = isinstance(error, KeyboardInterrupt | SystemExit | StoppedError)
    words = str(error) if isinstance(error, CnnTrainError) else f"{type(error).__name__}: {error}"
    words = words[:500].encode(errors="backslashreplace").decode()
    with suppress(RunDirectoryError):
        if stopped:
            update_search_record(opened, status="interrupted")
        else:
            update_search_record(opened, status="failed", error=words)


@raised_as(RunDirectoryError)
def read_results(search_dir: Path) -> list[JobResult]:
    """The results in journal.jsonl; none if it is missing. An unfinished last line is dropped.

    Raises:
        RunDirectoryError: if the journal is larger than ``MAX_JOURNAL_BYTES``, or a line is wrong.
    """
    path = search_dir / JOURNAL_FILE
    if not os.path.lexists(path):
        return []
    *lines, _half = files.read_bounded(path, MAX_JOURNAL_BYTES).split(b"\n")
    found: dict[tuple[int, int | None, int], JobResult] = {}
    for number, line in enumerate(lines, start=1):
        place = f"{path}:{number}"
        result = strict_json.validated(JobResult, strict_json.parse_json(line, place), place)
        key = result.trial, result.final, result.rung
        if key in found:
            remedy = "remove one of the two lines"
            raise RunDirectoryError("this job already has a result in an earlier line", place=place, remedy=remedy)
        found[key] = result
    return list(found.values())


@raised_as(RunDirectoryError)
def add_result(search_dir: Path, result: JobResult) -> None:
    """Add the line of one job to journal.jsonl and flush it to disk. Raises RunDirectoryError."""
    files.append_line(search_dir / JOURNAL_FILE, strict_json.format_json(result.model_dump()))


@raised_as(RunDirectoryError)
def write_results(search_dir: Path, results: Sequence[JobResult]) -> None:
    """Replace journal.jsonl by these results, atomically. Raises RunDirectoryError."""
    lines = "".join(f"{strict_json.format_json(result.model_dump())}\n" for result in results)
    files.write_atomic(search_dir / JOURNAL_FILE, lines.encode())


def trial_dir(search_dir: Path, search: Search, job: Job | JobResult) -> Path:
    """The run directory of a trial or a final, whether or not it exists yet."""
    return search_dir / TRIALS_DIR / f"{label(job.trial, job.final)}-{search.base.experiment.name}"


def has_result(run_dir: Path, result: JobResult) -> bool:
    """Whether the run of a result is here, with its weights."""
    with suppress(CnnTrainError):
        return read_run_record(run_dir).weights_sha256 == result.weights_sha256
    return False


def search_versions() -> dict[str, str]:
    """Versions of everything that affects the proposals and the results."""
    return {**facts.versions(), "optuna": metadata.version("optuna")}


def version_differences(record: SearchRecord | SharedFacts) -> list[str]:
    """One line for each version that affects a search and has changed since it was created."""
    now = search_versions()
    names = sorted(record.versions.keys() | now.keys())
    sides = [{name: side[name] if name in side else "not there" for name in names} for side in (record.versions, now)]
    return [f"{name} was {sides[0][name]}, is {sides[1][name]}" for name in names if sides[0][name] != sides[1][name]]
