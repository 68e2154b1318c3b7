"""The compiled training and evaluation steps: the one place where speed is made.

The data set is held as uint8 in the device's memory. A call of ``train_steps`` runs many steps inside TensorFlow:
batches are gathered, cast, augmented and trained on without a word of Python in between. Every random choice is a
function of the seed and the step, so there is no random state, and a call may begin at any step.
"""

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from cnn_trainer.config.schema import Experiment
from cnn_trainer.data import Split
from cnn_trainer.network import rewrite
from cnn_trainer.network.rewrite import Tensor
from cnn_trainer.training.optimizer import loss_scale, without_loss_scale

_AUGMENTATION, _DROPOUT = 1, 2  # streams of random numbers

Augment = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Sums:
    """Sums over the examples of some steps: the loss (float64, without penalties), and how many were right."""

    loss: float = 0.0
    correct: int = 0
    examples: int = 0


@dataclass(frozen=True)
class Objective:
    """What is minimised: the mean of a loss over the batch, plus L1 and L2 penalties."""

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


class Engine:
    """The compiled steps for one model, one optimizer and one training split."""

    def __init__(
        self,
        experiment: Experiment,
        model: keras.Sequential,
        optimizer: keras.optimizers.Optimizer,
        train: Split,
        towers: int,
        augment: Augment | None,
    ) -> None:
        training = experiment.training
        self._variables = model.trainable_variables
        self._optimizer = optimizer
        self._seed = experiment.seed
        self.num_examples = len(train.labels)
        self._batch_size = min(training.batch_size, self.num_examples)
        self._towers = towers
        self._augment = augment
        self._operations, self._size = rewrite.fast_form(model)
        if towers > 1 and rewrite.looks_across_batch(self._operations):
            raise ValueError(f"{towers} towers for a model that looks across the batch; it takes 1")
        self.steps_per_epoch = -(-self.num_examples // self._batch_size)
        # Batches of one known size are 1 to 4 % faster than batches of any size; for that the last one is filled up
        # with examples that do not count, where those are few and no layer would see them.
        self._num_missing = self.steps_per_epoch * self._batch_size - self.num_examples
        few = self._num_missing * 20 <= self.num_examples and towers <= self._batch_size
        self._fills_up = few and not rewrite.looks_across_batch(self._operations)
        self._objective = Objective(training.loss, training.label_smoothing, model.output_shape[-1])
        self._penalized = [
            (layer.kernel_regularizer, layer.kernel)
            for layer in model.layers
            if getattr(layer, "kernel_regularizer", None) is not None
        ]
        self._dtype = tf.as_dtype(experiment.runtime.precision)
        images = train.images
        if augment is None:  # the part that is not cropped away is all that will ever be read
            images = np.ascontiguousarray(images[:, : self._size[0], : self._size[1]])
        self._images = tf.convert_to_tensor(images)
        self._labels = tf.convert_to_tensor(train.labels, tf.int32)

    def train_steps(self, order: Tensor, first: int, last: int, sums: Sums) -> Sums:
        """Run the steps ``first`` up to but without ``last`` (counted from 0) of an epoch.

        Args:
            order: int32 (examples,), the order of the training examples in this epoch.
            first: First step to run.
            last: The step to stop before, at most ``steps_per_epoch``.
            sums: Over the steps of the epoch before ``first``.

        Returns:
            Sums over the steps of the epoch before ``last``, to the same bits however an epoch is cut into calls.
        """
        before = tf.constant(sums.loss, tf.float64), tf.constant(sums.correct, tf.int64)
        loss, correct = self._train_steps(order, tf.constant(first), tf.constant(last), *before)
        return Sums(float(loss), int(correct), min(last * self._batch_size, len(order)))

    def last_learning_rate(self) -> float:
        """The learning rate of the last step that was run, to the seven digits that float32 holds."""
        rate = without_loss_scale(self._optimizer)._learning_rate
        if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            rate = rate(self._optimizer.iterations.value - 1)
        return float(f"{float(rate):.7g}")

    @tf.function(autograph=False)
    def _train_steps(
        self, order: Tensor, first: Tensor, last: Tensor, loss: Tensor, correct: Tensor
    ) -> tuple[Tensor, Tensor]:
        order = tf.pad(order, [[0, max(self._num_missing, self._towers)]])

        def body(step: Tensor, loss: Tensor, correct: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            start = step * self._batch_size
            count = tf.minimum(self._batch_size, self.num_examples - start)
            # No tower is left empty: oneDNN cannot pool nothing.
            size = self._batch_size if self._fills_up else tf.maximum(count, self._towers)
            chosen = tf.ensure_shape(order[start : start + size], (self._batch_size if self._fills_up else None,))
            batch_loss, batch_correct = self._step(chosen, count)
            return step + 1, loss + batch_loss, correct + batch_correct

        start = first, loss, correct
        return tf.while_loop(lambda step, *_: step < last, body, start, parallel_iterations=1)[1:]

    def _step(self, chosen: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        """One optimizer update on the first ``count`` of the examples ``chosen``; sums of loss and of hits."""
        iteration = tf.cast(tf.convert_to_tensor(self._optimizer.iterations), tf.int32)
        weights = [tf.cast(tf.convert_to_tensor(variable), self._dtype) for variable in self._variables]
        counts = tf.range(tf.size(chosen)) < count
        parts = [
            self._tower(own, own_counts, count, weights, iteration, tower)
            for tower, (own, own_counts) in enumerate(zip(self._split(chosen), self._split(counts), strict=True))
        ]
        gradients = [
            tf.add_n([tf.cast(gradient, variable.dtype) for gradient in per_tower])
            for variable, per_tower in zip(self._variables, zip(*(part[0] for part in parts), strict=True), strict=True)
        ]
        self._optimizer.apply(self._with_penalties(gradients), self._variables)
        return tf.add_n([part[1] for part in parts]), tf.add_n([part[2] for part in parts])

    def _split(self, values: Tensor) -> list[Tensor]:
        """The towers' parts of ``values`` (batch,), of equal size or nearly so."""
        size, towers = values.shape[0] or tf.size(values), self._towers
        return [values[size * tower // towers : size * (tower + 1) // towers] for tower in range(towers)]

    def _tower(
        self, chosen: Tensor, counts: Tensor, count: Tensor, weights: list[Tensor], iteration: Tensor, tower: int
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """Gradients of this part's share of the batch's mean loss, scaled, and its sums, over what counts."""
        images = tf.cast(tf.gather(self._images, chosen), self._dtype)
        labels = tf.gather(self._labels, chosen)
        if self._augment is not None:
            images = self._augment(images, self._random_seed(_AUGMENTATION, iteration, tower))
            images = images[:, : self._size[0], : self._size[1]]
        seed = self._random_seed(_DROPOUT, iteration, tower)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            logits = rewrite.compute(self._operations, images, weights, seed, training=True)
            losses = self._objective.per_example(_wide(logits), labels)
            losses = tf.where(counts, losses, tf.zeros_like(losses))
            loss = tf.reduce_sum(losses) / tf.cast(count, losses.dtype) * loss_scale(self._optimizer)
        gradients = tape.gradient(loss, weights)
        correct = tf.equal(tf.argmax(logits, -1, tf.int32), labels) & counts
        return gradients, tf.reduce_sum(tf.cast(losses, tf.float64)), tf.math.count_nonzero(correct)

    def _random_seed(self, stream: int, iteration: Tensor, tower: int) -> Tensor:
        """int32 (2,): no two of stream, tower and step share one."""
        return tf.stack([tf.constant((self._seed * 64 + stream) % 2**31), iteration * self._towers + tower])

    def _with_penalties(self, gradients: list[Tensor]) -> list[Tensor]:
        if not self._penalized:
            return gradients
        with tf.GradientTape() as tape:
            penalty = tf.add_n([regularizer(kernel) for regularizer, kernel in self._penalized])
            penalty *= loss_scale(self._optimizer)
        extra = tape.gradient(penalty, [v.value for v in self._variables], unconnected_gradients="zero")
        return [gradient + more for gradient, more in zip(gradients, extra, strict=True)]


def _wide(logits: Tensor) -> Tensor:
    """Logits in at least float32: softmax and loss are not to be had in 16 bits."""
    return tf.cast(logits, tf.float32) if logits.dtype.size < 4 else logits
