"""A comparison of runs as people read it: groups, differing keys, differences, verdicts."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cnn_trainer.cli.tables import pairs, table, wrap
from cnn_trainer.errors import CheckFailedError, UsageError, count

if TYPE_CHECKING:
    from cnn_trainer.analysis.compare import Comparison, Pair


def describe_comparison(found: "Comparison", width: int | None) -> list[str]:
    """All lines, for a terminal of ``width`` columns; None for a file or a pipe."""
    names = [_name(index) for index in range(len(found.groups))]
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


def _name(index: int) -> str:
    """A, B, … Z, then 27, 28, …."""
    return chr(ord("A") + index) if index < 26 else str(index + 1)


def _pair(found: "Comparison", pair: "Pair", width: int | None) -> list[str]:
    first, second = _name(pair.first), _name(pair.second)
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


def verdict_of(found: "Comparison", pair: "Pair") -> str:
    """One sentence: which of the two groups is better, or that it cannot be told."""
    first, second, difference = _name(pair.first), _name(pair.second), pair.difference
    corrected = f", corrected for {len(found.pairs)} pairs" if len(found.pairs) > 1 else ""
    facts = f"{abs(difference.value) * 100:.2f} points (95 % interval {_signed(pair)}), "
    facts += f"p = {difference.p_value:.2g}{corrected}"
    if pair.is_told_apart:
        better, worse = (first, second) if difference.value > 0 else (second, first)
        return f"{better} is better than {worse}: by {facts}"
    words = f"cannot tell {first} and {second} apart: they differ by {facts}"
    if difference.seeds_needed is not None:
        words += f"; if the difference is real, about {difference.seeds_needed:,} seeds each would show it"
    elif difference.quadrants is None:
        words += f"; no number of seeds would show a difference this small on {found.num_images:,} images"
    return words


def _signed(pair: "Pair") -> str:
    """The ends of the interval in points, from the side of the better group."""
    low, high = pair.difference.low * 100, pair.difference.high * 100
    return f"{low:.2f} to {high:.2f}" if pair.difference.value >= 0 else f"{-high:.2f} to {-low:.2f}"


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
            problem = f"A minus {_name(pair.second)} may be as low as {pair.difference.low:.4f}"
            raise CheckFailedError(f"{problem}, below {min_difference:g}", place="--min-difference")


def comparison_as_json(found: "Comparison") -> dict[str, Any]:
    """The comparison for programs; accuracies and differences are fractions from 0 to 1."""
    return {
        "split": found.split,
        "num_images": found.num_images,
        "images_sha256": found.images_sha256,
        "groups": [
            {
                "name": _name(index),
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
                "first": _name(pair.first),
                "second": _name(pair.second),
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
