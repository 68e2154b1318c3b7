"""Loads the splits that the data section of a config describes into memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cnn_trainer.config.expand import expand_path, literal_path
from cnn_trainer.config.schema.data import Csv, Folder, Idx, Mnist, Mnist5k, MnistLike, Npz, Parquet
from cnn_trainer.data import arrays, doubts, folder, idx, named, npz, places, scale, table_files
from cnn_trainer.data.doubts import Data
from cnn_trainer.data.download import DownloadProgress, no_progress
from cnn_trainer.data.published import DIGITS, PUBLISHED
from cnn_trainer.data.splits import (
    SPLITS,
    Split,
    SplitName,
    carve_validation,
    counts_per_class,
    split_digest,
    take_subset,
)
from cnn_trainer.errors import DataError, count
from cnn_trainer.runs.records import DataRecord


@dataclass(frozen=True)
class TrainingData:
    """What a run is trained on.

    Attributes:
        train: the training split, without the examples set aside for validation.
        validation: the source's own validation split, or the examples set aside, or None.
        record: what ``run.json`` says about the data.
        test_counts: how many examples of each class the test split has; None if it was not read.
    """

    train: Split
    validation: Split | None
    record: DataRecord
    test_counts: list[int] | None


@dataclass(frozen=True)
class _Known:
    """What the training split decides for the other splits: classes, height, width, channels and scale."""

    class_names: list[str]
    image_shape: list[int]
    white: int | None
    """The value that stands for 255; None for data at another place, which may have its own scale."""


@dataclass(frozen=True)
class _Whole:
    """A split as its source provides it, with the names of the classes of the training examples."""

    split: Split
    class_names: list[str]
    location: str

    def known(self) -> _Known:
        return _Known(self.class_names, list(self.split.images.shape[1:]), self.split.source_white)


def load_training(
    data: Data,
    seed: int,
    warn: Callable[[str], None],
    progress: DownloadProgress = no_progress,
    *,
    trained_on: DataRecord | None = None,
    check_test: bool = False,
) -> TrainingData:
    """Read the training split and the validation split: the source's own one, or what ``data`` asks to set aside.

    If MNIST is not at hand and cannot be downloaded, and ``data.fallback`` allows it, mnist-5k replaces it: the
    record's ``source`` then differs from its ``requested``, and ``data_used`` returns the section to evaluate with.

    Args:
        data: the section of the config.
        seed: decides which examples become the validation split, and a folder's test split, unless ``data`` has a
            ``split_seed``.
        warn: called with each warning, such as that the fallback is taken or that no image is bright.
        progress: told of a download, in bytes.
        trained_on: the record of the run that is resumed, which decides the order of the classes and where the
            validation split comes from; None for a new run, which decides both itself.
        check_test: also read the test split, so that faults in it are found now, and discard it at once. Otherwise it
            is not opened.

    Raises:
        DataError: if the data is missing, broken or not what it is said to be.
    """
    requested, seed = data.source, _split_seed(data, seed)
    data, whole = _read_training(data, seed, trained_on, warn, progress)
    if trained_on is None:
        doubts.look_at_training(data, whole.location, whole.split, warn)
    own = _own_validation(data, seed, whole.known(), trained_on)
    test = _read(data, seed, "test", whole.known(), no_progress).split if check_test else None
    others: list[tuple[SplitName, Split | None]] = [("validation", own), ("test", test)]
    for name, other in others:
        if other and trained_on is None:
            doubts.look_at_other(data, whole.location, name, other, whole.split, warn)
    test_counts = counts_per_class(test.labels, len(whole.class_names)) if test else None
    del test
    train, carved = carve_validation(_used(whole.split, data, seed), 0.0 if own else data.validation_fraction, seed)
    validation = own or carved
    record = DataRecord(
        source=data.source,
        requested=requested,
        location=whole.location,
        image_shape=list(whole.split.images.shape[1:]),
        class_names=whole.class_names,
        num_train=len(train),
        num_validation=len(validation) if validation else 0,
        train_sha256=split_digest(whole.split),
        validation_from="own" if own else "carved" if carved else None,
        validation_sha256=split_digest(own) if own else None,
        pixel_dtype=whole.split.source_dtype,
        white=whole.split.source_white,
    )
    return TrainingData(train, validation, record, test_counts)


def _read_training(
    data: Data, seed: int, trained_on: DataRecord | None, warn: Callable[[str], None], progress: DownloadProgress
) -> tuple[Data, _Whole]:
    """The whole training split, and the section that describes it: that of the fallback, if it was taken."""
    known = _known(trained_on) if trained_on else None
    try:
        return data, _read(data, seed, "train", known, progress)
    except places.NotAvailableError as error:
        if not isinstance(data, Mnist):
            raise
        if data.fallback is None:
            remedy = f"{error.remedy}; or set data.fallback: mnist-5k to train on 5,000 of its images"
            raise DataError(error.problem, remedy=remedy) from None
        if named.mnist_5k_path() is None:
            remedy = f"{error.remedy}; or install 5,000 of its images: {named.install_mnist_5k()}"
            raise DataError(error.problem, remedy=remedy) from None
        warn(error.problem)
        warn(f"using the 5,000 images of mnist-5k instead of MNIST; for MNIST {error.remedy}")
        return _fallback(data), _read(_fallback(data), seed, "train", known, progress)


def _known(record: DataRecord) -> _Known:
    return _Known(record.class_names, record.image_shape, record.white)


def _own_validation(data: Data, seed: int, known: _Known, trained_on: DataRecord | None) -> Split | None:
    """The source's own validation split, if the run uses it: a new run always does, if there is one."""
    if trained_on is not None:
        own = trained_on.validation_from == "own"
        return _read(data, seed, "validation", known, no_progress).split if own else None
    found = _find(data, seed, "validation", known, no_progress)
    return found.split if found else None


def _fallback(data: Data) -> Mnist5k:
    common = ("validation_fraction", "train_subset", "split_seed")
    return Mnist5k(source="mnist-5k", **{name: getattr(data, name) for name in common})


def _split_seed(data: Data, seed: int) -> int:
    return seed if data.split_seed is None else data.split_seed


def data_used(data: Data, record: DataRecord) -> Data:
    """The data section that a run was trained on: ``data``, or that of mnist-5k if the fallback was taken."""
    return data if record.source == data.source else _fallback(data)


def at_path(data: Data, path: Path) -> Data:
    """The section for data that is to be read from ``path``. Raises DataError for mnist-5k, which has no path.

    All splits of a CSV or Parquet source are then read from there: from the files that the section names, if ``path``
    is a folder that holds them in the same layout, or else from those that are found there.
    """
    if isinstance(data, Mnist5k):
        raise DataError("mnist-5k comes with a package and cannot be read from elsewhere", place=path)
    elsewhere = table_files.paths_at(data, path) if isinstance(data, Csv | Parquet) else {"path": literal_path(path)}
    return type(data).model_construct(**{**vars(data), **elsewhere})  # a path need not be Unicode text


def load_split(
    data: Data,
    seed: int,
    split: SplitName,
    path: Path | None = None,
    *,
    trained_on: DataRecord | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> Split:
    """Read one split to evaluate on. There is no fallback here: pass what ``data_used`` returns.

    Args:
        data: the section of the config.
        seed: the seed of the run, which gives the same training and validation splits again.
        split: train means without the examples set aside for validation.
        path: where to look, as ``at_path`` does, instead of ``data.path`` or the places of a named data set.
        trained_on: the record of the run, whose classes and images the split must fit; if it is None, the training
            split at the same place is read instead.
        warn: called with a warning if the images at ``path`` are dark.

    Raises:
        DataError: if the data is missing, broken, not what it is said to be, or does not fit.
    """
    if path is None:
        return _load_split(data, seed, split, path, trained_on)
    data = at_path(data, path)
    found = _load_split(data, seed, split, path, trained_on)
    doubts.look_at_other(data, str(path), split, found, None, warn)
    return found


def _load_split(data: Data, seed: int, split: SplitName, path: Path | None, trained_on: DataRecord | None) -> Split:
    seed = _split_seed(data, seed)
    if trained_on is None:
        known = _read(data, seed, "train", None, no_progress).known()
    else:
        known = _known(trained_on)
        known = known if path is None else replace(known, white=None)
    if split == "test":
        return _read(data, seed, split, known, no_progress).split
    own = _own_validation(data, seed, known, trained_on)
    if split == "validation" and own:
        return own
    if split == "validation" and not data.validation_fraction:
        raise DataError("there is no validation split", remedy="use the split train or test")
    used = _used(_read(data, seed, "train", known, no_progress).split, data, seed)
    if own:
        return used
    train, validation = carve_validation(used, data.validation_fraction, seed)
    return validation if split == "validation" and validation else train


def _used(train: Split, data: Data, seed: int) -> Split:
    """The part of the whole training split that ``data`` asks for."""
    return train if data.train_subset is None else take_subset(train, data.train_subset, seed)


def _read(data: Data, seed: int, split: SplitName, known: _Known | None, progress: DownloadProgress) -> _Whole:
    """All of a split that must exist. Raises DataError as ``_find`` does, and if there is no such split."""
    whole = _find(data, seed, split, known, progress)
    if whole is None:
        raise DataError("no longer has a validation split", place=getattr(data, "path", data.source))
    return whole


def _find(data: Data, seed: int, split: SplitName, known: _Known | None, progress: DownloadProgress) -> _Whole | None:
    """All of a split; None for validation if the source has no such split of its own.

    Without ``known``, ``split`` is the training split, which decides it. Raises DataError if it does not fit ``known``.
    """
    match data:
        case Mnist5k():
            place = named.find_mnist_5k()
            whole = _named(named.read_named("mnist-5k", place, split), DIGITS, place)
        case Mnist() | MnistLike():
            place = places.find_or_fetch(
                data.source, expand_path(data.path) if data.path else None, progress
            ).absolute()
            names = PUBLISHED[data.source].class_names
            whole = _named(named.read_named(data.source, place, split), names, place)
        case Folder():
            whole = _find_pictures(data, seed, split, known)
        case Csv() | Parquet():
            place = expand_path(data.path)
            found = table_files.read_table(data, place, split, seed, known.class_names if known else None)
            whole = _Whole(*found, str(place)) if found else None
        case _:
            whole = _find_arrays(data, split, known)
    if whole and known:
        _check_fits(whole, split, known)
    return whole


def _named(split: Split | None, class_names: list[str], place: Path) -> _Whole | None:
    return _Whole(split, class_names, str(place)) if split else None


def _check_fits(whole: _Whole, split: SplitName, known: _Known) -> None:
    """Refuse a split whose classes, shape or scale differ from those of the training images."""
    _check_classes(whole.location, whole.class_names, known)
    shape, white = list(whole.split.images.shape[1:]), whole.split.source_white
    if shape != known.image_shape:
        found, wanted = ("x".join(map(str, sides)) for sides in (shape, known.image_shape))
        problem = f"the {split} images are {found}, the training images {wanted}"
        raise DataError(problem, place=whole.location, remedy="give all of them the same size and channels")
    if known.white is not None and white != known.white:
        problem = f"the {split} images have values from 0 to {white}, the training images from 0 to {known.white}"
        raise DataError(problem, place=whole.location, remedy=scale.other_scale(split, white))


def _check_classes(where: str, found: Sequence[str], known: _Known) -> None:
    if list(found) == known.class_names:
        return
    parts = []
    for word, names in (
        ("lacks", set(known.class_names) - set(found)),
        ("also has", set(found) - set(known.class_names)),
    ):
        if names:
            shown = ", ".join(sorted(names)[:5]) + (", …" if len(names) > 5 else "")
            parts.append(f"{word} {shown}")
    problem = " and ".join(parts) or "has them in another order"
    problem = f"not the {count(len(known.class_names), 'class', 'classes')} of the training split: {problem}"
    raise DataError(problem, place=where, remedy="give every split the same classes, with the same names")


def _find_arrays(data: Npz | Idx, split: SplitName, known: _Known | None) -> _Whole | None:
    place = expand_path(data.path)
    found = npz.read_npz(place, split, npz.keys_of(data)) if isinstance(data, Npz) else idx.read_idx(place, split)
    if found is None:
        return None
    where = f"{place}: {split} labels"
    if split == "train" or known is None:
        num_classes = arrays.count_classes(where, found.labels)
        return _Whole(found, [str(label) for label in range(num_classes)], str(place))
    if (highest := int(found.labels.max())) >= (num_classes := len(known.class_names)):
        remedy = f"the training labels end at {num_classes - 1}"
        raise DataError(f"holds the label {highest}", place=where, remedy=remedy)
    return _Whole(found, known.class_names, str(place))


def _find_pictures(data: Folder, seed: int, split: SplitName, known: _Known | None) -> _Whole | None:
    place = expand_path(data.path)

    def listed(name: SplitName) -> folder.Listing | None:
        return folder.list_pictures(place, name, data.test_fraction, seed, known.class_names if known else None)

    listing = listed(split)
    if listing is None:
        return None
    if known:
        _check_classes(f"{place}: {split}", listing.class_names, known)
    later = SPLITS[SPLITS.index(split) + 1 :]
    pictures = folder.read_pictures(listing, data.image_size, data.color, lambda: map(listed, later))
    return _Whole(pictures, listing.class_names, str(place))
