"""Finds the known word, or the existing file, that an unknown one was most likely meant to be."""

import difflib
import os
import re
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

_MAX_FILES = 1000  # in a folder that are compared


def nearest(word: str, names: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The name that ``word`` was most likely meant to be, ignoring case, hyphens and underscores; None if none is near.

    Args:
        word: What was written.
        names: What is known.
        cutoff: The lowest similarity that counts as near, from 0 to 1, as ``difflib`` measures it.
    """
    word = word[:64]  # finding near names takes time that grows with the square of their length
    plain = {_plain(name): name for name in names}
    if found := difflib.get_close_matches(_plain(word), plain, n=1, cutoff=cutoff):
        return plain[found[0]]
    inside = [
        name
        for name in plain
        if min(len(name), len(_plain(word))) > 2 and (name in _plain(word) or _plain(word) in name)
    ]
    return plain[max(inside, key=len)] if inside else None


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """``; did you mean NAME?``, or nothing if no name is near."""
    near = nearest(word, names)
    return f"; did you mean {near}?" if near else ""


def names_beside(path: Path, suffixes: tuple[str, ...] = ("",)) -> list[str]:
    """The names in the folder of ``path`` that end in one of ``suffixes``; none if it cannot be listed."""
    try:
        with os.scandir(path.parent) as entries:
            return [entry.name for entry in islice(entries, _MAX_FILES) if entry.name.endswith(suffixes)]
    except (OSError, ValueError):  # ValueError: a null character in the path
        return []


def did_you_mean_file(path: Path) -> str:
    """``; did you mean PATH?`` for a file or folder with the same digits in its name; nothing if no name is near."""
    if path.parent != path and not os.path.lexists(path.parent):
        return did_you_mean_file(path.parent)
    digits = _digits(path.name)
    names = [name for name in names_beside(path) if name != path.name and _digits(name) == digits]
    near = nearest(path.name, names, 0.75)
    return f"; did you mean {path.with_name(near)}?" if near else ""


def _digits(name: str) -> str:
    return re.sub("[^0-9]", "", name)


def _plain(word: str) -> str:
    return re.sub("[-_ ]", "", word.lower())
