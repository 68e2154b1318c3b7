"""Paths as configs write them: ``~`` for the home folder, ``$NAME`` or ``${NAME}`` for environment variables."""

import os
import re
from pathlib import Path

from cnn_trainer.errors import DataError

_DOLLAR = re.compile(r"\$(?:\$|([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)\}|\{[^}]*\}?)")


def expand_path(text: str) -> Path:
    """The absolute path that ``text`` means, with variables and ``~`` filled in; ``$$`` means a dollar sign.

    A dollar sign that is not followed by a name or a brace means itself.

    Raises:
        DataError: if a variable is not set or is empty, if the home folder is not known, or if there is a placeholder
            of another program, such as ``${oc.env:DATA}``.
    """
    filled_in = _DOLLAR.sub(lambda found: _value(text, found), text)
    try:
        return Path(filled_in).expanduser().absolute()
    except RuntimeError:
        raise DataError("the home folder for ~ is not known", place=text, remedy="write the path out") from None


def literal_path(path: Path) -> str:
    """The text that ``expand_path`` turns back into ``path``, which is absolute and may contain any character."""
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
