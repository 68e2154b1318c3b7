"""An equivalent, faster form of a Keras model: the same function of the same variables, computed with less work.

``read_model`` turns a sequential Keras model into a list of small operations. ``pool_first``, ``join_pools`` and
``fold_scale`` rewrite the list without changing the network's function, and ``cropped_size`` says how much of an image
it reads:

* max(f(a + b)) over a pool equals f(max(a) + b) if the bias b is per channel and the activation f never decreases. So
  if the network pools first, only a quarter of the values need a bias and an activation.
* TensorFlow's convolutions add a bias and apply ReLU at no extra cost, because they have the value at hand. For a
  convolution, a bias, ReLU and a pool, pooling first therefore speeds up only the gradient.
* Pixels that no later layer reads (the rows and columns that a pool's floor division drops) are not computed.
* Convolving scaled values is the same as convolving with a scaled kernel. If kernels are constants, as in an exported
  model, they are scaled once, which avoids scaling every image. In training this saves nothing, because the kernels
  change with each step.

``compute`` runs a list. Nothing here knows about losses or training steps.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import keras
import tensorflow as tf

from cnn_trainer.network import shapes

Tensor = Any

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": tf.nn.relu,
    "sigmoid": tf.nn.sigmoid,
    "tanh": tf.nn.tanh,
    "gelu": keras.activations.gelu,
    "gelu-by-sigmoid": lambda values: values * tf.sigmoid(1.5957691 * values * (1 + 0.044715 * values * values)),
    "silu": tf.nn.silu,
    "linear": tf.identity,
}


@dataclass(frozen=True)
class Scale:
    """Multiplies values by a constant."""

    factor: float


@dataclass(frozen=True)
class Convolve:
    """Convolution with stride 1. Its kernel is ``factor`` times the trainable variable number ``kernel``."""

    kernel: int
    size: tuple[int, int]
    padding: str
    factor: float = 1.0


@dataclass(frozen=True)
class AddBias:
    """Adds the trainable variable number ``bias`` along the last axis."""

    bias: int


@dataclass(frozen=True)
class Activate:
    """One of the schema's activations."""

    name: str


@dataclass(frozen=True)
class MaxPool:
    """Maximum over windows of ``size`` with stride ``size``; incomplete windows at the edges are dropped."""

    size: tuple[int, int]


@dataclass(frozen=True)
class AddBiasReluPool:
    """``AddBias``, ReLU and ``MaxPool``, in this order, right after a convolution; any order gives the same result."""

    bias: int
    size: tuple[int, int]


@dataclass(frozen=True)
class Flatten:
    """Reshapes (batch, …) to (batch, values)."""


@dataclass(frozen=True)
class MatMul:
    """Matrix product with the trainable variable number ``kernel``."""

    kernel: int


@dataclass(frozen=True)
class Drop:
    """Inverted dropout in training; ``stream`` distinguishes the dropout layers of a model."""

    rate: float
    stream: int


@dataclass(frozen=True)
class Normalize:
    """Batch normalisation with a Keras layer's moving statistics, and with the variables ``gamma`` and ``beta``."""

    layer: keras.layers.BatchNormalization
    gamma: int
    beta: int


# These never decrease, so they commute with a maximum. GELU and SiLU decrease at first, so they must not be here.
_MONOTONE = [Activate("relu"), Activate("sigmoid"), Activate("tanh"), Activate("linear")]

Operation = Scale | Convolve | AddBias | Activate | MaxPool | AddBiasReluPool | Flatten | MatMul | Drop | Normalize


def read_model(model: keras.Sequential) -> list[Operation]:
    """The operations of ``model`` without the last layer's softmax, so that they end in logits.

    Raises TypeError for a layer, or a setting of a layer, that ``build_model`` does not use.
    """
    numbers = {id(variable): number for number, variable in enumerate(model.trainable_variables)}
    operations: list[Operation] = []
    for layer in model.layers:
        operations += _read_layer(layer, numbers, stream=len(operations))
    last = model.layers[-1]
    if not isinstance(last, keras.layers.Dense) or operations.pop() != Activate("softmax"):
        raise TypeError("the last layer must be Dense with softmax")
    for operation in operations:
        if isinstance(operation, Activate) and operation.name not in _ACTIVATIONS:
            raise TypeError(f"the activation {operation.name} is not known here")
    return operations


def _read_layer(layer: keras.Layer, numbers: dict[int, int], stream: int) -> list[Operation]:
    match layer:
        case keras.layers.Rescaling() if layer.offset == 0:
            return [Scale(float(layer.scale))]
        case keras.layers.Conv2D() if layer.strides == layer.dilation_rate == (1, 1) and layer.groups == 1:
            convolve = Convolve(numbers[id(layer.kernel)], tuple(layer.kernel_size), layer.padding.upper())
            return [convolve, *_bias_and_activation(layer, numbers)]
        case keras.layers.Dense():
            return [MatMul(numbers[id(layer.kernel)]), *_bias_and_activation(layer, numbers)]
        case keras.layers.MaxPooling2D() if layer.strides == layer.pool_size and layer.padding == "valid":
            return [MaxPool(tuple(layer.pool_size))]
        case keras.layers.Flatten():
            return [Flatten()]
        case keras.layers.Dropout() if type(layer) is keras.layers.Dropout and layer.noise_shape is None:
            return [Drop(float(layer.rate), stream)]
        case keras.layers.Activation():
            return [Activate(layer.activation.__name__)]
        case keras.layers.BatchNormalization() if layer.scale and layer.center:
            return [Normalize(layer, numbers[id(layer.gamma)], numbers[id(layer.beta)])]
        case _:
            raise TypeError(f"{layer.name}: a {type(layer).__name__} layer with these settings is not known here")


def _bias_and_activation(layer: keras.Layer, numbers: dict[int, int]) -> list[Operation]:
    operations: list[Operation] = [AddBias(numbers[id(layer.bias)])] if layer.use_bias else []
    name = layer.activation.__name__
    return operations if name == "linear" else [*operations, Activate(name)]


def pool_first(operations: list[Operation]) -> list[Operation]:
    """Move every pool ahead of the biases and never-decreasing activations that directly precede it."""
    result: list[Operation] = []
    for operation in operations:
        place = len(result)
        if isinstance(operation, MaxPool):
            while place and (isinstance(result[place - 1], AddBias) or result[place - 1] in _MONOTONE):
                place -= 1
        result.insert(place, operation)
    return result


def join_pools(operations: list[Operation]) -> list[Operation]:
    """Join each pool, bias and ReLU that ``pool_first`` has put right after a convolution into one operation."""
    result: list[Operation] = []
    for operation in operations:
        match [*result[-3:], operation]:
            case [Convolve(), MaxPool(size), AddBias(bias), Activate("relu")]:
                result[-2:] = [AddBiasReluPool(bias, size)]
            case _:
                result.append(operation)
    return result


def fold_scale(operations: list[Operation]) -> list[Operation]:
    """Scale the kernel of a convolution instead of its input, and flatten before scaling.

    A scale right before a matrix product stays; the runtimes of exported models fold it in their own way.
    """
    result: list[Operation] = []
    for operation in operations:
        match [*result[-1:], operation]:
            case [Scale(factor), Convolve() as convolve]:
                result[-1] = replace(convolve, factor=factor * convolve.factor)
            case [Scale() as scale, Flatten()]:
                result[-1:] = [operation, scale]
            case _:
                result.append(operation)
    return result


def approximate_gelu(operations: list[Operation]) -> list[Operation]:
    """GELU from products, sums and a sigmoid, within 0.0005 of exact GELU, for runtimes that have no erf.

    The formula is the tanh approximation of https://arxiv.org/abs/1606.08415, with tanh(x) = 2 sigmoid(2 x) - 1.
    """
    return [Activate("gelu-by-sigmoid") if operation == Activate("gelu") else operation for operation in operations]


def cropped_size(operations: list[Operation], height: int, width: int) -> tuple[int, int]:
    """Height and width of the upper left part of the image that the network's output depends on.

    A convolution with padding needs its whole input, and so does batch normalisation, whose statistics use every pixel.
    """
    size = (height, width)
    spatial = []  # the operations on images, each with the size of its input
    for operation in itertools.takewhile(lambda operation: not isinstance(operation, Flatten), operations):
        spatial.append((operation, size))
        if isinstance(operation, MaxPool | AddBiasReluPool):
            size = shapes.pooled(size, operation.size)
        elif isinstance(operation, Convolve):
            size = shapes.convolved(size, operation.size, operation.padding)
    for operation, full in reversed(spatial):
        if isinstance(operation, MaxPool | AddBiasReluPool):
            size = shapes.read_by_pool(size, operation.size)
        elif isinstance(operation, Convolve):
            size = shapes.read_by_convolution(size, operation.size, operation.padding, full)
        elif isinstance(operation, Normalize):
            size = full
    return size


def fast_form(model: keras.Sequential) -> tuple[list[Operation], tuple[int, int]]:
    """Rewrite ``model``. Returns its operations, and the height and width of the part of an image that they read."""
    operations = join_pools(pool_first(read_model(model)))
    return operations, cropped_size(operations, *model.input_shape[1:3])


def looks_across_batch(operations: list[Operation]) -> bool:
    """Whether the output for one image depends on the other images of its batch."""
    return any(isinstance(operation, Normalize) for operation in operations)


def compute(
    operations: list[Operation], images: Tensor, weights: list[Tensor], seed: Tensor | None, training: bool
) -> Tensor:
    """Run ``operations`` on a batch. Returns logits (batch, classes) in the dtype of ``images`` and ``weights``.

    Args:
        operations: The result of ``read_model``, rewritten or not.
        images: (batch, height, width, channels), values 0 to 255.
        weights: The values of the model's trainable variables, in their order.
        seed: int32 (2,), determines what Dropout drops; None if nothing is dropped.
        training: Whether Dropout drops values and batch normalisation uses the batch's statistics.
    """
    values = images
    for operation in operations:
        match operation:
            case Scale(factor):
                values = values * tf.constant(factor, values.dtype)
            case Convolve(kernel, _, padding, factor):
                filters = weights[kernel] if factor == 1.0 else weights[kernel] * tf.constant(factor, values.dtype)
                values = tf.nn.conv2d(values, filters, 1, padding)
            case AddBias(bias) if training:
                values = _add_bias(values, weights[bias])
            case AddBias(bias):  # without our own gradient, which an exported model could not contain
                values = tf.nn.bias_add(values, weights[bias])
            case Activate(name):
                values = _ACTIVATIONS[name](values)
            case MaxPool(size):
                values = tf.nn.max_pool2d(values, size, size, "VALID")
            case AddBiasReluPool(bias, size):
                values = _add_bias_relu_pool(size)(values, weights[bias])
            case Flatten():
                values = tf.reshape(values, (-1, values.shape[1] * values.shape[2] * values.shape[3]))
            case MatMul(kernel):
                values = tf.matmul(values, weights[kernel])
            case Drop(rate, stream) if training:
                values = _drop(values, rate, seed + tf.constant([stream, 0]))
            case Normalize(layer, gamma, beta):
                statistics, scales = layer.non_trainable_variables, [weights[gamma], weights[beta]]
                result, updated = layer.stateless_call(scales, statistics, values, training=training)
                if training:
                    for variable, value in zip(statistics, updated, strict=True):
                        variable.assign(value)
                values = tf.cast(result, values.dtype)
    return values


@tf.custom_gradient
def _add_bias(values: Tensor, bias: Tensor) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, Tensor]]]:
    return tf.nn.bias_add(values, bias), lambda upstream: (upstream, _bias_gradient(upstream))


def _bias_gradient(upstream: Tensor) -> Tensor:
    # TensorFlow's own gradient sums bfloat16 values in bfloat16: 69 % off for 10,816 values, and slower than this.
    return tf.reduce_sum(upstream, list(range(upstream.shape.rank - 1)))


def _add_bias_relu_pool(size: tuple[int, int]) -> Callable[[Tensor, Tensor], Tensor]:
    window = [1, *size, 1]

    @tf.custom_gradient
    def compute(values: Tensor, bias: Tensor) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, Tensor]]]:
        active = tf.nn.relu(tf.nn.bias_add(values, bias))
        pooled = tf.nn.max_pool2d(active, size, size, "VALID")

        def gradient(upstream: Tensor) -> tuple[Tensor, Tensor]:
            # ReLU's gradient follows from its output, and the pool keeps only one value of each window.
            upstream = tf.raw_ops.ReluGrad(gradients=upstream, features=pooled)
            windows = {"ksize": window, "strides": window, "padding": "VALID"}
            unpooled = tf.raw_ops.MaxPoolGrad(orig_input=active, orig_output=pooled, grad=upstream, **windows)
            return unpooled, _bias_gradient(upstream)

        return pooled, gradient

    return compute


def _drop(values: Tensor, rate: float, seed: Tensor) -> Tensor:
    # TensorFlow's own dropout draws in the dtype of the values: in bfloat16 a rate of 0.01 would drop 0.0156. The
    # generator is named because TensorFlow's choice differs between kinds of devices.
    drawn = tf.random.stateless_uniform(tf.shape(values), seed, dtype=tf.float32, alg="philox")
    return values * tf.cast(tf.where(drawn < rate, 0.0, 1 / (1 - rate)), values.dtype)
