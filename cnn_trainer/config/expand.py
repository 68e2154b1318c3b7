"""Paths as configs write them: ``~`` for the home folder, ``$NAME`` or ``${NAME}`` for environment variables."""

import os
import re
from pathlib import Path

from cnn_trainer.errors import DataError

_DOLLAR = re.compile(r"\$(?:\$|([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)\}|\{[^}]*\}?)")


def expand_path(text: str) -> Path:
    """The path that ``text`` means, absolute: variables and ``~`` filled in, ``$$`` for a dollar sign.

    A dollar sign that is not before a name or a brace stands for itself.

    Raises:
        DataError: if a variable is not set or empty, if there is no such home folder, or for a placeholder of another
            program, such as ``${oc.env:DATA}``.
    """
    filled_in = _DOLLAR.sub(lambda found: _value(text, found), text)
    try:
        return Path(filled_in).expanduser().absolute()
    except RuntimeError:
        raise DataError("no home folder known for ~", place=text, remedy="write the path out") from None


def literal_path(path: Path) -> str:
    """The text that ``expand_path`` reads as ``path``, which is absolute, whatever signs it holds."""
    return re.sub(r"\$(?=[$A-Za-z_{])", "$$", str(path))


def _value(text: str, found: re.Match[str]) -> str:
    if found[0] == "$$":
        return "$"
    name = found[1] or found[2]
    if name is None:
        remedy = "write the path out, or an environment variable as $NAME or ${NAME}"
        raise DataError(f"{found[0][:60]} is not filled in here", place=text, remedy=remedy)
    value = os.environ.get(name, "")
    if not value:
        state = "empty" if name in os.environ else "not set"
        remedy = f"set {name}, or write the path out; $$ stands for a dollar sign"
        raise DataError(f"the environment variable {name} is {state}", place=text, remedy=remedy)
    return value
