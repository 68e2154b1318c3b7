"""What a comparison says, in sentences."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cnn_trainer.analysis.compare import Comparison, Pair


def group_name(index: int) -> str:
    """What people call a group: A, B, … Z, then 27, 28, …."""
    return chr(ord("A") + index) if index < 26 else str(index + 1)


def verdict_of(found: "Comparison", pair: "Pair") -> str:
    """One sentence: which of the two groups is better, or that it cannot be told."""
    first, second, difference = group_name(pair.first), group_name(pair.second), pair.difference
    corrected = f", corrected for {len(found.pairs):,} pairs" if len(found.pairs) > 1 else ""
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
