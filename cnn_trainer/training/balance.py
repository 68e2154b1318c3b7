"""Classes of very different size: how to say it, and the weights that make up for it."""

from collections.abc import Sequence
from operator import itemgetter
from typing import Final

UNBALANCED: Final = 5
"""How many times as many examples a class has as another, from which on it is said."""


def balanced_weights(counts: Sequence[int]) -> list[float]:
    """The weight of each class, n / (k n_c), from the number of examples n_c of each of the k classes; n is their sum.

    All classes then have the same sum of weights, and the mean weight of an example is 1. This is what scikit-learn
    calls ``class_weight="balanced"``, after G. King and L. Zeng, Logistic Regression in Rare Events Data (2001).
    Every class must have an example.
    """
    return [sum(counts) / (len(counts) * count) for count in counts]


def describe_imbalance(counts: Sequence[int], class_names: Sequence[str]) -> str | None:
    """The largest class and the smallest that has an example: ``300 images of class cat and 3 of class dog``.

    None if the largest has less than ``UNBALANCED`` times as many.
    """
    found = [(count, name) for count, name in zip(counts, class_names, strict=False) if count]
    if not found:
        return None
    (least, rarest), (most, commonest) = min(found, key=itemgetter(0)), max(found, key=itemgetter(0))
    return (
        f"{most:,} images of class {commonest} and {least:,} of class {rarest}" if most >= UNBALANCED * least else None
    )


def first_ten(names: Sequence[str]) -> str:
    """The first ten names, and how many more there are."""
    return ", ".join(names[:10]) + (f" and {len(names) - 10:,} more" if names[10:] else "")
