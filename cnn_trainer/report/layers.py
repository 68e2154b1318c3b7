"""The section of the network: the filters of its first layer, and what each layer makes of one image."""

import base64
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnn_trainer.errors import ConfigError, RunDirectoryError, count
from cnn_trainer.evaluation.evaluate import refuse_small
from cnn_trainer.evaluation.predictions import worst_first
from cnn_trainer.network.forward import Layer, layers_of_image, weight_shapes
from cnn_trainer.network.shapes import ImageShape, layer_sizes
from cnn_trainer.report.context import Context
from cnn_trainer.report.galleries import Tile, make_tiles
from cnn_trainer.report.page import PageSection, fill
from cnn_trainer.report.sprite import MAX_SIDE, png_bytes
from cnn_trainer.runs import checkpoint
from cnn_trainer.runs.paths import WEIGHTS_FILE
from cnn_trainer.runs.store import Run

_MAX_PARTS = 64  # filters, units or maps that a picture shows
_MAX_PRODUCTS = 2_000_000_000  # multiply-adds for one image
_MAX_VALUES = 10_000_000  # of one layer
_COLUMNS = 16
_GAP = 1

# Negative values are blue, positive ones orange, zero is almost white: told apart by everyone who is colour-blind.
_ENDS = np.array([[33, 102, 172], [247, 247, 247], [201, 83, 12]], float)


@dataclass(frozen=True)
class LayerPicture:
    """A PNG with parts of a layer side by side, and what it shows in words."""

    title: str
    words: str
    alt: str
    data: str
    """The PNG in base64."""
    width: int
    height: int


def layers_section(context: Context) -> PageSection | None:
    """The first layer's filters and one image's activations; None if the run has no result."""
    run = context.run
    if run.record.weights_sha256 is None:
        return None
    pictures: list[LayerPicture] = []
    tile: Tile | None = None
    problem, is_too_large = None, False
    try:
        weights = _read_weights(run)
    except (ConfigError, RunDirectoryError) as error:
        problem = error
    else:
        pictures.append(_filters(run, weights))
        is_too_large = _is_too_large(run)
        if context.examples and not is_too_large:
            index = int(worst_first(context.examples.predictions)[0])
            [tile] = make_tiles(context, context.examples, [index])
            layers = layers_of_image(run.experiment.model, weights, context.examples.images[index])
            with np.errstate(all="ignore"):  # weights may be large enough to overflow
                pictures += _activations(layers)
    html = fill("layers.html", pictures=pictures, tile=tile, problem=problem, is_too_large=is_too_large)
    return PageSection("network", "Inside the network", html)


def _is_too_large(run: Run) -> bool:
    """Whether the activations of one image would take more than about a second or 200 MB."""
    layers = list(layer_sizes(run.experiment.model, ImageShape(*run.record.data.image_shape)))
    products, values = sum(layer.products for layer in layers), max((layer.values for layer in layers), default=0)
    return products > _MAX_PRODUCTS or values > _MAX_VALUES


def _read_weights(run: Run) -> dict[str, NDArray[Any]]:
    """The result's arrays by their names in the network. Raises ConfigError or RunDirectoryError."""
    path = run.dir / WEIGHTS_FILE
    refuse_small(run, [path])
    shape, names = ImageShape(*run.record.data.image_shape), run.record.data.class_names
    dtype = np.dtype("float64" if run.experiment.runtime.precision == "float64" else "float32")
    shapes = weight_shapes(run.experiment, shape, len(names))
    arrays = checkpoint.read_weights(path, {name: (dtype, size) for name, size in shapes.items()})
    if checkpoint.weights_digest(arrays.values()) != run.record.weights_sha256:
        raise RunDirectoryError("these weights do not match the digest in run.json", place=path)
    return {name.partition("/")[2]: array for name, array in arrays.items()}


def _filters(run: Run, weights: Mapping[str, NDArray[Any]]) -> LayerPicture:
    """The kernels of the first layer, as images of the size that they look at."""
    height, width, channels = run.record.data.image_shape
    name, kernel = next((name.partition("/")[0], array) for name, array in weights.items() if name.endswith("/kernel"))
    noun = "filter" if kernel.ndim == 4 else "unit"
    if noun == "unit":  # a dense layer looks at the whole image
        kernel = kernel.reshape(height, width, channels, -1)
    shown = np.nan_to_num(np.moveaxis(kernel, 3, 0)[:_MAX_PARTS], posinf=0, neginf=0)
    size = f"{shown.shape[1]} by {shown.shape[2]} pixels"
    words = f"{_how_many(len(shown), kernel.shape[3], noun)} of {name}, {size} each. "
    if channels == 3:
        words += "Red, green and blue show the weights of the three channels; grey is zero."
        coloured = _bytes_of(0.5 + shown / (2 * _largest(shown)))
    else:
        words += "Blue is negative, white is zero, orange is positive."
        coloured = _diverging(shown[..., 0] / _largest(shown))
    title = "Filters of the first layer" if noun == "filter" else "Weights of the first layer"
    return _picture(title, words, f"{title}: {count(len(shown), noun)} of {size}", coloured)


def _activations(layers: Iterator[Layer]) -> Iterator[LayerPicture]:
    for layer in layers:
        if layer.name == "probabilities":
            return
        values = np.nan_to_num(layer.values.astype(float), posinf=0, neginf=0)
        low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
        shades = _bytes_of((values - low) / ((high - low) or 1))
        is_map = layer.values.ndim == 3
        parts = np.moveaxis(shades, 2, 0) if is_map else shades.reshape(-1, 1, 1)
        noun = "map" if is_map else "unit"
        shown = parts[: _MAX_PARTS if is_map else 16 * _MAX_PARTS]
        words = f"{_how_many(len(shown), len(parts), noun)}"
        words += f" of {shown.shape[1]} by {shown.shape[2]} values" if is_map else ""
        words += f". Black is {low:.3g}, white is {high:.3g}."
        alt = f"Activations of {layer.name}: {count(len(shown), noun)}"
        yield _picture(f"Activations of {layer.name}", words, alt, np.repeat(shown[..., np.newaxis], 3, axis=3))


def _how_many(shown: int, total: int, noun: str) -> str:
    return count(total, noun) if shown == total else f"The first {shown:,} of {count(total, noun)}"


def _largest(values: NDArray[Any]) -> float:
    return float(np.abs(values).max()) or 1.0


def _bytes_of(shares: NDArray[Any]) -> NDArray[np.uint8]:
    """Fractions from 0 to 1 as the numbers 0 to 255."""
    return np.rint(np.clip(shares, 0, 1) * 255).astype(np.uint8)


def _diverging(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Colours (…, 3) of values from -1 to 1."""
    negative, zero, positive = _ENDS
    size = np.abs(values)[..., np.newaxis]
    ends = np.where(values[..., np.newaxis] < 0, negative, positive)
    return np.rint(zero + (ends - zero) * size).astype(np.uint8)


def _picture(title: str, words: str, alt: str, parts: NDArray[np.uint8]) -> LayerPicture:
    """Parts (parts, height, width, 3) in rows, each enlarged or reduced to a handy size, with grey gaps."""
    factor = -(-max(parts.shape[1:3]) // MAX_SIDE)
    if factor > 1:
        parts = parts[:, ::factor, ::factor]
        words += f" One of {factor} rows and columns is shown."
    times = max(1, (16 if parts.shape[1:3] == (1, 1) else 60) // max(parts.shape[1:3]))
    parts = parts.repeat(times, axis=1).repeat(times, axis=2)
    number, height, width = parts.shape[:3]
    columns = min(number, _COLUMNS if height > 16 else 2 * _COLUMNS)
    rows = math.ceil(number / columns)
    sheet = np.full((rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, 3), 128, np.uint8)
    for place, part in enumerate(parts):
        top, left = (
            _GAP + where * (side + _GAP) for where, side in zip(divmod(place, columns), (height, width), strict=True)
        )
        sheet[top : top + height, left : left + width] = part
    data = base64.b64encode(png_bytes(Image.fromarray(sheet))).decode()
    return LayerPicture(title, words, alt, data, sheet.shape[1], sheet.shape[0])
