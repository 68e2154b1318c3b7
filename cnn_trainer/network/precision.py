"""Whether another precision is worthwhile on this machine, measured on the products that a network consists of."""

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import keras
import tensorflow as tf

from cnn_trainer.network import rewrite
from cnn_trainer.network.rewrite import Convolve, Flatten, MatMul, MaxPool, Tensor
from cnn_trainer.network.shapes import convolved, pooled
from cnn_trainer.network.work import flop_per_image

_REPEATS: Final = 7
_SECONDS: Final = 0.4  # no new repeat begins after this time, but there is at least one
# Work of one repeat in one precision: tens of milliseconds on a slow core.
_MAX_FLOP: Final = 1e9

# The measured gain varies by a few hundredths from call to call.
_NOTICEABLE: Final = 1.05

Product = Callable[[], Tensor]


def measure_gain(model: keras.Sequential, precision: str, num_images: int) -> float:
    """Measure how many times as fast as float32 ``precision`` is here, for the products of a step of ``model``.

    Above 1, ``precision`` is faster. Only convolutions, matrix products and their gradients are timed, one after
    another, on made-up values: no variable is read, and no random number is drawn. It takes about 0.2 s, or about 0.5 s
    if ``precision`` is slow here.

    Args:
        model: A model from ``build_model``.
        precision: The precision to compare, such as bfloat16.
        num_images: Images per batch that one tower computes; fewer are used if the network is large.
    """
    products = [_products(model, precision_name, num_images) for precision_name in ("float32", precision)]
    for each in products:
        _seconds(each)  # the first calls choose and build their kernels
    repeats: list[list[float]] = []
    give_up = time.perf_counter() + _SECONDS
    while not repeats or (len(repeats) < _REPEATS and time.perf_counter() < give_up):
        repeats.append([_seconds(each) for each in products])
    # Both times of one repeat are affected alike by whatever else the machine is doing.
    return statistics.median(plain / other for plain, other in repeats)


def slow_warning(precision: str, gain: float) -> str | None:
    """A warning for the user of ``precision``, given the result of ``measure_gain``; None if it is worthwhile."""
    if gain >= _NOTICEABLE:
        return None
    measured = f"but here the products of this network take {1 / gain:.1f} times as long as in float32"
    return f"runtime.precision is {precision}, {measured}; compare whole runs with: cnn-train benchmark"


def _seconds(products: Sequence[Product]) -> float:
    began = time.perf_counter()
    for product in products:
        product().numpy()
    return time.perf_counter() - began


def _products(model: keras.Sequential, precision: str, num_images: int) -> list[Product]:
    """The convolutions and matrix products of a step, in network order, each with its gradients."""
    operations, weights = rewrite.read_model(model), [tuple(variable.shape) for variable in model.trainable_variables]
    size, channels = rewrite.cropped_size(operations, *model.input_shape[1:3]), model.input_shape[3]
    count = int(max(1, min(num_images, _MAX_FLOP / flop_per_image(operations, (*size, channels), weights))))

    def filled(*shape: int) -> Any:
        return tf.cast(tf.fill(shape, 0.5), precision)

    found: list[Product] = []
    for operation in operations:
        match operation:
            case Convolve(kernel, window, padding):
                output = convolved(size, window, padding)
                images, filters = filled(count, *size, channels), filled(*weights[kernel])
                channels = weights[kernel][-1]
                found += _convolution(images, filters, filled(count, *output, channels), padding, bool(found))
                size = output
            case MaxPool(pool):
                size = pooled(size, pool)
            case Flatten():
                size, channels = (1, 1), size[0] * size[1] * channels
            case MatMul(kernel):
                inputs, units = weights[kernel]
                values, matrix, upstream = filled(count, inputs), filled(inputs, units), filled(count, units)
                found += [partial(tf.matmul, values, matrix), partial(tf.matmul, values, upstream, transpose_a=True)]
                if len(found) > 2:  # the images need no gradient
                    found.append(partial(tf.matmul, upstream, matrix, transpose_b=True))
    return found


def _convolution(images: Tensor, kernel: Tensor, upstream: Tensor, padding: str, needs_gradient: bool) -> list[Product]:
    """A convolution, the gradient for its kernel and, unless it is the first layer, the gradient for its input."""
    options = {"out_backprop": upstream, "strides": [1, 1, 1, 1], "padding": padding}
    of_kernel = partial(tf.raw_ops.Conv2DBackpropFilter, input=images, filter_sizes=kernel.shape, **options)
    of_images = partial(tf.raw_ops.Conv2DBackpropInput, input_sizes=images.shape, filter=kernel, **options)
    return [partial(tf.nn.conv2d, images, kernel, 1, padding), of_kernel, *([of_images] if needs_gradient else [])]
