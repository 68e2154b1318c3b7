"""A ranking of runs as people read it: a table of tiers for each set of images, and what it does not say."""

from typing import TYPE_CHECKING, Any

from cnn_trainer.cli.comparison import (
    SPARE,
    TIER_MEANING,
    comparison_as_json,
    measured_on,
    score_columns,
)
from cnn_trainer.cli.tables import pairs, table, wrap
from cnn_trainer.errors import count

if TYPE_CHECKING:
    from cnn_trainer.analysis.rank import Leaderboard, Ranking

_SHOWN_LEFT_OUT = 5


def describe_ranking(found: "Ranking", width: int | None, is_own_choice: bool) -> list[str]:
    """All lines, for a terminal of ``width`` columns; None for a file or a pipe.

    ``is_own_choice`` says that the user chose the split.
    """
    lines = [line for board in found.boards for line in (*_board(board, width), "")]
    if len(found.boards) > 1:
        note = f"these runs were scored on {len(found.boards)} different sets of {found.split} images"
        lines += wrap(f"{note}, so they are in separate tables, which cannot be compared", width)
    runs = [scored for board in found.boards for group in board.comparison.groups for scored in group.runs]
    lines += wrap(TIER_MEANING, width)
    if any(len(group.runs) == 1 for board in found.boards for group in board.comparison.groups):
        lines += wrap("a row of a single run ranks that run, not its config: other seeds may change its place", width)
    if found.split == "test":
        lines += wrap(
            "this table is ordered by the test split: to choose from it is itself a choice made on the test split, so "
            "the accuracy of the chosen group is too high an estimate for new images",
            width,
        )
        if not is_own_choice and all(scored.run.record.data.num_validation for scored in runs):
            lines += wrap(
                "these runs have a validation split: score each on it, with one data.split_seed for all, and they are "
                "ordered by it: cnn-train evaluate RUN --split validation",
                width,
            )
    return lines + _left_out(found, width)


def _board(board: "Leaderboard", width: int | None) -> list[str]:
    found = board.comparison
    keys = _short(list(found.differing))
    heading, *rows = zip(
        ("tier", *map(str, board.tiers)),
        *score_columns(found),
        ("runs", *(str(len(group.runs)) for group in found.groups)),
        *((key, *values) for key, values in zip(keys, found.differing.values(), strict=True)),
        ("run", *(group.runs[0].run.dir.name for group in found.groups)),
        strict=True,
    )
    return [*table(heading, rows, width, (*SPARE, "run", *reversed(keys))), "", *wrap(measured_on(found), width)]


def _short(keys: list[str]) -> list[str]:
    """The last words of dotted keys; the whole key if two have the same last word."""
    last = [key.rpartition(".")[2] for key in keys]
    return [word if last.count(word) == 1 else key for key, word in zip(keys, last, strict=True)]


def _left_out(found: "Ranking", width: int | None) -> list[str]:
    if not found.left_out:
        return []
    reasons = [(run_dir.name, reason) for run_dir, reason in found.left_out.items()]
    lines = ["", *wrap(f"{count(len(reasons), 'run')} left out:", width)]
    lines += pairs(reasons[:_SHOWN_LEFT_OUT], "  ", width)
    more = len(reasons) - _SHOWN_LEFT_OUT
    return [*lines, *([f"  and {more:,} more; --json names all"] if more > 0 else [])]


def ranking_as_json(found: "Ranking") -> dict[str, Any]:
    """The ranking for programs: comparisons whose groups are in order and have a tier."""
    boards = []
    for board in found.boards:
        shown = comparison_as_json(board.comparison)
        for tier, group in zip(board.tiers, shown["groups"], strict=True):
            group["tier"] = tier
        boards.append(shown)
    left_out = [{"run": str(run_dir), "reason": reason} for run_dir, reason in found.left_out.items()]
    return {"split": found.split, "boards": boards, "left_out": left_out}
