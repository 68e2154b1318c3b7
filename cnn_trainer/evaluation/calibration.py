"""How far the probabilities of a run can be relied on. Needs only NumPy; equal input gives equal figures.

All figures but the negative log likelihood and the temperature are computed from the probabilities as they are saved,
in float32, so that they can be computed again from the file.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cnn_trainer.evaluation.predictions import rounded
from cnn_trainer.evaluation.reliability import calibration_error, reliability_diagram, sort_into_bins
from cnn_trainer.evaluation.scores import Z_975, Score, log_softmax
from cnn_trainer.runs.records import BrierScore, Calibration, CoveragePoint, Temperature

COVERAGES = (500, 700, 800, 900, 950, 980, 990, 995, 1000)
"""The coverages at which the error is recorded, in thousandths."""

_HOTTEST, _COLDEST = 0.001, 1000.0  # inverse temperatures between which the best is looked for


@dataclass(frozen=True)
class Validation:
    """The validation split as a run sees it.

    Attributes:
        log_probabilities: float64 (examples, classes).
        labels: Integers (examples,).
        images_sha256: Digest of its images and labels.
    """

    log_probabilities: NDArray[np.float64]
    labels: NDArray[np.integer]
    images_sha256: str


def calibrate(score: Score, labels: NDArray[np.integer], validation: Validation | None) -> Calibration:
    """All figures of a scored split with these labels, integers (examples,).

    Without ``validation``, there is no temperature.
    """
    probabilities = rounded(score.probabilities, score.predictions)
    confidences = _of(probabilities, score.predictions).astype(np.float64)
    right = score.predictions == labels
    bins = sort_into_bins(confidences, right)
    diagram, band_coverage = reliability_diagram(bins)
    surplus = float(bins.expected.sum() - bins.right.sum())
    is_chance = abs(surplus) <= Z_975 * float(np.sqrt(bins.variances.sum()))
    coverage, area = error_against_coverage(confidences, right)
    return Calibration(
        negative_log_likelihood=negative_log_likelihood(score.log_probabilities, labels),
        brier=brier_score(probabilities, labels),
        confidence=float(confidences.mean()),
        confidence_gap=None if is_chance else "over-confident" if surplus > 0 else "under-confident",
        calibration_error=calibration_error(bins),
        bins=diagram,
        band_coverage=band_coverage,
        temperature=_temperature(score, labels, validation) if validation else None,
        coverage=coverage,
        coverage_area=area,
    )


def _of(values: NDArray[np.floating], classes: NDArray[np.integer]) -> NDArray[np.floating]:
    """The value of one class in each row: (examples,)."""
    return values[np.arange(len(classes)), classes]


def negative_log_likelihood(log_probabilities: NDArray[np.float64], labels: NDArray[np.integer]) -> float:
    """The mean of -log(probability of the label) over the examples, in nats.

    ``log_probabilities`` (examples, classes) come from logits, not from probabilities, so that a probability too small
    for a floating-point number still has a finite logarithm. It is also called the logarithmic score (I. J. Good,
    Rational Decisions, 1952).
    """
    return float(-_of(log_probabilities, labels).mean())


def brier_score(probabilities: NDArray[np.floating], labels: NDArray[np.integer]) -> BrierScore:
    """The Brier score of probabilities (examples, classes), and its parts.

    It is the mean over the examples of the squared differences from the label's one-hot vector, summed over the classes
    (G. W. Brier, Verification of Forecasts Expressed in Terms of Probability, 1950): 0 is best, 2 is worst. For two
    classes, this is twice the one-sided form.

    The parts are those of CORP (T. Dimitriadis, T. Gneiting, A. I. Jordan, Stable reliability diagrams for
    probabilistic classifiers, 2021), computed for each class against all others and summed: with S the score, R the
    score after the best monotonic recalibration of each class's probabilities (by isotonic regression), and U that of
    probabilities which are the classes' shares of the split, miscalibration is S - R, discrimination is U - R, and
    uncertainty is U.
    """
    num_examples, num_classes = probabilities.shape
    own = _of(probabilities, labels).astype(np.float64)
    squares = np.square(probabilities, dtype=np.float64).sum(axis=1)
    score = float((squares - own * own + (1 - own) ** 2).mean())
    recalibrated = uncertainty = 0.0
    for label in range(num_classes):
        is_class = labels == label
        share = int(is_class.sum()) / num_examples
        if share:
            column = probabilities[:, label]
            kept = column >= column[is_class].min()  # below, the fit is 0, as are the outcomes
            counts, successes = pool_adjacent_violators(column[kept], is_class[kept])
            recalibrated += float((successes * (counts - successes) / counts).sum()) / num_examples
        uncertainty += share * (1 - share)
    return BrierScore(
        score=score,
        miscalibration=max(0.0, score - recalibrated),  # rounding can make a part of 0 negative
        discrimination=max(0.0, uncertainty - recalibrated),
        uncertainty=uncertainty,
    )


def pool_adjacent_violators(
    forecasts: NDArray[np.floating], outcomes: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The isotonic regression of outcomes on forecasts, both (examples,): the blocks of equal values, from low to high.

    Returns the number of examples and of true outcomes in each block, (blocks,) each; their quotient is the value.
    Examples with equal forecasts get equal values. The algorithm is that of M. Ayer et al. (An Empirical Distribution
    Function for Sampling with Incomplete Information, 1955); means are compared as whole numbers, so without rounding.
    """
    order = forecasts.argsort(kind="stable")
    ordered, trues = forecasts[order], outcomes[order].astype(np.int64)
    counts, successes = _merged(np.flatnonzero(np.diff(ordered, prepend=np.nan) != 0), np.ones_like(trues), trues)
    # Neighbours that are all true, or all false, belong together: few blocks are left for the loop.
    kind = np.where(successes == 0, 0, np.where(successes == counts, 1, 2))
    is_new = (np.diff(kind, prepend=3) != 0) | (kind == 2)
    counts, successes = _merged(np.flatnonzero(is_new), counts, successes)
    pooled: list[tuple[int, int]] = []
    for block in zip(counts.tolist(), successes.tolist(), strict=True):
        pooled.append(block)
        while len(pooled) > 1 and pooled[-2][1] * pooled[-1][0] >= pooled[-1][1] * pooled[-2][0]:
            (num, num_true), (before, before_true) = pooled.pop(), pooled.pop()
            pooled.append((before + num, before_true + num_true))
    blocks = np.array(pooled, np.int64)
    return blocks[:, 0], blocks[:, 1]


def _merged(
    starts: NDArray[np.int64], counts: NDArray[np.int64], successes: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.add.reduceat(counts, starts), np.add.reduceat(successes, starts)


def fit_temperature(log_probabilities: NDArray[np.float64], labels: NDArray[np.integer]) -> float:
    """The temperature, from 0.001 to 1000, that minimises the negative log likelihood of a split; 1 if there is none.

    Logits, here log probabilities (examples, classes), are divided by it (C. Guo et al., On Calibration of Modern
    Neural Networks, 2017). The likelihood is convex in the inverse temperature, so its derivative has one root, which
    is found by Newton's method inside a bracket. There is no minimum, and the temperature is 1, if every prediction is
    right, so that no confidence would be too high, or if the predictions are worse than chance. It is also 1 if
    rounding makes another no better.
    """
    ahead = log_probabilities - _of(log_probabilities, labels)[:, np.newaxis]

    def derivatives(inverse: float) -> tuple[float, float]:
        """The first and the second derivative of the negative log likelihood by the inverse temperature."""
        scaled = ahead * inverse
        shares = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        means = (shares * ahead).sum(axis=1)
        return float(means.mean()), float(((shares * ahead**2).sum(axis=1) - means**2).mean())

    low, high, inverse = _HOTTEST, _COLDEST, 1.0
    if derivatives(low)[0] >= 0 or derivatives(high)[0] <= 0:
        return 1.0
    for _ in range(100):
        slope, curvature = derivatives(inverse)
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        following = inverse - slope / curvature if curvature > 0 else low
        if not low < following < high:
            following = (low * high) ** 0.5
        if abs(following - inverse) <= 1e-14 * inverse or slope == 0:
            break
        inverse = following
    before, after = (negative_log_likelihood(_tempered(log_probabilities, at), labels) for at in (1.0, 1 / inverse))
    return 1 / inverse if after < before else 1.0


def _tempered(log_probabilities: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    return log_softmax(log_probabilities / temperature)


def _temperature(score: Score, labels: NDArray[np.integer], validation: Validation) -> Temperature:
    found = fit_temperature(validation.log_probabilities, validation.labels)
    after = _tempered(validation.log_probabilities, found)
    own = _tempered(score.log_probabilities, found)
    confidences = np.exp(_of(own, score.predictions))
    return Temperature(
        temperature=found,
        validation_images_sha256=validation.images_sha256,
        validation_loss_before=negative_log_likelihood(validation.log_probabilities, validation.labels),
        validation_loss=negative_log_likelihood(after, validation.labels),
        negative_log_likelihood=negative_log_likelihood(own, labels),
        calibration_error=calibration_error(sort_into_bins(confidences, score.predictions == labels)),
    )


def error_against_coverage(
    confidences: NDArray[np.float64], right: NDArray[np.bool_]
) -> tuple[list[CoveragePoint], float]:
    """The share of wrong predictions among the most confident ones, and its mean over all coverages.

    The coverage is the share of the examples that is kept; at least one is. Of examples with equal confidences, any may
    be kept, and the error is the mean over all choices. The area under the curve is the mean of the errors if 1, 2, …,
    n examples are kept (Y. Geifman and R. El-Yaniv, Selective Classification for Deep Neural Networks, 2017; named AURC
    by Y. Geifman et al., Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers, 2019).
    """
    num = len(confidences)
    order = (-confidences).argsort(kind="stable")
    ordered, wrong = confidences[order], np.cumsum(~right[order])
    [ends] = np.append(np.diff(ordered) != 0, [True]).nonzero()
    kept = np.arange(1, num + 1)
    errors = np.interp(kept, np.append(0, ends + 1), np.append(0, wrong[ends])) / kept
    points = []
    for coverage in COVERAGES:
        last = -(-coverage * num // 1000) - 1
        points.append(
            CoveragePoint(coverage=coverage / 1000, error=float(errors[last]), min_confidence=float(ordered[last]))
        )
    return points, float(errors.mean())
