"""What ``data check`` reports: how many images there are, how large they are, and which occur twice."""

import hashlib
from collections import Counter
from itertools import combinations
from typing import Literal

from pydantic import Field

from cnn_trainer.data import doubts
from cnn_trainer.data.doubts import Data
from cnn_trainer.data.download import DownloadProgress, no_progress
from cnn_trainer.data.load import data_used, load_split, load_training
from cnn_trainer.data.splits import Split, SplitName, counts_per_class, split_digest
from cnn_trainer.errors import count
from cnn_trainer.storage.strict_json import Record


class SplitReport(Record):
    """One split."""

    num_examples: int
    shape: list[int] = Field(description="Shape of the images: examples, height, width, channels.")
    counts: list[int] = Field(description="Examples of each class, in the order of the class names.")
    sha256: str = Field(description="The digest that split_digest returns.")
    num_repeated: int = Field(description="Images that are byte for byte equal to an earlier image of the same split.")
    num_contradicting: int = Field(
        description="Images that are equal to an earlier image of the split but have another label."
    )
    num_blank: int = Field(description="Images whose values are all the same.")


class SharedImages(Record):
    """Images of one split that are byte for byte equal to images of another."""

    split: SplitName
    other: SplitName
    num_images: int = Field(description="How many images of split are in other too.")


class DataReport(Record):
    """A report on all the data that a config asks for."""

    source: str
    requested: str = Field(description="Differs from source if the fallback was taken.")
    location: str
    pixel_dtype: str = Field(description="Dtype of the images in the source.")
    white: int = Field(description="The value in the source that stands for 255.")
    validation_from: Literal["own", "carved"] | None
    class_names: list[str]
    splits: dict[SplitName, SplitReport]
    shared: list[SharedImages]
    problems: list[str] = Field(
        description="What to look into before training, one line each; empty if nothing is wrong."
    )


def check_data(data: Data, seed: int, progress: DownloadProgress = no_progress) -> DataReport:
    """Read every split that ``data`` describes and report on it. This also opens the test split, to compare it.

    Args:
        data: the section of the config; its fallback is taken as in ``train``, and is then reported as a problem.
        seed: decides the validation split, and a folder's test split.
        progress: told of a download, in bytes.

    Raises:
        DataError: if a split cannot be read; ``train`` and ``evaluate`` refuse the same data.
    """
    problems: list[str] = []
    training = load_training(data, seed, problems.append, progress)
    record = training.record
    test = load_split(data_used(data, record), seed, "test", trained_on=record)
    doubts.look_at_other(data_used(data, record), record.location, "test", test, training.train, problems.append)
    splits: dict[SplitName, Split] = {"train": training.train}
    if training.validation:
        splits["validation"] = training.validation
    splits["test"] = test
    hashes = {
        name: [hashlib.sha256(image.reshape(-1).data).digest() for image in split.images]
        for name, split in splits.items()
    }
    reports = {name: _report(split, hashes[name], len(record.class_names)) for name, split in splits.items()}
    counts = {name: Counter(found) for name, found in hashes.items()}
    shared = []
    for other, name in combinations(splits, 2):
        num_images = sum(counts[name][image_hash] for image_hash in counts[name].keys() & counts[other].keys())
        if num_images:
            shared.append(SharedImages(split=name, other=other, num_images=num_images))
    for name, report in reports.items():
        problems += _find_problems(name, report, record.class_names)
    problems += [
        f"the {found.split} split shares {count(found.num_images, 'image')} with the {found.other} split"
        for found in shared
    ]
    return DataReport(
        source=record.source,
        requested=record.requested,
        location=record.location,
        pixel_dtype=record.pixel_dtype,
        white=record.white,
        validation_from=record.validation_from,
        class_names=record.class_names,
        splits=reports,
        shared=shared,
        problems=problems,
    )


def _report(split: Split, hashes: list[bytes], num_classes: int) -> SplitReport:
    first_label: dict[bytes, int] = {}
    contradicting = 0
    for image_hash, label in zip(hashes, split.labels.tolist(), strict=True):
        contradicting += first_label.setdefault(image_hash, label) != label
    flat = split.images.reshape(len(split), -1)
    return SplitReport(
        num_examples=len(split),
        shape=list(split.images.shape),
        counts=counts_per_class(split.labels, num_classes),
        sha256=split_digest(split),
        num_repeated=len(hashes) - len(first_label),
        num_contradicting=contradicting,
        num_blank=int((flat.min(axis=1) == flat.max(axis=1)).sum()),
    )


def _find_problems(name: SplitName, report: SplitReport, class_names: list[str]) -> list[str]:
    problems = []
    empty = [class_names[label] for label, found in enumerate(report.counts) if not found]
    if empty:
        problems.append(f"the {name} split has no example of: {', '.join(empty[:10])}{', …' if empty[10:] else ''}")
    if report.num_repeated:
        problems.append(f"the {name} split holds {count(report.num_repeated, 'repeated image')}")
    if report.num_contradicting:
        problems.append(f"repeated with a different label: {count(report.num_contradicting, 'image')}")
    if report.num_blank:
        problems.append(f"the {name} split holds {count(report.num_blank, 'blank image')}, all values the same")
    return problems
