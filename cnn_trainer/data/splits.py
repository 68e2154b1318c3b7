"""Splits in memory, their digest, and every random choice among examples.

Nothing here holds random state: a choice is a function of a seed and of its purpose.
"""

import hashlib
import math
import re
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cnn_trainer.errors import DataError, count

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
SPLIT_WORDS: dict[SplitName, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev", "eval"),
    "test": ("test", "testing", "t10k"),
}
"""Words in the names of a split's files, folders and arrays, in upper or lower case."""
Images = NDArray[np.uint8]
Labels = NDArray[np.int32]


class Stream(IntEnum):
    """One number for each purpose, so that no two purposes ever draw the same random numbers."""

    EPOCH_ORDER = 0
    VALIDATION = 1
    FOLDER_TEST = 2
    MNIST_5K_TEST = 3
    CALIBRATION = 4
    TRAIN_SUBSET = 5


@dataclass(frozen=True)
class Split:
    """Images with their labels.

    Attributes:
        images: uint8 (n, height, width, channels), C-contiguous, 0 to 255; channels is 1 or 3.
        labels: int32 (n,), 0 to the number of classes minus 1.
        source_dtype: the dtype of the images in their source.
        source_white: the value there that stands for 255: 1 or 255.
    """

    images: Images
    labels: Labels
    source_dtype: str = "uint8"
    source_white: Literal[1, 255] = 255

    def __len__(self) -> int:
        return len(self.labels)


def split_named(name: str) -> SplitName | None:
    """The split that a name means: ``01_Train`` means train; ``dog`` and ``test-train`` mean none."""
    words = re.split("[^a-z]+", re.sub("(set|data)(?![a-z])", "", re.sub("t10k", "test", name.lower())))
    found = {split for split, names in SPLIT_WORDS.items() if not set(names).isdisjoint(words)}
    return found.pop() if len(found) == 1 else None


def split_digest(split: Split) -> str:
    r"""SHA-256 of a split, in hexadecimal, the same on every machine.

    It is taken over three parts, one after the other: the shape of the images as decimal numbers with one space
    between them and a line feed at the end (``60000 28 28 1\n``), in ASCII; the bytes of the images in C order; the
    bytes of the labels as little-endian int32.
    """
    digest = hashlib.sha256(" ".join(map(str, split.images.shape)).encode("ascii") + b"\n")
    digest.update(np.ascontiguousarray(split.images).reshape(-1).data)
    digest.update(np.ascontiguousarray(split.labels, dtype="<i4").data)
    return digest.hexdigest()


def permutation(num_examples: int, seed: int, stream: Stream, index: int = 0) -> NDArray[np.int64]:
    """A permutation of 0 to ``num_examples`` - 1 that depends only on the arguments.

    The 64-bit outputs of the counter-based generator Philox 4x64-10 (Salmon and others, "Parallel random numbers: as
    easy as 1, 2, 3", 2011), whose key is (seed, stream * 2**32 + index), are ranked. NumPy promises the same raw
    outputs in every version, which it does not promise for ``Generator.permutation``.

    Args:
        num_examples: how many numbers.
        seed: 0 to 2**64 - 1.
        stream: what the permutation is for.
        index: 0 to 2**32 - 1, such as an epoch.
    """
    key = np.array([seed, int(stream) * 2**32 + index], dtype=np.uint64)
    raw = np.random.Philox(key=key).random_raw(num_examples)
    return np.argsort(raw, kind="stable")


def order_of_examples(num_examples: int, seed: int, epoch: int) -> Labels:
    """The order in which an epoch goes through the training split: int32 (num_examples,), a permutation.

    It depends only on the arguments, so that a resumed run finds its place again.
    """
    return permutation(num_examples, seed, Stream.EPOCH_ORDER, epoch).astype(np.int32)


def counts_per_class(labels: NDArray[np.integer], num_classes: int) -> list[int]:
    """How many examples each class has."""
    return [int(count) for count in np.bincount(labels, minlength=num_classes)]


def _quotas(counts: list[int], fraction: float) -> list[int]:
    """How many of each class to take: round(total * fraction) in total, by the method of largest remainders.

    At least one example of each class is left. Ties go to the lower class.
    """
    exact = [count * fraction for count in counts]
    quotas = [math.floor(share) for share in exact]
    missing = round(sum(counts) * fraction) - sum(quotas)
    by_remainder = sorted(range(len(counts)), key=lambda label: quotas[label] - exact[label])
    while missing > 0:
        open_classes = [label for label in by_remainder if quotas[label] < counts[label] - 1][:missing]
        if not open_classes:
            break
        for label in open_classes:
            quotas[label] += 1
        missing -= len(open_classes)
    return quotas


def choose_stratified(labels: NDArray[np.integer], fraction: float, seed: int, stream: Stream) -> NDArray[np.bool_]:
    """Which examples to take so that every class contributes the same share: bool (n,).

    Args:
        labels: integers (n,), each class from 0 to the largest with at least one example.
        fraction: the share, above 0 and at most 0.5; round(n * fraction) are taken in total.
        seed: decides which examples of a class are taken.
        stream: the purpose that they are taken for.

    Raises:
        DataError: if this would take no examples, or would use up a class.
    """
    counts = counts_per_class(labels, 0)
    quotas = _quotas(counts, fraction)
    wanted = round(len(labels) * fraction)
    if wanted == 0 or sum(quotas) < wanted:
        examples, classes = count(len(labels), "example"), count(len(counts), "class", "classes")
        asked = f"a share of {fraction} of {examples} in {classes} is {wanted}"
        problem = f"{asked}, of which {sum(quotas)} can be taken with one of each class left"
        raise DataError(problem, remedy="give more examples or another fraction")
    order = permutation(len(labels), seed, stream)
    chosen = np.zeros(len(labels), dtype=np.bool_)
    for label, quota in enumerate(quotas):
        chosen[order[labels[order] == label][:quota]] = True
    return chosen


def take_subset(whole: Split, num_examples: int, seed: int) -> Split:
    """``num_examples`` examples of the training split, in their original order, with each class in its share.

    The examples of each class are put in an order that depends on ``seed``. The classes then take turns by Adams'
    method of apportionment: the next example is of the class of which the smallest share has been taken. So a smaller
    subset is part of every larger one, and no class is missing.

    Raises:
        DataError: if there are fewer examples, or more classes.
    """
    counts, place = np.bincount(whole.labels), "data.train_subset"
    if num_examples > len(whole):
        problem = f"got {num_examples:,}, but the training split has {count(len(whole), 'example')}"
        raise DataError(problem, place=place, remedy="use a smaller number, or null for all")
    if num_examples < len(counts):
        problem = f"got {num_examples:,}, but there are {count(len(counts), 'class', 'classes')}"
        raise DataError(problem, place=place, remedy="use at least one example of each class")
    order = permutation(len(whole), seed, Stream.TRAIN_SUBSET)
    shares = np.empty(len(whole))
    for label, size in enumerate(counts):
        shares[order[whole.labels[order] == label]] = np.arange(size) / max(size, 1)
    chosen = np.sort(np.lexsort((whole.labels, shares))[:num_examples])
    return replace(whole, images=whole.images[chosen], labels=whole.labels[chosen])


def carve_validation(whole: Split, fraction: float, seed: int) -> tuple[Split, Split | None]:
    """The training split without the validation split, and the validation split, both in their original order.

    ``fraction`` is the share of ``whole`` that is set aside, stratified by class and chosen by ``seed``; 0 for none.

    Raises:
        DataError: if a class has too few examples.
    """
    if not fraction:
        return whole, None
    try:
        chosen = choose_stratified(whole.labels, fraction, seed, Stream.VALIDATION)
    except DataError as error:
        raise error.at("data.validation_fraction") from None
    train, validation = (
        replace(whole, images=whole.images[part], labels=whole.labels[part]) for part in (~chosen, chosen)
    )
    return train, validation


def unused_fraction(location: str, num_validation: int) -> str:
    """The warning if ``data.validation_fraction`` is set but the source has its own validation split."""
    own = f"{location} has its own validation split of {count(num_validation, 'image')}"
    return f"data.validation_fraction is not used: {own}"
