"""The sources ``csv`` and ``parquet``: finds the files of each split, and reads them."""

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cnn_trainer.config.expand import expand_path, literal_path
from cnn_trainer.config.schema.data import Csv, Parquet
from cnn_trainer.data import arrays, idx, parquet, rows, tables
from cnn_trainer.data.splits import Split, SplitName, Stream, choose_stratified, split_named
from cnn_trainer.errors import DataError

_SUFFIXES = {"csv": rows.CSV_SUFFIXES, "parquet": (".parquet",)}
_SHARD = re.compile(
    r"-(\d{5})-of-(\d{5})(?=\.)|^(\d{4,})(?=\.)"
)  # the second form is that of tables converted by the Hub


def read_table(
    data: Csv | Parquet, place: Path, split: SplitName, seed: int, class_names: Sequence[str] | None
) -> tuple[Split, list[str]] | None:
    """A split of the tables that ``data`` names, and the classes of the training examples.

    If the test split has no files, ``data.test_fraction`` of each class of the training table, chosen by ``seed``, is
    the test split.

    Args:
        data: the section of the config.
        place: ``data.path``, or what replaces it.
        split: which split.
        seed: decides which examples are the test split.
        class_names: the classes that the model knows; None for those of the training table.

    Returns:
        None if ``split`` is the validation split and has no files of its own.

    Raises:
        DataError: if a file is missing or broken, or does not hold what it should.
    """
    files = find_tables(data, place, split)
    tests = files if split == "test" else find_tables(data, place, "test")
    if data.test_path is None:  # without labels, as in a competition that keeps them back
        tests = [path for path in tests if _has_labels(path, data)]
    if split == "validation" and not files:
        return None
    carved = split != "validation" and not tests
    from_training = split == "train" or carved
    used = find_tables(data, place, "train") if from_training else files
    table, where = _read(data, used), used[0]
    if class_names is None:
        training = table if from_training else _read(data, find_tables(data, place, "train"))
        class_names = training.class_names(where)
    whole = arrays.make_split(f"{where}: pixels", table.images, str(where), table.numbers(where, class_names))
    if not carved:
        return whole, list(class_names)
    try:
        is_test = choose_stratified(whole.labels, data.test_fraction, seed, Stream.FOLDER_TEST)
    except DataError as error:
        raise DataError(f"data.test_fraction: {error.problem}", place=place, remedy=error.remedy) from None
    chosen = is_test if split == "test" else ~is_test
    return replace(whole, images=whole.images[chosen], labels=whole.labels[chosen]), list(class_names)


def _has_labels(path: Path, data: Csv | Parquet) -> bool:
    has_labels = rows.csv_has_labels if isinstance(data, Csv) else parquet.parquet_has_labels
    return has_labels(path, data.label)


def _read(data: Csv | Parquet, files: list[Path]) -> tables.Table:
    if isinstance(data, Csv):
        return tables.join([rows.read_csv(path, data.label, data.image_shape) for path in files], files[0].parent)
    return parquet.read_parquet(files, data.label, data.image_size, data.color)


def find_tables(data: Csv | Parquet, place: Path, split: SplitName) -> list[Path]:
    """The files of a split, in order: those that ``data`` names, or those in ``place`` that are named after it.

    ``place`` is ``data.path``: a folder, or the file of the training split. The list is empty if the test or validation
    split has no files.

    Raises:
        DataError: if there are no files, or if it is not clear which ones are meant.
    """
    own = {"test": data.test_path, "validation": data.validation_path}.get(split)
    if own is not None:
        return _all_of(expand_path(own), data)
    if not arrays.is_folder(place):
        return [place] if split == "train" else []
    found = _list(place, data)
    splits = {path: _split_of(path.relative_to(place)) for path in found}
    chosen = [path for path in found if splits[path] == split]
    if split == "train" and not chosen:
        chosen = [path for path in found if splits[path] is None]
        if not chosen:
            suffix = _SUFFIXES[data.source][0]
            raise DataError(f"holds no file train{suffix}", place=place, remedy="name the file in data.path")
    return _one_table(chosen, place)


def paths_at(data: Csv | Parquet, place: Path) -> dict[str, str | None]:
    """The keys of ``data`` that name files or folders, for tables that have moved to ``place``.

    If the folder ``place`` holds everything that they name, in the same layout as their common folder did, they name it
    there; otherwise ``data.path`` is ``place``, and what is found there is used. Raises DataError.
    """
    keys = ("path", "test_path", "validation_path")
    named = {key: expand_path(text) for key in keys if (text := getattr(data, key)) is not None}
    held = Path(os.path.commonpath([path.parent for path in named.values()]))
    moved = {key: place / path.relative_to(held) for key, path in named.items()}
    if not all(os.path.lexists(path) for path in moved.values()):
        moved = {"path": place}
    return {key: literal_path(moved[key]) if key in moved else None for key in keys}


def _all_of(place: Path, data: Csv | Parquet) -> list[Path]:
    if not arrays.is_folder(place):
        return [place]
    if found := _list(place, data):
        return _one_table(found, place)
    raise DataError(f"holds no {_SUFFIXES[data.source][0]} file", place=place, remedy="name the file itself")


def _list(folder: Path, data: Csv | Parquet) -> list[Path]:
    """The files of the format in ``folder``, or else in its subfolders and their subfolders, sorted by name."""
    level = [folder]
    for _ in range(3):
        paths = (path for place in level for path in idx.files_in(place))
        if found := [path for path in paths if path.name.lower().endswith(_SUFFIXES[data.source])]:
            return found
        level = [path for place in level for path in idx.sub_folders(place)]
    return []


def _split_of(path: Path) -> SplitName | None:
    """The split that its name means, or else the name of the folder that it is in."""
    names = [path.name.partition(".")[0], *(folder.name for folder in path.parents)]
    return next((split for name in names if (split := split_named(name))), None)


def _one_table(paths: list[Path], folder: Path) -> list[Path]:
    """The files, if all of them are parts of one table: ``train-00000-of-00002.parquet``, or ``train/0000.parquet``."""
    tables = {path.with_name(_SHARD.sub("", path.name)) for path in paths}
    if len(tables) > 1:
        names = ", ".join(str(path.relative_to(folder)) for path in paths)
        problem = f"holds more than one table for this split: {names[:200]}"
        remedy = "name the file in data.path, data.test_path or data.validation_path"
        raise DataError(problem, place=folder, remedy=remedy)
    parts = [match for path in paths if (match := _SHARD.search(path.name)) and match[2]]
    if parts and len(parts) != (wanted := int(parts[0][2])):
        there = ", ".join(match.string for match in parts[:5])
        problem = f"holds {len(parts)} of {wanted} parts of a table: {there}"
        raise DataError(problem, place=folder, remedy="get the missing parts")
    return paths
