"""Exact tests, intervals and Student's t, for many comparisons at once. Needs only NumPy."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cnn_trainer.evaluation.scores import Z_975

ImageCounts = NDArray[np.int64]
Reals = NDArray[np.float64]

_NORMAL_DOF = 1000.0  # from here on, Student's t differs from the normal distribution by less than 0.1 %
_log_gamma = np.vectorize(math.lgamma, otypes=[np.float64])
_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def mcnemar(only_first: ImageCounts, only_second: ImageCounts) -> Reals:
    """McNemar's exact p-values, two-sided: each image that only one of two runs has right is a toss of a fair coin.

    Q. McNemar, "Note on the Sampling Error of the Difference Between Correlated Proportions" (1947).

    Args:
        only_first: For each pair of runs, the images that only the first has right.
        only_second: The images that only the second has right, of the same shape.
    """
    tosses, heads = only_first + only_second, np.minimum(only_first, only_second)
    factorials = _log_gamma(np.arange(1.0, tosses.max(initial=0) + 2))  # their logarithms
    log_term = factorials[tosses] - factorials[heads] - factorials[tosses - heads] - tosses * math.log(2)
    # The binomial tail as a multiple of its largest term: each term is the one before times left / (tosses - left + 1).
    total, ratio, left = np.ones(tosses.shape), np.ones(tosses.shape), heads.astype(np.float64)
    while ratio.max(initial=0) > 1e-17:
        ratio *= left / (tosses - left + 1)
        total += ratio
        left = np.maximum(left - 1, 0)
    return np.minimum(1.0, 2 * np.exp(log_term) * total)


def tango_interval(only_first: ImageCounts, only_second: ImageCounts, num_images: int) -> tuple[Reals, Reals]:
    """The 95 % score intervals of the differences between two proportions of the same images, for each pair.

    T. Tango, "Equivalence Test and Confidence Interval for the Difference in Proportions for the Paired-Sample Design"
    (1998). Unlike a bootstrap, it is not of width 0 if no image tells the runs apart.
    """
    n = num_images
    found, where = np.unique(only_first * (n + 1) + only_second, return_inverse=True)  # many pairs have equal counts
    b, c = found // (n + 1), found % (n + 1)

    def statistic(difference: Reals) -> Reals:
        linear = -b - c + (2 * n - b + c) * difference
        root = np.sqrt(linear**2 + 8 * n * c * difference * (1 - difference))
        variance = n * ((root - linear) / (2 * n) + difference * (1 - difference))
        with np.errstate(divide="ignore", invalid="ignore"):
            score = (b - c - n * difference) / np.sqrt(variance)
        return np.where(variance > 0, score, np.copysign(math.inf, b - c))

    value = (b - c) / n
    low = _bisect(lambda difference: statistic(difference) <= Z_975, np.full(value.shape, -1.0), value)
    high = _bisect(lambda difference: statistic(difference) <= -Z_975, value, np.full(value.shape, 1.0))
    return low[where], high[where]


def _bisect(is_beyond: Callable[[Reals], NDArray[np.bool_]], low: Reals, high: Reals) -> Reals:
    """Where ``is_beyond`` turns from False to True between ``low`` and ``high``."""
    for _ in range(60):
        middle = (low + high) / 2
        beyond = is_beyond(middle)
        low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
    return high


def t_tails(statistic: Reals, dof: Reals) -> Reals:
    """The probabilities that Student's t is at least as far from 0 as each ``statistic``, which is not negative.

    The incomplete beta function I(x; dof / 2, 1 / 2) at x = dof / (dof + statistic ** 2), by its continued fraction:
    https://dlmf.nist.gov/8.17.E22.

    Args:
        statistic: Of any shape.
        dof: Degrees of freedom, at least 1, of the same shape.
    """
    tails = _erfc(statistic / math.sqrt(2))
    few = dof < _NORMAL_DOF
    half, square = dof[few] / 2, statistic[few] ** 2
    x, y = dof[few] / (dof[few] + square), square / (dof[few] + square)
    log_beta = _log_gamma(half) + math.lgamma(0.5) - _log_gamma(half + 0.5)
    with np.errstate(divide="ignore"):
        factor = np.exp(half * np.log(x) + np.log(y) / 2 - log_beta)
    is_low = x < (half + 1) / (half + 2.5)  # where the fraction converges fast; else that of 1 - I is taken
    a, b = np.where(is_low, half, 0.5), np.where(is_low, 0.5, half)
    part = factor * _beta_fraction(np.where(is_low, x, y), a, b) / a
    tails[few] = np.where(is_low, part, 1 - part)
    return tails


def _beta_fraction(x: Reals, a: Reals, b: Reals) -> Reals:
    """The continued fraction of the incomplete beta function, by Lentz's method."""
    c, d = np.ones(x.shape), 1 / (1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, 1000):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d, c = 1 / (1 + numerator * d), 1 + numerator / c
            value = value * d * c
        if np.all(np.abs(d * c - 1) < 1e-15):
            break
    return value


def t_quantile(dof: Reals, level: float = 0.05) -> Reals:
    """The values that Student's t exceeds, up or down, with the probability ``level``. ``dof`` is at least 1.

    Newton's method for the logarithm of the tails as a function of the logarithm of t, which is concave: from the
    second step on, it comes from above without overshooting. It starts from D. L. Wallace, "Bounds on Normal
    Approximations to Student's and the Chi-Square Distributions" (1959).
    """
    dof, where = np.unique(np.minimum(dof, _NORMAL_DOF), return_inverse=True)
    square = -2 * math.log(level / 2) - math.log(2 * math.pi)
    square -= math.log(square)  # about that of the normal distribution's quantile
    found = np.sqrt(dof * np.expm1(square / dof * ((8 * dof + 3) / (8 * dof + 1)) ** 2))
    log_constant = _log_gamma((dof + 1) / 2) - _log_gamma(dof / 2) - np.log(dof * math.pi) / 2
    for _ in range(100):
        tails = t_tails(found, dof)
        density = np.exp(log_constant - (dof + 1) / 2 * np.log1p(found**2 / dof))
        step = np.log(tails / level) * tails / (2 * found * density)
        found = found * np.exp(step)
        if np.all(np.abs(step) < 1e-8):
            break
    return found[where]


def holm(p_values: Reals) -> Reals:
    """The p-values corrected for their number, in the same order: the chance of any false finding stays at the level.

    S. Holm, "A Simple Sequentially Rejective Multiple Test Procedure" (1979).
    """
    order = np.argsort(p_values, kind="stable")
    scaled = np.minimum(1.0, p_values[order] * np.arange(len(order), 0, -1))
    corrected = np.empty(len(order))
    corrected[order] = np.maximum.accumulate(scaled)
    return corrected
