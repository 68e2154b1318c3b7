"""A comparison of runs as people read it: groups, differing keys, differences, verdicts."""

from typing import TYPE_CHECKING, Any

from cnn_trainer.analysis.verdict import group_name, verdict_of
from cnn_trainer.cli.tables import pairs, table, wrap
from cnn_trainer.errors import CheckFailedError, UsageError, count

if TYPE_CHECKING:
    from cnn_trainer.analysis.compare import Comparison, Group, Pair


_MAX_ALL_PAIRS = 5
"""With more groups, only the pairs with the first are shown, and the tiers of all."""


def describe_comparison(found: "Comparison", width: int | None) -> list[str]:
    """All lines, for a terminal of ``width`` columns; None for a file or a pipe."""
    names = [group_name(index) for index in range(len(found.groups))]
    members = [(name, members_of(group)) for name, group in zip(names, found.groups, strict=True)]
    is_large = len(names) > _MAX_ALL_PAIRS
    columns = [
        ("group", *names),
        ("runs", *(str(len(group.runs)) for group in found.groups)),
        *score_columns(found),
    ]
    if is_large:
        from cnn_trainer.analysis.rank import tiers_of

        columns.insert(0, ("tier", *map(str, tiers_of(found))))
    heading, *rows = zip(*columns, strict=True)
    lines = [*pairs(members, width=width), "", *table(heading, rows, width, SPARE), ""]
    if found.differing and is_large:
        cells = [(name, *values) for name, *values in zip(names, *found.differing.values(), strict=True)]
        lines += [*table(("group", *found.differing), cells, width), ""]
    elif found.differing:
        cells = [(key, *values) for key, values in found.differing.items()]
        lines += [*table(("differing key", *names), cells, width), ""]
    if is_large:
        lines += [*_differences_from_first(found, width), ""]
        lines += wrap(f"{TIER_MEANING}; --json has the differences of all {len(found.pairs):,} pairs", width)
    else:
        lines += [line for pair in found.pairs for line in _pair(found, pair, width)]
    if len(found.groups) == 1:
        lines += wrap(
            f"all runs differ only in their seed: {count(len(found.groups[0].runs), 'run')} of one group", width
        )
    return [*lines, *wrap(measured_on(found), width)]


TIER_MEANING = (
    "groups in the same tier cannot be told apart; for each group below tier 1, one in the tier above is shown to be "
    "better"
)
SPARE = ("95 % interval of the loss", "loss")
"""The columns of a group's score that a table can do without, the least important first."""


def score_columns(found: "Comparison") -> tuple[tuple[str, ...], ...]:
    """Columns of accuracy and loss with their intervals, the heading first; the loss has one only if it is known."""
    groups = found.groups
    columns = (
        (f"{found.split} accuracy", *(f"{group.accuracy:.2%}" for group in groups)),
        ("95 % interval", *(f"{group.low:.2%} to {group.high:.2%}" for group in groups)),
        ("loss", *(f"{group.loss:.4f}" for group in groups)),
    )
    intervals = [group.loss_interval for group in groups]
    if not any(intervals):
        return columns
    return *columns, (SPARE[0], *("-" if ends is None else f"{ends[0]:.4f} to {ends[1]:.4f}" for ends in intervals))


def members_of(group: "Group") -> str:
    """The runs of a group with their seeds."""
    return ", ".join(f"{scored.run.dir.name} (seed {scored.run.experiment.seed})" for scored in group.runs)


def measured_on(found: "Comparison") -> str:
    """Which images the scores were measured on."""
    return f"measured on {count(found.num_images, f'{found.split} image')}, sha256 {found.images_sha256}"


def _pair(found: "Comparison", pair: "Pair", width: int | None) -> list[str]:
    first, second = group_name(pair.first), group_name(pair.second)
    counts, lines = pair.difference.quadrants, []
    if counts is not None:
        numbers = {
            "both right": counts.both_right,
            f"only {first} right": counts.only_first,
            f"only {second} right": counts.only_second,
            "both wrong": counts.both_wrong,
        }
        lines += [*pairs([(words, f"{number:,}") for words, number in numbers.items()], width=width), ""]
    lines += wrap(verdict_of(found, pair), width)
    if pair.loss_difference is not None:
        value, low, high = pair.loss_difference
        lines += wrap(f"loss of {first} minus {second}: {value:.4f} (95 % interval {low:.4f} to {high:.4f})", width)
    if counts is not None:
        note = "this compares two runs, not their configs: with other seeds the order may be different"
        lines += wrap(f"{note}; train each config with several seeds and compare all the runs", width)
    return [*lines, ""]


def _differences_from_first(found: "Comparison", width: int | None) -> list[str]:
    rows = []
    for pair in found.pairs[: len(found.groups) - 1]:
        difference, name = pair.difference, group_name(pair.second)
        shown = "cannot tell" if not pair.is_told_apart else f"{'A' if difference.value > 0 else name} is better"
        interval = f"{difference.low * 100:.2f} to {difference.high * 100:.2f}"
        rows.append((name, f"{difference.value * 100:.2f}", interval, f"{difference.p_value:.2g}", shown))
    heading = ("group", "A minus it, in points", "95 % interval", f"p, corrected for {len(found.pairs):,} pairs", "")
    return table(heading, rows, width)


def require_difference(found: "Comparison", min_difference: float) -> None:
    """Refuse unless the first group is better than each other by ``min_difference`` with 95 % confidence.

    Raises:
        UsageError: if there is only one group.
        CheckFailedError: if the interval of a difference begins below ``min_difference``.
    """
    if len(found.groups) == 1:
        raise UsageError(
            "all runs differ only in their seed", place="--min-difference", remedy="name runs to compare with"
        )
    for pair in found.pairs:
        if pair.first == 0 and pair.difference.low < min_difference:
            problem = f"A minus {group_name(pair.second)} may be as low as {pair.difference.low:.4f}"
            raise CheckFailedError(f"{problem}, below {min_difference:g}", place="--min-difference")


def comparison_as_json(found: "Comparison") -> dict[str, Any]:
    """The comparison for programs; accuracies and differences are fractions from 0 to 1."""
    return {
        "split": found.split,
        "num_images": found.num_images,
        "images_sha256": found.images_sha256,
        "groups": [
            {
                "name": group_name(index),
                "runs": [str(scored.run.dir) for scored in group.runs],
                "seeds": [scored.run.experiment.seed for scored in group.runs],
                "accuracy": group.accuracy,
                "accuracy_interval": [group.low, group.high],
                "accuracies": [scored.evaluation.accuracy for scored in group.runs],
                "loss": group.loss,
                "loss_interval": group.loss_interval,
                "losses": [scored.evaluation.loss for scored in group.runs],
            }
            for index, group in enumerate(found.groups)
        ],
        "differing": found.differing,
        "pairs": [_pair_as_json(found, pair) for pair in found.pairs],
    }


def _pair_as_json(found: "Comparison", pair: "Pair") -> dict[str, Any]:
    difference, loss = pair.difference, pair.loss_difference
    return {
        "first": group_name(pair.first),
        "second": group_name(pair.second),
        "difference": difference.value,
        "difference_interval": [difference.low, difference.high],
        "loss_difference": None if loss is None else loss.value,
        "loss_difference_interval": None if loss is None else [loss.low, loss.high],
        "p_value": difference.p_value,
        "seeds_needed": difference.seeds_needed,
        "counts": None if difference.quadrants is None else difference.quadrants._asdict(),
        "is_told_apart": pair.is_told_apart,
        "verdict": verdict_of(found, pair),
    }
