"""Differences of groups of runs, against plain slow forms and simulated runs."""

from itertools import combinations

import numpy as np
import pytest
import slow_forms

from cnn_trainer.analysis import difference
from cnn_trainer.analysis.difference import (
    compare_all,
    compare_groups,
    estimate_differences,
    estimate_means,
    group_interval,
    measure_moments,
)


def some_groups(sizes=(1, 1, 2, 3, 5, 1, 2), num_images=1000):
    rng = np.random.default_rng(4)
    base = rng.normal(3, 2.5, num_images)
    return [simulated(rng, base, rng.normal(0, 0.2), num_seeds) for num_seeds in sizes]


def test_all_pairs_at_once_equal_each_for_itself(monkeypatch):
    groups = some_groups()
    pairs = list(combinations(range(len(groups)), 2))
    for images_at_once in (65_536, 300):
        monkeypatch.setattr(difference, "_CHUNK_IMAGES", images_at_once)
        found = compare_all(measure_moments(groups))
        uncorrected = []
        for (first, second), one in zip(pairs, found, strict=True):
            a, b = groups[first], groups[second]
            if len(a) == len(b) == 1:
                counts = [int((x & y).sum()) for x, y in ((a, b), (a, ~b), (~a, b), (~a, ~b))]
                low, high = slow_forms.tango_interval(counts[1], counts[2], 1000)
                expected = (counts[1] - counts[2]) / 1000, low, high, slow_forms.mcnemar(counts[1], counts[2])
                assert list(one.quadrants) == counts
            else:
                expected = slow_forms.compare_values(a, b)
                assert one.quadrants is None
            uncorrected.append(expected[3])
            assert one[:3] == pytest.approx(expected[:3], rel=1e-6)
        assert [one.p_value for one in found] == pytest.approx(slow_forms.holm(uncorrected), rel=1e-6)


def test_differences_of_losses_equal_each_for_itself():
    rng = np.random.default_rng(5)
    losses = [rng.exponential(0.1, group.shape).astype(np.float32) * ~group for group in some_groups()]
    found = estimate_differences(measure_moments(losses))
    for (first, second), one in zip(combinations(losses, 2), found, strict=True):
        expected = slow_forms.compare_values(first.astype(np.float64), second.astype(np.float64))
        assert one == pytest.approx(expected[:3], rel=1e-6, abs=1e-9)
    same = measure_moments([losses[2], losses[2]])
    assert estimate_differences(same)[0].value == 0


def test_means_of_single_runs_are_over_images_only():
    values = np.random.default_rng(6).normal(5, 1, (1, 400)).astype(np.float32)
    [(mean, low, high)] = estimate_means(measure_moments([values]))
    assert mean == pytest.approx(values.mean())
    assert (high - low) / 2 == pytest.approx(1.959964 * values.std(ddof=1) / 20, rel=0.01)


def test_the_interval_of_a_skewed_mean_is_corrected():
    values = np.random.default_rng(7).exponential(1, (1, 400)) ** 3
    [(mean, low, high)] = estimate_means(measure_moments([values.astype(np.float32)]))
    deviation = values.std(ddof=1) / 20
    skew = ((values - values.mean()) ** 3).mean() / values.std() ** 3 / 20
    for end in (low, high):
        distance = (mean - end) / deviation
        normal = distance + skew * distance**2 / 3 + skew**2 * distance**3 / 27 + skew / 6
        assert abs(normal) == pytest.approx(1.959964, rel=0.01)
    assert high - mean > 1.2 * (mean - low)


def test_groups_without_errors_are_not_sure():
    right = np.ones((2, 50), bool)
    low, high = group_interval(right)
    assert (low, high) == (pytest.approx(50 / (50 + 1.959964**2)), 1.0)
    found = compare_groups(right, right)
    assert (found.value, found.p_value) == (0, 1)
    assert (found.low, found.high) == pytest.approx(slow_forms.tango_interval(0, 0, 50))


def test_images_are_counted_in_pairs():
    first = np.array([[True, True, False, False, True]])
    second = np.array([[True, False, True, False, False]])
    found = compare_groups(first, second)
    assert found.quadrants == (1, 2, 1, 1)
    assert found.value == pytest.approx(0.2)
    assert found.p_value == 1.0
    assert found.seeds_needed is None


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


def test_two_seeds_that_agree_by_luck_do_not_look_sure():
    right = np.ones((2, 1000), bool)
    right[0, :30] = right[1, 30:60] = False
    low, high = group_interval(right)
    assert low < 0.97 - 0.005 < 0.97 + 0.005 < high
