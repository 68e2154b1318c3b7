"""Pictures as people have them: PNG, JPEG and BMP files, decoded within bounds, and resized."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cnn_trainer.data import arrays
from cnn_trainer.data.splits import Images
from cnn_trainer.errors import DataError

Color = Literal["grey", "rgb"]

MAX_PICTURE_BYTES = 32 * 2**20
MAX_PICTURE_PIXELS = 50_000_000
_FORMATS = ("PNG", "JPEG", "BMP")
_MAX_NAMED = 20  # broken pictures in one message
CHANNELS: dict[Color, int] = {"grey": 1, "rgb": 3}


class TooManyPixelsError(DataError):
    """A picture has more pixels than are allowed; none of them was read."""


class BrokenPicturesError(DataError):
    """One picture or more cannot be read; ``lines`` names the first 20, each with what is wrong with it.

    Attributes:
        broken: the failure of each picture, one or more.
    """

    def __init__(self, broken: Sequence[DataError]) -> None:
        self.broken = broken
        if len(broken) == 1:
            super().__init__(broken[0].problem, place=broken[0].place, remedy=broken[0].remedy)
            return
        names = ", ".join(str(error.place) for error in broken[:_MAX_NAMED])
        more = f" and {len(broken) - _MAX_NAMED} more" if len(broken) > _MAX_NAMED else ""
        super().__init__(f"{len(broken)} pictures cannot be read: {names}{more}")

    def lines(self) -> list[str]:
        """A line for each picture, 20 at most, and how many more there are."""
        lines = [str(error) for error in self.broken[:_MAX_NAMED]]
        if (more := len(self.broken) - _MAX_NAMED) > 0:
            lines.append(f"{len(self.broken)} pictures cannot be read, {more} of them not named")
        return lines


def read_picture(path: Path, image_size: int, color: Color) -> Images:
    """One picture: uint8 (image_size, image_size, 1 or 3). Raises DataError as ``decode_picture`` does."""
    picture = decode_picture(read_picture_file(path), str(path), color)
    return resize_picture(picture, (image_size, image_size, CHANNELS[color]))


def read_picture_file(path: Path) -> bytes:
    """The content of a file that should be a picture. Raises DataError if there is none, or it is too large."""
    with arrays.open_file(path, "a picture (PNG, JPEG or BMP)") as (file, size):
        _check_bytes(str(path), size)
        return file.read(MAX_PICTURE_BYTES)


def _check_bytes(name: str, size: int) -> None:
    if size > MAX_PICTURE_BYTES:
        raise DataError(f"is {size} bytes; at most {MAX_PICTURE_BYTES}", place=name, remedy="make it smaller")


def decode_picture(content: bytes, name: str, color: Color, max_pixels: int = MAX_PICTURE_PIXELS) -> Images:
    """The picture in the content of a PNG, JPEG or BMP file.

    Args:
        content: of the file.
        name: of the file, for messages.
        color: what the picture is made.
        max_pixels: checked before any pixel is read.

    Returns:
        uint8 (height, width) in grey, (height, width, 3) in rgb; upright, and on white if it is transparent.

    Raises:
        DataError: if the content is broken, no PNG, JPEG or BMP, or too large.
    """
    _check_bytes(name, len(content))
    # Pillow's decoders raise errors of many kinds for a broken file, and which ones is not documented.
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as picture:
            if picture.width * picture.height > max_pixels:
                found = f"{picture.width}x{picture.height} pixels"
                raise TooManyPixelsError(f"has {found}; at most {max_pixels}", place=name, remedy="make it smaller")
            return np.asarray(_convert(picture, color), np.uint8)
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError("is no PNG, JPEG or BMP", place=name, remedy="remove or convert it") from None
    except Image.DecompressionBombError:
        raise TooManyPixelsError("has too many pixels", place=name, remedy=f"at most {max_pixels}") from None
    except Exception as error:
        problem = f"broken picture: {str(error) or type(error).__name__}"
        raise DataError(problem, place=name, remedy="remove it or get it again") from None


def _convert(picture: Image.Image, color: Color) -> Image.Image:
    upright = ImageOps.exif_transpose(picture)
    if upright.mode.startswith("I"):  # Pillow's own conversion from 16 bits cuts off at 255
        upright = Image.fromarray((np.asarray(upright).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if upright.has_transparency_data:
        layer = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return upright.convert("L" if color == "grey" else "RGB")


def resize_picture(picture: Images, image_shape: tuple[int, int, int]) -> Images:
    """A decoded picture, resized to ``image_shape``: uint8 (height, width, channels)."""
    height, width, _ = image_shape
    resized = Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(resized, np.uint8).reshape(image_shape)
