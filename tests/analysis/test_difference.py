"""Statistics of differences, against enumeration, tables in textbooks and simulated runs."""

import math
from fractions import Fraction
from itertools import product
from statistics import NormalDist

import numpy as np
import pytest

from cnn_trainer.analysis.difference import (
    compare_groups,
    count_quadrants,
    group_interval,
    holm,
    mcnemar,
    t_quantile,
    t_tails,
    tango_interval,
)


def test_mcnemar_equals_enumeration():
    row = [1]  # of Pascal's triangle: the ways to get each number of heads
    for tosses in range(201):
        if tosses:
            row = [left + right for left, right in zip([0, *row], [*row, 0], strict=True)]
        for only_first in range(tosses // 2 + 1):  # the outcomes that are at least as uneven as this one
            ways = sum(row[: only_first + 1]) * 2 if 2 * only_first < tosses else 2**tosses
            expected = float(Fraction(ways, 2**tosses))
            assert mcnemar(only_first, tosses - only_first) == pytest.approx(expected, rel=1e-12)
            assert mcnemar(tosses - only_first, only_first) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("only_first", "only_second", "num_images"), [(4, 26, 1000), (0, 0, 50), (7, 3, 20), (5, 5, 10)]
)
def test_tangos_interval_is_where_the_score_test_rejects(only_first, only_second, num_images):
    def statistic(difference: float) -> float:
        # The most likely share of "only the second" under this difference, found by search rather than by formula.
        both = num_images - only_first - only_second
        low, high = max(0.0, -difference), (1 - difference) / 2
        shares = np.linspace(low, high, 2_000_003)[1:-1]
        with np.errstate(divide="ignore"):
            likelihood = only_second * np.log(shares) if only_second else np.zeros_like(shares)
            likelihood = likelihood + (only_first * np.log(shares + difference) if only_first else 0.0)
            likelihood = likelihood + (both * np.log(1 - difference - 2 * shares) if both else 0.0)
        share = float(shares[likelihood.argmax()])
        variance = num_images * (2 * share + difference - difference**2)
        return (only_first - only_second - num_images * difference) / math.sqrt(variance)

    low, high = tango_interval(only_first, only_second, num_images)
    assert low < (only_first - only_second) / num_images < high or only_first == only_second
    assert statistic(low) == pytest.approx(1.959964, abs=0.002)
    assert statistic(high) == pytest.approx(-1.959964, abs=0.002)


def test_runs_that_agree_on_every_image_may_still_differ():
    low, high = tango_interval(0, 0, 100)
    assert low == pytest.approx(-high)
    assert high == pytest.approx(3.8415 / 103.8415, rel=1e-4)


@pytest.mark.parametrize(
    ("dof", "quantile"), [(1, 12.7062), (2, 4.3027), (5, 2.5706), (10, 2.2281), (30, 2.0423), (1e9, 1.95996)]
)
def test_quantiles_of_students_t(dof, quantile):
    assert t_quantile(dof) == pytest.approx(quantile, abs=2e-4)
    assert t_tails(0.0, dof) == pytest.approx(1.0)


def test_holm_raises_p_values_and_keeps_their_order():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_images_are_counted_in_pairs():
    first = np.array([[True, True, False, False, True]])
    second = np.array([[True, False, True, False, False]])
    found = count_quadrants(first, second)
    assert (found.both_right, found.only_first, found.only_second, found.both_wrong) == (1, 2, 1, 1)
    difference = compare_groups(first, second)
    assert difference.value == pytest.approx(0.2)
    assert difference.p_value == 1.0
    assert difference.seeds_needed is None


def test_equal_groups_do_not_differ():
    right = np.random.default_rng(1).random((3, 500)) < 0.9
    found = compare_groups(right, right)
    assert found.value == 0
    assert found.p_value == pytest.approx(1.0)
    assert found.seeds_needed is None


def simulated(rng, base, shift, num_seeds):
    """Runs that differ by seed as a whole, and by seed and image."""
    score = base + shift + rng.normal(0, 0.05, (num_seeds, 1)) + rng.normal(0, 1, (num_seeds, len(base)))
    return score > 0


@pytest.mark.parametrize("num_seeds", list(range(2, 6)))
def test_intervals_hold_the_truth_and_false_winners_are_rare(num_seeds):
    rng = np.random.default_rng(num_seeds)
    spread = NormalDist(0, math.sqrt(2.5**2 + 0.05**2 + 1))
    mean, truth = spread.cdf(6), spread.cdf(6.3) - spread.cdf(6)
    held = winners = group_held = 0
    for _ in range(400):
        base = rng.normal(6, 2.5, 1500)
        first, second, third = (simulated(rng, base, shift, num_seeds) for shift in (0.3, 0, 0))
        found = compare_groups(first, second)
        held += found.low <= truth <= found.high
        winners += compare_groups(second, third).p_value < 0.05
        low, high = group_interval(second)
        group_held += low <= mean <= high
    assert 0.91 <= held / 400 <= 0.985
    assert winners / 400 <= 0.085
    assert 0.9 <= group_held / 400 <= 0.985


def test_the_number_of_seeds_that_is_needed_finds_the_difference():
    rng = np.random.default_rng(3)

    def draw(num_seeds):
        base = rng.normal(6, 2.5, 4000)
        return compare_groups(simulated(rng, base, 0.15, num_seeds), simulated(rng, base, 0, num_seeds))

    asked = [found.seeds_needed for _ in range(60) if (found := draw(4)).value > 0 and found.seeds_needed]
    needed = int(np.median(asked))
    share = np.mean([draw(needed).p_value < 0.05 for _ in range(200)])
    assert 0.6 <= share <= 0.97


def test_every_pair_of_small_counts_has_an_ordered_interval():
    for only_first, only_second in product(range(6), repeat=2):
        low, high = tango_interval(only_first, only_second, 12)
        assert -1 <= low <= (only_first - only_second) / 12 <= high <= 1
