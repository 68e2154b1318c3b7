"""A comparison of runs as people read it: groups, differing keys, differences, verdicts."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cnn_trainer.analysis.verdict import group_name, verdict_of
from cnn_trainer.cli.tables import pairs, table, wrap
from cnn_trainer.errors import CheckFailedError, UsageError, count

if TYPE_CHECKING:
    from cnn_trainer.analysis.compare import Comparison, Pair


def describe_comparison(found: "Comparison", width: int | None) -> list[str]:
    """All lines, for a terminal of ``width`` columns; None for a file or a pipe."""
    names = [group_name(index) for index in range(len(found.groups))]
    members = [
        (name, ", ".join(f"{scored.run.dir.name} (seed {scored.run.record.seed})" for scored in group.runs))
        for name, group in zip(names, found.groups, strict=True)
    ]
    heading = ("group", "runs", f"{found.split} accuracy", "95 % interval", "loss")
    rows = [
        (
            name,
            str(len(group.runs)),
            f"{group.accuracy:.2%}",
            f"{group.low:.2%} to {group.high:.2%}",
            f"{group.loss:.4f}",
        )
        for name, group in zip(names, found.groups, strict=True)
    ]
    lines = [*pairs(members, width=width), "", *table(heading, rows, width), ""]
    if found.differing:
        cells = [(key, *values) for key, values in found.differing.items()]
        lines += [*table(("differing key", *names), cells, width), ""]
    for pair in found.pairs:
        lines += _pair(found, pair, width)
    if len(found.groups) == 1:
        lines += wrap(
            f"all runs differ only in their seed: {count(len(found.groups[0].runs), 'run')} of one group", width
        )
    lines += wrap(f"measured on {count(found.num_images, f'{found.split} image')}, sha256 {found.images_sha256}", width)
    return lines


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
    if counts is not None:
        note = "this compares two runs, not their configs: with other seeds the order may be different"
        lines += wrap(f"{note}; train each config with several seeds and compare all the runs", width)
    return [*lines, ""]


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
                "seeds": [scored.run.record.seed for scored in group.runs],
                "accuracy": group.accuracy,
                "accuracy_interval": [group.low, group.high],
                "accuracies": [scored.evaluation.accuracy for scored in group.runs],
                "loss": group.loss,
            }
            for index, group in enumerate(found.groups)
        ],
        "differing": found.differing,
        "pairs": [
            {
                "first": group_name(pair.first),
                "second": group_name(pair.second),
                "difference": pair.difference.value,
                "difference_interval": [pair.difference.low, pair.difference.high],
                "p_value": pair.difference.p_value,
                "seeds_needed": pair.difference.seeds_needed,
                "counts": None if pair.difference.quadrants is None else asdict(pair.difference.quadrants),
                "is_told_apart": pair.is_told_apart,
                "verdict": verdict_of(found, pair),
            }
            for pair in found.pairs
        ],
    }
