"""The network's forward pass for a single image, in NumPy: what each layer makes of it, without TensorFlow.

It is for looking at. Scores come from the compiled forward pass in ``logits.py``.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn_trainer.config.schema import Experiment
from cnn_trainer.config.schema.model import Cnn, Mlp
from cnn_trainer.network.shapes import ImageShape, convolved, pooled

LayerValues = NDArray[np.floating]

_EPSILON = 1e-3  # what Keras' BatchNormalization adds to the variance

_erf = np.vectorize(math.erf, otypes=[np.float64])  # NumPy has none


def _sigmoid(values: LayerValues) -> LayerValues:
    return (1 + np.tanh(values / 2)) / 2  # does not overflow


_FUNCTIONS: dict[str, Callable[[LayerValues], LayerValues]] = {
    "relu": lambda values: np.maximum(values, 0),
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
    "gelu": lambda values: values * (1 + _erf(values / math.sqrt(2)).astype(values.dtype)) / 2,
    "silu": lambda values: values * _sigmoid(values),
    "linear": lambda values: values,
}


@dataclass(frozen=True)
class Layer:
    """What one layer makes of an image, after its activation and before any pool.

    Attributes:
        name: As in the Keras model, such as ``conv_1``.
        values: (height, width, filters) of a convolution, (units,) of a dense layer.
    """

    name: str
    values: LayerValues


def weight_shapes(experiment: Experiment, shape: ImageShape, num_classes: int) -> dict[str, tuple[int, ...]]:
    """The shapes of the arrays in ``weights.safetensors`` by their names, in the order of the Keras model's weights.

    The network must fit images of ``shape``.
    """
    model = experiment.model
    size, channels = (shape.height, shape.width), shape.channels
    shapes: dict[str, tuple[int, ...]] = {}
    for name, kernel, pool, filters in _blocks(model):
        shapes |= _layer_shapes(name, (kernel, kernel, channels, filters), model.batch_normalization)
        size, channels = pooled(convolved(size, (kernel, kernel), model.padding), (pool, pool)), filters  # type: ignore[union-attr]
    width = size[0] * size[1] * channels
    for number, units in enumerate(_units(model), start=1):
        shapes |= _layer_shapes(f"dense_{number}", (width, units), _normalizes_dense(model))
        width = units
    shapes |= _layer_shapes("probabilities", (width, num_classes), normalizes=False)
    prefix = experiment.name.replace("-", "_").replace(".", "_")
    return {f"{prefix}/{name}": shape for name, shape in shapes.items()}


def _blocks(model: Cnn | Mlp) -> Iterator[tuple[str, int, int, int]]:
    """The name of each convolution, with the side of its kernels, the side of its pool, and its number of filters."""
    if isinstance(model, Cnn):
        sizes = zip(model.kernel_size, model.pool_size, model.filters, strict=True)
        yield from ((f"conv_{number}", *size) for number, size in enumerate(sizes, start=1))


def _units(model: Cnn | Mlp) -> list[int]:
    return model.dense_units if isinstance(model, Cnn) else model.hidden_units


def _normalizes_dense(model: Cnn | Mlp) -> bool:
    return isinstance(model, Mlp) and model.batch_normalization


def _layer_shapes(name: str, kernel: tuple[int, ...], normalizes: bool) -> dict[str, tuple[int, ...]]:
    found = {f"{name}/kernel": kernel}
    if not normalizes:
        return found | {f"{name}/bias": kernel[-1:]}
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    return found | {f"{name}_normalization/{each}": kernel[-1:] for each in names}


def layers_of_image(model: Cnn | Mlp, weights: Mapping[str, NDArray[Any]], image: NDArray[np.uint8]) -> Iterator[Layer]:
    """What each layer makes of one image, ending with the probabilities, in the dtype of the weights.

    Args:
        model: The section of the config.
        weights: The arrays of ``weight_shapes``, by their names after the slash.
        image: uint8 (height, width, channels).
    """
    dtype = weights["probabilities/kernel"].dtype
    values = image.astype(dtype) * dtype.type(1 / 255)
    activate = _FUNCTIONS[model.activation]
    for name, _, pool, _ in _blocks(model):
        values = _convolve(values, weights[f"{name}/kernel"], model.padding)  # type: ignore[union-attr]
        values = activate(_shifted(values, name, weights))
        yield Layer(name, values)
        values = _max_pool(values, pool)
    values = values.reshape(-1)
    for number in range(1, len(_units(model)) + 1):
        name = f"dense_{number}"
        values = activate(_shifted(values @ weights[f"{name}/kernel"], name, weights))
        yield Layer(name, values)
    logits = _shifted(values @ weights["probabilities/kernel"], "probabilities", weights)
    shares = np.exp(logits - logits.max())
    yield Layer("probabilities", shares / shares.sum())


def _convolve(values: LayerValues, kernel: LayerValues, padding: str) -> LayerValues:
    """The convolution with a kernel (side, side, channels, filters). An even side pads more at the end."""
    side = kernel.shape[0]
    rows, columns = convolved((values.shape[0], values.shape[1]), (side, side), padding)
    if padding == "same":
        before = (side - 1) // 2
        edges = (before, side - 1 - before)
        values = np.pad(values, (edges, edges, (0, 0)))
    sums = np.zeros((rows, columns, kernel.shape[3]), values.dtype)
    for row, column in np.ndindex(side, side):
        sums += values[row : row + rows, column : column + columns] @ kernel[row, column]
    return sums


def _shifted(values: LayerValues, name: str, weights: Mapping[str, NDArray[Any]]) -> LayerValues:
    """``values`` with the layer's bias, or its normalisation with the statistics of training."""
    if f"{name}/bias" in weights:
        return values + weights[f"{name}/bias"]
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    gamma, beta, mean, variance = (weights[f"{name}_normalization/{each}"] for each in names)
    return (values - mean) / np.sqrt(variance + values.dtype.type(_EPSILON)) * gamma + beta


def _max_pool(values: LayerValues, pool: int) -> LayerValues:
    rows, columns = pooled(values.shape[:2], (pool, pool))
    whole = values[: rows * pool, : columns * pool]
    return whole.reshape(rows, pool, columns, pool, -1).max(axis=(1, 3))
