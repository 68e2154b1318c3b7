"""Which values of an image array stand for black and white: decided by their range, or refused with a remedy."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cnn_trainer.errors import DataError

White = Literal[1, 255]

# Of 255. Up to this, an image looks black and has 17 levels at most: such pixels were given on another scale.
_MAX_BLACK = 16
# Of 255. Photographs can be this dark throughout, and so can arrays of 5 to 7 bits.
_MAX_DARK = 127
_SLAB_VALUES = 2**20  # converted at a time, as 64-bit floats
_CONVERT = ".round().astype('uint8')"
_HALF = 0.5 / 255  # half a level, if white is 1: rounding to 0 to 255 removes it


@dataclass(frozen=True)
class _Range:
    """The range of values that was found."""

    lowest: float
    highest: float
    has_fractions: bool
    """Whether some are not whole numbers."""
    darkest: float
    """The brightest value of the darkest image; images without a value above 0 are not counted."""

    def is_finite(self) -> bool:
        return bool(np.isfinite(self.lowest + self.highest))

    def __str__(self) -> str:
        return f"from {self.lowest:.6g} to {self.highest:.6g}" if self.is_finite() else "with NaN or infinity"


def to_uint8(where: str, images: NDArray[Any]) -> tuple[NDArray[np.uint8], White]:
    """Images with values from 0 to 255, and the value that stood for 255 before.

    Booleans, and floats from 0 to 1, are multiplied by 255 and rounded. Integers and whole floats from 0 to 255 are
    taken as they are. Floats with fractions are rounded if some are above 127 and no image is on a scale of 0 to 1.
    This takes memory for the result, and for 2**20 values or one image at a time.

    Args:
        where: the place that errors name.
        images: booleans, integers or floats (n, ...), at least one value.

    Raises:
        DataError: if the values are none of these, with the remedy that fits them.
    """
    if images.dtype == np.uint8:
        return images, 255
    found = _range_of(images)
    white: White = 1 if images.dtype.kind == "b" or _is_up_to_1(images, found) else 255
    if white == 255 and not _is_up_to_255(found):
        problem = f"the pixels are {images.dtype.name} {found}; expected 0 to 255, or floats from 0 to 1"
        raise DataError(problem, place=where, remedy=_remedy(images, found))
    converted = np.empty(images.shape, np.uint8)
    for part, values in _slabs(images):
        converted[part] = np.rint(values * (255 / white))
    return converted, white


def _slabs(images: NDArray[Any]) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    step = max(1, _SLAB_VALUES * len(images) // images.size)
    for begin in range(0, len(images), step):
        part = slice(begin, begin + step)
        yield part, images[part].astype(np.float64)


def _range_of(images: NDArray[Any]) -> _Range:
    lowest, highest, has_fractions, darkest = np.inf, -np.inf, False, np.inf
    for _, values in _slabs(images):
        brightest = values.reshape(len(values), -1).max(axis=1)
        low, high = values.min(), brightest.max()
        if not np.isfinite(low + high):
            return _Range(float(low), float(high), False, np.inf)
        lowest, highest = min(lowest, float(low)), max(highest, float(high))
        darkest = brightest.min(initial=darkest, where=brightest > 0)
        has_fractions = has_fractions or bool((np.abs(values - np.rint(values)) > 0.01).any())
    return _Range(lowest, highest, has_fractions, float(darkest))


def _is_up_to_1(images: NDArray[Any], found: _Range) -> bool:
    """Whether these are floats from 0 to 1, with a tolerance that rounding to 0 to 255 removes."""
    return images.dtype.kind == "f" and found.lowest > -_HALF and found.highest < 1 + _HALF


def _is_up_to_255(found: _Range) -> bool:
    """Whether these are from 0 to 255: whole numbers, or fractions (as resizing leaves) that fit no other scale."""
    is_certain = not found.has_fractions or (found.highest > _MAX_DARK and found.darkest > 1 + _HALF)
    return is_certain and found.lowest > -0.5 and found.highest < 255.5


def _remedy(images: NDArray[Any], found: _Range) -> str:
    lowest, highest = found.lowest, found.highest
    if not found.is_finite():
        return "replace NaN and infinity, for example with numpy.nan_to_num(x)"
    if lowest < 0 and images.dtype == np.int8:
        return "x.view('uint8') if they are bytes that were read with a sign"
    if lowest < 0 and images.dtype.kind == "f":
        return _remedy_below_0(lowest, highest)
    if lowest < 0:
        return "shift and scale them to 0 to 255"
    if 255 < highest < 300:
        return f"x.clip(0, 255){_CONVERT} if white is 255"
    if highest > 255:
        white = 2 ** int(highest).bit_length() - 1
        return f"(x * (255 / {white})){_CONVERT} converts from 0 to {white}"
    if highest < 1.1:
        return "x.clip(0, 1) if they were 0 to 1 before they were resized"
    if highest > _MAX_DARK:
        return "some images are from 0 to 1 and others from 0 to 255: multiply the former by 255"
    return f"(x * (255 / white)){_CONVERT} with the value that stands for white"


def _remedy_below_0(lowest: float, highest: float) -> str:
    if lowest > -0.1 and 0.9 < highest < 1.1:
        return "x.clip(0, 1) if they were 0 to 1 before they were resized"
    for offset, factor in ((0.5, "255"), (1, "127.5")):
        if max(-lowest, highest) < offset + 0.01:
            return f"((x + {offset:g}) * {factor}){_CONVERT} converts from {-offset:g} to {offset:g}"
    if lowest > -50 and 255 <= highest < 300:
        return f"x.clip(0, 255){_CONVERT} if they were 0 to 255 before they were resized"
    return "undo the normalisation: x * std + mean, with the same std and mean"


def check_brightness(where: str, name: str, images: NDArray[np.uint8], white: White, may_be_black: bool) -> str | None:
    """Whether the images of a split can be on a scale of 0 to 255.

    Args:
        where: the place that errors name.
        name: the split, in words: ``training`` or ``test``.
        images: what ``to_uint8`` returned, or what was decoded from pictures.
        white: what ``to_uint8`` returned; 255 for pictures.
        may_be_black: whether the scale is known, as that of a picture file is, so that nothing is refused.

    Returns:
        A warning if no pixel is half as bright as white: the scale is another one, or the images are dark.

    Raises:
        DataError: if no pixel is brighter than 16 of 255.
    """
    highest = int(images.max())
    if highest > _MAX_DARK:
        return None
    found = f"the brightest pixel of the {len(images):,} {name} images is {highest} of 255"
    if may_be_black and not highest:
        return f"{where}: {found}"
    convert = f"use (x * (255 / {highest})){_CONVERT} if {highest} stands for white"
    if may_be_black:
        return f"{where}: {found}; are they really so dark?"
    if highest > _MAX_BLACK:
        return f"{where}: {found}; {convert}"
    if highest == 0:
        remedy = "look at how they were made; floats from 0 to 1 become 0 if they are cast to integers"
    elif white == 1:
        remedy = "x / x.max() makes them 0 to 1; were they divided by 255 twice?"
    elif highest == 1:
        remedy = "multiply by 255, and if they were floats, before the cast to integers"
    else:
        remedy = convert
    raise DataError(f"{found}, so the scale is wrong", place=where, remedy=remedy)


def other_scale(name: str, white: White) -> str:
    """How to bring the images of the split ``name``, whose ``white`` is not that of the training images, to theirs."""
    if white == 1:
        return f"convert the {name} images to 0 to 255: (x * 255.0){_CONVERT}"
    return f"convert the {name} images to 0 to 1: x / 255"


def compare_brightness(where: str, name: str, images: NDArray[np.uint8], train: NDArray[np.uint8]) -> str | None:
    """A warning if no pixel of the split ``name`` is half as bright as white, but some of ``train`` are."""
    highest, of_training = int(images.max()), int(train.max())
    if not highest <= _MAX_DARK < of_training:
        return None
    found = f"the brightest pixel of the {name} images is {highest} of 255, that of the training images {of_training}"
    return f"{where}: {found}; are both on the same scale?"
