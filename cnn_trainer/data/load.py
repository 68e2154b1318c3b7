"""From the data section of a config to splits in memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cnn_trainer.config.schema.data import FashionMnist, Folder, Idx, Mnist, Mnist5k, Npz
from cnn_trainer.data import arrays, folder, idx, named, npz, places
from cnn_trainer.data.arrays import SourceSplit
from cnn_trainer.data.download import DownloadProgress, no_progress
from cnn_trainer.data.splits import Split, SplitName, carve_validation, split_digest
from cnn_trainer.errors import DataError
from cnn_trainer.runs.records import DataRecord

Data = Mnist | FashionMnist | Mnist5k | Npz | Idx | Folder


@dataclass(frozen=True)
class TrainingData:
    """What a run is trained on.

    Attributes:
        train: the training split, without the examples set aside for validation.
        validation: those set aside, or None.
        record: what to write into ``run.json`` about it.
    """

    train: Split
    validation: Split | None
    record: DataRecord


@dataclass(frozen=True)
class _Whole:
    """A split as its source gives it, with the names of the classes that the training examples have."""

    split: Split
    class_names: list[str]
    location: str


def load_training(
    data: Data, seed: int, warn: Callable[[str], None], progress: DownloadProgress = no_progress
) -> TrainingData:
    """Read the training split, and set aside the validation split that ``data`` asks for. The test split stays shut.

    If MNIST is neither at hand nor can be fetched, and ``data.fallback`` allows it, mnist-5k takes its place: the
    record's ``source`` then differs from its ``requested``, and ``data_used`` gives the section to evaluate with.

    Args:
        data: the section of the config.
        seed: decides which examples become the validation split, and a folder's test split.
        warn: called with a line if the fallback is taken.
        progress: told of a download, in bytes.

    Raises:
        DataError: if the data is missing, broken or not what it is said to be.
    """
    requested = data.source
    try:
        whole = _read(data, seed, "train", None, progress)
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
        warn(f"using the 5,000 images of mnist-5k in place of MNIST; for MNIST {error.remedy}")
        data = _fallback(data)
        whole = _read(data, seed, "train", None, progress)
    train, validation = carve_validation(whole.split, data.validation_fraction, seed)
    record = DataRecord(
        source=data.source,
        requested=requested,
        location=whole.location,
        image_shape=list(whole.split.images.shape[1:]),
        class_names=whole.class_names,
        num_train=len(train),
        num_validation=len(validation) if validation else 0,
        train_sha256=split_digest(whole.split),
    )
    return TrainingData(train, validation, record)


def _fallback(data: Data) -> Mnist5k:
    return Mnist5k(source="mnist-5k", validation_fraction=data.validation_fraction)


def data_used(data: Data, record: DataRecord) -> Data:
    """The section of the data that a run was trained on: ``data``, or mnist-5k if the fallback was taken."""
    return data if record.source == data.source else _fallback(data)


def load_split(
    data: Data,
    seed: int,
    split: SplitName,
    path: Path | None = None,
    *,
    class_names: Sequence[str] | None = None,
) -> Split:
    """Read one split to measure on. There is no fallback here: give what ``data_used`` gives.

    Args:
        data: the section of the config.
        seed: that of the run; the training and validation splits of it are then the same again.
        split: train means without the examples set aside for validation.
        path: where to look in place of ``data.path``, or of the places where a named data set is looked for.
        class_names: those that the model knows (``record.class_names``), which the split must fit; None: those of
            the training examples at the same place.

    Raises:
        DataError: if the data is missing, broken, not what it is said to be, or of other classes.
    """
    if path is not None:
        if isinstance(data, Mnist5k):
            raise DataError("mnist-5k comes with a package and is not looked for elsewhere", place=path)
        data = type(data).model_construct(**{**dict(data), "path": str(path)})  # a path may be no Unicode text
    if split == "validation" and not data.validation_fraction:
        problem = "there is no validation split: data.validation_fraction is 0"
        raise DataError(problem, remedy="use the split train or test")
    whole = _read(data, seed, "test" if split == "test" else "train", class_names, no_progress)
    if class_names is not None and whole.class_names != list(class_names):
        _refuse_classes(whole.location, whole.class_names, class_names)
    if split == "test":
        return whole.split
    train, validation = carve_validation(whole.split, data.validation_fraction, seed)
    return validation if split == "validation" and validation else train


def _refuse_classes(where: str, found: Sequence[str], known: Sequence[str]) -> None:
    parts = []
    for word, names in ("lacks", set(known) - set(found)), ("also has", set(found) - set(known)):
        if names:
            shown = ", ".join(sorted(names)[:5]) + (", …" if len(names) > 5 else "")
            parts.append(f"{word} {shown}")
    problem = " and ".join(parts) or "has them in another order"
    raise DataError(f"not the {len(known)} classes of the training split: {problem}", place=where)


def _read(
    data: Data, seed: int, split: SourceSplit, class_names: Sequence[str] | None, progress: DownloadProgress
) -> _Whole:
    """The whole split. Of the test split, labels are checked against ``class_names`` or the training labels."""
    match data:
        case Mnist5k():
            place = named.find_mnist_5k()
            return _Whole(named.read_named("mnist-5k", place, split), named.DIGITS, str(place))
        case Mnist() | FashionMnist():
            place = places.find_or_fetch(data.source, _path(data.path) if data.path else None, progress).absolute()
            names = named.DIGITS if data.source == "mnist" else named.CLOTHES
            return _Whole(named.read_named(data.source, place, split), names, str(place))
        case Folder():
            return _read_folder(data, seed, split, class_names)
        case _:
            return _read_arrays(data, split, class_names)


def _path(text: str) -> Path:
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:
        raise DataError("no home folder known for ~", place=text, remedy="write the path out") from None


def _read_arrays(data: Npz | Idx, split: SourceSplit, class_names: Sequence[str] | None) -> _Whole:
    place = _path(data.path)
    whole = npz.read_npz(place, split) if data.source == "npz" else idx.read_idx(place, split)
    where = f"{place}: {split} labels"
    if split == "train":
        num_classes = arrays.count_classes(where, whole.labels)
    elif class_names is not None:
        num_classes = len(class_names)
    elif data.source == "npz":
        num_classes = arrays.count_classes(where, npz.read_npz_array(place, "y_train"))
    else:
        training_labels = idx.read_idx_file(idx.find_file(place, idx.FILE_NAMES["train"][1]), num_dimensions=1)
        num_classes = arrays.count_classes(where, training_labels)
    if (highest := int(whole.labels.max())) >= num_classes:
        remedy = f"the training labels end at {num_classes - 1}"
        raise DataError(f"holds the label {highest}", place=where, remedy=remedy)
    return _Whole(whole, [str(label) for label in range(num_classes)], str(place))


def _read_folder(data: Folder, seed: int, split: SourceSplit, class_names: Sequence[str] | None) -> _Whole:
    place = _path(data.path)
    listing = folder.list_pictures(place, split, data.test_fraction, seed)
    known = folder.list_training_classes(place) if class_names is None else list(class_names)
    if listing.class_names != known:
        _refuse_classes(f"{place}: {split}", listing.class_names, known)
    return _Whole(folder.read_pictures(listing, data.image_size, data.color), known, str(place))
