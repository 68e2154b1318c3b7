"""The compiled forward pass of evaluation."""

import numpy as np
import pytest
import tensorflow as tf

from cnn_trainer.network import logits as logits_module
from cnn_trainer.network.build import build_model
from cnn_trainer.network.logits import EVALUATION_BATCH, build_logits

SMALL = {"filters": [3, 4], "dense_units": [6]}


@pytest.mark.parametrize("num_images", [1, 2 * EVALUATION_BATCH - 1, 2 * EVALUATION_BATCH + 1])
def test_logits_are_those_of_the_plain_model_for_any_number_of_images(num_images, make_experiment):
    model = build_model(make_experiment(SMALL), (11, 10, 1), 3)
    images = np.random.default_rng(num_images).integers(0, 256, (num_images, 11, 10, 1), np.uint8)
    logits = build_logits(model, 2)(model.trainable_variables, images)
    assert logits.dtype == np.float32
    assert logits.shape == (num_images, 3)
    assert np.abs(tf.nn.softmax(logits) - model(images.astype("float32"))).max() < 1e-6


def test_logits_do_not_depend_on_the_number_of_images_per_call(make_experiment, monkeypatch):
    model = build_model(make_experiment(SMALL), (11, 10, 1), 3)
    images = np.random.default_rng(1).integers(0, 256, (4 * EVALUATION_BATCH + 1, 11, 10, 1), np.uint8)
    logits = build_logits(model, 2)
    whole = logits(model.trainable_variables, images)
    monkeypatch.setattr(logits_module, "_EVALUATION_VALUES", 1)
    assert logits(model.trainable_variables, images).tobytes() == whole.tobytes()
