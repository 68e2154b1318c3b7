"""What a tower (a part of the batch) contributes to a step, and how the towers are combined.

``Gradients`` computes the gradients of a tower's examples, and the sums of their loss and hits. ``Combine`` adds the
towers. Ordinary training uses ``plain_gradients`` and ``add_towers``.
"""

from collections.abc import Callable, Sequence
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
    """Which examples count; the others only fill up the batch."""

    mask: Tensor
    """True for examples that count: bool (examples of the tower,)."""
    num_in_batch: Tensor
    """How many examples count in all towers together: int32 scalar."""


class TowerSums(NamedTuple):
    """Sums over the examples of a tower, or of all towers."""

    gradients: list[Tensor]
    """Gradients of the mean loss over the whole batch, without penalties, times the loss scale.

    They have the dtypes of the variables.
    """
    loss: Tensor
    """Sum of the losses, with class weights: float64 scalar, in nats for cross-entropy."""
    correct: Tensor
    """Number of examples that were predicted correctly: int64 scalar."""


Gradients = Callable[[Tensor, Tensor, Counts, Tensor], TowerSums]
"""``gradients(images, labels, counts, seed)`` is traced into the compiled step, once for each tower.

* ``images``: uint8 (n, height, width, channels), 0 to 255; augmented images have the dtype of the computation.
* ``labels``: int32 (n,).
* ``counts``: has a mask (n,). Examples that do not count must not affect the result.
* ``seed``: int32 (2,), different in every step and tower. Add (k, 0) with 0 <= k < 64 for your own random streams.
"""

Combine = Callable[[Sequence[TowerSums]], TowerSums]
"""``combine(towers)`` is traced into the compiled step and returns the sums over all towers."""


@dataclass(frozen=True)
class Objective:
    """What is minimised, apart from penalties: the mean loss over the batch, with each loss times its class weight.

    The sum is divided by the number of examples, not by the sum of their weights, as in Keras' ``Model.fit`` with
    ``class_weight``. So an example counts the same in every batch.
    """

    loss: str
    label_smoothing: float
    num_classes: int
    class_weights: Sequence[float] | None = None
    """One weight for each class, greater than 0; None if all classes count alike."""

    def per_example(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The weighted loss of each example, (batch,), given logits (batch, classes) and labels (batch,)."""
        losses = self._unweighted(logits, labels)
        if self.class_weights is None:
            return losses
        return losses * tf.gather(tf.constant(self.class_weights, losses.dtype), labels)

    def _unweighted(self, logits: Tensor, labels: Tensor) -> Tensor:
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
    """The gradients of ``objective``, times the loss scale of ``optimizer``, for the trainable variables of ``model``.

    They are computed with the faster form of the model in ``dtype``, a floating-point type; losses have at least
    float32.
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
            # TensorFlow has no softmax or loss in 16 bits.
            wide = tf.cast(logits, tf.float32) if logits.dtype.size < 4 else logits
            losses = objective.per_example(wide, labels)
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
    """``gradients`` of images that are first changed by ``augment``, in ``dtype``."""

    def of_changed(images: Tensor, labels: Tensor, counts: Counts, seed: Tensor) -> TowerSums:
        changed = augment(tf.cast(images, dtype), _stream(seed, _AUGMENTATION))
        return gradients(changed, labels, counts, seed)

    return of_changed


def _stream(seed: Tensor, number: int) -> Tensor:
    return seed + tf.constant([number, 0])


def add_towers(towers: Sequence[TowerSums]) -> TowerSums:
    """Add the towers, with the same bits regardless of how they are computed and which is ready first."""
    gradients = [add_in_order(parts) for parts in zip(*(tower.gradients for tower in towers), strict=True)]
    loss, correct = [tower.loss for tower in towers], [tower.correct for tower in towers]
    return TowerSums(gradients, add_in_order(loss), add_in_order(correct))


def add_in_order(parts: Sequence[Tensor]) -> Tensor:
    """The sum of tensors of the same shape and dtype, always with the same bits.

    It also adds rows that were gathered from several processes: ``add_in_order(tf.unstack(rows))``.
    """
    if len(parts) <= 2:  # the order does not matter for two; stacking them would cost 2 to 4 % of a step
        return sum(parts[1:], start=parts[0])
    # Not AddN: it starts with any part whose memory it may overwrite, so its rounding varies from step to step.
    # Nor a chain of additions, which TensorFlow's graph optimizer turns into AddN.
    return tf.reduce_sum(tf.stack(parts), axis=0)


def with_penalties(combine: Combine, model: keras.Sequential, optimizer: keras.optimizers.Optimizer) -> Combine:
    """``combine``, then add the gradients of the L1 and L2 penalties of ``model`` once; the loss does not change."""
    penalized = [layer for layer in model.layers if getattr(layer, "kernel_regularizer", None) is not None]
    if not penalized:
        return combine

    def combine_and_penalize(towers: Sequence[TowerSums]) -> TowerSums:
        sums = combine(towers)
        with tf.GradientTape() as tape:
            penalty = tf.add_n([layer.kernel_regularizer(layer.kernel) for layer in penalized])
            penalty *= loss_scale(optimizer)
        values = [variable.value for variable in model.trainable_variables]
        extra = tape.gradient(penalty, values, unconnected_gradients="zero")
        return sums._replace(gradients=[one + more for one, more in zip(sums.gradients, extra, strict=True)])

    return combine_and_penalize
