"""The body of a request: strict JSON, and images as nested lists of pixels.

Every fault in a body is a RefusedError with status 400.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request

from cnn_trainer.serve.limits import RefusedError

_Batch = NDArray[np.uint8]

MAX_IMAGES = 1024

_MAX_REST_BYTES = 300  # around an array of images; the keys of a request take less
_DIGITS = b"0123456789"
_NUM_DIGITS = np.array([len(str(value)) if value < 256 else -1 for value in range(1000)])


def check_media_type(request: Request, known: Sequence[str]) -> str:
    """The media type of a body, which must be one of ``known``; an empty string there allows a missing type."""
    headers = dict(request.scope["headers"])
    given = headers[b"content-type"].decode("latin-1") if b"content-type" in headers else ""
    media_type = given.partition(";")[0].strip().lower()
    if media_type not in known:
        raise RefusedError(
            415, f"content-type: got {given[:60] or 'none'}; expected {' or '.join(filter(None, known))}"
        )
    return media_type


def parse_object(body: bytes, image_shape: Sequence[int] | None = None) -> dict[str, Any]:
    """Parse a body as a JSON object.

    If ``image_shape`` (height, width and channels) is given, and an array of such images makes up nearly all of the
    body, it is read without creating an object for each pixel, which is several times as fast. Its value is then uint8
    (images, height, width, channels). If it is wrong, or not written as programs write it, its value is lists.

    Raises RefusedError if the body is not a JSON object, repeats a key, contains NaN or infinity, or is nested too
    deeply.
    """
    if image_shape is not None and (quick := _parse_quickly(body, tuple(image_shape))) is not None:
        return quick
    try:
        value = json.loads(body.decode(), parse_constant=_refuse_constant, object_pairs_hook=_mapping)
    except UnicodeDecodeError:
        raise RefusedError(400, "the body is not valid JSON: not UTF-8 text") from None
    except ValueError as error:
        raise RefusedError(400, f"the body is not valid JSON: {str(error)[:200]}") from None
    except RecursionError:
        raise RefusedError(400, "the body is not valid JSON: nested too deeply") from None
    if not isinstance(value, dict):
        raise RefusedError(400, "the body must be a JSON object")
    return value


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is not a valid JSON number")


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise ValueError("an object repeats a key")
    return mapping


def _parse_quickly(body: bytes, image_shape: tuple[int, ...]) -> dict[str, Any] | None:
    """The object with its one array as uint8, or None if it holds anything else."""
    start, end = body.find(b"["), body.rfind(b"]") + 1
    if not 0 <= start < end or (rest := _parse_rest(body[:start] + b"NaN" + body[end:])) is None:
        return None
    images = _read_canonical(body[start:end], image_shape)
    return None if images is None else {**rest[0], rest[1]: images}


@lru_cache(maxsize=8)
def _parse_rest(text: bytes) -> tuple[dict[str, Any], str] | None:
    """An object with NaN, which is not JSON, instead of its array, and the key. None if it holds anything else."""
    words: list[str] = []
    try:
        mapping = json.loads(text[:_MAX_REST_BYTES].decode(), parse_constant=words.append, object_pairs_hook=_mapping)
    except (ValueError, RecursionError):
        return None
    keys = [key for key, value in mapping.items() if value is None] if isinstance(mapping, dict) else []
    return (mapping, keys[0]) if len(keys) == 1 and words == ["NaN"] else None


def _read_canonical(text: bytes, image_shape: tuple[int, ...]) -> _Batch | None:
    """Parse ``text`` as an array, or return None if it is not what ``json.dumps`` writes, with or without spaces.

    Nothing else is accepted: apart from its digits, the text equals that of such an array; there are digits exactly
    where the numbers are; and each number is from 0 to 255.
    """
    # Calling ``int`` on each number and comparing with the text written again takes three times as long (2026-11-25).
    comma = b", " if b", " in text[:100] else b","
    rest = text.translate(None, _DIGITS)
    count = (len(rest) + len(comma) - 2) // (len(_frame(1, image_shape, comma)[0]) + len(comma) - 2)
    expected, places = _frame(count, image_shape, comma)
    if rest != expected:
        return None
    digits = np.frombuffer(text, np.uint8).astype(np.int16) - ord("0")
    others = np.flatnonzero((digits < 0) | (digits > 9))
    ends = others[places]
    lengths = ends - others[places - 1] - 1
    values = digits[ends - 1] + 10 * digits[ends - 2] * (lengths > 1) + 100 * digits[ends - 3] * (lengths > 2)
    if not np.array_equal(_NUM_DIGITS[values], lengths) or len(text) - len(others) != lengths.sum():
        return None
    return values.astype(np.uint8).reshape(count, *image_shape)


@lru_cache(maxsize=4)
def _frame(count: int, image_shape: tuple[int, ...], comma: bytes) -> tuple[bytes, NDArray[np.intp]]:
    """The text of an array of ``count`` images without its numbers, and the offsets at which numbers end."""
    text = b"0"
    for size in (*reversed(image_shape), count):
        text = b"[" + comma.join([text] * size) + b"]"
    numbers = np.flatnonzero(np.frombuffer(text, np.uint8) == ord("0"))
    return text.replace(b"0", b""), numbers - np.arange(len(numbers))


def check_count(count: int, where: str) -> None:
    """Refuse an empty batch and one of more than ``MAX_IMAGES`` images."""
    if not 1 <= count <= MAX_IMAGES:
        raise RefusedError(400, f"{where}: {count} images; send 1 to {MAX_IMAGES} in a request")


def to_images(value: object, image_shape: Sequence[int], where: str) -> _Batch:
    """Nested lists as uint8 (images, height, width, channels). Raises RefusedError with ``where`` and the fault."""
    if isinstance(value, np.ndarray):
        return value
    if type(value) is not list:
        raise RefusedError(400, f"{where}: expected a list of images, each {_words(image_shape)}")
    check_count(len(value), where)
    values = value
    for size in image_shape:
        if set(map(type, values)) != {list} or set(map(len, values)) != {size}:
            raise RefusedError(400, f"{where}: expected images of {_words(image_shape)}, as nested lists")
        values = list(chain.from_iterable(values))
    return to_pixels(values, where).reshape(-1, *image_shape)


def _words(image_shape: Sequence[int]) -> str:
    return f"shape [{', '.join(map(str, image_shape))}] (height, width, channels)"


def to_pixels(values: list[Any], where: str) -> _Batch:
    """A flat list as uint8. Raises RefusedError with ``where`` and the first value that is not a pixel."""
    try:
        if set(map(type, values)) == {int}:
            return np.frombuffer(bytes(values), np.uint8)
    except ValueError:  # not from 0 to 255
        pass
    for value in values:
        if type(value) not in (int, float) or not 0 <= value <= 255 or value != int(value):
            shown = json.dumps(value)[:40]
            raise RefusedError(400, f"{where}: pixels are whole numbers from 0 to 255, got {shown}")
    return np.array(values, np.uint8)


def format_rows(rows: NDArray[np.float32]) -> str:
    """Finite float32 (rows, columns) as JSON: a list of lists, each number with the 9 digits that identify a float32.

    Twice as fast as ``json.dumps``, which writes the 17 digits of a float64.
    """
    row = f"[{', '.join(['%.9g'] * rows.shape[1])}]"
    return f"[{', '.join(row % tuple(values) for values in rows.tolist())}]"
