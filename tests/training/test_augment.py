import math

import numpy as np
import pytest
import tensorflow as tf

from cnn_trainer.config.schema.training import Augmentation
from cnn_trainer.training.augment import build_augment, matrices, transform

HEIGHT, WIDTH = 12, 15
ALL = Augmentation(shift_pixels=2.0, rotation_radians=0.3, zoom=0.1, shear=0.2)
SEED = np.array([3, 4], np.int32)  # not a tensor, so that TensorFlow starts with the first test, not during collection


def random_images(num=6, channels=1, dtype=np.float32):
    return np.random.default_rng(5).uniform(0, 255, (num, HEIGHT, WIDTH, channels)).astype(dtype)


def move(images, shift_x=0.0, shift_y=0.0, rotation=0.0, zoom=0.0, shear=0.0):
    parts = [
        tf.fill((len(images),), tf.constant(value, tf.float32)) for value in (shift_x, shift_y, rotation, zoom, shear)
    ]
    return transform(tf.constant(images), matrices(*parts, height=HEIGHT, width=WIDTH)).numpy()


def reference(image, shift_x, shift_y, rotation, zoom, shear):
    """The transform as stated in its docstring, pixel by pixel, in float64."""
    cosine, sine = math.cos(rotation), math.sin(rotation)
    forward = np.array([[cosine, -sine], [sine, cosine]]) @ np.array([[1, shear], [0, 1]]) * math.exp(zoom)
    centre = np.array([(WIDTH - 1) / 2, (HEIGHT - 1) / 2])
    result = np.zeros_like(image, np.float64)
    for y in range(HEIGHT):
        for x in range(WIDTH):
            source_x, source_y = np.linalg.inv(forward) @ (np.array([x, y]) - centre - [shift_x, shift_y]) + centre
            left, top = math.floor(source_x), math.floor(source_y)
            for row, column in (top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1):
                weight = (1 - abs(source_x - column)) * (1 - abs(source_y - row))
                if 0 <= row < HEIGHT and 0 <= column < WIDTH:
                    result[y, x] += weight * image[row, column]
    return result


def test_no_augmentation_gives_no_function():
    assert build_augment(Augmentation(), HEIGHT, WIDTH) is None


def test_zero_parts_leave_every_bit():
    images = random_images()
    assert (move(images) == images).all()


@pytest.mark.parametrize(("shift_x", "shift_y"), [(3, 0), (0, -2), (-1, 4)])
def test_whole_shift_moves_pixels_and_fills_with_zero(shift_x, shift_y):
    images = random_images()
    expected = np.zeros_like(images)
    for y in range(HEIGHT):
        for x in range(WIDTH):
            if 0 <= y - shift_y < HEIGHT and 0 <= x - shift_x < WIDTH:
                expected[:, y, x] = images[:, y - shift_y, x - shift_x]
    assert (move(images, shift_x, shift_y) == expected).all()


@pytest.mark.parametrize(
    "parts",
    [
        {"rotation": 0.4},
        {"rotation": -2.0},
        {"zoom": 0.3},
        {"zoom": -0.3},
        {"shear": 0.5},
        {"shift_x": 0.25, "shift_y": -1.5},
        {"shift_x": 1.3, "shift_y": 0.4, "rotation": 0.3, "zoom": 0.2, "shear": -0.2},
    ],
)
def test_transform_is_the_one_of_the_docstring(parts):
    images = random_images(num=1, channels=3)
    whole = {"shift_x": 0.0, "shift_y": 0.0, "rotation": 0.0, "zoom": 0.0, "shear": 0.0} | parts
    np.testing.assert_allclose(move(images, **parts)[0], reference(images[0], **whole), atol=0.05)


def test_quarter_turn_is_clockwise():
    images = np.zeros((1, HEIGHT, HEIGHT, 1), np.float32)
    images[0, 0, HEIGHT // 2] = 1.0  # at the top
    parts = [tf.constant([value]) for value in (0.0, 0.0, math.pi / 2, 0.0, 0.0)]
    turned = transform(tf.constant(images), matrices(*parts, height=HEIGHT, width=HEIGHT)).numpy()
    np.testing.assert_allclose(turned[0, ..., 0], np.rot90(images[0, ..., 0], -1), atol=1e-5)


def test_the_same_seed_gives_the_same_bits_and_another_one_different_bits():
    augment = tf.function(build_augment(ALL, HEIGHT, WIDTH))
    images = tf.constant(random_images())
    first, again, other = augment(images, SEED), augment(images, SEED), augment(images, tf.constant([3, 5]))
    assert (first.numpy() == again.numpy()).all()
    assert (first.numpy() != other.numpy()).any()


def test_every_image_gets_its_own_transform():
    images = np.repeat(random_images(num=1), 8, axis=0)
    results = build_augment(ALL, HEIGHT, WIDTH)(tf.constant(images), SEED).numpy()
    assert len({result.tobytes() for result in results}) == 8


def test_what_is_not_asked_for_does_not_happen():
    """With only a shift, a single bright pixel moves on average, and its sum stays the same."""
    images = np.zeros((50, HEIGHT, WIDTH, 1), np.float32)
    images[:, 6, 7] = 1.0
    results = build_augment(Augmentation(shift_pixels=2.0), HEIGHT, WIDTH)(tf.constant(images), SEED).numpy()[..., 0]
    np.testing.assert_allclose(results.sum(axis=(1, 2)), 1.0, atol=1e-4)
    rows = (results.sum(axis=2) * np.arange(HEIGHT)).sum(axis=1) - 6
    columns = (results.sum(axis=1) * np.arange(WIDTH)).sum(axis=1) - 7
    for moved in rows, columns:
        assert abs(moved).max() <= 2 + 1e-4
        assert moved.min() < -1
        assert moved.max() > 1
    assert abs(np.corrcoef(rows, columns)[0, 1]) < 0.5


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64, tf.bfloat16, tf.float16])
def test_dtype_and_shape_stay_and_values_agree(dtype):
    images = tf.cast(random_images(channels=3), dtype)
    augment = build_augment(ALL, HEIGHT, WIDTH)
    result = tf.function(augment)(images, SEED)
    assert (result.dtype, result.shape) == (dtype, images.shape)
    expected = augment(tf.cast(images, tf.float32), SEED)
    np.testing.assert_allclose(tf.cast(result, tf.float32).numpy(), expected.numpy(), rtol=0.01, atol=0.01)


def test_batches_of_unknown_length_are_compiled_once():
    augment = build_augment(ALL, HEIGHT, WIDTH)
    signature = [tf.TensorSpec((None, HEIGHT, WIDTH, 1), tf.float32), tf.TensorSpec((2,), tf.int32)]
    compiled = tf.function(augment, input_signature=signature).get_concrete_function()
    assert compiled.structured_outputs.shape.as_list() == [None, HEIGHT, WIDTH, 1]
    for length in 1, 5:
        images = random_images(num=length)
        expected = augment(tf.constant(images), SEED).numpy()
        np.testing.assert_array_equal(compiled(tf.constant(images), SEED).numpy(), expected)
