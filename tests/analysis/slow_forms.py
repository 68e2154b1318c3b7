"""The statistics of two groups, one pair at a time and as plainly as possible: oracles for the fast forms."""

import math
from fractions import Fraction

import numpy as np

Z = 1.959963984540054
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(300)


def mcnemar(only_first, only_second):
    tosses = only_first + only_second
    tail = sum(math.comb(tosses, heads) for heads in range(min(only_first, only_second) + 1))
    return min(1.0, float(Fraction(2 * tail, 2**tosses)))


def tango_interval(only_first, only_second, num_images):
    n, b, c = num_images, only_first, only_second

    def statistic(difference):
        linear = -b - c + (2 * n - b + c) * difference
        root = math.sqrt(linear**2 + 8 * n * c * difference * (1 - difference))
        variance = n * ((root - linear) / (2 * n) + difference * (1 - difference))
        return (b - c - n * difference) / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, b - c)

    value = (b - c) / n
    low = bisect(lambda difference: statistic(difference) <= Z, -1.0, value)
    return low, bisect(lambda difference: statistic(difference) <= -Z, value, 1.0)


def bisect(is_beyond, low, high):
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if is_beyond(middle) else (middle, high)
    return high


def t_tails(statistic, dof):
    """With t = sqrt(dof) tan(angle), the density is proportional to cos(angle) ** (dof - 1)."""

    def integral(end):
        return float((_WEIGHTS * np.cos((_NODES + 1) * end / 2) ** (dof - 1)).sum()) * end / 2

    return 1 - integral(math.atan(statistic / math.sqrt(dof))) / integral(math.pi / 2)


def compare_values(first, second):
    """Difference of the means of two groups (runs, images), the ends of its interval and its p-value."""
    value = first.mean() - second.mean()
    num_images = first.shape[1]
    images = (first.mean(axis=0) - second.mean(axis=0)).var(ddof=1)
    squares = floor = 0.0
    for group in (first, second):
        if len(group) > 1:
            images -= group.var(axis=0, ddof=1).mean() / len(group)
            squares += len(group) * group.mean(axis=1).var()
            floor += (len(group) - 1) * group.var(axis=0, ddof=1).mean() / num_images
    images = max(0.0, images) / num_images
    dof = max(1, len(first) + len(second) - 2)
    seeds = max(squares, floor) / dof * (1 / len(first) + 1 / len(second))
    variance = images + seeds
    effective = dof * (variance / seeds) ** 2 if seeds else math.inf

    def tails(statistic):
        return math.erfc(statistic / math.sqrt(2)) if effective >= 1000 else t_tails(statistic, effective)

    half = bisect(lambda statistic: tails(statistic) <= 0.05, 0.0, 15.0) * math.sqrt(variance)
    return value, value - half, value + half, tails(abs(value) / math.sqrt(variance))


def holm(p_values):
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected, largest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected
