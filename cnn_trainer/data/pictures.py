"""Reads picture files in the usual formats: decodes them within limits, and resizes them."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from cnn_trainer.data import arrays
from cnn_trainer.data.splits import Images
from cnn_trainer.errors import DataError

Color = Literal["grey", "rgb"]

MAX_PICTURE_BYTES = 128 * 2**20
MAX_PICTURE_PIXELS = 50_000_000
MAX_JPEG_PIXELS = 170_000_000
"""For a JPEG, which can be made smaller while it is read; enough for the largest photographs of most phones."""

FORMATS = "PNG, JPEG, WebP, TIFF, GIF or BMP"
_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP")
_MAX_NAMED = 20  # broken pictures in one message
CHANNELS: dict[Color, int] = {"grey": 1, "rgb": 3}


class TooManyPixelsError(DataError):
    """A picture has more pixels than are allowed; none of them was read."""


class BrokenPicturesError(DataError):
    """One or more pictures cannot be read; ``lines`` names the first 20 and says what is wrong with each.

    Attributes:
        broken: the fault of each picture, one or more.
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
        """A line for each picture, at most 20, and how many more there are."""
        lines = [str(error) for error in self.broken[:_MAX_NAMED]]
        if (more := len(self.broken) - _MAX_NAMED) > 0:
            lines.append(f"{len(self.broken)} pictures cannot be read, of which {more} are not named")
        return lines


def read_picture(path: Path, image_size: int, color: Color) -> Images:
    """One picture: uint8 (image_size, image_size, 1 or 3). Raises DataError as ``decode_picture`` does."""
    picture = decode_picture(read_picture_file(path), str(path), color)
    return resize_picture(picture, (image_size, image_size, CHANNELS[color]))


def read_picture_file(path: Path) -> bytes:
    """The content of a file that should be a picture. Raises DataError if there is no such file or it is too large."""
    with arrays.open_file(path, f"a picture ({FORMATS})") as (file, size):
        _check_bytes(str(path), size)
        return file.read(MAX_PICTURE_BYTES)


def _check_bytes(name: str, size: int) -> None:
    if size > MAX_PICTURE_BYTES:
        raise DataError(f"is {size} bytes; at most {MAX_PICTURE_BYTES}", place=name, remedy="make it smaller")


def decode_picture(
    content: bytes, name: str, color: Color, max_pixels: int = MAX_PICTURE_PIXELS, pixels_left: int | None = None
) -> Images:
    """The picture in the content of a PNG, JPEG, WebP, TIFF, GIF or BMP file; the first one if there are several.

    Args:
        content: the content of the file.
        name: the name of the file, for messages.
        color: what the picture is converted to.
        max_pixels: a JPEG with more is read at half or a quarter of its width and height.
        pixels_left: how many pixels there may be; None for ``max_pixels``. Checked before any of them is read.

    Returns:
        uint8 (height, width) in grey, (height, width, 3) in rgb; upright, and on white if it is transparent. 16-bit
        values keep their upper 8 bits.

    Raises:
        TooManyPixelsError: if there are more pixels than allowed, or more than eight times ``max_pixels`` or
            MAX_JPEG_PIXELS in a JPEG.
        DataError: if the content is broken, in another format or too large, or if its pixels have 32-bit values.
    """
    _check_bytes(name, len(content))
    # Pillow's decoders raise many kinds of errors for a broken file, which are not documented. They warn of harmless
    # flaws, and of sizes that are checked here.
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(content), formats=_FORMATS) as picture:
            _fit(picture, name, color, max_pixels, max_pixels if pixels_left is None else pixels_left)
            if picture.mode in ("I", "F"):
                problem = "has 32 bits in the value of a pixel"
                raise DataError(problem, place=name, remedy="save it with 8 or 16 bits")
            return np.asarray(_convert(picture, color), np.uint8)
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(f"is not a {FORMATS} file", place=name, remedy="remove or convert it") from None
    except Image.DecompressionBombError:
        remedy = f"at most {max_pixels}, or {MAX_JPEG_PIXELS} in a JPEG"
        raise TooManyPixelsError("has too many pixels", place=name, remedy=remedy) from None
    except Exception as error:
        problem = f"broken picture: {str(error) or type(error).__name__}"
        raise DataError(problem, place=name, remedy="remove it or get it again") from None


def _fit(picture: Image.Image, name: str, color: Color, max_pixels: int, pixels_left: int) -> None:
    """Read a JPEG with more than ``max_pixels`` smaller. Raises TooManyPixelsError as ``decode_picture`` does."""
    width, height = picture.size
    problem = f"has {width}x{height} pixels"
    # A progressive JPEG has to be in memory as a whole, however small it is read.
    is_reducible = isinstance(picture, JpegImageFile) and "progressive" not in picture.info
    remedy = "make it smaller" if is_reducible else "make it smaller, or save it as a JPEG that is not progressive"
    if is_reducible and width * height > max_pixels:
        most = min(MAX_JPEG_PIXELS, 8 * max_pixels)
        if width * height > most:
            raise TooManyPixelsError(f"{problem}; at most {most}", place=name, remedy=remedy)
        scale = 2 if -(-width // 2) * -(-height // 2) <= max_pixels else 4
        picture.draft("L" if color == "grey" else None, (width // scale, height // scale))
        problem += f", {picture.width}x{picture.height} when read smaller"
    if picture.width * picture.height > pixels_left:
        raise TooManyPixelsError(f"{problem}; at most {pixels_left}", place=name, remedy=remedy)


def _convert(picture: Image.Image, color: Color) -> Image.Image:
    upright = picture
    ImageOps.exif_transpose(upright, in_place=True)
    if upright.mode.startswith("I"):  # Pillow's own conversion from 16 bits cuts off at 255
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    if upright.has_transparency_data:
        layer = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return upright.convert("L" if color == "grey" else "RGB")


def resize_picture(picture: Images, image_shape: tuple[int, int, int]) -> Images:
    """A decoded picture, resized to ``image_shape``: uint8 (height, width, channels)."""
    height, width, _ = image_shape
    resized = Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(resized, np.uint8).reshape(image_shape)
