"""The reliability diagram, the calibration error, its interval, and what chance does to a calibrated model."""

import itertools
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from cnn_trainer.evaluation.reliability import (
    NUM_BINS,
    calibration_error,
    poisson_binomial,
    reliability_diagram,
    sort_into_bins,
)
from cnn_trainer.evaluation.scores import log_softmax


def mnist_logits():
    """Logits of every fourth test image of MNIST, from a run with 99.5 % right, in quarters."""
    with np.load(Path(__file__).parent / "logits.npz") as arrays:
        return arrays["quarters"] / 4


def spread_logits():
    return 3 * np.random.default_rng(1).standard_normal((4_000, 5))


POOLS = {"MNIST": mnist_logits, "spread": spread_logits}


def confidences_and_chances(logits, factor):
    """Confidences of a model, and the probabilities that it is right if the truth has its logits times ``factor``."""
    probabilities, truth = np.exp(log_softmax(logits)), np.exp(log_softmax(factor * logits))
    chosen = probabilities.argmax(axis=1)
    rows = np.arange(len(chosen))
    return probabilities[rows, chosen], truth[rows, chosen]


def diagram(confidences, right):
    return reliability_diagram(sort_into_bins(np.array(confidences, float), np.array(right, bool)))


def error(confidences, right):
    return calibration_error(sort_into_bins(np.array(confidences, float), np.array(right, bool)))


def test_the_distribution_of_the_number_of_right_predictions_is_that_of_an_enumeration():
    sixteenths = [15, 3, 8, 16, 0, 11, 14]
    wanted = [Fraction(0)] * 8
    for outcomes in itertools.product([0, 1], repeat=7):
        chances = [Fraction(p if y else 16 - p, 16) for p, y in zip(sixteenths, outcomes, strict=True)]
        wanted[sum(outcomes)] += math.prod(chances)
    found = poisson_binomial(np.array(sixteenths) / 16)
    assert found == pytest.approx([float(chance) for chance in wanted], abs=1e-15)


@pytest.mark.parametrize("num", [1, 2, 3, 37, 1_000, 9_845])
def test_the_distribution_of_equal_chances_is_binomial(num):
    found = poisson_binomial(np.full(num, 0.75))
    logs = [
        math.lgamma(num + 1) - math.lgamma(k + 1) - math.lgamma(num - k + 1) + k * math.log(0.75)
        - (num - k) * math.log(4)
        for k in range(num + 1)
    ]  # fmt: skip
    assert len(found) == num + 1
    assert found == pytest.approx(np.exp(logs), abs=1e-12)
    assert found.sum() == pytest.approx(1, abs=1e-12)


def test_a_bin_has_its_upper_edge_and_a_confidence_of_1_is_in_the_last():
    edges = [number / NUM_BINS for number in range(1, NUM_BINS + 1)]
    bins, _ = diagram(edges, [True] * NUM_BINS)
    assert [each.high for each in bins] == edges
    assert [each.confidence for each in bins] == edges
    above = [math.nextafter(edge, 2) for edge in edges]  # rounding can give more than 1
    bins, _ = diagram(above, [True] * NUM_BINS)
    assert [each.num_examples for each in bins] == [1] * (NUM_BINS - 2) + [2]
    assert [each.low for each in bins] == edges[:-1]
    [last], _ = diagram(np.float32([1, 1, 0.99999994]), [True, True, False])
    assert (last.high, last.num_examples, last.accuracy) == (1, 3, 2 / 3)


@pytest.mark.parametrize("seed", range(5))
def test_the_calibration_error_is_that_of_a_loop(seed):
    random = np.random.default_rng(seed)
    confidences = random.integers(10, 61, 200) / 60  # many on the edges
    right = random.random(200) < 0.7
    total = 0.0
    for number in range(NUM_BINS):
        low, high = Fraction(number, NUM_BINS), Fraction(number + 1, NUM_BINS)
        members = [i for i, c in enumerate(confidences) if low < Fraction(round(c * 60), 60) <= high]
        if members:
            confidence = sum(confidences[i] for i in members) / len(members)
            total += len(members) / 200 * abs(sum(map(int, right[members])) / len(members) - confidence)
    order = random.permutation(200)
    for each in (error(confidences, right), error(confidences[order], right[order])):
        assert each.error == pytest.approx(total, abs=1e-14)


@pytest.mark.parametrize(
    ("confidences", "right", "wanted"),
    [
        ([1.0] * 50, [True] * 50, 0),
        ([1.0] * 50, [False] * 50, 1),
        ([0.5] * 50, [True] * 50, 0.5),
        ([0.7], [True], 0.3),
        ([0.7], [False], 0.7),
        ([1.0], [True], 0),
        ([0.5, 1.0], [False, True], 0.25),
    ],
    ids=["sure, right", "sure, wrong", "unsure, right", "one right", "one wrong", "one sure", "two"],
)
def test_the_extremes_of_the_calibration_error(confidences, right, wanted):
    found = error(confidences, right)
    low, high = found.interval
    assert found.error == pytest.approx(wanted)
    assert 0 <= low <= found.error <= high <= 1
    if set(confidences) == {1.0}:
        assert (found.chance_mean, found.chance_limit) == pytest.approx((0, 0), abs=1e-15)
    for each in diagram(confidences, right)[0]:
        assert 0 <= each.chance_low <= each.confidence <= each.chance_high <= 1


@pytest.mark.parametrize("pool", POOLS)
def test_the_band_holds_93_to_97_percent_of_1000_calibrated_models(pool):
    confidences, _ = confidences_and_chances(POOLS[pool](), 1)
    random = np.random.default_rng(2)
    bins, stated = reliability_diagram(sort_into_bins(confidences, np.ones(len(confidences), bool)))
    place = np.ceil(confidences * NUM_BINS).astype(int)
    inside = np.ones(1000, bool)
    for each in bins:
        members = confidences[place == round(each.high * NUM_BINS)]
        assert len(members) == each.num_examples
        accuracies = (random.random((1000, len(members))) < members).sum(axis=1) / len(members)
        inside &= (each.chance_low <= accuracies) & (accuracies <= each.chance_high)
    assert 0.95 <= stated < 0.97
    assert 0.93 <= inside.mean() <= 0.97


def test_the_band_says_how_much_it_holds_if_there_are_too_few_examples_for_95_percent():
    bins, stated = diagram([0.75, 0.75, 0.6], [True, False, True])
    assert [(each.chance_low, each.chance_high) for each in bins] == [(0, 1), (0, 1)]
    assert stated == 1
    [only], stated = diagram([0.75] * 4, [True] * 4)
    assert (only.chance_low, only.chance_high) == (0.25, 1)
    assert stated == pytest.approx(1 - 0.25**4)


@pytest.mark.parametrize("pool", POOLS)
def test_chance_gives_a_calibrated_model_the_error_that_is_stated(pool):
    confidences, _ = confidences_and_chances(POOLS[pool](), 1)
    random = np.random.default_rng(3)
    place = np.ceil(confidences * NUM_BINS).astype(int)
    errors = []
    for _ in range(2000):
        right = random.random(len(confidences)) < confidences
        errors.append(np.abs(np.bincount(place, right - confidences)).sum() / len(confidences))
    found = error(confidences, right)
    assert found.chance_mean == pytest.approx(np.mean(errors), rel=0.03)
    assert found.chance_limit == pytest.approx(np.quantile(errors, 0.95), rel=0.06)


@pytest.mark.parametrize("factor", [1.0, 0.8, 0.5, 1.6])
@pytest.mark.parametrize("pool", POOLS)
def test_the_interval_holds_the_error_of_all_images_that_there_could_be(pool, factor):
    """Splits of 1,000 are drawn from many images; the truth is as sure as the model, less sure, or surer."""
    confidences, chances = confidences_and_chances(POOLS[pool](), factor)
    place = np.ceil(confidences * NUM_BINS).astype(int)
    true_error = np.abs(np.bincount(place, chances - confidences)).sum() / len(confidences)
    random = np.random.default_rng(4)
    held = 0
    for _ in range(100):
        chosen = random.integers(0, len(confidences), 1000)
        low, high = error(confidences[chosen], random.random(1000) < chances[chosen]).interval
        held += low <= true_error + 1e-12 and true_error <= high
    assert held >= 92


def test_equal_predictions_give_equal_bits():
    confidences, chances = confidences_and_chances(mnist_logits(), 1)
    right = np.random.default_rng(5).random(len(chances)) < chances
    assert error(confidences, right) == error(confidences, right)
    assert diagram(confidences, right) == diagram(confidences, right)
