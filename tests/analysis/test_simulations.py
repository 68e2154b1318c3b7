"""What intervals, verdicts and tiers promise, checked by simulation with 20 really trained seeds.

mnist-seeds.bin says for 20 runs of the config ``mnist``, with the seeds 1 to 20, whether each of MNIST's 10,000 test
images is classified correctly: ``np.packbits`` of a boolean matrix (20, 10000), made from their predictions.csv.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from cnn_trainer.analysis.compare import Comparison, Group, Pair
from cnn_trainer.analysis.difference import (
    compare_all,
    compare_groups,
    group_interval,
    measure_moments,
    pair_indexes,
)
from cnn_trainer.analysis.rank import tiers_of

SOAK = "CNN_TRAIN_SOAK" in os.environ
NUM_DRAWS = 10_000 if SOAK else 1000
NUM_SEEDS, NUM_IMAGES = 20, 10_000


@pytest.fixture(scope="module")
def right():
    """(seeds, images)."""
    packed = np.fromfile(Path(__file__).with_name("mnist-seeds.bin"), np.uint8)
    return np.unpackbits(packed).reshape(NUM_SEEDS, NUM_IMAGES).astype(bool)


def drawn_images(rng, right):
    """The same runs on as many images, drawn with replacement: another test split from where this one came from."""
    return right[:, rng.integers(0, NUM_IMAGES, NUM_IMAGES)]


def tiers(groups):
    """The tiers of groups of runs, each (runs, images), as ``runs rank`` gives them."""
    found = measure_moments(groups)
    indexes = (part.tolist() for part in pair_indexes(len(groups)))
    pairs = [Pair(*pair, None) for pair in zip(*indexes, compare_all(found), strict=True)]
    shown = [Group((), mean, 0, 1, 0, None, group) for mean, group in zip(found.means, groups, strict=True)]
    return tiers_of(Comparison("test", "", NUM_IMAGES, tuple(shown), {}, tuple(pairs)))


@pytest.mark.parametrize("seeds_each", [1, 2])
def test_boards_of_ten_equal_configs_name_a_winner_in_less_than_5_percent(right, seeds_each):
    """Each config gets runs that no other has; a sorted table would name a winner on every board."""
    rng = np.random.default_rng(seeds_each)
    winners = different = 0
    for _ in range(NUM_DRAWS):
        runs = drawn_images(rng, right[rng.permutation(NUM_SEEDS)])
        found = tiers([runs[seeds_each * config : seeds_each * (config + 1)] for config in range(10)])
        winners += found.count(1) == 1
        different += max(found) > 1
    assert winners / NUM_DRAWS <= 0.05
    if seeds_each > 1:  # two runs of one config do differ, and may be told apart
        assert different / NUM_DRAWS <= 0.05


def test_a_better_config_does_win(right):
    rng = np.random.default_rng(3)
    winners = 0
    for _ in range(100):
        runs = drawn_images(rng, right[rng.permutation(NUM_SEEDS)])
        groups = [runs[4 * config : 4 * config + 4] for config in range(5)]
        groups[2] = groups[2] | (rng.random(groups[2].shape) < 0.6)  # this config gets 6 of 10 errors right
        found = tiers(groups)
        winners += found.count(1) == 1 and found[2] == 1
    assert winners >= 80


def worse(rng, right):
    """Runs of a config that is worse on 100 images: each run gets each of them wrong with a chance of 30 %."""
    hard = np.random.default_rng(0).permutation(NUM_IMAGES)[:100]
    found = right.copy()
    found[:, hard] &= rng.random((len(right), 100)) >= 0.3
    return found, 0.3 * right[:, hard].mean() * 100 / NUM_IMAGES


def test_intervals_of_two_runs_hold_their_true_difference(right):
    """True is their difference on all images, of which the simulated test split is a sample."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(NUM_DRAWS):
        first, second = right[rng.permutation(NUM_SEEDS)[:2]]
        pair = drawn_images(rng, np.stack([first, second]))
        found = compare_groups(pair[:1], pair[1:])
        held += found.low <= first.mean() - second.mean() <= found.high
    assert 0.93 <= held / NUM_DRAWS <= 0.97


@pytest.mark.parametrize(
    ("first_seeds", "second_seeds"), [(3, 3), (5, 5), *([(10, 10), (5, 3), (8, 2)] if SOAK else [])]
)
def test_intervals_of_two_configs_hold_their_true_difference(right, first_seeds, second_seeds):
    """True is their difference over all seeds and images."""
    rng = np.random.default_rng(10 * first_seeds + second_seeds)
    held = false = 0
    _, truth = worse(rng, right)
    for _ in range(NUM_DRAWS):
        runs = right[rng.permutation(NUM_SEEDS)[: first_seeds + second_seeds]]
        bad, _ = worse(rng, runs[first_seeds:])
        found = compare_groups(*np.split(drawn_images(rng, np.concatenate([runs[:first_seeds], bad])), [first_seeds]))
        held += found.low <= truth <= found.high
        equal = compare_groups(*np.split(drawn_images(rng, runs), [first_seeds]))
        false += equal.p_value < 0.05
    assert 0.93 <= held / NUM_DRAWS <= 0.975
    assert false / NUM_DRAWS <= 0.06


@pytest.mark.parametrize("num_seeds", [2, 3, 5])
def test_intervals_of_a_config_hold_its_true_accuracy(right, num_seeds):
    rng = np.random.default_rng(num_seeds)
    held = 0
    for _ in range(NUM_DRAWS):
        low, high = group_interval(drawn_images(rng, right[rng.integers(0, NUM_SEEDS, num_seeds)]))
        held += low <= right.mean() <= high
    assert 0.93 <= held / NUM_DRAWS <= 0.975


def needed_seeds(variance, value, seed):
    """Seeds for each config, by the normal approximation; None if the images are too few for any number."""
    spare = (value / (1.959964 + 0.841621)) ** 2 - variance
    return 2 * seed / spare if spare > 0 else None


def test_pairing_by_image_saves_seeds(right):
    """To find a difference of 0.1 points with a power of 80 %, with the variances of these seeds."""
    first, second = measure_moments([right]), measure_moments([right])
    unpaired = float(first.own_image_variance()[0] + second.own_image_variance()[0])
    rng = np.random.default_rng(4)
    better = right | (rng.random(right.shape) < 0.001 / (1 - right.mean()))  # each error is put right with this chance
    found = measure_moments([better, right])
    paired = float(found.image_variance(np.array([0]), np.array([1]))[0])
    seed = float(found.seed_squares.mean()) / (NUM_SEEDS - 1)
    few, many = needed_seeds(paired, 0.001, seed), needed_seeds(unpaired, 0.001, seed)
    assert few is not None
    assert few < 40
    assert many is None or few <= many / 2


def test_the_number_of_seeds_that_is_needed_finds_the_difference(right):
    rng = np.random.default_rng(5)

    def draw(num_seeds):
        runs = right[rng.integers(0, NUM_SEEDS, 2 * num_seeds)]
        runs[:num_seeds] |= rng.random((num_seeds, NUM_IMAGES)) < 0.2  # this config gets 2 of 10 errors right
        pair = drawn_images(rng, runs)
        return compare_groups(pair[:num_seeds], pair[num_seeds:])

    asked = [found.seeds_needed for _ in range(100) if (found := draw(10)).seeds_needed and found.value > 0]
    needed = int(np.median(asked))
    assert 5 <= needed <= 20
    share = np.mean([draw(needed).p_value < 0.05 for _ in range(300)])
    assert 0.7 <= share <= 0.9
