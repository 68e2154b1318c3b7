import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnn_trainer.data.splits import (
    Split,
    Stream,
    carve_validation,
    choose_stratified,
    order_of_examples,
    permutation,
    split_digest,
    take_subset,
)
from cnn_trainer.errors import DataError


def numbered_split(labels):
    images = np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1)
    return Split(images, np.asarray(labels, np.int32))


def test_order_of_examples_is_pinned():
    assert order_of_examples(10, seed=1, epoch=1).tolist() == [0, 6, 5, 3, 4, 9, 7, 8, 2, 1]
    assert order_of_examples(60_000, seed=1, epoch=1)[:5].tolist() == [58224, 35111, 31602, 4732, 36335]


def test_order_of_examples_is_an_int32_permutation():
    order = order_of_examples(1000, seed=3, epoch=2)
    assert order.dtype == np.int32
    assert sorted(order.tolist()) == list(range(1000))


def test_every_seed_epoch_and_purpose_has_an_order_of_its_own():
    orders = [order_of_examples(50, 1, 1), order_of_examples(50, 1, 2), order_of_examples(50, 2, 1)]
    orders += [permutation(50, 1, stream, 1) for stream in Stream if stream != Stream.EPOCH_ORDER]
    assert len({tuple(order.tolist()) for order in orders}) == len(orders) == 8


def test_order_of_examples_takes_the_largest_seed_and_epoch_of_the_schema():
    assert len(order_of_examples(3, 2**31 - 1, 100_000)) == 3


def test_split_digest_is_what_its_docstring_says():
    split = Split(np.arange(12, dtype=np.uint8).reshape(2, 3, 2, 1), np.array([5, 258], np.int32))
    content = b"2 3 2 1\n" + bytes(range(12)) + b"\x05\0\0\0" + b"\x02\x01\0\0"
    assert split_digest(split) == hashlib.sha256(content).hexdigest()


def test_split_digest_sees_the_shape():
    labels = np.zeros(2, np.int32)
    one, other = (Split(np.zeros(shape, np.uint8), labels) for shape in ((2, 2, 3, 1), (2, 3, 2, 1)))
    assert split_digest(one) != split_digest(other)


@given(
    counts=st.lists(st.integers(2, 30), min_size=2, max_size=6),
    fraction=st.floats(0.05, 0.5),
    seed=st.integers(0, 2**31 - 1),
)
def test_each_class_gives_its_share(counts, fraction, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    if round(len(labels) * fraction) == 0:
        return
    chosen = choose_stratified(labels, fraction, seed, Stream.VALIDATION)
    taken = np.bincount(labels[chosen], minlength=len(counts))
    assert taken.sum() == round(len(labels) * fraction)
    assert (np.abs(taken - np.array(counts) * fraction) <= 1).all()
    assert (taken < counts).all()


def test_no_class_is_used_up():
    chosen = choose_stratified(np.array([0, 1, 1, 1, 1, 1]), 0.5, seed=1, stream=Stream.VALIDATION)
    assert chosen.sum() == 3
    assert not chosen[0]


@pytest.mark.parametrize(
    ("labels", "fraction", "word"),
    [([0, 0, 1, 1], 0.01, "another fraction"), ([0, 1, 2, 3], 0.5, "more examples")],
)
def test_a_share_that_cannot_be_taken_is_refused(labels, fraction, word):
    with pytest.raises(DataError, match=word) as caught:
        carve_validation(numbered_split(labels), fraction, seed=1)
    assert str(caught.value).startswith("data.validation_fraction: ")


def test_validation_and_training_split_share_nothing_and_lose_nothing():
    whole = numbered_split([0, 1] * 50)
    train, validation = carve_validation(whole, 0.2, seed=4)
    assert (len(train), len(validation)) == (80, 20)
    for part in train, validation:
        numbers = part.images.ravel()
        assert (np.diff(numbers.astype(int)) > 0).all()
        assert (part.labels == numbers % 2).all()
    assert set(train.images.ravel()) | set(validation.images.ravel()) == set(range(100))
    assert np.bincount(validation.labels).tolist() == [10, 10]


def test_the_seed_chooses_the_validation_split():
    whole = numbered_split([0, 1] * 50)
    first, again, other = (carve_validation(whole, 0.2, seed)[1].images.ravel().tolist() for seed in (1, 1, 2))
    assert first == again != other


def test_without_a_fraction_there_is_no_validation_split():
    whole = numbered_split([0, 1])
    assert carve_validation(whole, 0.0, seed=1) == (whole, None)


@given(counts=st.lists(st.integers(1, 30), min_size=2, max_size=6), data=st.data())
def test_a_subset_has_every_class_and_is_part_of_every_larger_one(counts, data):
    labels = np.repeat(np.arange(len(counts)), counts)[permutation(sum(counts), 5, Stream.FOLDER_TEST)]
    whole = numbered_split(labels)
    larger = data.draw(st.integers(len(counts), len(labels)))
    smaller = data.draw(st.integers(len(counts), larger))
    one, other = take_subset(whole, smaller, seed=3), take_subset(whole, larger, seed=3)
    assert (len(one), len(other)) == (smaller, larger)
    numbers = [split.images.ravel().tolist() for split in (one, other)]
    assert set(numbers[0]) <= set(numbers[1])
    assert all(found == sorted(found) for found in numbers)
    for split in (one, other):
        assert split.labels.tolist() == labels[split.images.ravel()].tolist()
        taken = np.bincount(split.labels, minlength=len(counts)).tolist()
        assert min(taken) > 0
        # No class is ahead of another by more than the one example that it took last.
        assert all(
            (mine - 1) * other_size <= others * size
            for mine, size in zip(taken, counts, strict=True)
            for others, other_size in zip(taken, counts, strict=True)
        )


def test_a_subset_depends_on_its_seed_and_the_whole_is_its_largest():
    whole = numbered_split([0, 1] * 50)
    assert not np.array_equal(take_subset(whole, 10, 1).images, take_subset(whole, 10, 2).images)
    assert split_digest(take_subset(whole, 100, 1)) == split_digest(whole)


@pytest.mark.parametrize(("asked", "problem"), [(101, "has 100 examples"), (1, "there are 2 classes")])
def test_an_impossible_subset_is_refused_with_the_key(asked, problem):
    with pytest.raises(DataError, match=problem) as caught:
        take_subset(numbered_split([0, 1] * 50), asked, 1)
    assert caught.value.place == "data.train_subset"
