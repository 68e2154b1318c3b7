"""The compiled forward pass, from any number of images to their logits."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from cnn_trainer.network import rewrite
from cnn_trainer.network.rewrite import Tensor

# Images that a tower evaluates at a time, so that a core's data stays in its cache; fewer if they are larger than
# 28x28. The compiled code gets as many images as have this number of values.
EVALUATION_BATCH = 128
_EVALUATION_PIXELS = EVALUATION_BATCH * 28 * 28
_EVALUATION_VALUES = 16_384 * 28 * 28


def build_logits(model: keras.Sequential, towers: int) -> Callable[[Sequence[Any], np.ndarray], np.ndarray]:
    """Build the compiled forward pass of ``model``, in the dtype of its weights.

    It is a function of the values of the trainable variables (which need not be the model's own) and of uint8 images
    (examples, height, width, channels), and returns logits (examples, classes).
    """
    operations, (height, width) = rewrite.fast_form(model)
    shape = (height, width, model.input_shape[3])
    pixels = model.input_shape[1] * model.input_shape[2]
    size, dtype = max(1, min(EVALUATION_BATCH, _EVALUATION_PIXELS // pixels)), tf.as_dtype(model.compute_dtype)
    at_once = size * towers
    signature = [
        [tf.TensorSpec(variable.shape, variable.dtype) for variable in model.trainable_variables],
        tf.TensorSpec((None, *shape), tf.uint8),
    ]

    @tf.function(autograph=False, input_signature=signature)
    def compute(weights: list[Tensor], images: Tensor) -> Tensor:
        num_images = tf.shape(images)[0]
        steps = -(-num_images // at_once)
        images = tf.pad(images, [[0, steps * at_once - num_images], [0, 0], [0, 0], [0, 0]])

        def tower(first: Tensor) -> Tensor:
            def body(step: Tensor, done: tf.TensorArray) -> tuple[Tensor, tf.TensorArray]:
                start = (first + step) * size
                batch = tf.cast(tf.ensure_shape(images[start : start + size], (size, *shape)), dtype)
                return step + 1, done.write(step, rewrite.compute(operations, batch, weights, None, training=False))

            done = tf.TensorArray(dtype, steps, element_shape=(size, model.output_shape[-1]))
            _, done = tf.while_loop(lambda step, _: step < steps, body, (0, done), parallel_iterations=1)
            return done.concat()

        # Each tower has its own loop, so that none waits for another before the end.
        return tf.concat([tower(number * steps) for number in range(towers)], 0)[:num_images]

    def logits(weights: Sequence[Any], images: np.ndarray) -> np.ndarray:
        values = [tf.convert_to_tensor(weight) for weight in weights]
        many = at_once * max(1, _EVALUATION_VALUES // (at_once * math.prod(images.shape[1:])))
        parts = (images[start : start + many, :height, :width] for start in range(0, len(images), many))
        return np.concatenate([compute(values, part).numpy() for part in parts])

    return logits
