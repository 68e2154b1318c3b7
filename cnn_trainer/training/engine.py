"""The compiled training steps: many of them run in one call, without a word of Python in between.

The engine takes three functions and knows nothing else of where they come from. ``batch`` gives images and labels,
``gradients`` what one tower contributes, and ``combine`` adds the towers. All are traced into the step, so they cost
nothing. Every random choice is a function of the seed and the step, so there is no random state, and a call may begin
at any step.
"""

from collections.abc import Sequence

import keras
import tensorflow as tf
from pydantic import ConfigDict, Field

from cnn_trainer.network.rewrite import Tensor
from cnn_trainer.storage.strict_json import Record
from cnn_trainer.training.batches import Batch
from cnn_trainer.training.combine import Combine, add_towers
from cnn_trainer.training.gradients import Counts, Gradients


class Sums(Record):
    """Sums over the examples of some steps."""

    model_config = ConfigDict(allow_inf_nan=True)  # the loss of a run that diverges

    loss: float = Field(0.0, description="Without penalties, added in float64.")
    correct: int = Field(0, ge=0, description="How many examples were recognised.")
    examples: int = Field(0, ge=0)


class Engine:
    """The compiled steps for one set of variables and one training split.

    Attributes:
        num_examples: How many examples an epoch has.
        steps_per_epoch: How many steps it takes to train on all of them once.
    """

    def __init__(
        self,
        variables: Sequence[keras.Variable],
        optimizer: keras.optimizers.Optimizer,
        batch: Batch,
        gradients: Gradients,
        combine: Combine = add_towers,
        *,
        num_examples: int,
        batch_size: int,
        towers: int,
        seed: int,
        may_fill_up: bool,
    ) -> None:
        """Trace nothing yet; the first step does.

        Args:
            variables: What is trained, in the order of the gradients.
            optimizer: Built for ``variables``.
            batch: Gives the examples of these numbers.
            gradients: Gives what one tower contributes.
            combine: Adds what the towers contribute.
            num_examples: At least 1.
            batch_size: Of a step, over all towers; a larger one than ``num_examples`` counts as that.
            towers: Parts of a batch, of equal size or nearly so; at least 1.
            seed: Every random choice follows from it.
            may_fill_up: Whether examples that do not count may be in a batch without changing its other examples.
        """
        self._variables, self._optimizer = variables, optimizer
        self._batch, self._gradients, self._combine = batch, gradients, combine
        self.num_examples = num_examples
        self._batch_size = min(batch_size, num_examples)
        self._towers = towers
        self._seed = seed
        self.steps_per_epoch = -(-num_examples // self._batch_size)
        # Batches of one known size are 1 to 4 % faster than batches of any size. So the last one is filled up with
        # examples that do not count, if those are few.
        self._num_missing = self.steps_per_epoch * self._batch_size - num_examples
        few = self._num_missing * 20 <= num_examples and towers <= self._batch_size
        self._fills_up = few and may_fill_up

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
        examples = min(last * self._batch_size, len(order))
        return Sums(loss=float(loss), correct=int(correct), examples=examples)

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
        masks = self._split(tf.range(tf.size(chosen)) < count)
        towers = []
        for tower, (indexes, mask) in enumerate(zip(self._split(chosen), masks, strict=True)):
            images, labels = self._batch(indexes)
            seed = self._random_seed(iteration, tower)
            towers.append(self._gradients(images, labels, Counts(mask, count), seed))
        sums = self._combine(towers)
        self._optimizer.apply(sums.gradients, self._variables)
        return sums.loss, sums.correct

    def _split(self, values: Tensor) -> list[Tensor]:
        """The towers' parts of ``values`` (batch,), of equal size or nearly so."""
        size, towers = values.shape[0] or tf.size(values), self._towers
        return [values[size * tower // towers : size * (tower + 1) // towers] for tower in range(towers)]

    def _random_seed(self, iteration: Tensor, tower: int) -> Tensor:
        """int32 (2,): no two of step and tower share one, and 64 streams fit between two experiments' seeds."""
        return tf.stack([tf.constant(self._seed * 64 % 2**31), iteration * self._towers + tower])
