"""Makes real pictures like the images that a run was trained on: decodes them, and makes them like MNIST if that fits.

MNIST's makers scaled black and white scans of digits to 20x20 pixels, with aspect ratio kept and anti-aliased edges,
and moved the centre of mass to the middle of 28x28 (Y. LeCun, C. Cortes, C. Burges, The MNIST database). ``like_mnist``
does the same with a photograph, but has to find its ink first.
"""

import math
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnn_trainer.data.pictures import decode_picture as decode
from cnn_trainer.data.pictures import resize_picture
from cnn_trainer.errors import DataError
from cnn_trainer.pictures.ink import Values, find_ink, find_sheet, is_light_on_dark, is_of_several, scale_to, thicken
from cnn_trainer.runs.records import DataRecord

__all__ = ["color_of", "decode", "fit", "like_mnist", "place_drawing", "prepares"]

Grey = NDArray[np.uint8]

_SIDE: Final = 28
_BOX: Final = 20
_NOT_DRAWN: Final = frozenset({"fashion-mnist", "folder"})
_OFF_CENTRE: Final = 1.2  # pixels from the middle to the centre of mass; in MNIST's images it is less

_LOOK: Final = 192  # longer side, in pixels, of the picture in which ink is searched for
_MARGIN: Final = 0.4  # of the ink's longer side: the margin around it for the closer look


def color_of(data: DataRecord) -> Literal["grey", "rgb"]:
    """The colours that ``decode`` converts a picture to for a run on ``data``."""
    return "grey" if data.image_shape[2] == 1 else "rgb"


def prepares(data: DataRecord) -> bool:
    """Whether pictures for a run on ``data`` are made like MNIST by default.

    They are for MNIST, for other handwriting like it, and for arrays of its shape. A folder's pictures were only
    resized before training, and clothes do not fill the image as digits do.
    """
    return data.source not in _NOT_DRAWN and data.image_shape == [_SIDE, _SIDE, 1]


def fit(picture: Grey, image_shape: tuple[int, int, int], prepare: bool) -> Grey:
    """Bring a decoded picture to the shape that a network takes.

    Args:
        picture: uint8 (height, width) or (height, width, 3), of any size.
        image_shape: Height, width and channels of the network's images.
        prepare: Make the picture like MNIST, unless it already is; only if ``image_shape`` is (28, 28, 1). Otherwise
            the picture is resized to the shape, like pictures in a folder of training data.

    Returns:
        uint8 ``image_shape``.

    Raises:
        DataError: if a picture to be prepared shows no digit, or several; the message does not name the picture.
    """
    if prepare and not _is_like_mnist(picture):
        return like_mnist(picture).reshape(image_shape)
    return resize_picture(picture, image_shape)


def _is_like_mnist(picture: Grey) -> bool:
    """Whether it is 28x28 with a black frame, and its content is as large and as centred as in MNIST, or larger.

    In every image of MNIST, the longer side of what is lighter than 16 of 255 is 19 or 20 pixels, and the centre of
    mass lies between 13.4 and 14.6. Content that fills more of the image is of another kind, such as clothes.
    """
    if picture.shape != (_SIDE, _SIDE):
        return False
    frame = np.concatenate([picture[0], picture[-1], picture[1:-1, 0], picture[1:-1, -1]])
    reached = [np.flatnonzero(picture.max(axis=axis) > 16) for axis in (1, 0)]
    if np.median(frame) > 16 or not len(reached[0]):
        return False
    longer = max(int(places[-1] - places[0]) + 1 for places in reached)
    centred = all(abs(center - _SIDE / 2) < _OFF_CENTRE for center in _center(picture.astype(np.float32)))
    return longer > _BOX + 2 or (longer >= _BOX - 2 and centred)


def like_mnist(picture: Grey) -> Grey:
    """Make a picture of one digit like MNIST's images: light on dark, its longer side 20 pixels, centred by mass.

    Args:
        picture: uint8 (height, width) of any size, dark on light or light on dark, of a digit with some room around it.

    Returns:
        uint8 (28, 28).

    Raises:
        DataError: if nothing stands out from the background, or if there are several digits.
    """
    rough = scale_to(picture, _LOOK)
    sheet = find_sheet(rough)
    if sheet != tuple(slice(0, length) for length in rough.shape):
        picture = _cut(picture, rough, sheet, 0)
        rough = scale_to(picture, _LOOK)
    if is_light_on_dark(rough):
        picture, rough = 255 - picture, 255 - rough
    # A second, closer look: a digit that is small in the picture has all its pixels here, and its own background.
    found = find_ink(rough)
    if is_of_several(found):
        raise DataError("shows several digits", remedy="cut out one of them")
    inked = _extent(found)
    margin = _MARGIN * max(side.stop - side.start for side in inked) + 2
    ink = find_ink(scale_to(_cut(picture, rough, inked, margin), _LOOK))
    return _place(thicken(ink[_extent(ink)]))


def place_drawing(picture: Grey) -> Grey:
    """Make a drawing like MNIST's images, as ``like_mnist`` does for pictures whose ink has to be found.

    Args:
        picture: uint8 (height, width) of any size, strokes of 255 on 0 with smoothed edges, and nothing else.

    Returns:
        uint8 (28, 28).

    Raises:
        DataError: if there is no stroke.
    """
    ink: Values = picture.astype(np.float32) / np.float32(255)
    if ink.max() < 0.5:
        raise DataError("the drawing is blank", remedy="draw a digit")
    return _place(ink[_extent(ink)])


def _cut(picture: Grey, rough: Grey, part: tuple[slice, slice], margin: float) -> Grey:
    """What ``picture`` shows in ``part`` and a margin; both are in pixels of ``rough``, a smaller ``picture``."""
    scale = picture.shape[0] / rough.shape[0]
    rows, columns = (
        slice(max(0, int((side.start - margin) * scale)), math.ceil((side.stop + margin) * scale)) for side in part
    )
    return picture[rows, columns]


def _extent(ink: Values) -> tuple[slice, slice]:
    """The rows and the columns that ink reaches."""
    reached = (np.flatnonzero(ink.max(axis=axis) >= 0.5) for axis in (1, 0))
    rows, columns = (slice(int(places[0]), int(places[-1]) + 1) for places in reached)
    return rows, columns


def _place(ink: Values) -> Grey:
    """Scale ink that touches all four sides to 20x20, and put its centre of mass in the middle of 28x28."""
    scale = _BOX / max(ink.shape)
    height, width = (max(1, round(length * scale)) for length in ink.shape)
    small = np.asarray(Image.fromarray(ink).resize((width, height), Image.Resampling.BOX), np.float32)
    small = (small / small.max()).clip(0, 1)
    placed = np.zeros((_SIDE, _SIDE), np.uint8)
    spot = []
    for center, length in zip(_center(small), small.shape, strict=True):
        start = min(max(0, round(_SIDE / 2 - center)), _SIDE - length)
        spot.append(slice(start, start + length))
    placed[tuple(spot)] = (small * 255).round()
    return placed


def _center(values: Values) -> list[float]:
    """The row and the column of the centre of mass, from 0; MNIST's own lie between 13.4 and 14.6."""
    total = values.sum()
    return [
        float((values.sum(axis=1 - axis) * np.arange(length)).sum() / total) for axis, length in enumerate(values.shape)
    ]
