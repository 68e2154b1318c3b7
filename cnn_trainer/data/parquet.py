"""Images in Parquet files, as on the Hugging Face Hub: a column of pictures, and one of labels.

A picture is the content of a file (PNG and the like), by itself or as ``bytes`` next to its ``path``; or its pixels, as
a list, as nested lists, or with one column per pixel. The package pyarrow reads the files; it is an extra.
"""

import io
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnn_trainer.data import arrays, tables
from cnn_trainer.data.pictures import CHANNELS, BrokenPicturesError, Color, decode_picture, resize_picture
from cnn_trainer.errors import DataError, count
from cnn_trainer.machine import facts

_IMAGE_NAMES = ("image", "img", "images", "picture", "pixels", "pixel_values", "x", "data")
_BATCH_ROWS = 1024


def read_parquet(paths: Sequence[Path], label: str | None, image_size: int | None, color: Color | None) -> tables.Table:
    """All rows of the files of one table, one file after the other.

    Args:
        paths: the files, one or more.
        label: the name of the column of the labels; None: it is searched for.
        image_size: height and width to resize pictures to; None: the size of the first one, which all must have.
        color: what pictures are converted to; None: whatever the first one is.

    Raises:
        BrokenPicturesError: if pictures are broken; it names all broken ones in the table.
        DataError: if the package pyarrow is not installed, a file is missing, broken or too large, or does not hold
            what it should.
    """
    images: NDArray[Any] | None = None
    labels: list[Any] = []
    names: list[str] | None = None
    broken: list[DataError] = []
    done = 0
    with _opened(paths) as files:
        num_rows = sum(file.metadata.num_rows for _, file in files)
        for path, file in files:
            image_columns, label_column, names = _columns(path, file, label)
            for row, values, batch_labels in _batches(path, file, image_columns, label_column):
                try:
                    pixels = _pixels(values, path, row, image_size, color)
                except BrokenPicturesError as error:
                    broken += error.broken
                    continue
                if images is None:
                    color = color or ("grey" if pixels.shape[3] == 1 else "rgb")
                    images = _allocate(path, num_rows, pixels)
                if pixels.shape[1:] != images.shape[1:]:
                    found, wanted = ("x".join(map(str, each.shape[1:])) for each in (pixels, images))
                    problem = f"holds images of {found}, but those before are {wanted}"
                    raise DataError(problem, place=f"{path}: row {row}", remedy="set data.image_size and data.color")
                if pixels.dtype != images.dtype:
                    images = images.astype(np.result_type(images, pixels))
                images[done : done + len(pixels)] = pixels
                labels += batch_labels
                done += len(pixels)
    if broken:
        raise BrokenPicturesError(broken)
    if images is None:
        raise DataError("holds no rows", place=paths[0], remedy="expected one row per image")
    if any(isinstance(value, str) for value in labels):
        return tables.Table(images, [str(value) for value in labels])
    numbers = np.array(labels, np.int64)
    if names and not 0 <= numbers.min() <= numbers.max() < len(names):
        wrong = numbers.min() if numbers.min() < 0 else numbers.max()
        problem = f"holds the label {wrong}, but names {count(len(names), 'class', 'classes')}"
        raise DataError(problem, place=paths[0], remedy=f"expected labels from 0 to {len(names) - 1}")
    return tables.Table(images, numbers, names)


def parquet_has_labels(path: Path, label: str | None) -> bool:
    """Whether a file has a column of labels. Raises DataError if it cannot be read."""
    with _opened([path]) as files:
        names = files[0][1].schema_arrow.names
    return label in names or tables.find_label(names, None, path) is not None


@contextmanager
def _opened(paths: Sequence[Path]) -> Iterator[list[tuple[Path, Any]]]:
    """The open files, with their footers read. What pyarrow raises for a broken file becomes a DataError."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        remedy = f"run: {facts.install_command('pyarrow')}"
        raise DataError("Parquet files need the package pyarrow", place=paths[0], remedy=remedy) from None
    path = paths[0]
    try:
        files = []
        for path in paths:
            with arrays.open_file(path, "a Parquet file"):
                files.append((path, parquet.ParquetFile(path)))
        yield files
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        text = " ".join(str(error).split())[:200]
        raise DataError(f"broken Parquet file: {text}", place=path, remedy="get it again") from None
    finally:
        for _, file in files:
            file.close()


def _columns(path: Path, file: Any, label: str | None) -> tuple[list[str], str, list[str] | None]:
    """The column of the images or those of their pixels, the column of the labels, and the class names, if any."""
    columns = list(file.schema_arrow.names)
    lower = [name.lower() for name in columns]
    shown = ", ".join(columns[:10]) + (", …" if len(columns) > 10 else "")
    image = next(([columns[lower.index(name)]] for name in _IMAGE_NAMES if name in lower), [])
    at = tables.find_label(columns, label, path)
    if not image and at is not None:  # a column for each pixel
        pixels = [
            name for number, name in enumerate(columns) if number != at and lower[number] not in tables.NOT_PIXELS
        ]
        image = pixels if len(pixels) > 1 and tables.is_square(len(pixels)) else []
    if not image or at is None:
        missing = f"images, such as {_IMAGE_NAMES[0]}" if not image else "labels"
        remedy = f"call it {_IMAGE_NAMES[0]}" if not image else "name it in data.label"
        raise DataError(f"has no column of {missing}; it has {shown}", place=path, remedy=remedy)
    for index in range(file.metadata.num_row_groups):
        if (size := file.metadata.row_group(index).total_byte_size) > arrays.MAX_ARRAY_BYTES:
            problem = f"would take {size} bytes of memory; at most {arrays.MAX_ARRAY_BYTES}"
            raise DataError(problem, place=path, remedy="write it in smaller row groups")
    return image, columns[at], _class_names(file.schema_arrow.metadata, columns[at])


def _class_names(metadata: dict[bytes, bytes] | None, column: str) -> list[str] | None:
    """The class names in the metadata that the package datasets writes; None if there are none that can be read."""
    try:
        names = json.loads((metadata or {})[b"huggingface"])["info"]["features"][column]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    is_list = isinstance(names, list) and all(isinstance(name, str) and name.isprintable() for name in names)
    return names if is_list else None


def _batches(path: Path, file: Any, image: list[str], label: str) -> Iterator[tuple[int, list[Any], list[Any]]]:
    """Some rows at a time: the number of the first row, counted from 1, pyarrow's columns of images, and the labels."""
    row = 1
    for batch in file.iter_batches(_BATCH_ROWS, columns=[*image, label]):
        labels = batch.column(label).to_pylist()
        labels = [int(value) if isinstance(value, float) and value.is_integer() else value for value in labels]
        for number, value in enumerate(labels, row):
            place = f"{path}: row {number}"
            if isinstance(value, str):
                tables.check_name(value, place)
            elif not isinstance(value, int) or isinstance(value, bool):
                problem = f"{label} holds {'nothing' if value is None else repr(value)[:40]}"
                raise DataError(problem, place=place, remedy="expected a whole number or a name")
        yield row, [batch.column(name) for name in image], labels
        row += len(labels)


def _pixels(columns: list[Any], path: Path, row: int, image_size: int | None, color: Color | None) -> NDArray[Any]:
    """Images (n, height, width, channels) of some rows: from a struct with bytes, from bytes, lists, or columns."""
    from pyarrow import types

    where = f"{path}: row {row}"
    for column in columns:
        if column.null_count:
            empty = column.is_null().to_pylist().index(True)
            problem = "holds nothing instead of an image" if len(columns) == 1 else "lacks a pixel"
            raise DataError(problem, place=f"{path}: row {row + empty}", remedy="remove the row")
    if len(columns) > 1:
        if wrong := next((column.type for column in columns if not _is_numeric(column.type)), None):
            raise DataError(f"its pixels are {wrong}", place=where, remedy="expected numbers")
        values = np.stack([column.to_numpy(zero_copy_only=False) for column in columns], axis=1)
        return _shaped(values, _shape_of(values.shape[1], where))
    (column,) = columns
    if types.is_struct(column.type):
        if column.type.get_field_index("bytes") < 0:
            raise DataError("its pictures have no bytes", place=where, remedy="expected a column of bytes and path")
        column = column.field("bytes")
    if types.is_binary(column.type) or types.is_large_binary(column.type):
        return _decode(column.to_pylist(), path, row, image_size, color)
    return _from_lists(column, path, row)


def _decode(
    contents: list[bytes | None], path: Path, row: int, image_size: int | None, color: Color | None
) -> NDArray[np.uint8]:
    pictures: list[NDArray[np.uint8]] = []
    broken: list[DataError] = []
    for number, content in enumerate(contents, row):
        place = f"{path}: row {number}"
        if content is None:
            problem = "its picture is in a separate file, not in the table"
            raise DataError(problem, place=place, remedy="write the pictures into the table")
        if color is None:
            color = "grey" if _is_grey(content) else "rgb"
        try:
            picture = decode_picture(content, place, color)
        except DataError as error:
            broken.append(error)
            continue
        shape = (image_size or picture.shape[0], image_size or picture.shape[1], CHANNELS[color])
        if pictures and shape != pictures[0].shape:
            problem = (
                f"is {shape[1]}x{shape[0]} pixels, but those before are {pictures[0].shape[1]}x{pictures[0].shape[0]}"
            )
            raise DataError(problem, place=place, remedy="set data.image_size, to resize all of them")
        pictures.append(resize_picture(picture, shape) if image_size else picture.reshape(shape))
    if broken:
        raise BrokenPicturesError(broken)
    return np.stack(pictures)


def _is_grey(content: bytes) -> bool:
    """Whether a picture has no colours. False if it is not a picture, which ``decode_picture`` then reports."""
    try:
        with Image.open(io.BytesIO(content)) as picture:
            return picture.mode in ("1", "L", "LA", "I", "I;16", "F")
    except Exception:  # as for decode_picture
        return False


def _from_lists(column: Any, path: Path, row: int) -> NDArray[Any]:
    from pyarrow import types

    where = f"{path}: row {row}"
    num_rows = len(column)
    sides: list[int] = []
    while types.is_list(column.type) or types.is_large_list(column.type) or types.is_fixed_size_list(column.type):
        is_fixed = types.is_fixed_size_list(column.type)
        lengths = [column.type.list_size] * len(column) if is_fixed else column.value_lengths().to_pylist()
        if wrong := next((at for at, length in enumerate(lengths) if length != lengths[0]), None):
            problem = f"holds {lengths[wrong]} values in a list of pixels, but those before hold {lengths[0]}"
            place = f"{path}: row {row + wrong // math.prod(sides)}"
            raise DataError(problem, place=place, remedy="make all images the same size")
        sides += lengths[:1]
        column = column.flatten()
    shape = _shape_of(sides[0], where) if len(sides) == 1 else (*sides, 1)[:3]
    is_image = len(sides) in (1, 2, 3) and (shape[2] in (1, 3) or shape[0] in (1, 3))
    if not is_image or not _is_numeric(column.type) or column.null_count:
        problem = f"its images are {'lists of ' * len(sides)}{column.type}"
        raise DataError(problem, place=where, remedy="expected pictures as bytes, or lists of numbers")
    return _shaped(column.to_numpy(zero_copy_only=False).reshape(num_rows, -1), shape)


def _is_numeric(of_column: Any) -> bool:
    from pyarrow import types

    return any(is_kind(of_column) for is_kind in (types.is_integer, types.is_floating, types.is_boolean))


def _shape_of(num_values: int, where: str) -> tuple[int, ...]:
    """The shape of a grey image of ``num_values`` values. Raises DataError for colours, whose order is not known."""
    shape = tables.image_shape(num_values, None, where)
    if shape[2] == 3:
        remedy = f"write each image as {shape[0]} lists of {shape[1]} lists of 3 numbers, or as a PNG"
        raise DataError(f"the order of {num_values} values in three colours is not known", place=where, remedy=remedy)
    return shape


def _shaped(pixels: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Rows of values as images; as uint8 if they are whole numbers from 0 to 255."""
    if pixels.dtype.kind in "iu" and pixels.size and 0 <= pixels.min() <= pixels.max() <= 255:
        pixels = pixels.astype(np.uint8)
    return tables.shaped(pixels, shape)


def _allocate(path: Path, num_rows: int, first: NDArray[Any]) -> NDArray[Any]:
    """Memory for ``num_rows`` images like the ``first``."""
    shape = first.shape[1:]
    size = num_rows * math.prod(shape) * first.itemsize
    if size > arrays.MAX_ARRAY_BYTES:
        problem = f"{count(num_rows, 'image')} of {'x'.join(map(str, shape))} would take {size} bytes of memory"
        remedy = f"at most {arrays.MAX_ARRAY_BYTES}; use fewer images, or a smaller data.image_size"
        raise DataError(problem, place=path, remedy=remedy)
    return np.empty((num_rows, *shape), first.dtype)
