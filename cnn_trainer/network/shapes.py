"""Shapes of images on their way through a network, and the size of each layer: arithmetic only, no TensorFlow."""

from collections.abc import Iterator
from dataclasses import dataclass

from cnn_trainer.config.schema.model import Cnn, Mlp

Size = tuple[int, int]
"""Height and width in pixels."""


@dataclass(frozen=True)
class ImageShape:
    """The shape of the images, in pixels."""

    height: int
    width: int
    channels: int

    def __str__(self) -> str:
        return f"{self.height}x{self.width}x{self.channels}"


@dataclass(frozen=True)
class LayerSize:
    """One layer with weights."""

    key: str
    """The dotted key that sets its size."""
    weights: int
    """Number of weights, without biases and normalisation."""
    values: int
    """Number of values that it computes for one image."""
    products: int
    """Number of multiply-adds for one image."""


class DoesNotFitError(ValueError):
    """A kernel or a pool is larger than the image that reaches it; ``key`` is the dotted key that sets its size."""

    def __init__(self, key: str, window: int, block: int, size: Size, remedy: str) -> None:
        super().__init__(f"got {window} for block {block}, but the image that reaches it is {size[0]}x{size[1]}")
        self.key, self.remedy = key, f"use {remedy} or fewer blocks"


def convolved(size: Size, kernel: Size, padding: str) -> Size:
    """Size of the output of a convolution with stride 1 and ``padding`` valid or same."""
    return size if padding.lower() == "same" else (size[0] - kernel[0] + 1, size[1] - kernel[1] + 1)


def pooled(size: Size, pool: Size) -> Size:
    """Size of the output of a pool whose stride is its size; leftover rows and columns are dropped."""
    return size[0] // pool[0], size[1] // pool[1]


def read_by_convolution(size: Size, kernel: Size, padding: str, full: Size) -> Size:
    """Size of the part of an image of size ``full`` that the upper left ``size`` of its convolution depends on."""
    return full if padding.lower() == "same" else (size[0] + kernel[0] - 1, size[1] + kernel[1] - 1)


def read_by_pool(size: Size, pool: Size) -> Size:
    """Size of the part of an image that a pooled image of ``size`` depends on."""
    return size[0] * pool[0], size[1] * pool[1]


def layer_sizes(model: Cnn | Mlp, shape: ImageShape) -> Iterator[LayerSize]:
    """Every layer with weights except the last, in order, for images of ``shape``. Raises DoesNotFitError."""
    size, channels = (shape.height, shape.width), shape.channels
    if model.builder == "cnn":
        blocks = zip(model.filters, model.kernel_size, model.pool_size, strict=True)
        for block, (filters, kernel, pool) in enumerate(blocks, start=1):
            if model.padding == "valid" and kernel > min(size):
                raise DoesNotFitError("model.kernel_size", kernel, block, size, "padding: same")
            size = convolved(size, (kernel, kernel), model.padding)
            weights, pixels = kernel * kernel * channels * filters, size[0] * size[1]
            yield LayerSize("model.filters", weights, pixels * filters, weights * pixels)
            if pool > min(size):
                raise DoesNotFitError("model.pool_size", pool, block, size, "a smaller pool")
            size, channels = pooled(size, (pool, pool)), filters
    width = size[0] * size[1] * channels
    key, units = ("dense_units", model.dense_units) if model.builder == "cnn" else ("hidden_units", model.hidden_units)
    for count in units:
        yield LayerSize(f"model.{key}", width * count, count, width * count)
        width = count


def count_weights(model: Cnn | Mlp, shape: ImageShape) -> int:
    """Number of weights, without biases, normalisation and the output layer. Raises DoesNotFitError."""
    return sum(layer.weights for layer in layer_sizes(model, shape))
