"""The compiled training steps: many of them run in one call, without any Python in between.

The engine is given three functions and does not depend on where they come from. ``batch`` returns images and labels,
``gradients`` computes what one tower contributes, and ``combine`` adds the towers. All are traced into the step, so
calling them costs nothing. Every random choice is a function of the seed and the step, so there is no random state, and
a call may begin at any step.
"""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf
from pydantic import ConfigDict, Field

from cnn_trainer.network.rewrite import Tensor
from cnn_trainer.storage.strict_json import Record
from cnn_trainer.training.gradients import Combine, Counts, Gradients, add_towers

Batch = Callable[[Tensor], tuple[Tensor, Tensor]]
"""``batch(indexes)`` is traced into the compiled step, once for each tower.

It takes indexes of training examples, int32 (n,), and returns their images, uint8 (n, height, width, channels), and
labels, int32 (n,), in the same order.
"""


class Sums(Record):
    """Sums over the examples of a number of steps."""

    model_config = ConfigDict(allow_inf_nan=True)  # the loss is not finite if the run diverges

    loss: float = Field(0.0, description="Sum of the losses, with class weights, without penalties; added in float64.")
    correct: int = Field(0, ge=0, description="Number of examples that were predicted correctly.")
    examples: int = Field(0, ge=0)


class Engine:
    """The compiled steps for one set of variables and one training split; an epoch has ``steps_per_epoch`` of them."""

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
        """Tracing happens in the first step, not here.

        ``variables`` are trained; they have the order of the gradients, and ``optimizer`` is built for them. An epoch
        has ``num_examples``, at least 1, in batches of ``batch_size``, which are divided equally among ``towers``, or
        nearly so. ``seed`` determines every random choice. ``may_fill_up`` says that a batch may contain examples that
        do not count, without an effect on its other examples.
        """
        self._variables, self._optimizer = variables, optimizer
        self._batch, self._gradients, self._combine = batch, gradients, combine
        self.num_examples, self._batch_size = num_examples, min(batch_size, num_examples)
        self._towers, self._seed = towers, seed
        self.steps_per_epoch = -(-num_examples // self._batch_size)
        # Batches of a single known size are 1 to 4 % faster than batches of any size. So the last batch is filled up
        # with examples that do not count, if it needs only a few.
        self._num_missing = self.steps_per_epoch * self._batch_size - num_examples
        few = self._num_missing * 20 <= num_examples and towers <= self._batch_size
        self._fills_up = few and may_fill_up

    def train_steps(self, order: Tensor, first: int, last: int, sums: Sums) -> Sums:
        """Run the steps from ``first`` up to, but not including, ``last`` of an epoch, counted from 0.

        ``last`` is at most ``steps_per_epoch``. ``order``, int32 (examples,), is the order of the training examples in
        this epoch. ``sums`` are over its steps before ``first``. Returns the sums over its steps before ``last``, with
        the same bits however the epoch is divided into calls.
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
            # No tower is left empty, because oneDNN cannot pool an empty batch.
            size = self._batch_size if self._fills_up else tf.maximum(count, self._towers)
            chosen = tf.ensure_shape(order[start : start + size], (self._batch_size if self._fills_up else None,))
            batch_loss, batch_correct = self._step(chosen, count)
            return step + 1, loss + batch_loss, correct + batch_correct

        start = first, loss, correct
        return tf.while_loop(lambda step, *_: step < last, body, start, parallel_iterations=1)[1:]

    def _step(self, chosen: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        """Update the weights once, on the first ``count`` of the examples ``chosen``. Returns sums of loss and hits."""
        iteration = tf.cast(tf.convert_to_tensor(self._optimizer.iterations), tf.int32)
        masks = self._split(tf.range(tf.size(chosen)) < count)
        towers = []
        for tower, (indexes, mask) in enumerate(zip(self._split(chosen), masks, strict=True)):
            # Every pair of step and tower has its own seed, and 64 streams fit between the seeds of two experiments.
            seed = tf.stack([tf.constant(self._seed * 64 % 2**31), iteration * self._towers + tower])
            towers.append(self._gradients(*self._batch(indexes), Counts(mask, count), seed))
        sums = self._combine(towers)
        self._optimizer.apply(sums.gradients, self._variables)
        return sums.loss, sums.correct

    def _split(self, values: Tensor) -> list[Tensor]:
        """Split ``values`` (batch,) among the towers, in parts of equal or nearly equal size."""
        size, towers = values.shape[0] or tf.size(values), self._towers
        return [values[size * tower // towers : size * (tower + 1) // towers] for tower in range(towers)]
