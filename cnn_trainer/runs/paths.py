"""Finds and names run directories without reading them.

Shell completion loads this module, so it imports nothing slow.
"""

import difflib
import os
import re
from contextlib import suppress
from itertools import islice
from pathlib import Path

from cnn_trainer.errors import RunDirectoryError, raised_as
from cnn_trainer.storage import files

CONFIG_FILE = "config.yaml"
RECORD_FILE = "run.json"
METRICS_FILE = "metrics.jsonl"
EVALUATION_FILE = "evaluation.json"
WEIGHTS_FILE = "weights.safetensors"
MODEL_FILE = "model.keras"
REPORT_FILE = "report.html"
CHECKPOINTS_DIR = "checkpoints"
LOCK_FILE = ".lock"

MAX_LISTED = 100  # files shown for a run; a normal run has about a dozen

_STAMPED = re.compile(r"([0-9]{8}-[0-9]{6})-(.+)", re.DOTALL)


@raised_as(RunDirectoryError)
def resolve_run(text: str, runs_dir: Path) -> Path:
    """Find the run directory that ``text`` names: a path, a name under ``runs_dir``, or ``latest``.

    A name never leads out of ``runs_dir``: anything with a slash, ``.`` and ``..`` are paths, and symbolic links under
    ``runs_dir`` are not followed. ``latest`` is the run with the newest time in its name, whatever its status.

    Raises:
        RunDirectoryError: if there is no such run; it suggests the most similar names.
    """
    if text == "latest":
        return _latest(runs_dir)
    run_dir = runs_dir / text
    if os.sep not in text and text not in ("", ".", "..") and os.path.lexists(run_dir):
        files.require_folder(run_dir)
        return _require_run(run_dir)
    if os.path.lexists(text):
        return _require_run(Path(text))
    names = {name: name for name in run_names(runs_dir)}
    names |= {name[16:]: name for name in reversed(names) if _STAMPED.fullmatch(name)}
    near = dict.fromkeys(names[word] for word in difflib.get_close_matches(text, names, n=3))
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    place = f"no such path, and no such run under {runs_dir}"
    raise RunDirectoryError(f"{place}{hint}", place=f"{text!r}", remedy="see: cnn-train runs list")


def require_writable(runs_dir: Path, option: str = "--runs-dir") -> None:
    """Refuse a folder in which no run can be created, before any work is done. Raises RunDirectoryError.

    ``option`` names the folder on the command line.
    """
    nearest = next(place for place in (runs_dir, *runs_dir.absolute().parents) if os.path.lexists(place))
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        reason = "cannot be written to" if nearest.is_dir() else "is not a folder"
        remedy = f"choose another folder with {option}"
        raise RunDirectoryError(f"no run can be created: {nearest} {reason}", place=runs_dir, remedy=remedy)


def _require_run(path: Path) -> Path:
    if not os.path.lexists(path / RECORD_FILE):
        problem = f"is not a run directory: it has no {RECORD_FILE}"
        raise RunDirectoryError(problem, place=path, remedy="see: cnn-train runs list")
    return path


def _latest(runs_dir: Path) -> Path:
    for run_dir in run_dirs(runs_dir):
        stamped = _STAMPED.fullmatch(run_dir.name) and not run_dir.is_symlink()
        if stamped and os.path.lexists(run_dir / RECORD_FILE):
            return run_dir
    remedy = "start one with: cnn-train train mnist"
    raise RunDirectoryError(f"there is no run under {runs_dir} yet", place="latest", remedy=remedy)


@raised_as(RunDirectoryError)
def run_dirs(runs_dir: Path, record_file: str = RECORD_FILE) -> list[Path]:
    """Everything that looks like a run, by its name or its run.json, newest first, including symbolic links.

    With the name of another record, everything that looks like what this record describes.
    """

    def newest(path: Path) -> tuple[str, int, str]:
        stamped = _STAMPED.fullmatch(path.name)
        return stamped[1] if stamped else "", len(path.name), path.name  # in the same second: name, name-2, …, name-10

    found = []
    with files.reported(runs_dir, "read"), suppress(FileNotFoundError), os.scandir(runs_dir) as entries:
        for entry in entries:
            stamped = _STAMPED.fullmatch(entry.name)
            if entry.is_dir(follow_symlinks=False):
                if stamped or os.path.lexists(Path(entry.path, record_file)):
                    found.append(runs_dir / entry.name)
            elif stamped and entry.is_symlink():
                found.append(runs_dir / entry.name)
    return sorted(found, key=newest, reverse=True)


def evaluation_file(split: str) -> str:
    """The name of the file with a run's score on a split."""
    return EVALUATION_FILE if split == "test" else f"evaluation-{split}.json"


def predictions_file(split: str) -> str:
    """The name of the file with a run's predictions on a split."""
    return "predictions.csv" if split == "test" else f"predictions-{split}.csv"


def probabilities_file(split: str) -> str:
    """The name of the file with all probabilities of a run's predictions on a split."""
    return "probabilities.safetensors" if split == "test" else f"probabilities-{split}.safetensors"


def run_names(runs_dir: Path) -> list[str]:
    """The names of the runs under ``runs_dir``, newest first, for shell completion. Reads no file; never raises."""
    try:
        return [path.name for path in run_dirs(runs_dir) if path.name.isprintable()]
    except RunDirectoryError:
        return []


def list_files(run_dir: Path) -> list[tuple[str, int]]:
    """The files of a run and their sizes in bytes, sorted by name, including checkpoints; at most ``MAX_LISTED`` + 1.

    No file is opened, no symbolic link is followed, and files that cannot be examined are left out. Never raises.
    """
    found = []
    for prefix, folder in (("", run_dir), (f"{CHECKPOINTS_DIR}/", run_dir / CHECKPOINTS_DIR)):
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in islice(entries, MAX_LISTED + 1):
                with suppress(OSError):
                    if not entry.is_dir(follow_symlinks=False):
                        found.append((f"{prefix}{entry.name}", entry.stat(follow_symlinks=False).st_size))
    return sorted(found)[: MAX_LISTED + 1]
