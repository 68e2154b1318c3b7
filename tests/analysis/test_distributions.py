"""Exact tests, intervals and Student's t, against enumeration, tables in textbooks and slow forms."""

import math
from fractions import Fraction

import numpy as np
import pytest
import slow_forms

from cnn_trainer.analysis.distributions import holm, mcnemar, t_quantile, t_tails, tango_interval


def array(*values):
    return np.array(values, dtype=np.float64)


def test_mcnemar_equals_enumeration():
    row = [1]  # of Pascal's triangle: the ways to get each number of heads
    for tosses in range(201):
        if tosses:
            row = [left + right for left, right in zip([0, *row], [*row, 0], strict=True)]
        only_first = np.arange(tosses + 1)
        expected = []
        for heads in range(tosses + 1):  # the outcomes that are at least as uneven as this one
            ways = sum(number for other, number in enumerate(row) if abs(2 * other - tosses) >= abs(2 * heads - tosses))
            expected.append(float(Fraction(ways, 2**tosses)))
        assert mcnemar(only_first, tosses - only_first) == pytest.approx(expected, rel=1e-12)


def test_mcnemar_of_thousands_of_images_equals_fractions():
    only_first, only_second = np.array([900, 800, 1, 0, 610]), np.array([1100, 800, 2000, 40, 401])
    expected = [slow_forms.mcnemar(*counts) for counts in zip(only_first.tolist(), only_second.tolist(), strict=True)]
    assert mcnemar(only_first, only_second) == pytest.approx(expected, rel=1e-10)


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

    (low,), (high,) = tango_interval(np.array([only_first]), np.array([only_second]), num_images)
    assert low < (only_first - only_second) / num_images < high or only_first == only_second
    assert statistic(low) == pytest.approx(1.959964, abs=0.002)
    assert statistic(high) == pytest.approx(-1.959964, abs=0.002)


def test_tangos_interval_of_all_small_counts_equals_its_slow_form():
    only_first, only_second = (counts.ravel() for counts in np.mgrid[:7, :6])
    low, high = tango_interval(only_first, only_second, 12)
    expected = [
        slow_forms.tango_interval(*counts, 12) for counts in zip(only_first.tolist(), only_second.tolist(), strict=True)
    ]
    assert np.stack([low, high], axis=1) == pytest.approx(np.array(expected), abs=1e-12)
    assert np.all((low >= -1) & (low <= (only_first - only_second) / 12) & (high <= 1))


def test_runs_that_agree_on_every_image_may_still_differ():
    (low,), (high,) = tango_interval(np.array([0]), np.array([0]), 100)
    assert low == pytest.approx(-high)
    assert high == pytest.approx(3.8415 / 103.8415, rel=1e-4)


@pytest.mark.parametrize(
    ("dof", "quantile"), [(1, 12.7062), (2, 4.3027), (5, 2.5706), (10, 2.2281), (30, 2.0423), (1e9, 1.95996)]
)
def test_quantiles_of_students_t(dof, quantile):
    assert t_quantile(array(dof)) == pytest.approx([quantile], abs=6e-5)


def test_tails_of_students_t():
    statistic = np.linspace(0, 60, 500)
    for dof, expected in ((1, 1 - 2 / np.pi * np.arctan(statistic)), (2, 1 - statistic / np.sqrt(2 + statistic**2))):
        assert t_tails(statistic, np.full(500, float(dof))) == pytest.approx(expected, abs=1e-14)
    for dof in (3.3, 17.0, 250.0):
        expected = [slow_forms.t_tails(value, dof) for value in (0.1, 1.0, 2.5, 6.0)]
        assert t_tails(array(0.1, 1.0, 2.5, 6.0), np.full(4, dof)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("level", [0.5, 0.05, 1e-3, 1e-7])
def test_the_quantile_is_where_the_tails_have_the_level(level):
    dof = np.concatenate([np.linspace(1, 50, 99), np.geomspace(50, 5000, 50)])
    assert t_tails(t_quantile(dof, level), dof) == pytest.approx(np.full(149, level), rel=1e-6)


def test_holm_raises_p_values_and_keeps_their_order():
    assert holm(array(0.01, 0.04, 0.03)) == pytest.approx([0.03, 0.06, 0.06])
    assert holm(array(0.9, 0.8)).tolist() == [1.0, 1.0]
    assert holm(array()).tolist() == []
    p_values = np.random.default_rng(1).random(300) ** 8
    assert holm(p_values).tolist() == slow_forms.holm(p_values.tolist())
