"""The values that a score derives from others and records, also when read from files of earlier versions."""

import json

import pytest

from cnn_trainer.runs import records, store
from cnn_trainer.runs.records import ClassScore, EvaluationRecord, balanced_accuracy, frequent_confusions
from cnn_trainer.storage import strict_json

NAMES = ["cat", "dog", "owl"]
MATRIX = [[58, 2, 0], [2, 1, 0], [0, 0, 0]]
FILE = {
    "split": "test",
    "source": "folder",
    "requested": "folder",
    "location": "/data/pets",
    "images_sha256": "1" * 64,
    "num_examples": 63,
    "loss": 0.25,
    "accuracy": 59 / 63,
    "accuracy_interval": [0.8478, 0.9752],
    "classes": [
        {"name": "cat", "support": 60, "precision": 58 / 60, "recall": 58 / 60, "f1": 58 / 60},
        {"name": "dog", "support": 3, "precision": 1 / 3, "recall": 1 / 3, "f1": 1 / 3},
        {"name": "owl", "support": 0, "precision": None, "recall": None, "f1": None},
    ],
    "confusion_matrix": MATRIX,
    "weights_sha256": "2" * 64,
    "evaluated_at": "2026-11-23T22:50:01Z",
}


def recalls(*values):
    return [ClassScore(name="x", support=1, precision=None, recall=value, f1=None) for value in values]


def test_the_balanced_accuracy_is_the_mean_recall_of_the_classes_that_there_are():
    """The example of scikit-learn's balanced_accuracy_score: y = 010010, predicted 010001, recalls 3/4 and 1/2."""
    assert balanced_accuracy(recalls(0.75, 0.5)) == 0.625
    assert balanced_accuracy(recalls(1.0, 0.0, None)) == 0.5
    assert balanced_accuracy(recalls(None)) == 0


def test_confusions_are_sorted_by_frequency():
    found = frequent_confusions([[9, 1, 4], [4, 9, 0], [7, 1, 9]], NAMES)
    assert [(each.label, each.prediction, each.count) for each in found] == [
        ("owl", "cat", 7),
        ("cat", "owl", 4),
        ("dog", "cat", 4),
        ("cat", "dog", 1),
        ("owl", "dog", 1),
    ]
    size = 30
    many = frequent_confusions(
        [[row * size + column for column in range(size)] for row in range(size)], range_names(size)
    )
    assert len(many) == records.MAX_CONFUSIONS
    assert [each.count for each in many[:3]] == [898, 897, 896]


def range_names(size):
    return [f"class {number}" for number in range(size)]


def test_missing_fields_of_an_earlier_version_are_computed(tmp_path):
    (tmp_path / "evaluation.json").write_text(json.dumps(FILE))
    found = store.read_evaluation(tmp_path)
    assert found.balanced_accuracy == pytest.approx((58 / 60 + 1 / 3) / 2)
    assert [each.model_dump() for each in found.confusions] == [
        {"label": "cat", "prediction": "dog", "count": 2},
        {"label": "dog", "prediction": "cat", "count": 2},
    ]
    (tmp_path / "evaluation.json").write_bytes(strict_json.to_json(found))
    assert store.read_evaluation(tmp_path) == found
    assert list(json.loads(strict_json.to_json(found)))[-6:-2] == [
        "loss",
        "accuracy",
        "accuracy_interval",
        "balanced_accuracy",
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"confusion_matrix": []},
        {"confusion_matrix": [[1, 2, 3, 4, 5]] * 7},
        {"confusion_matrix": [[-1, -5, 10**18], [], []]},
        {"classes": []},
    ],
    ids=str,
)
def test_a_matrix_that_does_not_fit_the_classes_gives_no_traceback(tmp_path, change):
    (tmp_path / "evaluation.json").write_text(json.dumps(FILE | change))
    found = store.read_evaluation(tmp_path)
    assert {each.label for each in found.confusions} <= set(NAMES)


def test_the_largest_number_of_classes_is_read_back(tmp_path):
    size = 1000
    matrix = [[100 + (row + column) % 900 for column in range(size)] for row in range(size)]
    classes = [
        ClassScore(name=name * 3, support=10**6, precision=1 / 3, recall=2 / 3, f1=4 / 9) for name in range_names(size)
    ]
    plain = {name: value for name, value in FILE.items() if name not in ("classes", "confusion_matrix")}
    record = EvaluationRecord(**plain, classes=classes, confusion_matrix=matrix)
    (tmp_path / "evaluation.json").write_bytes(strict_json.to_json(record))
    assert store.read_evaluation(tmp_path) == record
