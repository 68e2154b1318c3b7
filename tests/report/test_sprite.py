"""The one PNG with all images of a page: every image is in its place, and the page stays small."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from cnn_trainer.report.confusion import _choose
from cnn_trainer.report.sprite import MAX_SIDE, Sprite

SHAPES = [
    (28, 28, 1),
    (32, 32, 3),
    (3, 3, 1),
    (1, 1, 3),
    (1, 300, 1),
    (64, 64, 3),
    (200, 150, 3),
    (65, 7, 1),
    (9, 300, 3),
]


def shown(html):
    """The pixels of the PNG."""
    content = str(html).split("base64,")[1].split('"')[0]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


@pytest.mark.parametrize("shape", SHAPES)
def test_each_image_is_in_its_place_and_the_page_stays_small(shape):
    images = np.random.default_rng(1).integers(0, 256, (150, *shape), np.uint8)  # noise: the worst case
    sprite = Sprite(images)
    indexes = np.random.default_rng(2).permutation(150)[: sprite.capacity()].tolist()
    places = [sprite.view_box(index) for index in indexes]
    assert [sprite.view_box(index) for index in indexes] == places, "an image is in the PNG once"
    html = sprite.html()
    assert len(html) <= 600_000
    pixels, factor = shown(html), sprite.factor
    for index, place in zip(indexes, places, strict=True):
        left, top, width, height = map(int, place.split())
        assert max(width, height) <= MAX_SIDE
        part = pixels[top : top + height, left : left + width].reshape(height, width, -1).astype(float)
        if factor == 1:
            assert np.array_equal(part, images[index])
        elif rows := shape[0] // factor:  # whole blocks are averaged
            columns = shape[1] // factor
            blocks = images[index, : rows * factor, : columns * factor].reshape(rows, factor, columns, factor, -1)
            assert np.abs(part[:rows, :columns] - blocks.mean(axis=(1, 3))).max() <= 1


def test_the_number_of_images_that_fit_depends_on_how_well_they_compress():
    random = np.random.default_rng(1)
    noise = Sprite(random.integers(0, 256, (2000, 64, 64, 3), np.uint8))
    blank = Sprite(np.zeros((2000, 64, 64, 3), np.uint8))
    assert 20 < noise.capacity() < 60
    assert blank.capacity() == 1000


def test_no_image_is_no_png():
    assert Sprite(np.zeros((5, 2, 2, 1), np.uint8)).html() == ""


def test_cells_share_the_room_fairly():
    behind = {(0, 1): np.arange(300), (1, 0): np.arange(5), (0, 0): np.arange(1000), (1, 1): np.arange(30)}
    sizes = {pair: len(indexes) for pair, indexes in _choose(behind, 1000).items()}
    assert sizes == {(0, 1): 200, (1, 0): 5, (0, 0): 40, (1, 1): 30}
    sizes = {pair: len(indexes) for pair, indexes in _choose(behind, 65).items()}
    assert sizes == {(0, 1): 20, (1, 0): 5, (0, 0): 20, (1, 1): 20}
    assert {pair: list(indexes) for pair, indexes in _choose(behind, 2).items()} == {(0, 1): [0], (1, 0): [0]}
    assert _choose(behind, -3) == {}
