"""One PNG with all the images that a page shows, each of them once, and the parts of it as SVG, without any script."""

import base64
import io

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from cnn_trainer.report.page import fill

MAX_SIDE = 64
"""Larger images are made smaller by the whole factor that brings both sides to this many pixels or fewer."""
_COLUMNS = 32
_MAX_IMAGES = 1000
_MAX_PNG_BYTES = 400_000
_SAMPLES = 64  # images whose size as a PNG tells how many fit


class Sprite:
    """Collects images in the order in which they are first shown.

    Args:
        images: uint8 (examples, height, width, channels), with 1 or 3 channels.
    """

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._images = images
        self._shown: dict[int, int] = {}  # the place of each index in the PNG
        height, width = images.shape[1:3]
        self.factor = -(-max(height, width) // MAX_SIDE)
        """How many pixels of an image become one, in each direction."""
        self.height, self.width = -(-height // self.factor), -(-width // self.factor)

    def capacity(self) -> int:
        """About how many images a page of reasonable size can show, judging by some of them."""
        samples = range(0, len(self._images), -(-len(self._images) // _SAMPLES))
        num_bytes = len(self._png(list(samples)))
        return min(_MAX_IMAGES, _MAX_PNG_BYTES * len(samples) // num_bytes)

    def view_box(self, index: int) -> str:
        """Where the image of an example is in the PNG, as an SVG viewBox; from now on, it is part of the PNG."""
        row, column = divmod(self._shown.setdefault(index, len(self._shown)), _COLUMNS)
        return f"{column * self.width} {row * self.height} {self.width} {self.height}"

    def html(self) -> Markup:
        """The hidden SVG image with the id ``sprite``, of which the page shows parts; nothing if it shows none."""
        if not self._shown:
            return Markup()
        rows = -(-len(self._shown) // _COLUMNS)
        data = base64.b64encode(self._png(list(self._shown))).decode()
        return fill("sprite.html", width=_COLUMNS * self.width, height=rows * self.height, data=data)

    def _png(self, indexes: list[int]) -> bytes:
        height, width, channels = self.height, self.width, self._images.shape[3]
        rows = -(-len(indexes) // _COLUMNS)
        sheet = np.zeros((rows * height, _COLUMNS * width, channels), np.uint8)
        for place, index in enumerate(indexes):
            top, left = (part * side for part, side in zip(divmod(place, _COLUMNS), (height, width), strict=True))
            sheet[top : top + height, left : left + width] = self._small(index)
        return png_bytes(Image.fromarray(sheet if channels == 3 else sheet[..., 0]))

    def _small(self, index: int) -> NDArray[np.uint8]:
        image = self._images[index]
        if self.factor == 1:
            return image
        picture = Image.fromarray(image if image.shape[2] == 3 else image[..., 0])
        return np.asarray(picture.reduce(self.factor)).reshape(self.height, self.width, -1)


def png_bytes(picture: Image.Image) -> bytes:
    """A picture as a PNG file; equal pictures give equal bytes."""
    file = io.BytesIO()
    picture.save(file, "PNG")  # optimize=True makes it 3 % smaller and takes ten times as long
    return file.getvalue()
