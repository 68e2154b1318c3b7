"""Finds the known word that an unknown one was most likely meant to be."""

import difflib
import re
from collections.abc import Iterable


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


def _plain(word: str) -> str:
    return re.sub("[-_ ]", "", word.lower())
