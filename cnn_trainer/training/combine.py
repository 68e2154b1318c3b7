"""How the towers of a step become one: their gradients and sums are added in the order of the towers."""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from cnn_trainer.network.rewrite import Tensor
from cnn_trainer.training.gradients import TowerSums
from cnn_trainer.training.optimizer import loss_scale

Combine = Callable[[Sequence[TowerSums]], TowerSums]
"""``combine(towers)`` is traced into the compiled step, and gives the sums over all towers."""


def add_towers(towers: Sequence[TowerSums]) -> TowerSums:
    """Add the towers, to the same bits however they are computed and whichever is ready first."""
    return TowerSums(
        [add_in_order(parts) for parts in zip(*(tower.gradients for tower in towers), strict=True)],
        add_in_order([tower.loss for tower in towers]),
        add_in_order([tower.correct for tower in towers]),
    )


def add_in_order(parts: Sequence[Tensor]) -> Tensor:
    """The sum of tensors of one shape and dtype, always to the same bits.

    Rows that several processes have gathered are added by this too: ``add_in_order(tf.unstack(rows))``.
    """
    if len(parts) <= 2:  # two have one sum in either order; stacking them would cost 2 to 4 % of a step
        return sum(parts[1:], start=parts[0])
    # Not AddN: it begins with whichever part's memory it may overwrite, so its rounding varies from step to step.
    # Nor a chain of additions, which TensorFlow's optimizer makes into AddN.
    return tf.reduce_sum(tf.stack(parts), axis=0)


def with_penalties(combine: Combine, model: keras.Sequential, optimizer: keras.optimizers.Optimizer) -> Combine:
    """``combine``, and then the gradients of the L1 and L2 penalties of ``model`` once; its loss is left as it is."""
    penalized = [
        (layer.kernel_regularizer, layer.kernel)
        for layer in model.layers
        if getattr(layer, "kernel_regularizer", None) is not None
    ]
    if not penalized:
        return combine

    def combine_and_penalize(towers: Sequence[TowerSums]) -> TowerSums:
        sums = combine(towers)
        with tf.GradientTape() as tape:
            penalty = tf.add_n([regularizer(kernel) for regularizer, kernel in penalized])
            penalty *= loss_scale(optimizer)
        values = [variable.value for variable in model.trainable_variables]
        extra = tape.gradient(penalty, values, unconnected_gradients="zero")
        return sums._replace(gradients=[one + more for one, more in zip(sums.gradients, extra, strict=True)])

    return combine_and_penalize
