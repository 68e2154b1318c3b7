"""How a picture is made to look like the images that a network was trained on."""

import numpy as np
import pytest
from PIL import Image

from cnn_trainer.errors import DataError
from cnn_trainer.pictures import like_mnist
from cnn_trainer.pictures.ink import find_sheet
from cnn_trainer.runs.records import DataRecord

from .photographs import STROKES, drawn


def large(digit, side=280, paper=255, ink=0, place=(0, 0), page=None):
    """An enlarged digit, dark on light, at a place on a larger page."""
    height, width = page or (side, side)
    enlarged = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
    cover = np.zeros((height, width))
    cover[place[0] : place[0] + side, place[1] : place[1] + side] = np.asarray(enlarged, np.float64) / 255
    return (paper + cover * (ink - paper)).astype(np.uint8)


def center_of_mass(image):
    mass = image.astype(np.float64)
    return [(mass.sum(axis=1 - axis) * np.arange(28)).sum() / mass.sum() for axis in (0, 1)]


def alike(one, two):
    """The correlation of two images, one of them shifted by at most a pixel."""
    moved = (np.roll(one, (y, x), (0, 1)).astype(float) for y in (-1, 0, 1) for x in (-1, 0, 1))
    return max(np.corrcoef(image.ravel(), two.ravel())[0, 1] for image in moved)


@pytest.fixture
def some_digits(digits):
    return [image[..., 0] for image in digits.images[::7]]


def test_an_enlarged_image_of_mnist_comes_back_as_it_was(some_digits):
    for digit in some_digits:
        assert alike(like_mnist.like_mnist(large(digit)), digit) > 0.9


def test_the_result_is_centred_by_mass_and_20_pixels_long(some_digits):
    for digit in some_digits:
        found = like_mnist.like_mnist(large(digit, place=(300, 40), page=(700, 500)))
        rows, columns = (np.flatnonzero(found.max(axis=axis) > 0) for axis in (1, 0))
        assert 19 <= max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1 <= 21
        assert all(abs(center - 14) <= 1 for center in center_of_mass(found))


def test_place_size_paper_and_ink_change_little(some_digits):
    for digit in some_digits[:5]:
        wanted = like_mnist.like_mnist(large(digit))
        for changed in (
            large(digit, place=(30, 200), page=(400, 600)),
            large(digit, side=600),
            large(digit, paper=180, ink=90),
            255 - large(digit),
        ):
            assert alike(like_mnist.like_mnist(changed), wanted) > 0.9


@pytest.mark.parametrize("name", STROKES)
@pytest.mark.parametrize(("paper", "ink"), [(255, 0), (0, 255), (250, 205), (60, 140)])
def test_a_drawing_comes_out_the_same_at_every_size(name, paper, ink):
    small = drawn(name, paper=paper, ink=ink)
    wanted = like_mnist.like_mnist(np.kron(small, np.ones((10, 10), np.uint8)))
    assert alike(like_mnist.like_mnist(small), wanted) > 0.65  # a line of one pixel may be half a pixel away
    for times in (2, 3, 5, 25):
        larger = np.kron(small, np.ones((times, times), np.uint8))
        assert alike(like_mnist.like_mnist(larger), wanted) > 0.9


@pytest.mark.parametrize("name", STROKES)
def test_a_pen_of_one_pixel_is_seen_on_a_page_of_any_size(name):
    wanted = like_mnist.like_mnist(drawn(name, side=280, pen=20, size=(280, 280)))
    for side, size, place in [
        (14, (14, 14), (0, 0)),
        (20, (28, 28), (2, 7)),
        (28, (64, 40), (30, 5)),
        (300, (1920, 1080), (1500, 90)),
        (900, (1920, 1080), (200, 90)),
        (40, (1000, 800), (700, 600)),
    ]:
        found = like_mnist.like_mnist(drawn(name, side, 1, size, place=place))
        assert alike(found, wanted) > 0.65, (side, size)


@pytest.mark.parametrize("margin", [1, 3, 40])
def test_a_picture_may_be_cut_out_closely(some_digits, margin):
    found = []
    for digit in some_digits:
        rows, columns = (np.flatnonzero(digit.max(axis=axis) > 60) for axis in (1, 0))
        close = digit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        enlarged = Image.fromarray(255 - close).resize((close.shape[1] * 10, close.shape[0] * 10))
        picture = np.pad(np.asarray(enlarged), margin, constant_values=255)
        found.append(alike(like_mnist.like_mnist(picture), digit) > 0.9)
    assert np.mean(found) > 0.85


def test_what_is_too_small_or_off_centre_to_be_of_mnist_is_prepared(some_digits):
    moved = 0
    for digit in some_digits:
        small = np.zeros((28, 28), np.uint8)
        small[1:17, 10:26] = np.asarray(Image.fromarray(digit).resize((16, 16), Image.Resampling.BICUBIC))
        assert alike(like_mnist.fit(small, (28, 28, 1), True)[..., 0], digit) > 0.8
        if not digit[-3:].any() and not digit[:, :3].any():
            away = np.roll(digit, (3, -3), (0, 1))
            assert alike(like_mnist.fit(away, (28, 28, 1), True)[..., 0], digit) > 0.9
            moved += 1
    assert moved > 5


def test_a_dark_grey_page_of_28x28_is_prepared():
    found = like_mnist.fit(drawn("7", paper=60, ink=140), (28, 28, 1), True)[..., 0]
    assert (found.min(), found.max()) == (0, 255)


def sheet(digits, columns, gap=10, side=60):
    rows = -(-len(digits) // columns)
    page = np.full((gap + rows * (side + gap), gap + columns * (side + gap)), 250, np.uint8)
    for number, digit in enumerate(digits):
        top, left = (gap + place * (side + gap) for place in divmod(number, columns))
        page[top : top + side, left : left + side] = large(digit, side, paper=250)
    return page


@pytest.mark.parametrize(("number", "columns"), [(2, 2), (3, 3), (10, 10), (20, 5), (100, 10)])
def test_a_sheet_of_several_digits_is_said_to_be_one(digits, number, columns):
    page = sheet(digits.images[:number, ..., 0], columns)
    for picture in (page, 255 - page, (page * np.linspace(1, 0.6, page.shape[1])).astype(np.uint8)):
        with pytest.raises(DataError, match="shows several digits; cut out one of them"):
            like_mnist.like_mnist(picture)


def test_a_digit_of_several_strokes_is_one():
    four = drawn("1", 280, 12, (280, 280)).copy()
    four[50:150, 60:72], four[150:162, 60:200] = 0, 0
    five = np.full((280, 280), 255, np.uint8)
    five[60:70, 110:190], five[80:220, 100:112], five[208:220, 100:180] = 0, 0, 0
    broken = drawn("2", 280, 12, (280, 280)).copy()
    broken[130:150] = 255
    for picture in (four, five, broken):
        like_mnist.like_mnist(picture)


def test_specks_do_not_move_the_digit(some_digits):
    page = large(some_digits[0], place=(60, 60), page=(420, 420))
    wanted = like_mnist.like_mnist(page)
    page[8:13, 400:405] = 0
    assert alike(like_mnist.like_mnist(page), wanted) > 0.95


def test_what_is_like_mnist_already_stays_as_it_is(some_digits):
    for digit in some_digits:
        assert np.array_equal(like_mnist.fit(digit, (28, 28, 1), True)[..., 0], digit)
    inverted = 255 - some_digits[0]
    assert not np.array_equal(like_mnist.fit(inverted, (28, 28, 1), True)[..., 0], inverted)
    assert np.array_equal(like_mnist.fit(inverted, (28, 28, 1), False)[..., 0], inverted)


@pytest.mark.parametrize("level", [0, 40, 128, 255])
def test_a_blank_page_is_refused(level):
    page = np.full((300, 200), level, np.uint8)
    noise = np.random.default_rng(1).normal(0, 3, page.shape)
    for picture in (page, (page + noise).clip(0, 255).astype(np.uint8)):
        with pytest.raises(DataError, match="nothing stands out"):
            like_mnist.like_mnist(picture)
    with pytest.raises(DataError, match="blank"):
        like_mnist.place_drawing(np.zeros((280, 280), np.uint8))


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (28, 28), (3000, 40), (2, 2)])
def test_any_size_is_answered_or_refused(shape):
    picture = np.random.default_rng(2).integers(0, 256, shape, np.uint8)
    try:
        found = like_mnist.fit(picture, (28, 28, 1), True)
    except DataError:
        return
    assert (found.shape, found.dtype) == ((28, 28, 1), np.uint8)


def test_colour_is_kept_where_the_network_sees_colour():
    picture = np.zeros((50, 80, 3), np.uint8)
    picture[..., 0] = 255
    found = like_mnist.fit(picture, (32, 32, 3), False)
    assert found.shape == (32, 32, 3)
    assert (found == (255, 0, 0)).all()


def _record(source, shape):
    return DataRecord(
        source=source,
        requested=source,
        location="",
        image_shape=list(shape),
        class_names=["a", "b"],
        num_train=1,
        num_validation=0,
        train_sha256="",
    )


@pytest.mark.parametrize(
    ("source", "shape", "prepares", "color"),
    [
        ("mnist", (28, 28, 1), True, "grey"),
        ("mnist-5k", (28, 28, 1), True, "grey"),
        ("idx", (28, 28, 1), True, "grey"),
        ("npz", (12, 12, 1), False, "grey"),
        ("fashion-mnist", (28, 28, 1), False, "grey"),
        ("folder", (28, 28, 1), False, "grey"),
        ("folder", (64, 64, 3), False, "rgb"),
    ],
)
def test_the_data_says_whether_pictures_are_made_like_mnist(source, shape, prepares, color):
    record = _record(source, shape)
    assert like_mnist.prepares(record) is prepares
    assert like_mnist.color_of(record) == color


def desk_with_note(paper=200, desk=60):
    """A picture of 90 x 120 with a sheet in rows 15 to 69 and columns 20 to 99, on which something is written."""
    picture = np.full((90, 120), desk, np.uint8)
    picture[15:70, 20:100] = paper
    picture[30:55, 55:60] = 20
    return picture


def test_a_sheet_on_something_darker_is_found():
    rows, columns = find_sheet(desk_with_note())
    assert abs(rows.start - 15) <= 1
    assert abs(rows.stop - 70) <= 1
    assert abs(columns.start - 20) <= 1
    assert abs(columns.stop - 100) <= 1


@pytest.mark.parametrize(
    "picture",
    [
        desk_with_note(desk=200),  # only paper
        desk_with_note(paper=60, desk=200),  # something dark on light: not a sheet
        np.where(np.indices((90, 120)).sum(axis=0) < 105, 60, 200).astype(np.uint8),  # half of it in shadow
        np.zeros((90, 120), np.uint8),
    ],
)
def test_where_no_sheet_lies_the_whole_picture_counts(picture):
    assert find_sheet(picture) == (slice(0, 90), slice(0, 120))
