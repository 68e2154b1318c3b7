"""How far confidence and accuracy are apart: the reliability diagram, the expected calibration error, and chance.

The confidence of a prediction is its probability. If a model is perfectly calibrated, a share c of its predictions with
confidence c is right. The number of right predictions in a bin then has a Poisson binomial distribution, which is
computed, not simulated.

Predictions are sorted into 15 bins of equal width, as by C. Guo et al. (On Calibration of Modern Neural Networks,
2017), so that figures can be compared with published ones and the diagram covers the whole axis: of bins with equal
numbers of examples, all but one would lie at a confidence of 1 for a good model. A bin contains its upper edge, so a
confidence of exactly 1 is in the last one, and equal confidences are always in the same bin. Bins with few examples
make the error larger by chance, so it is given together with what chance does. ``brier_score`` measures miscalibration
without bins.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cnn_trainer.runs.records import CalibrationError, ReliabilityBin

NUM_BINS = 15
NUM_DRAWS = 2000
DRAWS_SEED = 0
_BAND = 0.95
_TAIL = 0.025  # on each side of the interval

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Bins:
    """Sums over the predictions in each bin that has any, all (bins,).

    Attributes:
        numbers: The number of the bin among all, from 0, as integers.
        counts: Examples.
        right: Right predictions.
        expected: Sum of the confidences: the number that would be right with perfect calibration.
        variances: The variance of that number.
        chances: For each bin, the distribution of that number: cumulative probabilities of 0, 1, …, counts.
    """

    numbers: NDArray[np.int64]
    counts: Floats
    right: Floats
    expected: Floats
    variances: Floats
    chances: list[Floats]

    @property
    def error(self) -> float:
        """The expected calibration error, as a fraction."""
        return float(np.abs(self.right - self.expected).sum() / self.counts.sum())


def sort_into_bins(confidences: Floats, right: NDArray[np.bool_]) -> Bins:
    """Bins of predictions with these confidences, 0 to 1 (examples,), that are right or not (examples,)."""
    edges = np.arange(1, NUM_BINS) / NUM_BINS
    places = np.searchsorted(edges, confidences, side="left")
    [numbers] = np.bincount(places, minlength=NUM_BINS).nonzero()
    members = [places == number for number in numbers]
    chances = [np.cumsum(poisson_binomial(confidences[member])) for member in members]

    def sums(values: NDArray[np.floating] | NDArray[np.bool_]) -> Floats:
        return np.array([values[member].sum(dtype=np.float64) for member in members])

    spread = sums(confidences * (1 - confidences))
    return Bins(numbers, sums(np.ones_like(right)), sums(right), sums(confidences), spread, chances)


def poisson_binomial(probabilities: Floats) -> Floats:
    """Probabilities of 0, 1, …, n successes in n independent trials that succeed with these probabilities (n,).

    The product of the polynomials (1 - p) + p x, multiplied in pairs by Fourier transforms. Errors are below 1e-14.
    """
    factors = np.stack([1 - probabilities, probabilities], axis=1)
    while len(factors) > 1:
        if len(factors) % 2:
            factors = np.vstack([factors, np.eye(1, factors.shape[1])])
        size = 2 * factors.shape[1] - 1
        length = 1 << (size - 1).bit_length()
        transformed = np.fft.rfft(factors, length, axis=1)
        factors = np.fft.irfft(transformed[::2] * transformed[1::2], length, axis=1)[:, :size]
    return np.maximum(factors[0, : len(probabilities) + 1], 0.0)


def reliability_diagram(bins: Bins) -> tuple[list[ReliabilityBin], float]:
    """The bins of the reliability diagram, with a band, and the probability that the band holds.

    The band is simultaneous: a perfectly calibrated model with these confidences is inside in all bins with a
    probability of 95 %, or as little more as whole numbers of examples allow. All bins have the same probability to
    miss on each side: the largest with which all of them, which are independent, hold together with 95 %.
    """

    def band(miss: float) -> tuple[NDArray[np.int64], NDArray[np.int64], float]:
        lows = [int(np.searchsorted(chance, miss / 2, side="right")) for chance in bins.chances]
        highs = [min(int(np.searchsorted(chance, 1 - miss / 2)), len(chance) - 1) for chance in bins.chances]
        holds = 1.0
        for chance, low, high in zip(bins.chances, lows, highs, strict=True):
            holds *= min(1.0, chance[high] - (chance[low - 1] if low else 0.0))
        return np.array(lows), np.array(highs), holds

    allowed, refused = 0.0, 1.0
    for _ in range(50):
        middle = (allowed + refused) / 2
        if band(middle)[2] >= _BAND:
            allowed = middle
        else:
            refused = middle
    lows, highs, holds = band(allowed)
    rows = zip(bins.numbers, bins.counts, bins.expected, bins.right, lows, highs, strict=True)
    shown = [
        ReliabilityBin(
            low=int(number) / NUM_BINS,
            high=(int(number) + 1) / NUM_BINS,
            num_examples=int(num),
            confidence=float(expected / num),
            accuracy=float(right / num),
            chance_low=float(low / num),
            chance_high=float(high / num),
        )
        for number, num, expected, right, low, high in rows
    ]
    return shown, holds


def calibration_error(bins: Bins) -> CalibrationError:
    """The expected calibration error of the predictions, with its interval and what chance does.

    The error is the mean of abs(accuracy - confidence) over the bins, weighted by their examples (M. P. Naeini et al.,
    Obtaining Well Calibrated Probabilities Using Bayesian Binning, 2015). It is never negative and grows with chance,
    so a perfectly calibrated model does not have 0 either: ``chance_mean`` and ``chance_limit`` say what it has.
    """
    num, uniform = bins.counts.sum(), _uniform(len(bins.counts))
    off = [
        np.abs(np.arange(len(chance)) - expected) for chance, expected in zip(bins.chances, bins.expected, strict=True)
    ]
    mean = sum(float((np.diff(chance, prepend=0.0) * far).sum()) for chance, far in zip(bins.chances, off, strict=True))
    drawn = np.zeros(NUM_DRAWS)
    for chance, far, column in zip(bins.chances, off, uniform[0].T, strict=True):
        drawn += far[np.minimum(np.searchsorted(chance, column, side="right"), len(far) - 1)]
    return CalibrationError(
        error=bins.error,
        interval=list(_interval(bins, np.sqrt(-2 * np.log(uniform[0])) * np.cos(2 * np.pi * uniform[1]))),
        chance_mean=mean / num,
        chance_limit=float(np.sort(drawn)[int(np.ceil(0.95 * NUM_DRAWS)) - 1] / num),
        num_draws=NUM_DRAWS,
        seed=DRAWS_SEED,
    )


def _uniform(num_bins: int) -> Floats:
    """Random numbers between 0 and 1, both excluded: (2, draws, bins); the same for every version of NumPy."""
    raw = np.random.Philox(key=np.array([DRAWS_SEED, 0], np.uint64)).random_raw(2 * NUM_DRAWS * num_bins)
    return ((raw >> np.uint64(11)).astype(np.float64) + 0.5).reshape(2, NUM_DRAWS, num_bins) * 2.0**-53


def _interval(bins: Bins, normal: Floats) -> tuple[float, float]:
    """The 95 % confidence interval of the expected calibration error, by inverting tests along a curve of models.

    The usual percentile bootstrap adds chance a second time, so it never holds the true value of a well calibrated
    model. Here a value belongs to the interval if the most likely model with that error shows the
    observed one, or a more distant one, with a probability of 2.5 % or more on each side (C.-S. Chuang and T. L. Lai,
    Hybrid Resampling Methods for Confidence Intervals, 2000). The number of right predictions in a bin is taken to be
    normal; for the upper limit its variance is that of Agresti and Coull (1998), which does not vanish if no prediction
    is wrong. In simulations, 93 to 100 % of intervals hold the true value, but only about 80 % if one or two
    predictions are wrong, as of 100 examples of MNIST.
    """
    gaps, counts = bins.right - bins.expected, bins.counts
    weights = bins.variances + 0.01  # a bin can be moved even if its confidences are all 1
    signs = np.where(gaps > 0, 1.0, -1.0)

    def at(move: float) -> Floats:
        """The gaps if all are moved towards 0, or away from it, in proportion to their variances.

        If one would make more predictions right than there are, or fewer than none, it goes to the other side.
        """
        most = np.maximum(bins.expected, counts - bins.expected)
        moved = signs * np.clip(np.abs(gaps) - move * weights, 0.0, most)
        is_possible = np.abs(moved + bins.expected - counts / 2) <= counts / 2
        return np.where(is_possible, moved, -moved)

    def shown(centre: Floats, variances: Floats) -> Floats:
        return np.abs(centre + normal * np.sqrt(variances)).sum(axis=1)

    def is_too_low(move: float) -> bool:
        centre = at(move)
        share = (bins.expected + centre) / counts
        variances = np.where(centre == 0, bins.variances, counts * share * (1 - share))
        return float((shown(centre, np.maximum(variances, 0.0)) >= observed).mean()) < _TAIL

    def is_too_high(move: float) -> bool:
        centre = at(-move)
        share = (bins.expected + centre + 2) / (counts + 4)
        return float((shown(centre, counts * share * (1 - share)) <= observed).mean()) < _TAIL

    observed = np.abs(gaps).sum()
    low = at(_last_allowed(is_too_low, float((np.abs(gaps) / weights).max())))
    high = at(-_last_allowed(is_too_high, float((counts / weights).max())))
    return float(np.abs(low).sum() / counts.sum()), float(np.abs(high).sum() / counts.sum())


def _last_allowed(is_refused: Callable[[float], bool], far: float) -> float:
    """The largest number from 0 to ``far`` that is not refused; 0 counts as allowed."""
    if not is_refused(far):
        return far
    allowed = 0.0
    for _ in range(40):
        middle = (allowed + far) / 2
        if is_refused(middle):
            far = middle
        else:
            allowed = middle
    return allowed
