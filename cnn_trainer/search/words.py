"""The goal, values, settings and outcome of a search in words."""

import json
from collections.abc import Sequence

from cnn_trainer.errors import count
from cnn_trainer.search.records import SearchSummary


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


def outcome_words(summary: SearchSummary) -> list[str]:
    """The honest figure beside the optimistic one, then the test accuracy, as far as they are known."""
    lines, goal = [], summary.goal
    if summary.finalists and summary.finalists[0].mean is not None:
        winner = summary.finalists[0]
        lines.append(
            f"trial {winner.trial} wins: mean {goal_words(goal)} {goal_value(goal, winner.mean)} "
            f"on {count(len(winner.values), 'fresh seed')}{interval_words(goal, winner.interval)}"
        )
        lines.append(
            f"the best value in the search is {goal_value(goal, summary.best_value)}, of trial "
            f"{summary.best_trial}: the best of many is partly luck, so report the mean"
        )
    if summary.test_accuracy is not None:
        low, high = summary.test_accuracy_interval or (0.0, 1.0)
        lines.append(
            f"test accuracy {summary.test_accuracy:.2%} (95 % interval {low:.2%} to {high:.2%}), "
            f"on {summary.test_examples:,} test images, of {summary.winning_run or 'a run on another machine'}"
        )
    return lines
