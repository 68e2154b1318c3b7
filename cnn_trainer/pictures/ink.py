"""Finds what is written in a photograph: how much ink is in each pixel, whatever the light and the paper.

NumPy and Pillow are enough: everything here works on a few tens of thousands of pixels at most.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnn_trainer.errors import DataError

Values = NDArray[np.float32]
Mask = NDArray[np.bool_]

# All were chosen with pictures that the tests' picture maker made from MNIST's training images.
_SHEET_SHARE: Final = 0.25  # of a row or column: with more sheet than this it is the sheet's; the edge has less
_SHEET_FILLED: Final = 0.7  # share of its bounding rectangle that a sheet fills
_SHEET_CORNER: Final = 0.2  # share of the rectangle's corners that it fills; a round thing leaves them empty
_BLUR: Final = 1.0  # pixels, against the sensor's noise
_MIN_PAPER: Final = 16.0  # of 255: paper that is darker is nothing but noise
_PEAK_PIXELS: Final = 30  # this many of the darkest pixels are ink or dirt
_MIN_CONTRAST: Final = 0.08  # share of the paper's light that the darkest pixels must absorb
_NOISE: Final = (5, 25)  # percentiles that are one deviation of a normal distribution apart, and below any ink
_MIN_NOISES: Final = 12.0  # and at least this many times the noise of the paper
_FLAWLESS: Final = 0.01  # of the darkest pixel: nine tenths of a picture are lighter only if a program drew it
_MIN_DRAWN: Final = (5, 1 / 255)  # pixels and contrast on flawless paper, where every trace is ink
_MIN_SHARE: Final = 0.4  # of the darkest pixels' darkness: what is lighter is not ink
_SPECK: Final = 0.05  # of the largest part's mass: what is smaller is dirt
_HEAVY: Final = 0.25  # of the largest part's pixels, and
_TALL: Final = 0.5  # of the tallest such part's height: what is at least this may be a digit
_ROOM: Final = 0.1  # of that height: the gap between two digits
_THIN: Final = 1.4  # pixels, if the digit is 20 high: thinner lines are made this thick
_SOFT: Final = (0.3, 0.8)  # of the ink's darkness: below is paper, above is full ink, between is an edge


def find_sheet(picture: NDArray[np.uint8]) -> tuple[slice, slice]:
    """The rows and columns of a sheet of paper that lies on something darker; all of them if there is no such sheet.

    A sheet is light, in one piece, large, nearly rectangular, and does not reach the picture's edge.
    """
    level = _blur(picture.astype(np.float32), _BLUR) / np.float32(255)
    parts = _connected(level > _otsu(level))
    sheet = parts == max(1, np.bincount(parts[parts > 0], minlength=1).argmax())
    frame = np.concatenate([sheet[0], sheet[-1], sheet[:, 0], sheet[:, -1]])
    rows, columns = (np.flatnonzero(sheet.mean(axis=axis) > _SHEET_SHARE) for axis in (1, 0))
    if len(rows) and len(columns) and frame.mean() < _SHEET_SHARE:
        found = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
        large = all(2 * part > whole for part, whole in zip(sheet[found].shape, sheet.shape, strict=True))
        if large and sheet[found].mean() > _SHEET_FILLED and _least_corner(sheet[found]) > _SHEET_CORNER:
            return found
    return slice(0, picture.shape[0]), slice(0, picture.shape[1])


def _least_corner(filled: Mask) -> float:
    """The share of True in the emptiest of the four corners."""
    side = max(1, min(filled.shape) // 6)
    corners = (
        filled[rows, columns]
        for rows in (slice(side), slice(-side, None))
        for columns in (slice(side), slice(-side, None))
    )
    return min(float(corner.mean()) for corner in corners)


def is_light_on_dark(picture: NDArray[np.uint8]) -> bool:
    """Whether what is written on a picture (height, width) is lighter than its background.

    A wide median gives the local background. Large differences from it are ink.
    """
    small = scale_to(picture.astype(np.float32), 48)
    reach = max(small.shape) // 4
    around = _windows(_windows(np.pad(small, reach, mode="symmetric"), reach, 0), reach, 1)
    away = small - np.median(around.reshape(*small.shape, -1), axis=-1)
    return float((away**3).sum()) > 0


def find_ink(picture: NDArray[np.uint8]) -> Values:
    """How much ink is in each pixel.

    Args:
        picture: uint8 (height, width), dark on light, a few hundred pixels wide at most.

    Returns:
        float32 (height, width), from 0 for paper to 1 for ink, without specks.

    Raises:
        DataError: if nothing stands out from the background.
    """
    level = _blur(picture.astype(np.float32), _BLUR)
    # Light falls on ink and paper alike, so what counts is the share of it that is absorbed.
    paper = _paper(level)
    swallowed = ((paper - level) / np.maximum(paper, _MIN_PAPER)).clip(0, 1)
    low, high = np.percentile(swallowed, _NOISE)
    flawless = float(np.percentile(swallowed, 90)) < _FLAWLESS * float(swallowed.max())
    pixels, contrast = _MIN_DRAWN if flawless else (_PEAK_PIXELS, _MIN_CONTRAST)
    place = max(0, swallowed.size - pixels)
    peak = float(np.partition(swallowed, place, axis=None)[place])
    if peak < max(contrast, _MIN_NOISES * float(high - low)):
        raise DataError("nothing stands out from the background", remedy="take a picture of one digit, in better light")
    written = _without_specks(swallowed, swallowed > max(_otsu(swallowed), _MIN_SHARE * peak))
    full = float(np.percentile(swallowed[written], 75))
    low, high = (share * full for share in _SOFT)
    with_edges = _blur(written.astype(np.float32), 1.5) > 0.05
    return np.where(with_edges, ((swallowed - low) / (high - low)).clip(0, 1), np.float32(0))


def is_of_several(ink: Values) -> bool:
    """Whether ``ink``, float32 (height, width) and not blank, shows several digits.

    A part that may be a digit is not much smaller than the largest connected part. The rectangles around the strokes of
    one digit overlap or nearly touch.
    """
    parts = _connected(ink > 0)
    places = np.nonzero(parts)
    numbers = parts[places]
    masses = np.bincount(numbers)
    first, last = (np.zeros((2, len(masses)), np.int64) for _ in range(2))
    for axis in (0, 1):
        first[axis] = parts.shape[axis]
        np.minimum.at(first[axis], numbers, places[axis])
        np.maximum.at(last[axis], numbers, places[axis])
    heights = np.where(masses >= _HEAVY * masses.max(), last[0] - first[0] + 1, 0)
    room = round(_ROOM * heights.max() / 2)
    taken = np.zeros(parts.shape, np.bool_)
    for number in np.flatnonzero(heights >= _TALL * heights.max()):
        (top, left), (bottom, right) = first[:, number] - room, last[:, number] + room + 1
        taken[max(0, top) : bottom, max(0, left) : right] = True
    count = int(_connected(taken).max())
    rows, columns = (np.flatnonzero(taken.any(axis=axis)) for axis in (1, 0))
    one_above_other = len(columns) == columns[-1] - columns[0] + 1
    if count == 2 and one_above_other:
        return len(rows) >= 2 * len(columns)  # otherwise it is one digit with a gap in its line
    return count > 1


def thicken(ink: Values) -> Values:
    """The ink of a digit that fills ``ink``; a line thinner than MNIST's thin lines is made as thick as they are.

    The result is then a little larger on all sides.
    """
    inked = np.pad(ink >= 0.5, 1).astype(np.float32)
    inside = -_highest(-inked, 1)
    area = float(inked.sum())
    # The edge of a long line has two sides; its pixels, like MNIST's, are counted by the digit's longer side of 20.
    thickness = 2 * area / max(1.0, area - float(inside.sum())) * 20 / max(ink.shape)
    reach = round((_THIN - thickness) / 2 * max(ink.shape) / 20) if thickness < _THIN else 0
    return _highest(np.pad(ink, 2 * reach), reach)


def _paper(level: Values) -> Values:
    """The level of the paper, even under the ink: a morphological closing, which fills what is dark and narrow."""
    small = scale_to(level, 64)
    reach = max(small.shape) // 6
    padded = np.pad(_with_margin(small, 2 * reach), 2 * reach - 1, mode="edge")
    closed = -_highest(-_highest(padded, reach), reach)
    size = (level.shape[1], level.shape[0])
    large = Image.fromarray(_blur(closed, reach / 3)).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(large, np.float32)


def _with_margin(level: Values, reach: int) -> Values:
    """One more pixel on each side: the edge, without the short dark runs where a stroke reaches it."""
    wider = np.pad(level, 1, mode="edge")
    for edge in (wider[0], wider[-1], wider[:, 0], wider[:, -1]):
        padded = np.pad(edge, 2 * reach, mode="edge")
        edge[:] = -_windows(-_windows(padded, reach, 0).max(axis=-1), reach, 0).max(axis=-1)
    return wider


def _windows(values: Values, reach: int, axis: int) -> Values:
    """For each place, along a new axis, the values within ``reach`` of it along ``axis``; the margin is used up."""
    return np.lib.stride_tricks.sliding_window_view(values, 2 * reach + 1, axis)


def _highest(values: Values, reach: int) -> Values:
    """The highest value within ``reach`` of each place; the margin is used up."""
    return _windows(_windows(values, reach, 0).max(axis=-1), reach, 1).max(axis=-1)


def _blur(values: Values, deviation: float) -> Values:
    """A Gaussian blur."""
    reach = round(3 * deviation)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(deviation, 1e-9)) ** 2).astype(np.float32)
    weights /= weights.sum()
    padded = np.pad(values, reach, mode="edge")
    return _windows(_windows(padded, reach, 0) @ weights, reach, 1) @ weights


def scale_to(values: NDArray[Any], side: int) -> NDArray[Any]:
    """A picture (height, width) with its longer side scaled to ``side`` pixels; uint8 or float32, like ``values``."""
    scale = side / max(values.shape)
    height, width = (max(1, round(length * scale)) for length in values.shape)
    filtered = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(values).resize((width, height), filtered))


def _otsu(values: Values) -> float:
    """The threshold that splits ``values``, 0 to 1, best (N. Otsu, A Threshold Selection Method, 1979)."""
    counts, edges = np.histogram(values, 256, (0, 1))
    below = counts.cumsum()[:-1]
    above = values.size - below
    sums = (counts * edges[:-1]).cumsum()
    between = (sums[-1] * below - sums[:-1] * values.size) ** 2 / np.maximum(below * above, 1)
    return float(edges[1 + int(between.argmax())])


def _without_specks(swallowed: Values, dark: Mask) -> Mask:
    """The connected parts of ``dark`` that are neither small nor come in from outside the picture."""
    parts = _connected(dark)
    mass = np.bincount(parts.ravel(), swallowed.ravel())
    mass[0] = 0
    inside = mass.copy()
    inside[np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])] = 0
    if inside.max() > 0.2 * mass.max():
        mass = inside
    return (mass >= _SPECK * mass.max())[parts] & dark


def _connected(mask: Mask) -> NDArray[np.int64]:
    """Number the connected parts of ``mask``, neighbours at corners too, from 1; 0 where it is False."""
    height, width = mask.shape
    changes = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(changes == 1)  # each run of pixels in a row
    ends = np.nonzero(changes == -1)[1]
    # All rows are put on one line with gaps between them, so the runs above that touch a run are next to each other.
    above = (rows - 1) * (width + 2)
    keys = rows * (width + 2)
    first = np.searchsorted(keys + ends, above + starts)
    last = np.searchsorted(keys + starts, above + ends, side="right")
    counts = np.maximum(last - first, 0)
    upper = np.repeat(first - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
    lower = np.repeat(np.arange(len(rows)), counts)
    number = np.arange(len(rows))
    while True:  # each run takes the lowest number of its neighbours, and that of the run that it got its number from
        before = number.copy()
        lowest = np.minimum(number[upper], number[lower])
        np.minimum.at(number, upper, lowest)
        np.minimum.at(number, lower, lowest)
        number = number[number]
        if (number == before).all():
            break
    labels = np.zeros((height, width + 1), np.int64)
    number = np.unique(number, return_inverse=True)[1] + 1
    labels[rows, starts] += number
    labels[rows, ends] -= number
    return labels.cumsum(axis=1)[:, :-1]
