"""A folder of pictures, one sub-folder a class, as a split.

Pictures are told apart by content, not by name. Each is turned the way its EXIF orientation says, laid on white where
it is transparent (as a page shows it), made grey (ITU-R 601 luma) or rgb, and resized, not cropped, to a square with
Pillow's Lanczos filter, which averages over what it shrinks. Of 16-bit greys the upper 8 bits are kept; of an
animation the first picture.
"""

import io
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from cnn_trainer.data import arrays
from cnn_trainer.data.arrays import SplitName
from cnn_trainer.data.splits import Images, Split, Stream, choose_stratified
from cnn_trainer.errors import DataError
from cnn_trainer.files import printable

Color = Literal["grey", "rgb"]

MAX_PICTURE_BYTES = 32 * 2**20
MAX_PICTURE_PIXELS = 50_000_000
_FORMATS = ("PNG", "JPEG", "BMP")
_CHANNELS: dict[Color, int] = {"grey": 1, "rgb": 3}


@dataclass(frozen=True)
class Listing:
    """The pictures of a split, none of them opened yet: paths, and the class of each as a number."""

    class_names: list[str]
    paths: list[Path]
    labels: NDArray[np.int32]


def list_pictures(folder: Path, split: SplitName, test_fraction: float, seed: int) -> Listing:
    """The pictures of a split.

    Where ``folder`` has sub-folders train and test, these are the splits. Else its sub-folders are the classes, and
    ``test_fraction`` of each class, chosen by ``seed``, are the test split.

    Raises:
        DataError: where there is no such folder, or it does not hold two classes or more of pictures.
    """
    _require_folder(folder)
    if _is_split(folder):
        return _list_classes(folder / split)
    whole = _list_classes(folder)
    try:
        is_test = choose_stratified(whole.labels, test_fraction, seed, Stream.FOLDER_TEST)
    except DataError as error:
        raise DataError(f"{printable(folder)}: data.test_fraction: {error}") from None
    chosen = np.flatnonzero(is_test if split == "test" else ~is_test)
    return Listing(whole.class_names, [whole.paths[index] for index in chosen], whole.labels[chosen])


def list_training_classes(folder: Path) -> list[str]:
    """Names of the classes that the training split has; only folders are read."""
    _require_folder(folder)
    return [entry.name for entry in _class_folders(folder / "train" if _is_split(folder) else folder)]


def _is_split(folder: Path) -> bool:
    return arrays.is_folder(folder / "train") and arrays.is_folder(folder / "test")


def _require_folder(folder: Path) -> None:
    if not arrays.is_folder(folder):
        raise DataError(
            f"{printable(folder)}: no such folder; expected one with a sub-folder of pictures for each class"
        )


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder but for hidden names, sorted by code point, which no locale changes."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{printable(folder)}: cannot be listed: {error.strerror}; check its permissions") from None


def _class_folders(folder: Path) -> list[os.DirEntry[str]]:
    classes = [entry for entry in _visible(folder) if arrays.is_folder(Path(entry.path))]
    if not 2 <= len(classes) <= arrays.MAX_CLASSES:
        found = f"has {len(classes)} sub-folders" if len(classes) != 1 else f"has the one sub-folder {classes[0].name}"
        wanted = f"expected one sub-folder a class, 2 to {arrays.MAX_CLASSES} of them"
        raise DataError(f"{printable(folder)}: {printable(found)}; {wanted}")
    for entry in classes:
        if entry.name != printable(entry.name):
            raise DataError(f"{printable(entry.path)}: its name is not printable Unicode text; rename the class")
    return classes


def _list_classes(folder: Path) -> Listing:
    paths: list[Path] = []
    labels: list[int] = []
    classes = _class_folders(folder)
    for label, entry in enumerate(classes):
        pictures = [Path(picture.path) for picture in _visible(Path(entry.path))]
        if not pictures:
            raise DataError(f"{printable(entry.path)}: holds no picture; put some in, or remove the class")
        paths += pictures
        labels += [label] * len(pictures)
    return Listing([entry.name for entry in classes], paths, np.array(labels, np.int32))


def read_pictures(listing: Listing, image_size: int, color: Color) -> Split:
    """Read all pictures of a listing.

    Args:
        listing: which, with their classes.
        image_size: height and width in pixels that each is resized to.
        color: grey for 1 channel, rgb for 3.

    Raises:
        DataError: where a file is broken, no picture or too large, or all would take more than the memory allowed.
    """
    shape = (len(listing.paths), image_size, image_size, _CHANNELS[color])
    if (size := arrays.num_bytes_of(np.dtype(np.uint8), shape)) > arrays.MAX_ARRAY_BYTES:
        counted = f"{shape[0]} pictures of {image_size}x{image_size}x{shape[3]} would take {size} bytes of memory"
        raise DataError(f"{counted}; at most {arrays.MAX_ARRAY_BYTES}; use a smaller data.image_size or fewer pictures")
    images = np.empty(shape, np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of harmless flaws, and of sizes that are refused below
        for index, path in enumerate(listing.paths):
            images[index] = read_picture(path, image_size, color)
    return Split(images, listing.labels)


def read_picture(path: Path, image_size: int, color: Color) -> Images:
    """One picture: uint8 (image_size, image_size, 1 or 3).

    Raises:
        DataError: where the file is broken, no PNG, JPEG or BMP, or too large.
    """
    picture = decode_picture(read_picture_file(path), str(path), color)
    return resize_picture(picture, (image_size, image_size, _CHANNELS[color]))


def read_picture_file(path: Path) -> bytes:
    """The content of a file that should be a picture. Raises DataError where there is none, or it is too large."""
    with arrays.open_file(path, "a picture (PNG, JPEG or BMP)") as (file, size):
        _check_bytes(str(path), size)
        return file.read(MAX_PICTURE_BYTES)


def _check_bytes(name: str, size: int) -> None:
    if size > MAX_PICTURE_BYTES:
        raise DataError(f"{printable(name)}: is {size} bytes; at most {MAX_PICTURE_BYTES}; make it smaller")


def decode_picture(content: bytes, name: str, color: Color, max_pixels: int = MAX_PICTURE_PIXELS) -> Images:
    """The picture in the content of a PNG, JPEG or BMP file.

    Args:
        content: of the file.
        name: of the file, for messages.
        color: what the picture is made.
        max_pixels: checked before any pixel is read.

    Returns:
        uint8 (height, width) in grey, (height, width, 3) in rgb; upright, and on white where it is transparent.

    Raises:
        DataError: where the content is broken, no PNG, JPEG or BMP, or too large.
    """
    _check_bytes(name, len(content))
    # Pillow's decoders raise errors of many kinds for a broken file, and which ones is not documented.
    try:
        picture = Image.open(io.BytesIO(content), formats=_FORMATS)
    except UnidentifiedImageError:
        raise DataError(f"{printable(name)}: is no PNG, JPEG or BMP; remove or convert it") from None
    except Image.DecompressionBombError:
        raise DataError(f"{printable(name)}: has too many pixels; at most {max_pixels}") from None
    except Exception as error:
        raise _broken(name, error) from None
    with picture:
        if picture.width * picture.height > max_pixels:
            found = f"{picture.width}x{picture.height} pixels"
            raise DataError(f"{printable(name)}: has {found}; at most {max_pixels}; make it smaller")
        try:
            return np.asarray(_convert(picture, color), np.uint8)
        except Exception as error:
            raise _broken(name, error) from None


def _broken(name: str, error: Exception) -> DataError:
    problem = printable(str(error) or type(error).__name__)[:200]
    return DataError(f"{printable(name)}: broken picture: {problem}; remove it or get it again")


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
