"""Builds the optimizer and the learning-rate schedule of an experiment: Keras' own, except how Adam takes a step."""

import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from cnn_trainer.config.schema import Experiment
from cnn_trainer.config.schema.training import Constant, Cosine, Exponential, OneCycle, Plateau, Step, Training

Scalar = Any  # a float scalar tensor


class Adam(keras.optimizers.Adam):
    """Keras' Adam (AdamW with a weight decay), using TensorFlow's single operation for the whole formula.

    Keras' own takes a dozen operations per variable. The state is the same, and so are the steps, except for rounding.
    """

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update ``variable`` and its two moments."""
        number = self._get_variable_index(variable)
        step = tf.cast(self.iterations.value + 1, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[number].value.handle,
            v=self._velocities[number].value.handle,
            beta1_power=tf.pow(tf.cast(self.beta_1, variable.dtype), step),
            beta2_power=tf.pow(tf.cast(self.beta_2, variable.dtype), step),
            lr=tf.cast(learning_rate, variable.dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )


def build_optimizer(
    experiment: Experiment, model: keras.Model, steps_per_epoch: int, adam: type[keras.optimizers.Adam] = Adam
) -> keras.optimizers.Optimizer:
    """Build the optimizer and its slots for all trainable variables of ``model``; ``adam`` is used for adam and adamw.

    Plain gradient descent is θ ← θ − η∇L. If ``ema_decay`` is set, the optimizer keeps the moving average of each
    variable in its own variables; ``averages`` returns them. In float16, the optimizer takes the gradients of a scaled
    loss (see ``loss_scale``). If they are not finite, it skips the step and reduces the scale for the next one.
    """
    training = experiment.training
    common = {
        "learning_rate": learning_rate(training, steps_per_epoch),
        "weight_decay": training.weight_decay or None,
        "global_clipnorm": training.gradient_clip_norm,
        "use_ema": training.ema_decay is not None,
        "ema_momentum": training.ema_decay or 0.99,  # Keras reads it only with use_ema
    }
    match training.optimizer:
        case "adam" | "adamw":  # Keras' AdamW is its Adam with a weight decay
            optimizer = adam(**common)
        case "rmsprop":
            optimizer = keras.optimizers.RMSprop(**common)
        case "sgd":
            optimizer = keras.optimizers.SGD(**common)
        case "momentum" | "nesterov" as name:
            optimizer = keras.optimizers.SGD(momentum=training.momentum, nesterov=name == "nesterov", **common)
    kernels = {id(layer.kernel) for layer in model.layers if hasattr(layer, "kernel")}
    optimizer.exclude_from_weight_decay([v for v in model.trainable_variables if id(v) not in kernels])
    if experiment.runtime.precision == "float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(model.trainable_variables)
    return optimizer


def averages(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """The moving averages of the weights, in the order of the trainable variables; empty without an EMA."""
    inner = without_loss_scale(optimizer)
    return list(inner._model_variables_moving_average) if inner.use_ema else []


def loss_scale(optimizer: keras.optimizers.Optimizer) -> Scalar:
    """The factor applied to the loss before its gradients are taken: 1.0, or a float32 scalar tensor for float16."""
    scales = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    return tf.convert_to_tensor(optimizer.dynamic_scale) if scales else 1.0


def without_loss_scale(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer that takes the steps, without the loss scaling around it."""
    return optimizer.inner_optimizer if isinstance(optimizer, keras.optimizers.LossScaleOptimizer) else optimizer


def learning_rate(training: Training, steps_per_epoch: int) -> "float | ScheduleByFactor":
    """The learning rate as a number, or as a function of the step (counted from 0)."""
    schedule = training.schedule
    if isinstance(schedule, Plateau) or (isinstance(schedule, Constant) and not schedule.warmup_epochs):
        return training.learning_rate
    factor = _factor(schedule, steps_per_epoch, training.epochs * steps_per_epoch)
    warmup = 0.0 if isinstance(schedule, OneCycle) else schedule.warmup_epochs * steps_per_epoch
    return ScheduleByFactor(training.learning_rate, factor, warmup)


def last_learning_rate(optimizer: keras.optimizers.Optimizer) -> float:
    """The learning rate of the last step taken, to the seven digits that float32 holds."""
    rate = without_loss_scale(optimizer)._learning_rate
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        rate = rate(optimizer.iterations.value - 1)
    return float(f"{float(rate):.7g}")


def lower_at_plateau(training: Training, optimizer: keras.optimizers.Optimizer, epochs_without: int) -> bool:
    """Lower the learning rate if the schedule is plateau and its patience has run out. Returns whether it was lowered.

    With this schedule the learning rate is one of the optimizer's variables, so that checkpoints hold it.
    ``epochs_without`` is the number of epochs since the lowest validation loss, or since the learning rate was last
    lowered.
    """
    schedule = training.schedule
    if not isinstance(schedule, Plateau) or epochs_without < schedule.patience:
        return False
    optimizer.learning_rate = float(optimizer.learning_rate) * schedule.factor
    return True


class ScheduleByFactor(keras.optimizers.schedules.LearningRateSchedule):
    """A peak learning rate times a factor between 0 and 1 that depends on the step.

    It rises linearly over ``warmup_steps`` steps; only then does ``factor`` begin, with step 0.
    """

    def __init__(self, peak: float, factor: Callable[[Scalar], Scalar], warmup_steps: float) -> None:
        self.peak, self.factor, self.warmup_steps = peak, factor, warmup_steps

    def __call__(self, step: Any) -> Any:
        """The learning rate of step number ``step``, counted from 0: a float scalar tensor."""
        step = tf.cast(step, keras.config.floatx())
        value = self.peak * self.factor(tf.maximum(step - self.warmup_steps, 0.0))
        if self.warmup_steps:
            value *= tf.minimum((step + 1) / self.warmup_steps, 1.0)
        return value


def _factor(
    schedule: Constant | Step | Exponential | Cosine | OneCycle, steps_per_epoch: int, total: int
) -> Callable[[Scalar], Scalar]:
    """The factor of the peak learning rate after a number of steps out of ``total``."""
    match schedule:
        case Constant():
            return tf.ones_like
        case Step():
            return lambda step: schedule.factor ** tf.floor(step / (schedule.epochs * steps_per_epoch))
        case Exponential():
            return lambda step: schedule.factor ** (step / steps_per_epoch)
        case Cosine():  # Loshchilov and Hutter, SGDR (2017), equation 5, without restarts, after the warm-up
            length = max(1.0, total - schedule.warmup_epochs * steps_per_epoch)
            return lambda step: _half_wave(1.0, schedule.final_fraction, step / length)
    last = max(1, total - 1)  # Smith and Topin, Super-Convergence (2018), with cosine flanks
    top = schedule.rise_fraction * last

    def one_cycle(step: Scalar) -> Scalar:
        rise = _half_wave(schedule.initial_fraction, 1.0, step / top)
        fall = _half_wave(1.0, schedule.final_fraction, (step - top) / max(1e-9, last - top))
        return tf.where(step < top, rise, fall)

    return one_cycle


def _half_wave(start: float, end: float, share: Scalar) -> Scalar:
    """Go from ``start`` to ``end`` along half a cosine wave as ``share`` goes from 0 to 1; constant beyond."""
    return end + (start - end) * 0.5 * (1 + tf.cos(math.pi * tf.clip_by_value(share, 0.0, 1.0)))
