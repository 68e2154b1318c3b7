"""The goal, values and settings of a search in words."""

import json
from collections.abc import Sequence


def goal_words(goal: str) -> str:
    """The goal as people read it."""
    return goal.replace("_", " ")


def goal_value(goal: str, value: float | None) -> str:
    """A value of the goal; a dash for None."""
    if value is None:
        return "-"
    return f"{value:.4f}" if goal == "validation_loss" else f"{value:.2%}"


def interval_words(goal: str, interval: Sequence[float] | None, form: str = " (95 % interval {} to {})") -> str:
    """The ends of an interval of values in ``form``; nothing for None."""
    return "" if interval is None else form.format(*(goal_value(goal, end) for end in interval))


def setting_words(value: object) -> str:
    """The value of a key."""
    if isinstance(value, dict):
        parts = (
            setting_words(part) if key == "name" else f"{key} {setting_words(part)}" for key, part in value.items()
        )
        return ", ".join(parts)
    if isinstance(value, str):
        return value
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)
