"""What a page is about: a run, several runs or a search; and how the page is written anew while it changes."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cnn_trainer.analysis.compare import compare_runs
from cnn_trainer.errors import RunDirectoryError, StoppedError, UsageError
from cnn_trainer.machine.stopping import StopRequest
from cnn_trainer.report.context import read_context
from cnn_trainer.report.publish import write_page
from cnn_trainer.report.run_page import build_run_page
from cnn_trainer.report.search_page import build_search_page
from cnn_trainer.report.several import build_several_page
from cnn_trainer.runs import details, paths, store
from cnn_trainer.search import journal
from cnn_trainer.search.paths import JOURNAL_FILE, SEARCH_FILE

RELOAD_SECONDS = 5
_POLL_SECONDS = 0.5

Warn = Callable[[str], None]


@dataclass(frozen=True)
class Subject:
    """What a page is about."""

    path: Path
    """Where its page is written unless the user names another place."""
    build: Callable[[int | None], bytes]
    """Makes the page from the files as they are now; the argument is after how many seconds browsers reload it."""
    watched: tuple[Path, ...]
    """The files whose change calls for a new page; none if the subject cannot be watched."""
    is_under_way: Callable[[], bool]
    """Whether a process still works on it."""


def find_subject(texts: Sequence[str], runs_dir: Path, data_path: Path | None, warn: Warn) -> Subject:
    """What the words of a command line name.

    Args:
        texts: Runs, as ``resolve_run`` takes them, or the folder of one search.
        runs_dir: The folder of runs that are given by name.
        data_path: Where the images of a run are; None for the place that it has recorded.
        warn: Called with what a page lacks.

    Raises:
        RunDirectoryError: if there is no such run, or it cannot be read.
        UsageError: if these do not go together.
    """
    searches = [text for text in texts if os.path.lexists(Path(text, SEARCH_FILE))]
    if searches and len(texts) > 1:
        raise UsageError("is a search, which has a page of its own", place=searches[0], remedy="name it on its own")
    if data_path is not None and (searches or len(texts) > 1):
        raise UsageError("only the page of one run shows images", place="--data", remedy="leave it out")
    if searches:
        return _search_subject(Path(searches[0]))
    run_dirs = [paths.resolve_run(text, runs_dir) for text in texts]
    return _run_subject(run_dirs[0], data_path, warn) if len(run_dirs) == 1 else _several_subject(run_dirs)


def _run_subject(run_dir: Path, data_path: Path | None, warn: Warn) -> Subject:
    def build(reload_seconds: int | None) -> bytes:
        context = read_context(run_dir, data_path)
        if context.problem:
            warn(f"the page has no images: {context.problem}")
        return build_run_page(context, reload_seconds)

    def is_under_way() -> bool:
        status = details.summarize(run_dir.resolve()).status
        return status in ("created", "training") or (status == "trained" and store.is_locked(run_dir) is True)

    names = (paths.RECORD_FILE, paths.METRICS_FILE, paths.EVALUATION_FILE)
    return Subject(run_dir / paths.REPORT_FILE, build, tuple(run_dir / name for name in names), is_under_way)


def _several_subject(run_dirs: Sequence[Path]) -> Subject:
    words = ["cnn-train", "report", *map(str, run_dirs)]

    def build(_: int | None) -> bytes:
        return build_several_page(compare_runs(run_dirs, "test"), words)

    return Subject(run_dirs[0].parent / paths.REPORT_FILE, build, (), lambda: False)


def _search_subject(search_dir: Path) -> Subject:
    def build(reload_seconds: int | None) -> bytes:
        opened = journal.open_search(search_dir)
        return build_search_page(opened, journal.read_results(search_dir), reload_seconds)

    def is_under_way() -> bool:
        return journal.read_search_record(search_dir).status == "searching"

    watched = (search_dir / SEARCH_FILE, search_dir / JOURNAL_FILE)
    return Subject(search_dir / paths.REPORT_FILE, build, watched, is_under_way)


def watch_subject(subject: Subject, path: Path, stop: StopRequest, written: Callable[[], None]) -> bytes:
    """Write the page now and whenever the subject changes, until nobody works on it any more. Returns the last page.

    Only the last page does not reload itself.

    Args:
        subject: One that can be watched.
        path: The file of the page.
        stop: Ends the watch; a last page is written first.
        written: Called after the first page.

    Raises:
        RunDirectoryError: if the subject cannot be read, or the page not be written.
        StoppedError: if ``stop`` was asked for.
    """
    seen: object = None
    while subject.is_under_way() and stop.signal_number is None:
        now = [_state(file) for file in subject.watched]
        if now != seen:
            write_page(path, subject.build(RELOAD_SECONDS))
            if seen is None:
                written()
            seen = now
        time.sleep(_POLL_SECONDS)
    content = subject.build(None)
    write_page(path, content)
    if seen is None:
        written()
    if stop.signal_number is not None:
        raise StoppedError(f"the page was watched no longer; it is in {path}", stop.signal_number)
    return content


def _state(file: Path) -> tuple[int, int, int] | None:
    """What changes if the file does; None if it is not there. Raises RunDirectoryError if that cannot be known."""
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunDirectoryError(f"cannot be read: {error.strerror}", place=file) from None
    return status.st_ino, status.st_size, status.st_mtime_ns
