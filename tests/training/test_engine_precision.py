"""Training in 16 bits: close to float32, with 32-bit weights, and evaluated in 32 bits."""

import numpy as np
import pytest
from support import recovered

from cnn_trainer.network.build import build_model
from cnn_trainer.network.logits import build_logits

# A small network, so that tracing a step takes little.
SMALL = {"filters": [3, 4], "dense_units": [6]}


@pytest.mark.parametrize("batch_normalization", [False, True])
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_16_bits_compute_near_float32_and_keep_float32_weights(
    precision, batch_normalization, make_experiment, make_trainer, digits
):
    model = {**SMALL, "batch_normalization": batch_normalization, "l2": 0.001}
    training = {"optimizer": "sgd", "learning_rate": 1.0, "batch_size": 70}
    towers = 1 if batch_normalization else 2
    exact, short = (
        make_trainer(make_experiment(model, training, which), digits, towers) for which in ("float32", precision)
    )
    (wanted, sums), (found, short_sums) = recovered(exact), recovered(short)
    assert all(weight.dtype == np.float32 for weight in short.weights())
    assert short_sums.loss == pytest.approx(sums.loss, rel=0.01)
    assert short_sums.loss != sums.loss
    for one, two in zip(found, wanted, strict=True):  # 8 bits of mantissa: 0.4 % per value
        assert np.linalg.norm(one - two) < 0.1 * np.linalg.norm(two)


def test_float16_skips_a_step_whose_scaled_gradients_are_not_finite(make_experiment, make_trainer, digits):
    trainer = make_trainer(make_experiment(SMALL, {"batch_size": 10}, "float16"), digits)
    trainer.optimizer.dynamic_scale.assign(2.0**100)
    before = trainer.weights()
    assert np.isfinite(trainer.train(0, 1).loss)
    assert all(np.array_equal(one, two) for one, two in zip(before, trainer.weights(), strict=True))
    assert trainer.optimizer.dynamic_scale.numpy() == 2.0**99
    assert trainer.optimizer.iterations.numpy() == 0
    trainer.optimizer.dynamic_scale.assign(2.0**10)
    trainer.train(1, 2)
    assert not any(np.array_equal(one, two) for one, two in zip(before, trainer.weights(), strict=True))


def test_evaluation_of_a_bfloat16_experiment_is_that_of_float32(make_experiment):
    images = np.random.default_rng(1).integers(0, 256, (7, 11, 10, 1), np.uint8)
    found = []
    for precision in ("float32", "bfloat16"):
        model = build_model(make_experiment(SMALL, precision=precision), (11, 10, 1), 3)
        found.append(build_logits(model, 1)(model.trainable_variables, images))
    assert found[0].tobytes() == found[1].tobytes()
