"""The compiled step: the same bits however an epoch is divided, and the meaning of every training setting."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from support import recovered

from cnn_trainer.config.schema import Experiment
from cnn_trainer.data import Split, order_of_examples
from cnn_trainer.machine import backend
from cnn_trainer.training.engine import Sums
from cnn_trainer.training.gradients import Objective
from cnn_trainer.training.optimizer import averages

# A small network, so that tracing a step takes little.
SMALL = {"filters": [3, 4], "dense_units": [6]}
EVERYTHING = {
    "batch_size": 5,
    "label_smoothing": 0.1,
    "ema_decay": 0.9,
    "weight_decay": 0.01,
    "gradient_clip_norm": 1.0,
    "schedule": {"name": "one-cycle"},
    "augmentation": {"shift_pixels": 1.5, "rotation_radians": 0.2, "zoom": 0.1, "shear": 0.1},
}
# Keras rounds its constants to float32, even if it then computes in float64.
KERAS_CONSTANTS = 1e-7
PLAIN = {"optimizer": "sgd", "batch_size": 22, "learning_rate": 0.5}


def everything(make_experiment, make_trainer, split, seed=1, towers=2, precision="float32"):
    model = {**SMALL, "conv_dropout": 0.2, "dropout": 0.5, "l1": 1e-4, "l2": 1e-3}
    return make_trainer(make_experiment(model, EVERYTHING, precision, seed), split, towers)


def state(trainer):
    return [np.array(v.numpy()) for v in [*trainer.model.variables, *trainer.optimizer.variables]]


def reset(trainer, values):
    for variable, value in zip([*trainer.model.variables, *trainer.optimizer.variables], values, strict=True):
        variable.assign(value)


def same_bits(one, two):
    return all(a.tobytes() == b.tobytes() for a, b in zip(one, two, strict=True))


def assert_near(found, wanted, tolerance=1e-12):
    """Relative to the largest entry of all arrays together."""
    scale = max(np.abs(array).max() for array in wanted)
    for one, two in zip(found, wanted, strict=True):
        assert np.abs(one - two).max() <= tolerance * scale


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_an_epoch_divided_at_any_step_gives_the_same_bits(precision, make_experiment, make_trainer, small_images):
    """With Dropout, augmentation, a schedule and moving averages; the last of the five batches has 2 images."""
    trainer = everything(make_experiment, make_trainer, small_images, precision=precision)
    assert trainer.engine.steps_per_epoch == 5
    order, start = order_of_examples(22, 1, 1), state(trainer)
    whole = trainer.train(order=order)
    wanted = state(trainer)
    assert not same_bits(start, wanted)
    for cuts in ([1], [2], [3], [4], [1, 2, 3, 4]):
        reset(trainer, start)
        sums = Sums()
        for first, last in zip([0, *cuts], [*cuts, 5], strict=True):
            sums = trainer.train(first, last, sums, order)
            assert sums.examples == min(5 * last, 22)
        assert sums == whole
        assert same_bits(state(trainer), wanted)


def test_the_same_seed_gives_the_same_bits_and_another_seed_different_bits(make_experiment, make_trainer, small_images):
    results = []
    for seed in (1, 1, 2):
        trainer = everything(make_experiment, make_trainer, small_images, seed)
        results.append((trainer.train(), state(trainer)))
    assert results[0][0] == results[1][0] != results[2][0]
    assert same_bits(results[0][1], results[1][1])
    assert not same_bits(results[0][1], results[2][1])


@pytest.mark.parametrize("towers", [1, 3])
@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
@pytest.mark.parametrize(("copies", "batch_size", "rights"), [(1, 21, (7, 8)), (2, 15, (5, 11, 16))])
def test_the_last_partial_batch_is_trained_on(
    copies, batch_size, rights, precision, tolerance, towers, make_experiment, make_trainer, small_images
):
    """21 images and then 1, so that two of three towers get none; or 15, 15 and 14. Compared with plain Keras."""
    images, labels = np.tile(small_images.images, (copies, 1, 1, 1)), np.tile(small_images.labels, copies)
    training = {**PLAIN, "batch_size": batch_size, "learning_rate": 0.01}
    trainer = make_trainer(make_experiment(SMALL, training, precision), Split(images, labels), towers)
    assert trainer.engine._fills_up == (copies == 2)
    trainer.model.trainable_variables[-1].assign([5.0, 0.0, 0.0])  # so that every image is predicted as class 0
    sums = Sums()
    for step, right in enumerate(rights):
        chosen = slice(step * batch_size, (step + 1) * batch_size)
        before = trainer.weights()
        gradients = keras_gradients(trainer, images[chosen], labels[chosen])
        sums = trainer.train(step, step + 1, sums)
        assert sums.correct == right
        wanted = [weight - 0.01 * gradient for weight, gradient in zip(before, gradients, strict=True)]
        assert_near(trainer.weights(), wanted, tolerance)
    assert trainer.optimizer.iterations.numpy() == len(rights)


def keras_gradients(trainer, images, labels, loss=None):
    """Gradients of the mean loss plus the penalties that the Keras model itself reports, in training mode."""
    model = trainer.model
    loss = loss or keras.losses.SparseCategoricalCrossentropy()
    with tf.GradientTape() as tape:
        value = loss(labels, model(images.astype("float64"), training=True)) + sum(model.losses)
    return [np.array(g) for g in tape.gradient(value, [v.value for v in model.trainable_variables])]


@pytest.mark.parametrize(("l1", "l2"), [(0.01, 0.0), (0.0, 0.02), (0.01, 0.02)])
def test_penalties_add_keras_gradients_and_are_not_in_the_sum(l1, l2, make_experiment, make_trainer, small_images):
    trainer = make_trainer(make_experiment({**SMALL, "l1": l1, "l2": l2}, PLAIN, "float64"), small_images, 2)
    plain = make_trainer(make_experiment(SMALL, PLAIN, "float64"), small_images)
    wanted = keras_gradients(trainer, small_images.images, small_images.labels)
    kernels = [weight for weight in trainer.weights() if weight.ndim > 1]
    found, sums = recovered(trainer)
    assert_near(found, wanted)
    without, plain_sums = recovered(plain)
    assert sums.loss == pytest.approx(plain_sums.loss, rel=1e-12)
    differences = [a - b for a, b in zip(found, without, strict=True) if a.ndim > 1]
    assert_near(differences, [l1 * np.sign(kernel) + 2 * l2 * kernel for kernel in kernels], KERAS_CONSTANTS)


def smoothed(labels, share, num_classes=3):
    return (1 - share) * np.eye(num_classes)[labels] + share / num_classes


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize(
    ("name", "loss"),
    [("cross_entropy", "CategoricalCrossentropy"), ("mean_squared_error", "MeanSquaredError")],
)
def test_losses_and_label_smoothing_are_those_of_keras(
    name, loss, smoothing, make_experiment, make_trainer, small_images
):
    training = {**PLAIN, "loss": name, "label_smoothing": smoothing}
    trainer = make_trainer(make_experiment(SMALL, training, "float64"), small_images, 2)
    targets = smoothed(small_images.labels, smoothing)
    loss = getattr(keras.losses, loss)(dtype="float64")
    value = float(loss(targets, trainer.model(small_images.images.astype("float64"))))
    wanted = keras_gradients(trainer, small_images.images, targets, loss)
    found, sums = recovered(trainer)
    assert_near(found, wanted)
    assert sums.loss / 22 == pytest.approx(value, rel=1e-12)


def test_losses_agree_with_their_formulas():
    logits, labels = np.array([[1.0, 2.0, 0.5], [0.0, 0.0, 3.0]]), np.array([1, 0])
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for smoothing in (0.0, 0.3):
        targets = smoothed(labels, smoothing)
        crossed = Objective("cross_entropy", smoothing, 3).per_example(tf.constant(logits), tf.constant(labels))
        squared = Objective("mean_squared_error", smoothing, 3).per_example(tf.constant(logits), tf.constant(labels))
        assert crossed.numpy() == pytest.approx(-(targets * np.log(p)).sum(axis=1), rel=1e-12)
        assert squared.numpy() == pytest.approx(((p - targets) ** 2).sum(axis=1) / 3, rel=1e-12)


def test_batch_normalization_is_that_of_keras(make_experiment, make_trainer, small_images):
    model = {**SMALL, "batch_normalization": True}
    trainer = make_trainer(make_experiment(model, PLAIN, "float64"), small_images)
    moving = trainer.model.non_trainable_variables
    assert len(moving) == 4
    start = [variable.numpy() for variable in moving]
    wanted = keras_gradients(trainer, small_images.images, small_images.labels)
    updated = [variable.numpy() for variable in moving]
    assert max(np.abs(a - b).max() for a, b in zip(start, updated, strict=True)) > 1e-3
    for variable, value in zip(moving, start, strict=True):
        variable.assign(value)
    found, _ = recovered(trainer)
    assert_near(found, wanted, 1e-10)
    assert_near([variable.numpy() for variable in moving], updated)


def test_a_model_that_depends_on_the_whole_batch_takes_one_tower(make_experiment, make_trainer, small_images):
    with pytest.raises(ValueError, match="needs the whole batch in one tower"):
        make_trainer(make_experiment({**SMALL, "batch_normalization": True}), small_images, 2)
    asked = make_experiment({**SMALL, "batch_normalization": True}).model_dump()
    for towers, cores in [(None, 8), (1, 8)]:
        asked["runtime"]["towers"] = towers
        assert backend.resolve_threads(Experiment.model_validate(asked), cores)[0] == 1
    asked["runtime"]["towers"] = 2
    with pytest.raises(ValueError, match=r"got 2, but model\.batch_normalization normalises over the whole batch"):
        Experiment.model_validate(asked)


def test_moving_averages_follow_their_recurrence(make_experiment, make_trainer, small_images):
    """a₁ = θ₁ and aₜ = d aₜ₋₁ + (1 − d) θₜ, so that the initial weights have no part in them."""
    trainer = make_trainer(
        make_experiment(SMALL, {"batch_size": 6, "learning_rate": 0.1, "ema_decay": 0.7}, "float64"), small_images
    )
    average = None
    for step in range(4):
        trainer.train(step, step + 1)
        weights = trainer.weights()
        average = [0.7 * a + 0.3 * w for a, w in zip(average or weights, weights, strict=True)]
        assert_near([variable.numpy() for variable in averages(trainer.optimizer)], average)
    assert np.abs(average[0] - weights[0]).max() > 1e-3


def test_without_moving_averages_there_are_none(make_experiment, make_trainer, small_images):
    assert averages(make_trainer(make_experiment(SMALL), small_images).optimizer) == []


@pytest.mark.parametrize("bound", [0.01, 1e6])
def test_gradients_are_clipped_by_their_global_norm(bound, make_experiment, make_trainer, small_images):
    trainer = make_trainer(make_experiment(SMALL, {**PLAIN, "gradient_clip_norm": bound}, "float64"), small_images, 2)
    gradients = keras_gradients(trainer, small_images.images, small_images.labels)
    norm = np.sqrt(sum(np.square(gradient).sum() for gradient in gradients))
    assert 0.01 < norm < 1e6
    found, _ = recovered(trainer)
    assert_near(found, [gradient * min(1, bound / norm) for gradient in gradients])


def first_steps(optimizer, rate, weights, gradients):
    """Weights after two steps with these two gradients, by the formulas of the papers, with Keras' constants."""
    m, v = np.zeros_like(weights), np.zeros_like(weights)
    for t, g in enumerate(gradients, start=1):
        match optimizer:
            case "sgd":  # θ ← θ − η g
                weights = weights - rate * g
            case "momentum":  # Polyak (1964): m ← μ m − η g; θ ← θ + m
                m = 0.9 * m - rate * g
                weights = weights + m
            case "nesterov":  # Sutskever and others (2013): m as above; θ ← θ + μ m − η g
                m = 0.9 * m - rate * g
                weights = weights + 0.9 * m - rate * g
            case "rmsprop":  # Tieleman and Hinton (2012): v ← ρ v + (1 − ρ) g²; θ ← θ − η g / √(v + ε)
                v = 0.9 * v + 0.1 * g**2
                weights = weights - rate * g / np.sqrt(v + 1e-7)
            case "adam" | "adamw":  # Kingma and Ba (2015), in the order of its section 2, where ε is not corrected
                m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
                corrected = rate * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
                weights = weights - corrected * m / (np.sqrt(v) + 1e-7)
    return weights


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "nesterov", "rmsprop", "adam", "adamw"])
def test_each_optimizer_takes_the_steps_of_its_formula(optimizer, make_experiment, make_trainer, small_images):
    """Two steps, so that state kept from the first one shows in the second."""
    rate = 0.01
    training = {"optimizer": optimizer, "batch_size": 11, "learning_rate": rate}
    model = {"builder": "mlp", "hidden_units": [4], "activation": "tanh"}
    trainer = make_trainer(make_experiment(model, training, "float64"), small_images, 2)
    start, gradients = trainer.weights(), []
    for step, chosen in enumerate((np.s_[:11], np.s_[11:])):
        gradients.append(keras_gradients(trainer, small_images.images[chosen], small_images.labels[chosen]))
        trainer.train(step, step + 1)
    for found, first, *pair in zip(trainer.weights(), start, *gradients, strict=True):
        wanted = first_steps(optimizer, rate, first, pair)
        # The worst of Keras' rounded constants is adam's 1 - 0.999: 1.3e-5 off, half of it after the square root.
        tolerance = {"sgd": 1e-12, "adam": 1e-5, "adamw": 1e-5}.get(optimizer, KERAS_CONSTANTS)
        assert np.abs(found - wanted).max() <= tolerance * np.abs(wanted - first).max()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_weight_decay_shrinks_only_kernels(optimizer, make_experiment, make_trainer, small_images):
    """θ ← θ (1 − η λ) before the step, for convolution and dense kernels, not for biases or normalisation."""
    rate, decay = 0.01, 0.3
    model = {"filters": [3], "dense_units": [], "batch_normalization": True}
    training = {"optimizer": optimizer, "learning_rate": rate}
    trainers = [
        make_trainer(make_experiment(model, {**training, **more, "batch_size": 22}, "float64"), small_images)
        for more in ({}, {"weight_decay": decay})
    ]
    start = trainers[0].weights()
    for trainer in trainers:
        for variable, weight in zip(trainer.model.trainable_variables, start, strict=True):
            variable.assign(weight + 0.1)  # biases that are not 0, so that a decay would change them
        trainer.train()
    names = [variable.name for variable in trainers[0].model.trainable_variables]
    assert {"kernel", "bias", "gamma", "beta"} == set(names)
    for name, first, without, decayed in zip(names, start, *(t.weights() for t in trainers), strict=True):
        taken = rate * decay * (first + 0.1) if name == "kernel" else np.zeros_like(first)
        assert np.abs(without - decayed - taken).max() <= 2 * KERAS_CONSTANTS * np.abs(taken).max()


def test_diverging_training_gives_a_sum_that_is_not_finite(make_experiment, make_trainer, small_images):
    training = {"optimizer": "sgd", "learning_rate": 1000.0, "batch_size": 2, "loss": "cross_entropy"}
    trainer = make_trainer(make_experiment({**SMALL, "activation": "linear", "l2": 1000.0}, training), small_images)
    assert not np.isfinite(trainer.train().loss)
