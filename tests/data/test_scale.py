import tracemalloc

import numpy as np
import pytest

from cnn_trainer.data import scale
from cnn_trainer.errors import DataError

IMAGES = np.random.default_rng(4).integers(0, 256, (50, 6, 5), np.uint8)
IMAGES[0, 0, :2] = 0, 255


def refused(images):
    with pytest.raises(DataError) as caught:
        scale.to_uint8("x.npz: x_train", images)
    assert caught.value.place == "x.npz: x_train"
    return caught.value


def applied(remedy, x, **names):
    """The value that the expression in the remedy gives for ``x``."""
    expression = (
        remedy.split(" converts")[0].split(" if ")[0].split(", with ")[0].removeprefix("undo the normalisation: ")
    )
    return eval(expression, {"x": x, **names})  # noqa: S307 -- our own message, as a user would type it


def test_uint8_is_given_back_as_it_is():
    converted, white = scale.to_uint8("", IMAGES)
    assert converted is IMAGES
    assert white == 255


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
def test_floats_from_0_to_1_come_back_as_they_were(dtype):
    converted, white = scale.to_uint8("", (IMAGES / 255).astype(dtype))
    assert (converted.dtype, white) == (np.uint8, 1)
    assert (converted == IMAGES).all()


def test_rounding_around_0_and_1_is_no_other_scale():
    images = IMAGES / 255
    images[0, 0, :2] = -1e-4, 1 + 1e-4
    assert (scale.to_uint8("", images)[0] == IMAGES).all()


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "int16", "int32", "int64", "uint16", ">i4", "uint64"]
)
def test_whole_numbers_from_0_to_255_are_taken_as_they_are(dtype):
    converted, white = scale.to_uint8("", IMAGES.astype(dtype))
    assert (converted.dtype, white) == (np.uint8, 255)
    assert (converted == IMAGES).all()


def test_booleans_are_black_and_white():
    converted, white = scale.to_uint8("", IMAGES > 127)
    assert white == 1
    assert (converted == (IMAGES > 127) * 255).all()


def test_arrays_in_fortran_order_and_larger_than_a_slab_are_converted_all(monkeypatch):
    monkeypatch.setattr(scale, "_SLAB_VALUES", 100)
    assert (scale.to_uint8("", np.asfortranarray(IMAGES / 255))[0] == IMAGES).all()
    last = IMAGES / 255
    last[-1, -1, -1] = 300
    refused(last)


def test_memory_is_taken_for_the_result_and_a_part_of_the_values():
    images = np.zeros((3000, 50, 50), np.float32)
    tracemalloc.start()
    scale.to_uint8("", images)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < images.size + 5 * 8 * scale._SLAB_VALUES


@pytest.mark.parametrize("images", [IMAGES / 127.5 - 1, IMAGES / 255 - 0.5, (IMAGES / 127.5 - 1).astype(np.float32)])
def test_the_remedy_for_floats_around_0_gives_the_images_back(images):
    error = refused(images)
    assert "expected 0 to 255, or floats from 0 to 1" in error.problem
    assert (applied(error.remedy, images) == IMAGES).all()


def test_the_remedy_for_normalised_floats_gives_the_images_back():
    for images, mean, std in ((IMAGES / 255 - 0.1307) / 0.3081, 0.1307, 0.3081), (IMAGES - 33.3, 33.3, 1):
        error = refused(images.astype(np.float32))
        undone = applied(error.remedy, images.astype(np.float32), mean=mean, std=std)
        assert (scale.to_uint8("", undone)[0] == IMAGES).all()


@pytest.mark.parametrize("num_bits", [10, 12, 16])
@pytest.mark.parametrize("dtype", ["uint16", "int32", "float64"])
def test_the_remedy_for_more_bits_keeps_black_and_white(num_bits, dtype):
    images = (IMAGES * ((2**num_bits - 1) / 255)).round().astype(dtype)
    error = refused(images)
    assert f"to {2**num_bits - 1}" in error.remedy
    assert (applied(error.remedy, images) == IMAGES).all()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_fractions_from_0_to_255_are_rounded(dtype):
    images = np.where(IMAGES < 200, IMAGES + 0.3, IMAGES).astype(dtype)
    images[0, 0, :2] = -0.4, 255.4  # as after resizing
    converted, white = scale.to_uint8("", images)
    assert (converted.dtype, white) == (np.uint8, 255)
    assert (converted == IMAGES).all()


def test_a_black_image_among_fractions_is_no_other_scale():
    images = np.where(IMAGES < 200, IMAGES + 0.3, IMAGES)
    images[3] = 0
    assert (scale.to_uint8("", images)[0] == images.round()).all()


@pytest.mark.parametrize("slab", [100, 2**20])
def test_images_on_two_scales_are_refused(monkeypatch, slab):
    monkeypatch.setattr(scale, "_SLAB_VALUES", slab)
    images = IMAGES.astype(np.float64)
    images[20:30] /= 255
    assert refused(images).remedy == "some images are from 0 to 1 and others from 0 to 255: multiply the former by 255"


@pytest.mark.parametrize(
    ("images", "remedy"),
    [
        (np.where(IMAGES == 255, 1.05, IMAGES / 255), r"x.clip(0, 1)"),
        (np.where(IMAGES == 0, -0.05, IMAGES / 255), r"x.clip(0, 1)"),
        (np.where(IMAGES == 0, -12.5, np.where(IMAGES == 255, 261.5, IMAGES)), "x.clip(0, 255).round()"),
        (np.where(IMAGES == 255, 258.2, IMAGES), r"x.clip(0, 255).round().astype('uint8') if white is 255"),
        (IMAGES.view(np.int8), "x.view('uint8')"),
        (IMAGES.astype(np.int16) - 128, "shift and scale them to 0 to 255"),
        (IMAGES * (2.8 / 255), "(x * (255 / white)).round().astype('uint8') with the value that stands for white"),
    ],
)
def test_others_are_refused_with_a_remedy(images, remedy):
    assert remedy in refused(images).remedy


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(value):
    images = IMAGES / 255
    images[7, 1, 1] = value
    error = refused(images)
    assert error.problem == "the pixels are float64 with NaN or infinity; expected 0 to 255, or floats from 0 to 1"
    assert "nan_to_num" in error.remedy


@pytest.mark.parametrize(
    ("highest", "remedy"), [(1, "multiply by 255"), (9, "(x * (255 / 9))"), (16, "(x * (255 / 16))")]
)
def test_levels_that_are_all_black_are_refused(highest, remedy):
    images = (IMAGES * (highest / 255)).round().astype(np.uint8)
    with pytest.raises(DataError) as caught:
        scale.check_brightness("x.npz", "training", images, 255, may_be_black=False)
    assert caught.value.problem == (
        f"the brightest pixel of the 50 training images is {highest} of 255, so the scale is wrong"
    )
    assert remedy in caught.value.remedy


def test_black_images_and_floats_that_were_divided_twice_have_remedies_of_their_own():
    with pytest.raises(DataError, match="floats from 0 to 1 become 0 if they are cast"):
        scale.check_brightness("x", "training", np.zeros_like(IMAGES), 255, may_be_black=False)
    twice, white = scale.to_uint8("x", IMAGES / 255 / 255)
    with pytest.raises(DataError, match="were they divided by 255 twice"):
        scale.check_brightness("x", "training", twice, white, may_be_black=False)


@pytest.mark.parametrize("highest", [17, 63, 100, 127])
def test_dark_images_are_warned_of_not_refused(highest):
    images = (IMAGES * (highest / 255)).round().astype(np.uint8)
    line = scale.check_brightness("x.npz", "training", images, 255, may_be_black=False)
    assert line.startswith(f"x.npz: the brightest pixel of the 50 training images is {highest} of 255; ")


@pytest.mark.parametrize("images", [IMAGES, (IMAGES > 100) * np.uint8(255), IMAGES // 2 + 1])
def test_bright_images_are_right_however_few_their_levels(images):
    assert scale.check_brightness("x", "training", images, 255, may_be_black=False) is None


def test_the_split_is_named():
    with pytest.raises(DataError, match="of the 50 test images is 1 of 255"):
        scale.check_brightness("x", "test", IMAGES // 255, 255, may_be_black=False)
