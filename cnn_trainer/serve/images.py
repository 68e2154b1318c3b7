"""Pictures in requests: files of the usual formats, brought to what the network takes as ``predict`` brings them."""

import base64
import binascii
import io
import re
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from python_multipart import FormParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import File, parse_options_header

from cnn_trainer.data.pictures import TooManyPixelsError
from cnn_trainer.errors import DataError
from cnn_trainer.pictures import like_mnist
from cnn_trainer.runs.records import DataRecord
from cnn_trainer.serve.limits import RefusedError

MAX_PIXELS: Final = 2**24
"""For all pictures of a request together: a small file can decode to very many. A JPEG with more is read smaller."""

_DATA_URL = re.compile(r"data:[^,]{0,100};base64,", re.IGNORECASE)
_URL_SAFE = str.maketrans("-_", "+/", " \t\r\n=")


def decode_base64(text: object, where: str) -> bytes:
    """Decode base64 (ordinary or URL-safe alphabet, with or without padding and line breaks) or a ``data:`` URL.

    Raises RefusedError with ``where`` for anything else.
    """
    if isinstance(text, str):
        start = _DATA_URL.match(text)
        digits = text[start.end() if start else 0 :].translate(_URL_SAFE)
        try:
            return binascii.a2b_base64(digits + "=" * (-len(digits) % 4), strict_mode=True)
        except ValueError:  # not base64, or not even ASCII: refused below, like anything that is not text
            pass
    raise RefusedError(400, f"{where}: expected a picture file in base64")


def read_form(body: bytes, content_type: str) -> tuple[list[bytes], list[str]]:
    """The files in a form, as ``curl -F file=@7.png`` sends it: their contents, and their places for messages.

    ``content_type`` is ``multipart/form-data; boundary=...``. Raises RefusedError if the body is not such a form or
    has no complete file in it.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise RefusedError(400, "content-type: multipart/form-data needs a boundary; let curl -F write the header")
    found: list[File] = []
    in_memory = {"MAX_MEMORY_FILE_SIZE": len(body)}
    try:
        parser = FormParser("multipart/form-data", None, found.append, boundary=boundary, config=in_memory)
        parser.write(body)
        parser.finalize()
    except FormParserError:
        raise RefusedError(400, "the body is not valid multipart/form-data; let curl -F write it") from None
    if not found:
        raise RefusedError(400, "the form has no complete file; send one with: curl -F file=@7.png")
    for file in found:
        file.file_object.seek(0)
    return [file.file_object.read() for file in found], [f"form[{number}]" for number in range(len(found))]


def read_picture_files(files: Iterable[bytes], data: DataRecord, places: Sequence[str]) -> NDArray[np.uint8]:
    """The contents of files as images for a network that was trained on ``data``: uint8 (n, height, width, channels).

    Each is made like MNIST or resized, as ``data`` asks. ``places`` has an entry for each file. Raises RefusedError
    with the place of the first file that is not a picture or shows nothing, and for more than MAX_PIXELS in all.
    """
    height, width, channels = data.image_shape
    pixels_left = MAX_PIXELS - len(places) * height * width
    if pixels_left <= 0:
        raise RefusedError(400, f"{len(places)} images of {height}x{width}x{channels} are too many for one request")
    images = np.empty((len(places), height, width, channels), np.uint8)
    for number, (content, place) in enumerate(zip(files, places, strict=True)):
        try:
            picture = like_mnist.decode(content, place, like_mnist.color_of(data), MAX_PIXELS, pixels_left)
            pixels_left -= picture.shape[0] * picture.shape[1]
            images[number] = like_mnist.fit(picture, (height, width, channels), like_mnist.prepares(data))
        except TooManyPixelsError as error:
            together = f"all pictures of a request together may have {MAX_PIXELS}"
            raise RefusedError(400, f"{error.at(place)}; {together}") from None
        except DataError as error:
            raise RefusedError(400, str(error.at(place))) from None
    return images


def read_drawing(content: bytes, data: DataRecord) -> NDArray[np.uint8]:
    """A drawing of light strokes on black as uint8 (1, 28, 28, 1). Raises RefusedError if there are no strokes."""
    try:
        picture = like_mnist.decode(content, "drawing", "grey", MAX_PIXELS)
        return like_mnist.place_drawing(picture).reshape(1, *data.image_shape)
    except DataError as error:
        raise RefusedError(400, str(error)) from None


def as_png(image: NDArray[np.uint8]) -> bytes:
    """A network's image, uint8 (height, width, 1 or 3), as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(file, "PNG", compress_level=1)
    return file.getvalue()


def example_picture(shape: tuple[int, int, int]) -> str:
    """An example picture of (height, width, channels) in base64: an upright stroke."""
    height, width, _ = shape
    image = np.zeros(shape, np.uint8)
    image[height // 4 : height - height // 4, width // 2 - width // 8 : width // 2 + max(1, width // 8)] = 255
    return base64.b64encode(as_png(image)).decode()
