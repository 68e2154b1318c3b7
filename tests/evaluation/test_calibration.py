"""The figures about probabilities, against exact arithmetic, enumeration and scikit-learn."""

import itertools
import json
import math
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from cnn_trainer.evaluation.calibration import (
    COVERAGES,
    Validation,
    brier_score,
    calibrate,
    error_against_coverage,
    fit_temperature,
    negative_log_likelihood,
    pool_adjacent_violators,
)
from cnn_trainer.evaluation.scores import log_softmax, score_logits

# Made with scikit-learn 1.9.1 and NumPy 2.4.6, because scikit-learn is not among the locked packages:
#
#   random = np.random.default_rng(1)
#   shapes = {
#       "calibrated": lambda p: random.random(len(p)) < p,
#       "overconfident": lambda p: random.random(len(p)) < 0.3 + 0.4 * p,
#       "backwards": lambda p: random.random(len(p)) > p,
#       "all true": lambda p: p >= 0,
#       "one true": lambda p: p == p[3],
#   }
#   cases = []
#   for places in (1, 2, 9):
#       for name, draw in shapes.items():
#           forecasts = random.random(40).round(places)
#           outcomes = draw(forecasts)
#           fit = IsotonicRegression(y_min=0, y_max=1).fit_transform(forecasts, outcomes.astype(float))
#           cases.append({"name": f"{name}, {places} places", "forecasts": forecasts.tolist(),
#                         "outcomes": outcomes.astype(int).tolist(), "fit": fit.tolist()})
BY_SCIKIT_LEARN = json.loads((Path(__file__).parent / "isotonic.json").read_text())


def random_logits(num_examples, num_classes, seed, strength=2.0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, num_classes, num_examples).astype(np.int32)
    logits = random.standard_normal((num_examples, num_classes))
    logits[np.arange(num_examples), labels] += strength
    return logits, labels


def fitted(forecasts, outcomes):
    """The isotonic fit of every example, as fractions."""
    counts, successes = pool_adjacent_violators(forecasts, outcomes)
    values = [Fraction(int(true), int(num)) for num, true in zip(counts, successes, strict=True)]
    in_order = [value for value, num in zip(values, counts, strict=True) for _ in range(num)]
    fit = [Fraction(0)] * len(forecasts)
    for place, index in enumerate(np.argsort(forecasts, kind="stable")):
        fit[index] = in_order[place]
    return fit


def fitted_by_formula(forecasts, outcomes):
    """The same by the min-max formula: the largest over a <= i of the smallest over b >= i of the mean of a to b."""
    levels = sorted(set(forecasts))
    groups = [[int(y) for f, y in zip(forecasts, outcomes, strict=True) if f == level] for level in levels]

    def mean(first, last):
        values = [value for group in groups[first : last + 1] for value in group]
        return Fraction(sum(values), len(values))

    of_level = {
        level: max(min(mean(a, b) for b in range(i, len(levels))) for a in range(i + 1))
        for i, level in enumerate(levels)
    }
    return [of_level[forecast] for forecast in forecasts]


@pytest.mark.parametrize("seed", range(60))
def test_the_isotonic_fit_is_that_of_the_min_max_formula(seed):
    random = np.random.default_rng(seed)
    num = int(random.integers(1, 25))
    forecasts = random.integers(0, [3, 12, 1000][seed % 3], num) / 1000
    outcomes = random.random(num) < [0.5, 0.1, 0.9][seed % 3] + 0.3 * forecasts
    assert fitted(forecasts, outcomes) == fitted_by_formula(forecasts.tolist(), outcomes.tolist())


@pytest.mark.parametrize("case", BY_SCIKIT_LEARN, ids=lambda case: case["name"])
def test_the_isotonic_fit_is_that_of_scikit_learn(case):
    forecasts, outcomes = np.array(case["forecasts"]), np.array(case["outcomes"], bool)
    assert np.array(fitted(forecasts, outcomes), float) == pytest.approx(case["fit"], abs=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_the_brier_score_and_its_parts_are_those_of_fractions(seed):
    random = np.random.default_rng(seed)
    shares = random.multinomial(16, [0.5, 0.3, 0.2], int(random.integers(1, 14)))  # sixteenths
    labels = random.integers(0, 3 if seed % 2 else 2, len(shares))
    found = brier_score(shares / 16, labels)
    num, score, recalibrated, uncertainty = len(labels), Fraction(0), Fraction(0), Fraction(0)
    for label in range(3):
        outcomes = [int(each == label) for each in labels]
        column = [Fraction(int(share), 16) for share in shares[:, label]]
        fit = fitted_by_formula(column, outcomes)
        base = Fraction(sum(outcomes), num)
        score += sum((p - y) ** 2 for p, y in zip(column, outcomes, strict=True)) / num
        recalibrated += sum((p - y) ** 2 for p, y in zip(fit, outcomes, strict=True)) / num
        uncertainty += sum((base - y) ** 2 for y in outcomes) / num
    wanted = [score, score - recalibrated, uncertainty - recalibrated, uncertainty]
    parts = [found.score, found.miscalibration, found.discrimination, found.uncertainty]
    assert parts == pytest.approx([float(part) for part in wanted], abs=1e-14)
    assert found.miscalibration >= 0 <= found.discrimination


@pytest.mark.parametrize(("num_examples", "num_classes"), [(10_000, 10), (3_000, 300), (1, 2)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_parts_of_the_brier_score_add_up(num_examples, num_classes, dtype):
    logits, labels = random_logits(num_examples, num_classes, 3)
    found = brier_score(np.exp(log_softmax(logits)).astype(dtype), labels)
    total = found.miscalibration - found.discrimination + found.uncertainty
    assert found.score == pytest.approx(total, abs=1e-12)
    assert 0 < found.miscalibration <= found.score < 2


def test_the_extremes_of_the_brier_score():
    labels = np.array([0, 1, 2, 1])
    right = brier_score(np.eye(3)[labels], labels)
    assert (right.score, right.miscalibration, right.discrimination) == (0, 0, right.uncertainty)
    assert right.uncertainty == pytest.approx(2 * 3 / 16 + 1 / 4)
    wrong = brier_score(np.eye(3)[(labels + 1) % 3], labels)
    assert wrong.score == 2
    shares = brier_score(np.tile([0.25, 0.5, 0.25], (4, 1)), labels)
    assert (shares.miscalibration, shares.discrimination) == (0, 0)
    one_class = brier_score(np.array([[0.75, 0.25], [0.5, 0.5]]), np.array([0, 0]))
    assert (one_class.score, one_class.miscalibration) == (0.3125, 0.3125)
    assert (one_class.discrimination, one_class.uncertainty) == (0, 0)


def test_the_negative_log_likelihood_is_finite_if_a_probability_is_not_a_number_above_0():
    logits = np.array([[0.0, -2000.0], [math.log(3), 0.0]], np.float32)
    assert np.exp(log_softmax(logits))[0, 1] == 0
    found = negative_log_likelihood(log_softmax(logits), np.array([1, 0]))
    assert found == pytest.approx((2000 - math.log(0.75)) / 2)


def likelihood(logits, labels, inverse):
    """The negative log likelihood at an inverse temperature, in the plainest form."""
    losses = []
    for row, label in zip((logits * inverse).tolist(), labels.tolist(), strict=True):
        top = max(row)
        losses.append(top + math.log(math.fsum(math.exp(value - top) for value in row)) - row[label])
    return math.fsum(losses) / len(losses)


@pytest.mark.parametrize("scale", [0.05, 0.5, 1, 3, 40])
@pytest.mark.parametrize("seed", range(4))
def test_the_temperature_is_where_the_likelihood_is_flat(seed, scale):
    logits, labels = random_logits(300, 4, seed)
    found = fit_temperature(log_softmax(scale * logits), labels)
    inverse, step = 1 / found, 1e-4 / found
    below, best, above = (likelihood(scale * logits, labels, at) for at in (inverse - step, inverse, inverse + step))
    assert best < below
    assert best < above
    assert abs(above - below) / (2 * step) < 1e-6 * scale  # the slope by central differences
    assert best <= likelihood(scale * logits, labels, 1)
    assert found == pytest.approx(scale * fit_temperature(log_softmax(logits), labels), rel=1e-9)
    # It is convex, so there is no other minimum: the second differences over the whole range are positive.
    grid = [likelihood(scale * logits, labels, inverse * factor) for factor in (0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75)]
    assert all(first + last > 2 * middle for first, middle, last in zip(grid, grid[1:], grid[2:], strict=False))


@pytest.mark.parametrize("num_right", [51, 60, 75, 99])
def test_the_temperature_of_equal_confidences_makes_them_the_accuracy(num_right):
    logits = np.tile([5.0, 0.0], (100, 1))
    labels = (np.arange(100) >= num_right).astype(int)
    wanted = 5 / math.log(num_right / (100 - num_right))
    assert fit_temperature(log_softmax(logits), labels) == pytest.approx(wanted, rel=1e-12)


def test_the_temperature_is_1_if_no_other_is_better():
    logits, _ = random_logits(50, 3, 1)
    assert fit_temperature(log_softmax(logits), logits.argmax(axis=1)) == 1  # all right: the colder, the better
    assert fit_temperature(log_softmax(logits), logits.argmin(axis=1)) == 1  # worse than chance: the hotter, the better
    assert fit_temperature(np.log(np.full((4, 2), 0.5)), np.array([0, 1, 0, 1])) == 1
    assert fit_temperature(log_softmax(np.log([[3.0, 1.0]] * 4)), np.array([0, 0, 1, 0])) == 1  # as good as can be
    sure = log_softmax(1e5 * np.eye(3)[np.array([0, 1, 2, 0])])
    assert fit_temperature(sure, np.array([0, 1, 2, 0])) == 1
    assert fit_temperature(sure, np.array([0, 1, 2, 1])) == 1  # the best is beyond 1,000


@pytest.mark.parametrize("seed", range(30))
def test_a_temperature_never_makes_the_validation_loss_worse(seed):
    random = np.random.default_rng(seed)
    logits, labels = random_logits(int(random.integers(1, 40)), int(random.integers(2, 6)), seed, random.normal(1, 2))
    logits = np.float32(10.0 ** random.uniform(-3, 3) * logits)
    score = score_logits(logits, labels, "mean_squared_error")
    found = calibrate(score, labels, Validation(score.log_probabilities, labels, "0" * 64)).temperature
    assert 0.001 <= found.temperature <= 1000
    assert found.validation_loss <= found.validation_loss_before
    assert (found.validation_loss == found.validation_loss_before) == (found.temperature == 1)
    assert found.negative_log_likelihood == found.validation_loss  # it is the same split here


@pytest.mark.parametrize("seed", range(12))
def test_the_error_against_coverage_is_the_mean_over_all_ways_to_break_ties(seed):
    random = np.random.default_rng(seed)
    confidences, right = random.integers(5, 8, 6) / 8, random.random(6) < 0.6
    points, area = error_against_coverage(confidences, right)
    sums, orders = [Fraction(0)] * 7, 0
    for order in itertools.permutations(range(6)):
        if all(confidences[first] >= confidences[second] for first, second in itertools.pairwise(order)):
            orders += 1
            for kept in range(1, 7):
                sums[kept] += Fraction(sum(not right[index] for index in order[:kept]), kept)
    errors = [total / orders for total in sums]
    for coverage, point in zip(COVERAGES, points, strict=True):
        kept = math.ceil(Fraction(coverage, 1000) * 6)
        assert point.coverage == coverage / 1000
        assert point.error == pytest.approx(float(errors[kept]), abs=1e-14)
        assert point.min_confidence == sorted(confidences)[-kept]
    assert area == pytest.approx(float(sum(errors) / 6), abs=1e-14)


def test_the_error_at_full_coverage_is_the_error():
    logits, labels = random_logits(2_000, 5, 8)
    score = score_logits(logits.astype(np.float32), labels, "cross_entropy")
    found = calibrate(score, labels, None)
    assert found.coverage[-1].error == pytest.approx(1 - score.accuracy, abs=1e-12)
    assert found.negative_log_likelihood == score.loss
    errors = [point.error for point in found.coverage]
    assert errors == sorted(errors)
    assert found.coverage_area < errors[-1]
    assert found.temperature is None


@pytest.mark.parametrize("num_classes", [2, 3, 10])
@pytest.mark.parametrize("labels", ["all right", "all wrong", "one class", "one example"])
def test_odd_splits_have_all_figures(num_classes, labels):
    logits = np.float32(random_logits(1 if labels == "one example" else 30, num_classes, 4)[0])
    right = logits.argmax(axis=1)
    wanted = {"all wrong": (right + 1) % num_classes, "one class": right * 0}.get(labels, right)
    score = score_logits(logits, wanted, "cross_entropy")
    found = calibrate(score, wanted, Validation(score.log_probabilities, wanted, "0" * 64))
    assert sum(each.num_examples for each in found.bins) == len(logits)
    low, high = found.calibration_error.interval
    assert 0 <= low <= found.calibration_error.error <= high <= 1


@pytest.mark.parametrize("gap", ["over-confident", "under-confident", None])
def test_a_gap_between_confidence_and_accuracy_is_named_if_it_is_more_than_chance(gap):
    """The truth is less sure than the model, surer, or the same; then, 5 % of splits seem to have a gap by chance."""
    random = np.random.default_rng(5)
    factor = {"over-confident": 0.7, "under-confident": 1.4, None: 1.0}[gap]
    named = []
    for _ in range(40):
        logits = np.float32(3 * random.standard_normal((2_000, 5)))
        shares = np.exp(log_softmax(factor * logits)).cumsum(axis=1)
        labels = np.minimum((shares < random.random((2_000, 1))).sum(axis=1), 4)
        found = calibrate(score_logits(logits, labels, "cross_entropy"), labels, None)
        named.append(found.confidence_gap)
        error = found.calibration_error
        assert gap is None or (error.error > error.chance_limit and error.interval[0] > 0)
    assert named.count(gap) >= 35 if gap is None else named == [gap] * 40


def test_all_figures_of_10_000_images_cost_less_than_300_milliseconds_and_are_the_same_bits():
    seconds, found = [], []
    for strength in (6.0, 0.0, 6.0):  # a good model, and one that has learned nothing
        logits, labels = random_logits(10_000, 10, 6, strength)
        score = score_logits(np.float32(logits), labels, "cross_entropy")
        validation = Validation(score.log_probabilities[:6_000], labels[:6_000], "0" * 64)
        began = time.process_time()
        found.append(calibrate(score, labels, validation))
        seconds.append(time.process_time() - began)
    assert min(seconds) < 0.3
    assert seconds[1] < 0.6
    assert found[0] == found[2] != found[1]
