"""Class weights: those of scikit-learn's formula, in the compiled step exactly as in Keras' ``Model.fit``."""

import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from support import read_json, settings

from cnn_trainer.data import Split
from cnn_trainer.training.balance import balanced_weights, describe_imbalance
from cnn_trainer.training.gradients import Objective

SMALL = {"filters": [3, 4], "dense_units": [6]}
COUNTS = [12, 7, 3]
# Keras rounds its weights to float32, even if it then computes in float64.
TOLERANCE = 1e-7


@pytest.fixture(scope="module")
def unequal(small_images):
    """22 images of random pixels: 12, 7 and 3 of the classes, mixed."""
    labels = np.random.default_rng(2).permutation(np.repeat([0, 1, 2], COUNTS)).astype(np.int32)
    return Split(small_images.images, labels)


def weighted(make_experiment, training, precision="float64", **more):
    training = {"optimizer": "sgd", "batch_size": 8, "learning_rate": 0.5, "class_weights": "balanced", **training}
    return make_experiment(SMALL, training, precision, **more)


def test_the_weights_are_those_of_the_formula():
    """As scikit-learn 1.8 gives them: compute_class_weight("balanced", classes=[0, 1, 2], y=…)."""
    assert balanced_weights(COUNTS) == pytest.approx([0.6111111111111112, 1.0476190476190477, 2.4444444444444446])
    assert balanced_weights([300, 3]) == pytest.approx([0.505, 50.5])
    assert balanced_weights([7, 7, 7]) == [1, 1, 1]
    for counts in (COUNTS, [300, 3], [1, 10, 100, 1000]):
        sums = [weight * count for weight, count in zip(balanced_weights(counts), counts, strict=True)]
        assert sums == pytest.approx([sum(counts) / len(counts)] * len(counts))


LOSSES = {
    "cross_entropy": lambda smoothing: keras.losses.CategoricalCrossentropy(label_smoothing=smoothing, dtype="float64"),
    "mean_squared_error": lambda _: keras.losses.MeanSquaredError(dtype="float64"),
}


@pytest.mark.parametrize("towers", [1, 2, 3])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("loss", LOSSES)
def test_an_epoch_is_that_of_keras_fit_with_class_weight(
    loss, smoothing, towers, make_experiment, make_trainer, unequal
):
    """Three steps, the last with 6 images; the reported loss equals that of Keras too."""
    trainer = make_trainer(weighted(make_experiment, {"loss": loss, "label_smoothing": smoothing}), unequal, towers)
    targets = np.eye(3)[unequal.labels]
    if loss == "mean_squared_error":  # Keras has no smoothing for it
        targets = (1 - smoothing) * targets + smoothing / 3
    model = keras.models.clone_model(trainer.model)
    model.set_weights(trainer.model.get_weights())
    model.compile(keras.optimizers.SGD(0.5), LOSSES[loss](smoothing))
    weights = dict(enumerate(balanced_weights(COUNTS)))
    images = unequal.images.astype("float64")
    history = model.fit(images, targets, 8, 1, verbose=0, shuffle=False, class_weight=weights)
    start = trainer.weights()
    sums = trainer.train()
    assert sums.loss / 22 == pytest.approx(history.history["loss"][0], rel=TOLERANCE)
    for first, found, wanted in zip(start, trainer.weights(), model.get_weights(), strict=True):
        assert np.abs(found - wanted).max() <= TOLERANCE * np.abs(wanted - first).max()
    plain = make_trainer(weighted(make_experiment, {"loss": loss, "class_weights": None}), unequal, towers)
    plain.train()
    assert np.abs(plain.weights()[0] - model.get_weights()[0]).max() > 1e-4, "the weights make a difference"


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_weight_multiplies_the_gradient_of_its_class(precision, make_experiment, make_trainer, unequal):
    """One image per step, so that a step of plain gradient descent is multiplied by the weight of its class."""
    split = Split(unequal.images[:1].repeat(4, axis=0), np.array([0, 0, 0, 1], np.int32))
    steps = []
    for weights in (None, "balanced"):
        training = {"batch_size": 1, "learning_rate": 0.01, "class_weights": weights}
        trainer = make_trainer(weighted(make_experiment, training, precision), split)
        before = trainer.weights()
        while np.array_equal(trainer.weights()[0], before[0]):  # float16 skips steps until its scale is right
            sums = trainer.train(3, 4)
        steps.append((sums.loss, [now - was for now, was in zip(trainer.weights(), before, strict=True)]))
    (loss, plain), (weighted_loss, longer) = steps
    assert weighted_loss == pytest.approx(2 * loss, rel=1e-6)  # 4 / (2 * 1)
    tolerance = {"float32": 1e-4, "bfloat16": 0.05, "float16": 0.01}[precision]
    for one, two in zip(plain, longer, strict=True):
        assert np.abs(two - 2 * one).max() <= tolerance * np.abs(two).max()


def test_weights_of_1_change_no_bit(make_experiment, make_trainer, small_images):
    """Classes of equal size: balanced then gives the same as null, although it multiplies."""
    split = Split(small_images.images[:21], small_images.labels[:21])
    found = []
    for weights in (None, "balanced"):
        trainer = make_trainer(weighted(make_experiment, {"class_weights": weights}, "float32"), split, 2)
        found.append([trainer.train(), *(array.tobytes() for array in trainer.weights())])
    assert found[0] == found[1]


def test_without_weights_nothing_is_added_to_the_step():
    logits, labels = tf.random.normal((4, 3)), tf.constant([0, 1, 2, 0])

    def operations(losses):
        graph = tf.function(losses).get_concrete_function(logits).graph
        return [operation.type for operation in graph.get_operations()]

    plain = operations(lambda z: tf.nn.sparse_softmax_cross_entropy_with_logits(labels, z))
    assert operations(lambda z: Objective("cross_entropy", 0.0, 3).per_example(z, labels)) == plain
    assert operations(lambda z: Objective("cross_entropy", 0.0, 3, [1, 2, 3]).per_example(z, labels)) != plain


@pytest.fixture
def rare_config(small_config, strokes, tmp_path):
    """The small config with 64 images of class 0, 64 of class 1 and 5 of class 2."""
    kept = np.flatnonzero((strokes["y_train"] != 2) | (np.cumsum(strokes["y_train"] == 2) <= 5))
    rare = {"x_train": strokes["x_train"][kept], "y_train": strokes["y_train"][kept]}
    np.savez(tmp_path / "strokes.npz", **strokes | rare)
    return small_config


def test_a_weighted_run_records_its_key_and_is_resumed_to_the_same_bits(cnn_train, rare_config, tmp_path):
    words = settings("training.class_weights=balanced", "training.epochs=4")
    whole = cnn_train("train", rare_config, *words, "--json", cwd=tmp_path)
    assert whole.code == 0, whole.err
    assert "class_weights: balanced" in (tmp_path / whole.run / "config.yaml").read_text()
    assert "class weights: 0.693 (0), 0.693 (1), 8.87 (2)\n" in whole.err
    half = cnn_train("train", rare_config, *words, "--set", "training.epochs=2", "--json", cwd=tmp_path)
    resumed = cnn_train("resume", half.run, "--epochs", "4", "--json", cwd=tmp_path)
    assert resumed.json["weights_sha256"] == whole.json["weights_sha256"] != half.json["weights_sha256"]
    plain = cnn_train("train", rare_config, "--set", "training.epochs=4", "--json", cwd=tmp_path)
    assert plain.json["weights_sha256"] != whole.json["weights_sha256"]
    recalls = [read_json(tmp_path / each.run / "evaluation.json")["classes"][2]["recall"] for each in (plain, whole)]
    assert recalls[0] < recalls[1], "the rare class is recognised more often"


def test_the_weights_are_counted_without_the_validation_split_and_its_loss_is_not_weighted(
    cnn_train, rare_config, tmp_path
):
    words = settings("training.class_weights=balanced", "data.validation_fraction=0.25")
    answer = cnn_train("train", rare_config, *words, "--json", cwd=tmp_path)
    assert answer.code == 0, answer.err
    assert "class weights: 0.694 (0), 0.694 (1), 8.33 (2)\n" in answer.err  # of 48, 48 and 4
    scores = cnn_train("evaluate", answer.run, "--split", "validation", "--json", cwd=tmp_path).json
    best = (tmp_path / answer.run / "metrics.jsonl").read_text().splitlines()[answer.json["best_epoch"] - 1]
    assert f'"validation_loss": {scores["loss"]!r}' in best


def test_an_imbalance_is_described_in_numbers():
    names = ["cat", "dog", "owl"]
    assert describe_imbalance([300, 3, 20], names) == "300 images of class cat and 3 of class dog"
    assert describe_imbalance([3, 1_500, 0], names) == "1,500 images of class dog and 3 of class cat"
    assert describe_imbalance([50, 11, 20], names) is None
    assert describe_imbalance([50, 10, 20], names) == "50 images of class cat and 10 of class dog"
    assert describe_imbalance([0, 0, 0], names) is None


def striped(left, level):
    """A black picture of 12x12 pixels with a grey stripe that begins in column ``left``."""
    picture = Image.new("L", (12, 12))
    picture.paste(level, (left, 0, left + 6, 12))
    return picture


@pytest.fixture
def pets(tmp_path):
    """A config for a folder with 30 training pictures of cat and 3 of dog, and 10 and 0 test pictures."""
    for split, name, count, left in (
        ("train", "cat", 30, 0), ("train", "dog", 3, 6), ("test", "cat", 10, 0),
    ):  # fmt: skip
        folder = tmp_path / "pets" / split / name
        folder.mkdir(parents=True)
        for number in range(count):
            striped(left, 255 - number).save(folder / f"{number}.png")
    path = tmp_path / "pets.yaml"
    path.write_text(
        """\
data: {source: folder, path: pets, image_size: 12, color: grey}
model: {builder: mlp, hidden_units: [8]}
training: {epochs: 1, batch_size: 11}
"""
    )
    return path


IMBALANCE = "WARNING: the training split has 30 images of class cat and 3 of class dog; "
IMBALANCE += "set training.class_weights: balanced, or else the rare class may hardly ever be predicted"
LACKS = "WARNING: the test score will not cover classes that have no test image: dog"


@pytest.mark.parametrize("has_folder", [False, True])
def test_warnings_of_unequal_classes_and_missing_test_images_come_before_training(
    cnn_train, pets, tmp_path, has_folder
):
    if has_folder:
        (tmp_path / "pets" / "test" / "dog").mkdir()
    answer = cnn_train("train", pets, "--json", cwd=tmp_path)
    assert answer.code == 0, answer.err
    lines = answer.err.splitlines()
    assert lines[0] == IMBALANCE
    assert lines[1] == LACKS
    assert [line.split()[0] for line in lines[2:]].index("experiment:") == 0
    [score] = [number for number, line in enumerate(lines) if line.startswith("test accuracy ")]
    assert f"balanced accuracy {answer.json['test_balanced_accuracy']:.2%}" in lines[score]
    assert lines[score + 2] == "the score does not cover classes that have no test image: dog"
    scores = read_json(tmp_path / answer.run / "evaluation.json")
    assert scores["balanced_accuracy"] == answer.json["test_balanced_accuracy"] == scores["classes"][0]["recall"]
    assert [each["support"] for each in scores["classes"]] == [10, 0]
    for words in ("evaluate", answer.run), ("runs", "show", answer.run):
        shown = cnn_train(*words, cwd=tmp_path)
        assert shown.code == 0, shown.err
        assert lines[score : score + 3] == (shown.out or shown.err).splitlines()[:3]


def test_class_weights_and_no_evaluation_each_silence_their_warning(cnn_train, pets, tmp_path):
    answer = cnn_train("train", pets, "--set", "training.class_weights=balanced", "--dry-run", cwd=tmp_path)
    assert answer.err.splitlines()[0] == LACKS
    for number in range(2):
        folder = tmp_path / "pets" / "test" / "dog"
        folder.mkdir(exist_ok=True)
        striped(6, 250 + number).save(folder / f"{number}.png")
    answer = cnn_train("train", pets, "--set", "training.class_weights=balanced", "--dry-run", cwd=tmp_path)
    assert "WARNING" not in answer.err


def test_a_validation_split_without_a_class_gives_a_warning(cnn_train, pets, tmp_path):
    shutil.copytree(tmp_path / "pets" / "test", tmp_path / "pets" / "val")
    shutil.copytree(tmp_path / "pets" / "train" / "dog", tmp_path / "pets" / "test" / "dog")
    answer = cnn_train("train", pets, "--dry-run", cwd=tmp_path)
    assert answer.code == 0, answer.err
    assert answer.err.splitlines()[1] == LACKS.replace("test", "validation")


def test_classes_unknown_to_training_are_still_refused(cnn_train, pets, tmp_path):
    (tmp_path / "pets" / "test" / "cat").rename(tmp_path / "pets" / "test" / "cow")
    answer = cnn_train("train", pets, cwd=tmp_path)
    assert answer.code == 4
    assert "not the 2 classes of the training split: lacks cat, dog and also has cow" in answer.err


def test_data_of_equal_classes_has_no_warning(cnn_train, small_config, tmp_path):
    assert "WARNING" not in cnn_train("train", small_config, "--dry-run", cwd=tmp_path).err
