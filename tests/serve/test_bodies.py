"""The fast reader of a request's JSON gives the same as the plain reader, or leaves the work to it."""

import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cnn_trainer.serve import bodies
from cnn_trainer.serve.limits import RefusedError

SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 4), st.sampled_from([1, 3]))
SEPARATORS = st.sampled_from([(",", ":"), (", ", ": ")])


def written(images, separators=(", ", ": "), key="instances"):
    return json.dumps({key: images.tolist()}, separators=separators).encode()


@given(SHAPES, st.integers(1, 3), SEPARATORS, st.integers(0, 2**32 - 1))
def test_what_json_writes_is_read_quickly_and_right(shape, count, separators, seed):
    images = np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)
    found = bodies.parse_object(written(images, separators), shape)
    assert found.keys() == {"instances"}
    assert isinstance(found["instances"], np.ndarray), "it was not read quickly"
    np.testing.assert_array_equal(found["instances"], images)


def test_every_pixel_value_is_read(batch):
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    np.testing.assert_array_equal(bodies.parse_object(written(images), (16, 16, 1))["instances"], images)


@st.composite
def damaged(draw):
    """The text of two images of 2x2 with some bytes inserted, removed or replaced."""
    text = bytearray(written(np.array([[[[0], [9]], [[10], [255]]]] * 2), draw(SEPARATORS)))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(text) - 1))
        end = place + draw(st.integers(0, 2))
        text[place:end] = draw(st.text('0123456789[], .-e{}:"NaNtrue', max_size=2)).encode()
    return bytes(text)


@settings(max_examples=1000)
@given(damaged())
@example(b'{"instances": [[[[], [9]], [[10], [255]]]]}')
@example(b'{"instances": [[[[0], []9], [[10], [255]]]]}')
@example(b'{"instances": [[[[00], [9]], [[10], [255]]]]}')
@example(b'{"instances": [[[[256], [9]], [[10], [255]]]]}')
@example(b'{"instances": [[[[1255], [9]], [[10], [255]]]]}')
@example(b'{"instances": [[[[0], [9]], [[10], [255]]]], "instances": 3}')
@example(b'{"instances": [[[[0], [9]], [[10], [255]]]], "more": NaN}')
@example(b'{"more": null, "instances": [[[[0], [9]], [[10], [255]]]]}')
@example(b'{"instances": [[[[0], [9]], [[10], [255]]]]')
def test_a_damaged_text_is_read_as_the_plain_way_reads_it(text):
    def outcome(*shape):
        try:
            found = bodies.parse_object(text, *shape)
        except RefusedError:
            return "refused"
        return {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in found.items()}

    assert outcome((2, 2, 1)) == outcome()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "not valid JSON"),
        (b"\xff", "not UTF-8"),
        (b'{"a": NaN}', "NaN is not a valid JSON number"),
        (b'{"a": -Infinity}', "-Infinity is not a valid JSON number"),
        (b'{"a": 1, "a": 2}', "an object repeats a key"),
        (b'{"a": ' + b"1" * 5000 + b"}", "not valid JSON"),
        (b'{"a": ' + b"[" * 500_000, "nested too deeply"),
        (b'{"a": ' * 100_000, "nested too deeply"),
        (b"[]", "must be a JSON object"),
    ],
)
def test_what_is_no_object_is_refused(text, message):
    with pytest.raises(RefusedError, match=message) as caught:
        bodies.parse_object(text, (28, 28, 1))
    assert caught.value.status == 400


@given(
    st.lists(st.one_of(st.integers(-2, 258), st.floats(), st.booleans(), st.none(), st.text(max_size=2)), min_size=1)
)
def test_only_whole_numbers_from_0_to_255_are_pixels(values):
    are_pixels = all(type(value) in (int, float) and value in range(256) for value in values)
    try:
        found = bodies.to_pixels(values, "here")
    except RefusedError:
        assert not are_pixels
    else:
        assert are_pixels
        assert found.dtype == np.uint8
        assert found.tolist() == values


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 12))
def test_formatted_numbers_are_read_back_to_the_bit(seed, rows, columns):
    numbers = np.random.default_rng(seed).random((rows, columns), np.float32) ** 20
    text = bodies.format_rows(numbers)
    np.testing.assert_array_equal(np.array(json.loads(text), np.float32), numbers)
