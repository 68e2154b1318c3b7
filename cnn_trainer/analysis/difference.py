"""How sure differences between groups of runs are: tests and intervals that respect which images and seeds were used.

Accuracies are fractions from 0 to 1, losses in nats or whatever the loss is in. Needs only NumPy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cnn_trainer.analysis.distributions import Reals, holm, mcnemar, t_quantile, t_tails, tango_interval
from cnn_trainer.evaluation.scores import wilson_interval

LEVEL = 0.05
"""A difference with a smaller p-value counts as one."""
_Z_POWER = 0.8416212335729143  # the 0.8 quantile of the normal distribution, for a power of 80 %
_MAX_SEEDS = 10_000
_CHUNK_IMAGES = 65_536

Right = NDArray[np.bool_]
"""Whether each run of a group classified each image correctly: (runs, images)."""
Losses = NDArray[np.float32]
"""The loss of each run of a group on each image: (runs, images)."""


class Quadrants(NamedTuple):
    """Two runs on the same images: the number of images that both, only one, or neither classified correctly."""

    both_right: int
    only_first: int
    only_second: int
    both_wrong: int


class Estimate(NamedTuple):
    """A value with the ends of its 95 % confidence interval."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """The accuracy of one group minus that of another on the same images."""

    value: float
    low: float
    high: float
    """The ends of its 95 % confidence interval."""
    p_value: float
    """The probability of a difference at least as large if there is none; two-sided, corrected for the number of pairs
    that are compared."""
    quadrants: Quadrants | None
    """None unless both groups are single runs."""
    seeds_needed: int | None
    """Seeds for each group to find a true difference of this size with a power of 80 %, if as many pairs are compared;
    None if no number would do on this many images, or if it is unknown because each group is a single run."""


@dataclass(frozen=True)
class Moments:
    """All that the comparison of groups needs to know of their values (runs, images) on the same images."""

    num_images: int
    num_runs: Reals
    """Of each group, (groups,)."""
    means: Reals
    """The mean value of each group, (groups,)."""
    skew: Reals
    """The third central moment over images of each group's mean values, (groups,)."""
    products: Reals
    """For each two groups, the mean over images of the product of their mean values, (groups, groups)."""
    scatter: Reals
    """How much of the variance over images of a group's mean values comes from the choice of seeds: (groups,)."""
    seed_squares: Reals
    """The squared distances of the runs' means from the group's, summed: (groups,)."""

    @property
    def seed_floor(self) -> Reals:
        """What ``seed_squares`` would be if the seeds changed each image independently of the others, (groups,).

        A few seeds can agree in their means by luck; this is measured on all images, so it cannot be small by luck.
        """
        return self.scatter * self.num_runs * (self.num_runs - 1) / self.num_images

    def image_variance(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> Reals:
        """The variance of the difference of two groups' means that comes from the choice of images, for each pair."""
        squares = self.products[first, first] + self.products[second, second]
        spread = squares - 2 * self.products[first, second] - (self.means[first] - self.means[second]) ** 2
        spread[spread < 1e-13 * squares] = 0.0  # rounding, if the groups have equal values
        return self._per_image(spread, self.scatter[first] + self.scatter[second])

    def own_image_variance(self) -> Reals:
        """The variance of each group's mean that comes from the choice of images."""
        return self._per_image(self.products.diagonal() - self.means**2, self.scatter)

    def _per_image(self, spread: Reals, scatter: Reals) -> Reals:
        unbiased = spread * self.num_images / max(1, self.num_images - 1)
        return np.maximum(0.0, unbiased - scatter) / self.num_images


def measure_moments(groups: Sequence[NDArray[np.bool_] | NDArray[np.float32]]) -> Moments:
    """The moments of groups of runs, each (runs, images), of the same images in the same order. Exact for booleans."""
    num_images, num_runs = groups[0].shape[1], np.array([float(len(group)) for group in groups])
    products, (squares, cubes) = np.zeros((len(groups), len(groups))), np.zeros((2, len(groups)))
    run_sums = [np.zeros(len(group)) for group in groups]
    for start in range(0, num_images, _CHUNK_IMAGES):
        sums = np.empty((len(groups), min(_CHUNK_IMAGES, num_images - start)))
        for index, group in enumerate(groups):
            values = group[:, start : start + _CHUNK_IMAGES].astype(np.float64)
            sums[index] = values.sum(axis=0)
            run_sums[index] += values.sum(axis=1)
            squares[index] += np.square(values, out=values).sum()
        products += sums @ sums.T
        cubes += np.einsum("ij,ij,ij->i", sums, sums, sums)
    scatter = np.zeros(len(groups))
    several = num_runs > 1
    within = squares - products.diagonal() / num_runs  # 0 for a single run
    scatter[several] = (within / num_images / num_runs)[several] / (num_runs[several] - 1)
    run_means = [sums / num_images for sums in run_sums]
    means = np.array([found.mean() for found in run_means])
    products /= num_images * np.outer(num_runs, num_runs)
    return Moments(
        num_images=num_images,
        num_runs=num_runs,
        means=means,
        skew=cubes / num_images / num_runs**3 - 3 * means * products.diagonal() + 2 * means**3,
        products=products,
        scatter=scatter,
        seed_squares=np.array([((means - means.mean()) ** 2).sum() for means in run_means]),
    )


def pair_indexes(num_groups: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first and the second group of every pair: 0 and 1, 0 and 2, …, 1 and 2, …."""
    first, second = np.triu_indices(num_groups, 1)
    return first, second


def compare_all(found: Moments) -> list[Difference]:
    """The difference of accuracies of every pair, in the order of ``pair_indexes``, from the moments of ``Right``.

    The p-values are corrected for the number of pairs (Holm); the intervals are not.

    If both groups are single runs, the p-value is McNemar's and the interval is Tango's: they concern these two runs,
    not other seeds of their configs. Otherwise the variance has a part from the images, paired, and a part from the
    seeds, pooled over the two groups, and Student's t is used with Satterthwaite's degrees of freedom.

    F. E. Satterthwaite, "An Approximate Distribution of Estimates of Variance Components" (1946).
    """
    first, second = pair_indexes(len(found.means))
    value = found.means[first] - found.means[second]
    low, high, p_value = np.empty((3, len(value)))
    quadrants: list[Quadrants | None] = [None] * len(value)
    seeds_needed: list[int | None] = [None] * len(value)
    single = (found.num_runs[first] == 1) & (found.num_runs[second] == 1)
    [which] = single.nonzero()
    if len(which):
        counts = _quadrants(found, first[which], second[which])
        p_value[which] = mcnemar(counts[1], counts[2])
        low[which], high[which] = tango_interval(counts[1], counts[2], found.num_images)
        for index, row in zip(which.tolist(), counts.T.tolist(), strict=True):
            quadrants[index] = Quadrants(*row)
    [which] = (~single).nonzero()
    if len(which):
        images, seeds, dof = _variances(found, first[which], second[which])
        half, p_value[which] = _t_test(value[which], images, seeds, dof)
        none = np.zeros(1, np.int64)  # if no image tells any of the runs apart, as for two single runs
        half = np.where(half > 0, half, tango_interval(none, none, found.num_images)[1])
        low[which], high[which] = value[which] - half, value[which] + half
        needed = _seeds_needed(found, first[which], second[which], LEVEL / len(value))
        for index, seeds_each in zip(which.tolist(), needed.tolist(), strict=True):
            seeds_needed[index] = seeds_each if seeds_each <= _MAX_SEEDS else None
    columns = (value.tolist(), low.tolist(), high.tolist(), holm(p_value).tolist(), quadrants, seeds_needed)
    return [Difference(*row) for row in zip(*columns, strict=True)]


def compare_groups(first: Right, second: Right) -> Difference:
    """The difference between two groups of runs (runs, images), as ``compare_all`` computes it."""
    return compare_all(measure_moments([first, second]))[0]


def estimate_differences(found: Moments) -> list[Estimate]:
    """The difference of the means of every pair, in the order of ``pair_indexes``, such as of losses.

    As in ``compare_all`` for groups of several runs; for two single runs, the variance is that of the images only.
    """
    first, second = pair_indexes(len(found.means))
    value = found.means[first] - found.means[second]
    half, _ = _t_test(value, *_variances(found, first, second))
    return [
        Estimate(*row) for row in zip(value.tolist(), (value - half).tolist(), (value + half).tolist(), strict=True)
    ]


def estimate_means(found: Moments) -> list[Estimate]:
    """The mean of every group, over other seeds and images; of a single run, over other images only.

    A few images have most of the loss, and most of the errors, so the interval is corrected for skewness.

    P. Hall, "On the Removal of Skewness by Transformation" (1992).
    """
    dof = np.maximum(1.0, found.num_runs - 1)
    seeds = np.maximum(found.seed_squares, found.seed_floor) / dof / found.num_runs
    images = found.own_image_variance()
    half, _ = _t_test(found.means, images, seeds, dof)
    deviation = np.sqrt(np.where(half > 0, images + seeds, 1.0))
    skew = found.skew / found.num_images**2 / deviation**3  # of the mean

    def end(quantile: Reals) -> list[float]:
        with np.errstate(divide="ignore", invalid="ignore"):
            corrected = 3 / skew * (np.cbrt(1 + skew * (quantile - skew / 6)) - 1)
        return (found.means - deviation * np.where(np.abs(skew) < 1e-6, quantile, corrected)).tolist()

    quantile = half / deviation
    ends = (end(quantile), end(-quantile))
    return [Estimate(*row) for row in zip(found.means.tolist(), *ends, strict=True)]


def estimate_accuracies(found: Moments) -> list[Estimate]:
    """The accuracy of every group, from the moments of ``Right``.

    The interval of a single run, and of runs that all have every image right or wrong, is Wilson's.
    """
    accuracies = []
    for (mean, low, high), num_runs in zip(estimate_means(found), found.num_runs.tolist(), strict=True):
        ends = wilson_interval(round(mean * found.num_images), found.num_images)
        if num_runs > 1 and low < high:
            ends = max(0.0, low), min(1.0, high)
        accuracies.append(Estimate(mean, *ends))
    return accuracies


def group_interval(right: Right) -> tuple[float, float]:
    """The 95 % interval of the mean accuracy of runs (runs, images), as ``estimate_accuracies`` computes it."""
    [found] = estimate_accuracies(measure_moments([right]))
    return found.low, found.high


def _quadrants(found: Moments, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """Counts of images, (4, pairs), for pairs of single runs."""
    right = np.rint(found.means * found.num_images).astype(np.int64)
    both = np.rint(found.products[first, second] * found.num_images).astype(np.int64)
    only_first, only_second = right[first] - both, right[second] - both
    return np.stack([both, only_first, only_second, found.num_images - both - only_first - only_second])


def _variances(
    found: Moments, first: NDArray[np.int64], second: NDArray[np.int64]
) -> tuple[Reals, Reals, NDArray[np.float64]]:
    """The variance of each pair's difference from the images and from the seeds, and the seeds' degrees of freedom."""
    seed, dof = _seed_variance(found, first, second)
    seeds = seed * (1 / found.num_runs[first] + 1 / found.num_runs[second])
    return found.image_variance(first, second), seeds, dof


def _seed_variance(
    found: Moments, first: NDArray[np.int64], second: NDArray[np.int64]
) -> tuple[Reals, NDArray[np.float64]]:
    """The variance between seeds, pooled over the two groups, and its degrees of freedom, at least 1."""
    dof = np.maximum(1.0, found.num_runs[first] + found.num_runs[second] - 2)
    squares = found.seed_squares[first] + found.seed_squares[second]
    return np.maximum(squares, found.seed_floor[first] + found.seed_floor[second]) / dof, dof


def _t_test(value: Reals, images: Reals, seeds: Reals, dof: Reals) -> tuple[Reals, Reals]:
    """Half the widths of the 95 % intervals, and the p-values of 0, from the two parts of each variance."""
    variance = images + seeds
    effective = _satterthwaite(variance, seeds, dof)
    half = t_quantile(effective, LEVEL) * np.sqrt(variance)
    sure = variance == 0
    statistic = np.abs(value) / np.sqrt(np.where(sure, 1.0, variance))
    return half, np.where(sure, (value == 0).astype(np.float64), t_tails(statistic, effective))


def _satterthwaite(variance: Reals, seeds: Reals, dof: Reals) -> Reals:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(seeds > 0, dof * (variance / seeds) ** 2, np.inf)


def _seeds_needed(
    found: Moments, first: NDArray[np.int64], second: NDArray[np.int64], level: float
) -> NDArray[np.int64]:
    """For each pair, the smallest number of seeds with a power of 80 %; more than ``_MAX_SEEDS`` if that is too few.

    The power is that of noncentral t, approximated as in M. Abramowitz and I. A. Stegun, "Handbook of Mathematical
    Functions" (1964), 26.7.10.
    """
    value = np.abs(found.means[first] - found.means[second])
    images = found.image_variance(first, second)
    seed, _ = _seed_variance(found, first, second)

    # With z in place of t, too few by about two; more than the limit if the images are not enough.
    limit = float(t_quantile(np.full(1, np.inf), level)[0])
    spare = np.maximum((value / (limit + _Z_POWER)) ** 2 - images, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        needed = np.maximum(2, np.ceil(np.minimum(2 * seed / spare, _MAX_SEEDS + 1)))
    needed[spare == 0] = _MAX_SEEDS + 1
    [left] = (needed <= _MAX_SEEDS).nonzero()
    while len(left):
        seeds = 2 * seed[left] / needed[left]
        variance = images[left] + seeds
        dof = _satterthwaite(variance, seeds, 2 * (needed[left] - 1))
        limits = t_quantile(dof, level)
        distance = limits * (1 - 1 / (4 * dof)) + _Z_POWER * np.sqrt(1 + limits**2 / (2 * dof))
        left = left[(value[left] < distance * np.sqrt(variance)) & (needed[left] <= _MAX_SEEDS)]
        needed[left] += 1
    return needed.astype(np.int64)
