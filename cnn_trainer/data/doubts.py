"""What is wrong or uncertain about images that could be read: their scale, and images that are not used."""

from collections.abc import Callable

from cnn_trainer.config.expand import expand_path
from cnn_trainer.config.schema.data import Csv, Folder, Idx, Mnist, Mnist5k, MnistLike, Npz, Parquet
from cnn_trainer.data import folder, npz, scale
from cnn_trainer.data.published import PUBLISHED
from cnn_trainer.data.splits import Split, SplitName

Data = Mnist | MnistLike | Mnist5k | Npz | Idx | Folder | Csv | Parquet

_MAX_SHOWN = 10


def look_at_training(data: Data, where: str, train: Split, warn: Callable[[str], None]) -> None:
    """Refuse training images that are all black, and warn of what is uncertain or not used.

    Published images are not checked. Messages begin with ``where``. Raises DataError.
    """
    if data.source in PUBLISHED:
        return
    unused: list[str] = []
    if isinstance(data, Folder):
        unused = folder.unused_pictures(expand_path(data.path))
    elif isinstance(data, Npz):
        unused = npz.unused_images(expand_path(data.path), npz.keys_of(data))
    if unused:
        shown = ", ".join(unused[:_MAX_SHOWN]) + (", …" if len(unused) > _MAX_SHOWN else "")
        warn(f"{where}: holds images of no split, which are not used: {shown}")
    _look_at_scale(data, where, "training", train, warn)
    _, height, width, channels = train.images.shape
    if isinstance(data, Csv) and data.image_shape is None and channels == 3:
        read = f"{3 * height * width} values per row are read as {height}x{width} pixels of 3 values side by side"
        warn(f"{where}: {read}; if each colour is a plane, set data.image_shape: [3, {height}, {width}]")


def look_at_other(
    data: Data, where: str, name: SplitName, split: Split, train: Split | None, warn: Callable[[str], None]
) -> None:
    """Refuse images of another split that are all black, and warn of dark ones.

    If ``train`` is given, they count as dark only if the training images are bright. Raises DataError.
    """
    if data.source in PUBLISHED:
        return
    dark: list[str] = []
    _look_at_scale(data, where, name, split, dark.append)
    if train is None:
        for line in dark:
            warn(line)
    elif darker := scale.compare_brightness(where, name, split.images, train.images):
        warn(darker)


def _look_at_scale(data: Data, where: str, name: str, split: Split, warn: Callable[[str], None]) -> None:
    may_be_black = isinstance(data, Folder)
    if line := scale.check_brightness(where, name, split.images, split.source_white, may_be_black):
        warn(line)
