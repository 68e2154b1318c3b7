"""The score of predictions against labels."""

import math

import numpy as np
import pytest

from cnn_trainer.evaluation.scores import class_scores, confusion_matrix, score_logits, wilson_interval


def test_the_loss_is_the_mean_of_minus_log_probability():
    logits = np.log([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.25, 0.5, 0.25]])
    found = score_logits(logits + np.array([[3.0], [-5.0], [0.0]]), np.array([0, 2, 0]), "cross_entropy")
    assert found.loss == pytest.approx(-(math.log(0.7) + math.log(0.8) + math.log(0.25)) / 3, rel=1e-12)
    assert found.accuracy == 2 / 3
    assert found.predictions.tolist() == [0, 2, 1]
    assert found.probabilities == pytest.approx(np.exp(logits), rel=1e-12)


def test_the_squared_loss_is_the_mean_over_classes():
    logits = np.log([[0.7, 0.2, 0.1]])
    found = score_logits(logits, np.array([1]), "mean_squared_error")
    assert found.loss == pytest.approx((0.7**2 + 0.8**2 + 0.1**2) / 3, rel=1e-12)
    assert found.accuracy == 0


def test_logits_of_any_size_have_a_finite_loss_in_float64():
    logits = np.array([[1e4, -1e4, 0.0], [0.0, 0.0, 0.0]], np.float32)
    found = score_logits(logits, np.array([1, 2]), "cross_entropy")
    assert found.loss == pytest.approx((2e4 + math.log(3)) / 2, rel=1e-12)
    assert found.probabilities.dtype == np.float64
    assert logits[0, 0] == 1e4  # the arguments are not changed


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_nan_logit_makes_the_loss_nan(broken):
    with np.errstate(invalid="ignore"):
        assert math.isnan(score_logits(np.array([[broken, 0.0], [0.0, 1.0]]), np.array([0, 1]), "cross_entropy").loss)


@pytest.mark.parametrize(
    ("right", "examples", "low", "high"),
    [  # Newcombe, Two-sided confidence intervals for the single proportion (1998), table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_wilson_interval_is_that_of_published_tables(right, examples, low, high):
    assert wilson_interval(right, examples) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("examples", [1, 10, 10_000])
def test_the_wilson_interval_holds_the_share_and_stays_within_0_and_1(examples):
    for right in {0, 1, examples // 2, examples}:
        low, high = wilson_interval(right, examples)
        assert 0 <= low <= right / examples + 1e-12
        assert right / examples - 1e-12 <= high <= 1
        mirrored = wilson_interval(examples - right, examples)
        assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_the_wilson_interval_ends_where_the_normal_test_just_rejects():
    """|share - p| = z √(p (1 - p) / n) at both ends."""
    for end in wilson_interval(990, 1000):
        assert abs(0.99 - end) == pytest.approx(1.959963984540054 * math.sqrt(end * (1 - end) / 1000), rel=1e-9)


def test_the_confusion_matrix_counts_true_classes_in_rows():
    matrix = confusion_matrix(np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 0, 0, 2]), 4)
    assert matrix.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [2, 0, 1, 0], [0, 0, 0, 0]]


def test_class_scores_from_the_confusion_matrix():
    matrix = np.array([[8, 2, 0, 0], [1, 9, 0, 0], [0, 4, 0, 0], [0, 0, 0, 0]])
    first, second, third, fourth = class_scores(matrix, ["a", "b", "c", "d"])
    assert (first.name, first.support, first.precision, first.recall) == ("a", 10, 8 / 9, 0.8)
    assert first.f1 == pytest.approx(16 / 19)  # 2 right / (support + predicted)
    assert (second.support, second.precision, second.recall) == (10, 9 / 15, 0.9)
    assert second.f1 == pytest.approx(18 / 25)
    assert (third.support, third.precision, third.recall, third.f1) == (4, None, 0.0, None)
    assert (fourth.support, fourth.precision, fourth.recall, fourth.f1) == (0, None, None, None)


def test_a_class_that_is_only_mistaken_has_no_f1():
    score_of_first = class_scores(np.array([[0, 1], [1, 0]]), ["a", "b"])[0]
    assert (score_of_first.precision, score_of_first.recall, score_of_first.f1) == (0.0, 0.0, None)
