"""What was most likely meant by a value of the wrong kind."""

import math
from contextlib import suppress
from typing import get_args

from pydantic.fields import FieldInfo

from cnn_trainer.config import strict_yaml
from cnn_trainer.config.strict_yaml import Value

_YES = ("true", "yes", "on", "y", "1")
_NO = ("false", "no", "off", "n", "0")
_NOTHING = ("none", "null", "nil", "~", "")
_NUMBERS = {"int_type", "float_type"}


def meant(kind: str, value: Value, field: FieldInfo | None) -> str | None:
    """How to write what was most likely meant by ``value``, if there is more to say than what is allowed.

    Args:
        kind: The kind of the fault, as pydantic names it.
        value: What was written.
        field: The key's field in the schema; None for an item of a list.
    """
    may_be_null = field is not None and type(None) in get_args(field.annotation)
    word = str(value).lower()
    if may_be_null and word in (*_NOTHING, *_NO):
        return "write null for none"
    if word in ("none", "null", "nil") and field is not None and not field.is_required():
        return "leave the key out for its default"
    if kind == "bool_type" and word in (*_YES, *_NO):
        return "write true" if word in _YES else "write false"
    if kind == "int_type" and isinstance(value, float) and value.is_integer():
        return f"write {int(value)}"
    if isinstance(value, str):
        if value.startswith("(") and value.endswith(")"):
            return "write a list in square brackets, such as [32, 64]"
        return _number(value) if kind in _NUMBERS else None
    if kind == "list_type" and isinstance(value, int | float):
        return f"write [{value}]"
    return None


def _number(text: str) -> str | None:
    """How to write the number in ``text``; None if it is not a number."""
    if isinstance(strict_yaml.plain_scalar(text), int | float):
        return "leave out the quotes"
    with suppress(ValueError):
        return f"write {int(text, 0)}"  # Python's 1_000 and 0x10
    with suppress(ValueError):
        number = float(text[:-1]) / 100 if text.endswith("%") else float(text)
        return f"write {number:.15g}" if math.isfinite(number) else None
    return None
