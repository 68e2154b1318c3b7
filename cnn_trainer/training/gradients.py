"""What one tower contributes to a step: the gradients of its examples, and the sums of their loss and hits.

A tower is a part of the batch. A function of the form ``Gradients`` computes it; ``plain_gradients`` builds that of
ordinary training.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import keras
import tensorflow as tf

from cnn_trainer.network import rewrite
from cnn_trainer.network.rewrite import Tensor
from cnn_trainer.training.augment import Augment
from cnn_trainer.training.optimizer import loss_scale

_AUGMENTATION, _DROPOUT = 1, 2  # streams of random numbers


class Counts(NamedTuple):
    """Which examples are trained on; the others only fill the batch up."""

    mask: Tensor
    """bool (examples of the tower,)."""
    num_in_batch: Tensor
    """How many there are in all towers together: int32 scalar."""


class TowerSums(NamedTuple):
    """What is added over the examples of a tower, or of all towers."""

    gradients: list[Tensor]
    """Of the mean loss over the whole batch, without penalties and times the loss scale; of the variables' dtypes."""
    loss: Tensor
    """float64 scalar, in nats for cross-entropy."""
    correct: Tensor
    """How many examples were recognised: int64 scalar."""


Gradients = Callable[[Tensor, Tensor, Counts, Tensor], TowerSums]
"""``gradients(images, labels, counts, seed)`` is traced into the compiled step, once for each tower.

* ``images``: uint8 (n, height, width, channels), 0 to 255; if they were augmented, of the dtype to compute in.
* ``labels``: int32 (n,).
* ``counts``: with a mask of (n,). An example that does not count must change nothing in the result.
* ``seed``: int32 (2,), another one in every step and tower. Add (k, 0) with 0 <= k < 64 for random streams of your own.
"""


@dataclass(frozen=True)
class Objective:
    """What is minimised, besides penalties: the mean of a loss over the batch."""

    loss: str
    label_smoothing: float
    num_classes: int

    def per_example(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of each example, (batch,), from logits (batch, classes) and labels (batch,)."""
        if self.loss == "cross_entropy" and not self.label_smoothing:
            return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        targets = tf.one_hot(labels, self.num_classes, dtype=logits.dtype)
        targets = targets * (1 - self.label_smoothing) + self.label_smoothing / self.num_classes
        if self.loss == "cross_entropy":
            return tf.nn.softmax_cross_entropy_with_logits(targets, logits)
        return tf.reduce_mean(tf.square(tf.nn.softmax(logits) - targets), axis=-1)


def plain_gradients(
    model: keras.Sequential, objective: Objective, dtype: tf.DType, optimizer: keras.optimizers.Optimizer
) -> Gradients:
    """The gradients of ``objective`` itself, from the faster form of ``model``, computed in ``dtype``.

    Args:
        model: Whose trainable variables the gradients are of.
        objective: What is minimised.
        dtype: A floating-point type; losses are computed in at least float32.
        optimizer: Whose loss scale the gradients are multiplied by.
    """
    operations, (height, width) = rewrite.fast_form(model)
    variables = model.trainable_variables

    def gradients(images: Tensor, labels: Tensor, counts: Counts, seed: Tensor) -> TowerSums:
        if images.shape[1:3] != (height, width):
            images = images[:, :height, :width]
        images = tf.cast(images, dtype)
        weights = [tf.cast(tf.convert_to_tensor(variable), dtype) for variable in variables]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            logits = rewrite.compute(operations, images, weights, _stream(seed, _DROPOUT), training=True)
            losses = objective.per_example(_wide(logits), labels)
            losses = tf.where(counts.mask, losses, tf.zeros_like(losses))
            mean = tf.reduce_sum(losses) / tf.cast(counts.num_in_batch, losses.dtype)
            scaled = mean * loss_scale(optimizer)
        found = tape.gradient(scaled, weights)
        correct = tf.equal(tf.argmax(logits, -1, tf.int32), labels) & counts.mask
        return TowerSums(
            [tf.cast(gradient, variable.dtype) for gradient, variable in zip(found, variables, strict=True)],
            tf.reduce_sum(tf.cast(losses, tf.float64)),
            tf.math.count_nonzero(correct),
        )

    return gradients


def augmented(gradients: Gradients, augment: Augment, dtype: tf.DType) -> Gradients:
    """``gradients`` of images that ``augment`` changes first, in ``dtype``."""

    def of_changed(images: Tensor, labels: Tensor, counts: Counts, seed: Tensor) -> TowerSums:
        changed = augment(tf.cast(images, dtype), _stream(seed, _AUGMENTATION))
        return gradients(changed, labels, counts, seed)

    return of_changed


def _stream(seed: Tensor, number: int) -> Tensor:
    return seed + tf.constant([number, 0])


def _wide(logits: Tensor) -> Tensor:
    """Logits in at least float32: TensorFlow has no softmax and no loss in 16 bits."""
    return tf.cast(logits, tf.float32) if logits.dtype.size < 4 else logits
