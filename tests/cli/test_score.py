"""How a score is shown to people, on terminals of any width."""

import numpy as np
import pytest

from cnn_trainer.cli.score import headline, score_lines
from cnn_trainer.evaluation.scores import class_scores
from cnn_trainer.runs.records import (
    BrierScore,
    Calibration,
    CalibrationError,
    CoveragePoint,
    EvaluationRecord,
    ReliabilityBin,
    Temperature,
)

CLOTHES = ["T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]


def scored(matrix, names, **more):
    matrix = np.array(matrix)
    given = {
        "split": "test",
        "source": "folder",
        "requested": "folder",
        "location": "/data/pets",
        "images_sha256": "1" * 64,
        "num_examples": int(matrix.sum()),
        "loss": 0.25,
        "accuracy": matrix.trace() / matrix.sum(),
        "accuracy_interval": [0.9, 1.0],
        "classes": class_scores(matrix, names),
        "confusion_matrix": matrix.tolist(),
        "weights_sha256": "2" * 64,
        "evaluated_at": "2026-11-23T22:50:01Z",
    }
    return EvaluationRecord(**given | more)


def calibrated(gap=None, temperature=None):
    """A calibration with plain figures; with a temperature, if one is given."""
    error = CalibrationError(
        error=0.0123, interval=[0.008, 0.0169], chance_mean=0.004, chance_limit=0.006, num_draws=2000, seed=0
    )
    best = temperature and Temperature(
        temperature=temperature,
        validation_images_sha256="3" * 64,
        validation_loss_before=0.3,
        validation_loss=0.2,
        negative_log_likelihood=0.21,
        calibration_error=error,
    )
    one = ReliabilityBin(
        low=0.8, high=0.9, num_examples=100, confidence=0.85, accuracy=0.9, chance_low=0.8, chance_high=0.95
    )
    return Calibration(
        negative_log_likelihood=0.25,
        brier=BrierScore(score=0.1, miscalibration=0.02, discrimination=0.5, uncertainty=0.58),
        confidence=0.912,
        confidence_gap=gap,
        calibration_error=error,
        bins=[one],
        band_coverage=0.951,
        temperature=best,
        coverage=[CoveragePoint(coverage=1.0, error=0.1, min_confidence=0.8)],
        coverage_area=0.05,
    )


def mixed(size, right=90):
    """A confusion matrix with a bit of everything, 100 images per class."""
    matrix = np.eye(size, dtype=int) * right
    matrix[np.arange(size), (np.arange(size) + 3) % size] += 100 - right
    return matrix


def test_of_classes_of_one_size_there_is_one_accuracy():
    found = scored([[48, 2], [1, 49]], ["cat", "dog"])
    assert headline(found, None) == [
        "test accuracy 97.00% (95 % interval 90.00% to 100.00%)",
        "loss 0.2500, on 100 test images of folder",
    ]


def test_the_balanced_accuracy_stands_beside_another_accuracy():
    found = scored([[40, 0], [6, 14]], ["cat", "dog"])
    first = "test accuracy 90.00% (95 % interval 90.00% to 100.00%), balanced accuracy 85.00%"
    assert headline(found, None)[0] == first


def test_a_perfect_score_of_very_unequal_classes_is_not_bare():
    found = scored([[60, 0, 0], [0, 1, 0], [0, 0, 7]], ["cat", "dog", "owl"])
    assert headline(found, None) == [
        "test accuracy 100.00% (95 % interval 90.00% to 100.00%), balanced accuracy 100.00%",
        "loss 0.2500, on 68 test images of folder",
        "the test split has 60 images of class cat and 1 of class dog; balanced accuracy weights all classes equally",
    ]


def test_a_class_that_the_split_lacks_is_named():
    found = scored([[60, 0, 0], [0, 0, 0], [0, 0, 50]], ["cat", "dog", "owl"])
    assert headline(found, None)[2:] == ["the score does not cover classes that have no test image: dog"]
    assert "balanced accuracy 100.00%" in headline(found, None)[0]
    names = [f"class {number}" for number in range(14)]
    matrix = np.zeros((14, 14), int)
    matrix[0, 0] = matrix[1, 1] = 5
    shown = ", ".join(names[2:12])
    assert headline(scored(matrix, names), None)[-1].endswith(f" no test image: {shown} and 2 more")


@pytest.mark.parametrize("width", [40, 50, 80, 120])
@pytest.mark.parametrize("names", [[str(number) for number in range(10)], CLOTHES], ids=["digits", "clothes"])
def test_every_line_fits_the_terminal(names, width):
    lines = score_lines(scored(mixed(10), names, calibration=calibrated("over-confident", 1.4)), width)
    assert lines[0].startswith("test accuracy 90.00%")
    assert max(map(len, lines[:-1])) <= width  # the last is a digest
    assert "misread: 100 of 1,000 test images" in lines
    assert f"  {names[0]} read as {names[3]}: 10 times" in lines


@pytest.mark.parametrize("gap", ["over-confident", "under-confident", None])
def test_how_far_probabilities_can_be_relied_on_is_said_in_two_lines(gap):
    lines = score_lines(scored(mixed(10), CLOTHES, calibration=calibrated(gap)), None)
    assert lines[3:6] == [
        f"mean confidence 91.20%, accuracy 90.00%: {gap or 'no more apart than by chance'}",
        "expected calibration error 1.23% (95 % interval 0.80% to 1.69%); "
        "a perfectly calibrated model has up to 0.60% by chance",
        "",
    ]


def test_a_temperature_is_said_if_it_is_not_1():
    for temperature in None, 1.0:
        found = scored(mixed(10), CLOTHES, calibration=calibrated(None, temperature))
        assert not [line for line in score_lines(found, None) if "temperature" in line]
    lines = score_lines(scored(mixed(10), CLOTHES, calibration=calibrated(None, 1.3456)), None)
    assert lines[5] == (
        "with the temperature 1.35, which fits the validation split best, the negative log likelihood is 0.2100 "
        "instead of 0.2500"
    )


def test_the_matrix_is_under_names_if_they_fit_else_under_numbers_else_without_the_diagonal():
    found = scored(mixed(10), CLOTHES)
    wide, middle, narrow, tiny = (score_lines(found, width) for width in (140, 80, 50, 40))
    row = "confusion matrix (row: label, column: prediction)"
    [start] = [number for number, line in enumerate(wide) if line == row]
    assert wide[start + 1].split() == ["label", *" ".join(CLOTHES).split()]
    assert wide[start + 2].split() == ["T-shirt/top", "90", "-", "-", "10", *["-"] * 6]
    [start] = [number for number, line in enumerate(middle) if line == row]
    assert middle[start + 1].split() == ["label", *map(str, range(10))]
    assert middle[start + 2].split() == ["0", "T-shirt/top", "90", "-", "-", "10", *["-"] * 6]
    assert middle[start + 11].split()[:3] == ["9", "ankle", "boot"]
    start = narrow.index("confusion matrix (row: label, column: prediction;")
    assert narrow[start + 1] == "classes numbered from 0 in the order below)"
    assert narrow[start + 3].split() == ["0", "90", "-", "-", "10", *["-"] * 6]
    assert "the confusion matrix is too wide to show" in tiny
    large = score_lines(scored(mixed(10) * 90, CLOTHES), 74)
    start = large.index("confusion matrix (row: label, column: prediction; correct ones left out)")
    assert large[start + 2].split() == ["0", "T-shirt/top", "-", "-", "-", "900", *["-"] * 6]


def test_the_whole_of_mnist_fits_50_columns():
    names = [str(number) for number in range(10)]
    found = scored(mixed(10, right=95) * 12, names)  # 1,140 of each class are right
    for width, shown in (80, ["4", "-", "-", "-", "-", "1,140", "-", "-", "60", "-", "-"]), (50, None):
        lines = score_lines(found, width)
        [start] = [number for number, line in enumerate(lines) if line.startswith("confusion matrix (")]
        row = next(line.split() for line in lines[start:] if line.startswith("    4 "))
        assert row == (shown or ["4", *["-"] * 7, "60", "-", "-"])
        assert max(map(len, lines[:-1])) <= width


@pytest.mark.parametrize(("size", "width", "has_matrix"), [(26, 120, True), (47, 400, False), (47, None, False)])
def test_of_many_classes_only_the_most_frequent_confusions_are_shown(size, width, has_matrix):
    lines = score_lines(scored(mixed(size), [f"{number}" for number in range(size)]), width)
    assert any(line.startswith("confusion matrix") for line in lines) == has_matrix
    assert ("the confusion matrix is too wide to show here; --json prints it" in lines) != has_matrix
    [start] = [number for number, line in enumerate(lines) if line.startswith("misread: ")]
    assert lines[start] == f"misread: {size * 10} of {size * 100:,} test images, most often"
    assert [line[:2] for line in lines[start + 1 : start + 12]] == ["  "] * 10 + [""]


def test_nothing_misread_is_said_too():
    lines = score_lines(scored([[5, 0], [0, 5]], ["cat", "dog"]), None)
    assert "misread: 0 of 10 test images" in lines
    assert not [line for line in lines if "read as" in line]


@pytest.mark.parametrize("matrix", [[], [[1]], [[1, 2, 3], [4, 5, 6]], [[1, 2], [3]]], ids=str)
def test_a_stranger_s_matrix_that_does_not_fit_the_classes_is_left_out(matrix):
    lines = score_lines(scored([[5, 0], [0, 5]], ["cat", "dog"], confusion_matrix=matrix), None)
    assert not [line for line in lines if "confusion matrix" in line]
