"""What the engine is given: batches, a tower's gradients, and the sum of the towers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnn_trainer.data import Split, order_of_examples
from cnn_trainer.network.build import build_model
from cnn_trainer.runs.checkpoint import weights_digest
from cnn_trainer.training.engine import Engine, Sums
from cnn_trainer.training.gradients import (
    Objective,
    TowerSums,
    add_in_order,
    add_towers,
    augmented,
    plain_gradients,
)
from cnn_trainer.training.session import from_memory

# A small network, so that tracing a step takes little.
SMALL = {"filters": [3, 4], "dense_units": [6]}
REPEATS = 16


@pytest.fixture
def build(make_experiment):
    """A function that builds an engine from other functions than the usual ones, and returns the model too."""

    def make(split, training=None, towers=2, batch=None, change=None, combine=add_towers, precision="float32"):
        experiment = make_experiment(SMALL, training, precision)
        model = build_model(experiment, split.images.shape[1:], 3)
        optimizer = keras.optimizers.SGD(experiment.training.learning_rate)
        optimizer.build(model.trainable_variables)
        gradients = plain_gradients(model, Objective("cross_entropy", 0.0, 3), tf.as_dtype(precision), optimizer)
        engine = Engine(
            model.trainable_variables,
            optimizer,
            batch or from_memory(split),
            change(gradients) if change else gradients,
            combine,
            num_examples=len(split.labels),
            batch_size=experiment.training.batch_size,
            towers=towers,
            seed=experiment.seed,
            may_fill_up=True,
        )
        return engine, model

    return make


def epoch(engine, order=None):
    order = np.arange(engine.num_examples) if order is None else order
    return engine.train_steps(tf.constant(order, tf.int32), 0, engine.steps_per_epoch, Sums())


def digest(model):
    return weights_digest(variable.numpy() for variable in model.weights)


def test_batches_may_come_from_outside_tensorflow(build, small_images):
    asked = []

    def read(indexes):
        asked.append(indexes)
        return small_images.images[indexes], small_images.labels[indexes]

    def batch(indexes):
        images, labels = tf.numpy_function(read, [indexes], (tf.uint8, tf.int32))
        return tf.ensure_shape(images, (None, 11, 10, 1)), tf.ensure_shape(labels, (None,))

    order = order_of_examples(22, 1, 1)
    engine, model = build(small_images, {"batch_size": 4}, batch=batch)
    usual_engine, usual_model = build(small_images, {"batch_size": 4})
    assert epoch(engine, order) == epoch(usual_engine, order)
    assert digest(model) == digest(usual_model)
    assert sorted(np.concatenate(asked)) == list(range(22))
    assert max(map(len, asked)) == 2  # a tower asks only for its own examples


def test_other_gradients_replace_the_plain_ones(build, small_images):
    """Only signs: a step of two towers moves a weight by 0, 1 or 2 times the learning rate."""

    def change(plain):
        def signs(*arguments):
            found = plain(*arguments)
            return found._replace(gradients=[tf.sign(gradient) for gradient in found.gradients])

        return signs

    training = {"batch_size": 22, "learning_rate": 0.125}
    engine, model = build(small_images, training, change=change)
    before = [variable.numpy() for variable in model.trainable_variables]
    sums = epoch(engine)
    assert sums == epoch(build(small_images, training)[0])
    moved = [(one - two.numpy()) / 0.125 for one, two in zip(before, model.trainable_variables, strict=True)]
    rounded = np.concatenate([np.round(array).ravel() for array in moved])
    assert max(np.abs(array - np.round(array)).max() for array in moved) < 1e-5
    assert {-2.0, 2.0} <= set(rounded) <= {-2.0, -1.0, 0.0, 1.0, 2.0}


@pytest.mark.parametrize("towers", [2, 4, 5])
def test_towers_sent_as_rows_have_a_sum_with_the_same_bits(towers, build, small_images):
    """As a process sends them: gradients, loss and hits of a tower in one row of float32, whatever their dtypes."""
    received = []

    def pack(tower):
        loss, correct = (tf.bitcast(value, tf.float32) for value in (tower.loss, tower.correct))
        return tf.concat([*(tf.reshape(gradient, [-1]) for gradient in tower.gradients), loss, correct], 0)

    def gather(*rows):
        received.append(rows[0].shape)
        return np.stack([row.copy() for row in rows])

    def combine(own):
        rows = tf.numpy_function(gather, [pack(tower) for tower in own], tf.float32)
        rows = tf.unstack(rows, towers)
        shapes = [gradient.shape for gradient in own[0].gradients]
        sizes = [shape.num_elements() for shape in shapes]
        parts = [tf.split(tf.ensure_shape(row, (sum(sizes) + 4,)), [*sizes, 2, 2]) for row in rows]
        unpacked = [
            TowerSums(
                [tf.reshape(flat, shape) for flat, shape in zip(gradients, shapes, strict=True)],
                tf.bitcast(loss, tf.float64),
                tf.bitcast(correct, tf.int64),
            )
            for *gradients, loss, correct in parts
        ]
        return add_towers(unpacked)

    sent_engine, sent_model = build(small_images, {"batch_size": 10}, towers, combine=combine)
    engine, model = build(small_images, {"batch_size": 10}, towers)
    order = order_of_examples(22, 1, 1)
    assert epoch(sent_engine, order) == epoch(engine, order)
    assert digest(sent_model) == digest(model)
    assert received == [(sum(variable.numpy().size for variable in model.trainable_variables) + 4,)] * 3


def test_repeats_of_an_epoch_with_four_towers_have_one_result(make_experiment, make_trainer, digits):
    """5,600 steps. AddN fails here in every second run: a race, a few times in ten thousand, decides how it rounds."""
    split = Split(np.tile(digits.images, (20, 1, 1, 1)), np.tile(digits.labels, 20))
    training = {"batch_size": 4, "learning_rate": 0.01}
    trainer = make_trainer(make_experiment(SMALL, training), split, 4)
    variables = [*trainer.model.variables, *trainer.optimizer.variables]
    start, found = [variable.numpy() for variable in variables], set()
    for _ in range(REPEATS):
        for variable, value in zip(variables, start, strict=True):
            variable.assign(value)
        found.add((trainer.train().loss, digest(trainer.model)))
    assert len(found) == 1


@pytest.mark.parametrize("towers", [2, 3, 4, 8])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_parts_are_added_in_order(dtype, towers):
    """From first to last, one by one, as in NumPy; single numbers may be added in another fixed order."""
    random = np.random.default_rng(towers)
    for shape in ((3,), (17,), (5, 7), (1000,)):
        parts = (random.standard_normal((towers, *shape)) * 10.0 ** random.integers(-3, 4, (towers, *shape))).astype(
            dtype
        )
        wanted = parts[0]
        for part in parts[1:]:
            wanted = wanted + part
        add = tf.function(lambda *rows: add_in_order(rows), autograph=False)
        assert add(*map(tf.constant, parts)).numpy().tobytes() == wanted.tobytes()


def test_augmented_images_are_cropped_after_the_augmentation(build, small_images):
    """Pixels that the network does not read may be rotated into its view; 11x10 images, of which it reads 10x10."""
    training = {"batch_size": 22, "learning_rate": 0.01}

    def roll(images, seed):
        return tf.roll(images, -1, axis=1)

    rolled = Split(np.ascontiguousarray(np.roll(small_images.images, -1, axis=1)), small_images.labels)
    shifted, _ = build(small_images, training, change=lambda plain: augmented(plain, roll, tf.float32))
    assert epoch(shifted) == epoch(build(rolled, training)[0]) != epoch(build(small_images, training)[0])


@pytest.mark.parametrize(
    ("model", "more", "different"),
    [
        ({}, {}, False),
        ({"conv_dropout": 0.5}, {}, True),
        ({"dropout": 0.5}, {}, True),
        ({}, {"augmentation": {"shift_pixels": 1.5, "rotation_radians": 0.2, "zoom": 0.1, "shear": 0.1}}, True),
    ],
)
def test_random_choices_differ_from_step_to_step_and_from_tower_to_tower(
    model, more, different, make_experiment, make_trainer, small_images, monkeypatch
):
    """The same image in every step and a learning rate of nearly 0: gradients differ only by random choices."""
    split = Split(np.repeat(small_images.images[2:3], 8, axis=0), np.full(8, 2, np.int32))
    training = {**more, "optimizer": "sgd", "batch_size": 2, "learning_rate": 1e-30}
    seen = []

    def keep(towers):
        kept = tf.py_function(lambda *kernels: seen.extend(k.numpy().tobytes() for k in kernels), _kernels(towers), [])
        with tf.control_dependencies([kept]):
            return add_towers(towers)

    monkeypatch.setattr("cnn_trainer.training.session.add_towers", keep)
    make_trainer(make_experiment({**SMALL, **model}, training), split, 2).train()
    assert len(seen) == 8
    assert len(set(seen)) == (8 if different else 1)


def _kernels(towers):
    return [tower.gradients[0] for tower in towers]
