"""Finds and names the folders of searches without reading them."""

import difflib
import os
from pathlib import Path

from cnn_trainer.errors import RunDirectoryError
from cnn_trainer.runs.paths import run_dirs

SPACE_FILE = "search.yaml"
EXPERIMENT_FILE = "experiment.yaml"
SEARCH_FILE = "search.json"
JOURNAL_FILE = "journal.jsonl"
TRIALS_DIR = "trials"
BEST_FILE = "best.yaml"

_SEE = "see: cnn-train search list"


def resolve_search(text: str, searches_dir: Path) -> Path:
    """The search that ``text`` means: a path, a name under ``searches_dir``, or ``latest``.

    Text with a slash in it is a path. Symbolic links under ``searches_dir`` are not followed.

    Raises:
        RunDirectoryError: if there is no such search; the message suggests the nearest names.
    """
    found = search_dirs(searches_dir)
    if text == "latest":
        if found:
            return found[0]
        remedy = "start one with: cnn-train search configs/searches/mnist.yaml"
        raise RunDirectoryError(f"there is no search under {searches_dir} yet", place="latest", remedy=remedy)
    named = next((path for path in found if path.name == text), None)
    if named is not None:
        return named
    if os.path.lexists(Path(text, SEARCH_FILE)):
        return Path(text)
    if os.path.lexists(text):
        raise RunDirectoryError(f"is not a search, because it has no {SEARCH_FILE}", place=text, remedy=_SEE)
    near = difflib.get_close_matches(text, [path.name for path in found], n=3, cutoff=0.4)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    problem = f"no such path, and no such search under {searches_dir}{hint}"
    raise RunDirectoryError(problem, place=f"{text!r}", remedy=_SEE)


def search_dirs(searches_dir: Path) -> list[Path]:
    """The searches under ``searches_dir``, newest first, without links; none if there is no such folder.

    Raises:
        RunDirectoryError: if it cannot be read.
    """
    found = run_dirs(searches_dir, SEARCH_FILE)
    return [path for path in found if os.path.lexists(path / SEARCH_FILE) and not path.is_symlink()]
