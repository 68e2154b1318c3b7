"""Pictures in requests: PNG, JPEG and BMP files, brought to what the network takes as ``predict`` brings them."""

import binascii
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cnn_trainer.errors import DataError
from cnn_trainer.pictures import like_mnist
from cnn_trainer.runs.records import DataRecord
from cnn_trainer.serve.limits import RefusedError

MAX_PIXELS: Final = 2**24
"""Of all pictures of a request together: a small file can hold very many."""


def decode_base64(text: object, where: str) -> bytes:
    """The bytes that ``text`` stands for. Raises RefusedError naming ``where``."""
    if isinstance(text, str):
        try:
            return binascii.a2b_base64(text, strict_mode=True)
        except ValueError:  # no base64, or not even ASCII
            pass
    raise RefusedError(400, f"{where}: expected the file of a picture in base64")


def read_pictures(files: Sequence[bytes], data: DataRecord, places: Sequence[str]) -> NDArray[np.uint8]:
    """Files of pictures as images for a network that was trained on ``data``.

    Args:
        files: the contents, one or more.
        data: says whether a picture is made like MNIST, or resized.
        places: where each of them stood, for messages.

    Returns:
        uint8 (images, height, width, channels).

    Raises:
        RefusedError: for the first that is no picture or shows nothing, and for more than MAX_PIXELS in all.
    """
    height, width, channels = data.image_shape
    pixels_left = MAX_PIXELS - len(files) * height * width * channels
    if pixels_left <= 0:
        raise RefusedError(400, f"{len(files)} images of {height}x{width}x{channels} are too many for one request")
    images = np.empty((len(files), height, width, channels), np.uint8)
    for number, (content, place) in enumerate(zip(files, places, strict=True)):
        try:
            picture = like_mnist.decode(content, place, like_mnist.color_of(data), pixels_left)
            pixels_left -= picture.size
            images[number] = like_mnist.fit(picture, (height, width, channels), like_mnist.prepares(data))
        except DataError as error:
            words = str(error)
            raise RefusedError(400, words if words.startswith(place) else f"{place}: {words}") from None
    return images


def read_drawing(content: bytes, data: DataRecord) -> NDArray[np.uint8]:
    """A picture of strokes, light on black and nothing else, as an image: uint8 (1, 28, 28, 1).

    Raises:
        RefusedError: where it is no picture, or blank.
    """
    try:
        picture = like_mnist.decode(content, "drawing", "grey", MAX_PIXELS)
        return like_mnist.place_drawing(picture).reshape(1, *data.image_shape)
    except DataError as error:
        raise RefusedError(400, str(error)) from None
