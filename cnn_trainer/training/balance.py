"""Classes of very different sizes: describes the imbalance, and computes weights that compensate for it."""

from collections.abc import Sequence
from operator import itemgetter
from typing import Final

UNBALANCED: Final = 5
"""An imbalance is reported if one class has at least this many times as many examples as another."""


def balanced_weights(counts: Sequence[int]) -> list[float]:
    """The weight of each class, n / (k n_c), where n_c is the number of its examples, k of classes, and n of all.

    The weights of the examples then have the same sum in every class, and a mean of 1 over all examples. This is what
    scikit-learn calls ``class_weight="balanced"``, after G. King and L. Zeng, Logistic Regression in Rare Events Data
    (2001). Every class must have an example.
    """
    return [sum(counts) / (len(counts) * count) for count in counts]


def describe_imbalance(counts: Sequence[int], class_names: Sequence[str]) -> str | None:
    """Describe the largest class and the smallest nonempty one: ``300 images of class cat and 3 of class dog``.

    None if the largest has less than ``UNBALANCED`` times as many examples.
    """
    found = [(count, name) for count, name in zip(counts, class_names, strict=False) if count]
    if not found:
        return None
    (least, rarest), (most, commonest) = min(found, key=itemgetter(0)), max(found, key=itemgetter(0))
    return (
        f"{most:,} images of class {commonest} and {least:,} of class {rarest}" if most >= UNBALANCED * least else None
    )


def first_ten(names: Sequence[str]) -> str:
    """The first ten names, and the number of others."""
    return ", ".join(names[:10]) + (f" and {len(names) - 10:,} more" if names[10:] else "")
