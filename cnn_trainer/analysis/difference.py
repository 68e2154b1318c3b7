"""How sure a difference of accuracies is: exact tests and intervals that respect which images and seeds were used.

Accuracies are fractions from 0 to 1. Needs only NumPy.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from cnn_trainer.evaluation.scores import Z_975

LEVEL = 0.05
"""A difference with a smaller p-value counts as one."""
_Z_POWER = 0.8416212335729143  # the 0.8 quantile of the normal distribution, for a power of 80 %
_NORMAL_DOF = 1000.0  # from here on, Student's t differs from the normal distribution by less than 0.1 %
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(100)

Right = NDArray[np.bool_]
"""Whether each run of a group classified each image correctly: (runs, images)."""


@dataclass(frozen=True)
class Quadrants:
    """Two runs on the same images: the number of images that both, only one, or neither classified correctly."""

    both_right: int
    only_first: int
    only_second: int
    both_wrong: int


@dataclass(frozen=True)
class Difference:
    """The accuracy of one group minus that of another on the same images."""

    value: float
    low: float
    high: float
    """The ends of its 95 % confidence interval."""
    p_value: float
    """The probability of a difference at least as large if there is none. Two-sided."""
    quadrants: Quadrants | None
    """None unless both groups are single runs."""
    seeds_needed: int | None
    """Seeds for each group to find a true difference of this size with a power of 80 %; None if no number would do
    on this many images, or if it is unknown because each group is a single run."""


def count_quadrants(first: Right, second: Right) -> Quadrants:
    """Count the images of two single runs, each (1, images)."""
    a, b = first[0], second[0]
    return Quadrants(int((a & b).sum()), int((a & ~b).sum()), int((~a & b).sum()), int((~a & ~b).sum()))


def compare_groups(first: Right, second: Right) -> Difference:
    """The difference between two groups of runs that were scored on the same images.

    If both are single runs, the p-value is McNemar's and the interval is Tango's: they concern these two runs, not
    other seeds of their configs. Otherwise the variance has a part from the images, paired, and a part from the
    seeds, pooled over the groups, and Student's t is used with Satterthwaite's degrees of freedom.

    F. E. Satterthwaite, "An Approximate Distribution of Estimates of Variance Components" (1946).

    Args:
        first: (runs, images).
        second: (runs, images), of the same images in the same order.
    """
    if len(first) == len(second) == 1:
        counts = count_quadrants(first, second)
        low, high = tango_interval(counts.only_first, counts.only_second, first.shape[1])
        value = (counts.only_first - counts.only_second) / first.shape[1]
        return Difference(value, low, high, mcnemar(counts.only_first, counts.only_second), counts, None)
    value = float(first.mean() - second.mean())
    images = _image_variance(first, second)
    seed, dof = _seed_variance([first, second])
    seeds = seed * (1 / len(first) + 1 / len(second))
    half, p_value = _t_test(value, images, seeds, dof)
    return Difference(value, value - half, value + half, p_value, None, _seeds_needed(value, images, seed))


def group_interval(right: Right) -> tuple[float, float]:
    """The 95 % interval of the mean accuracy of two or more runs (runs, images), over other seeds and images."""
    value = float(right.mean())
    seed, dof = _seed_variance([right])
    half, _ = _t_test(value, _image_variance(right, np.zeros((1, right.shape[1]), bool)), seed / len(right), dof)
    return max(0.0, value - half), min(1.0, value + half)


def _image_variance(first: Right, second: Right) -> float:
    """The variance of the difference of two means that comes from the choice of images; at least 0.

    The variance over images of what the seeds average to, less the part of it that comes from the seeds themselves.
    """
    means = first.mean(axis=0) - second.mean(axis=0)
    variance = means.var(ddof=1)
    for right in (first, second):
        if len(right) > 1:
            share = right.mean(axis=0)
            variance -= (share * (1 - share)).mean() / (len(right) - 1)
    return max(0.0, float(variance)) / first.shape[1]


def _seed_variance(groups: Sequence[Right]) -> tuple[float, int]:
    """The variance of the accuracy between seeds, pooled over the groups, and its degrees of freedom, at least 1."""
    dof = sum(len(right) - 1 for right in groups)
    squares = sum(float(right.mean(axis=1).var()) * len(right) for right in groups)
    return squares / dof, dof


def _t_test(value: float, images: float, seeds: float, dof: int) -> tuple[float, float]:
    """Half the width of the 95 % interval of ``value``, and the p-value of 0, from the two parts of its variance."""
    variance = images + seeds
    if not variance:
        return 0.0, float(value == 0)
    effective = dof * (variance / seeds) ** 2 if seeds else math.inf
    return t_quantile(effective) * math.sqrt(variance), t_tails(abs(value) / math.sqrt(variance), effective)


def _seeds_needed(value: float, images: float, seed: float) -> int | None:
    needed = (value / (Z_975 + _Z_POWER)) ** 2 - images
    return max(2, math.ceil(2 * seed / needed)) if needed > 0 else None


def mcnemar(only_first: int, only_second: int) -> float:
    """McNemar's exact p-value, two-sided: each image that only one of two runs has right is a toss of a fair coin.

    Q. McNemar, "Note on the Sampling Error of the Difference Between Correlated Proportions" (1947).
    """
    tosses = only_first + only_second
    tail = sum(math.comb(tosses, heads) for heads in range(min(only_first, only_second) + 1))
    return min(1.0, float(Fraction(2 * tail, 2**tosses)))


def tango_interval(only_first: int, only_second: int, num_images: int) -> tuple[float, float]:
    """The 95 % score interval of the difference between two proportions of the same images.

    T. Tango, "Equivalence Test and Confidence Interval for the Difference in Proportions for the Paired-Sample Design"
    (1998). Unlike a bootstrap, it is not of width 0 if no image tells the runs apart.
    """
    n, b, c = num_images, only_first, only_second

    def statistic(difference: float) -> float:
        linear = -b - c + (2 * n - b + c) * difference
        root = math.sqrt(linear**2 + 8 * n * c * difference * (1 - difference))
        variance = n * ((root - linear) / (2 * n) + difference * (1 - difference))
        return (b - c - n * difference) / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, b - c)

    value = (b - c) / n
    low = _bisect(lambda difference: statistic(difference) <= Z_975, -1.0, value)
    high = _bisect(lambda difference: statistic(difference) <= -Z_975, value, 1.0)
    return low, high


def _bisect(is_beyond: Callable[[float], bool], low: float, high: float) -> float:
    """Where ``is_beyond`` turns from False to True between ``low`` and ``high``."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if is_beyond(middle) else (middle, high)
    return high


def t_tails(statistic: float, dof: float) -> float:
    """The probability that Student's t is at least as far from 0 as ``statistic``, which is not negative.

    With t = sqrt(dof) tan(angle), the density is proportional to cos(angle) ** (dof - 1).
    """
    if dof >= _NORMAL_DOF:
        return math.erfc(statistic / math.sqrt(2))

    def integral(end: float) -> float:
        return float((_WEIGHTS * np.cos((_NODES + 1) * end / 2) ** (dof - 1)).sum()) * end / 2

    return max(0.0, 1 - integral(math.atan(statistic / math.sqrt(dof))) / integral(math.pi / 2))


def t_quantile(dof: float) -> float:
    """The 0.975 quantile of Student's t: for a two-sided interval of 95 %. ``dof`` is at least 1."""
    return _bisect(lambda statistic: t_tails(statistic, dof) <= LEVEL, 0.0, 13.0)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for their number, in the same order: the chance of any false finding stays at the level.

    S. Holm, "A Simple Sequentially Rejective Multiple Test Procedure" (1979).
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected, largest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected
