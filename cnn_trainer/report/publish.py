"""Where a page is written, and how it is opened."""

import os
import webbrowser
from pathlib import Path

from cnn_trainer.errors import CnnTrainError, RunDirectoryError, raised_as
from cnn_trainer.storage import files

_MARK = b'<meta name="generator" content="cnn-train report">'  # near the beginning of page.html
_REMEDY = "choose another file with --output FILE"


def require_place(path: Path) -> Path:
    """Refuse a place where no page can be written, before any work is done, and what must not be replaced.

    Raises:
        RunDirectoryError: if its folder is missing or cannot be written to, or if something else is there.
    """
    if not path.parent.is_dir():
        raise RunDirectoryError("there is no such folder", place=path.parent, remedy=_REMEDY)
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise RunDirectoryError("cannot be written to", place=path.parent, remedy=_REMEDY)
    if os.path.lexists(path) and not _is_page(path):
        raise RunDirectoryError("is already there, and is not a report", place=path, remedy=_REMEDY)
    return path


def _is_page(path: Path) -> bool:
    try:
        with files.opened(path, os.O_RDONLY | files.NOT_FOLLOWED) as file:
            return _MARK in os.read(file, 2048)
    except OSError:
        return False


@raised_as(RunDirectoryError)
def write_page(path: Path, content: bytes) -> None:
    """Write a page; the file has either its old or its new content. Raises RunDirectoryError."""
    files.write_atomic(path, content)


def open_page(path: Path) -> None:
    """Open a page in the user's browser. Raises CnnTrainError if there is none."""
    if not webbrowser.open(path.absolute().as_uri()):
        raise CnnTrainError("no browser was found", place="--open", remedy=f"open {path} yourself")
