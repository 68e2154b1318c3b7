"""Random changes to training images, inside the compiled step: one affine transform for each image."""

from collections.abc import Callable

import tensorflow as tf

from cnn_trainer.config.schema.training import Augmentation
from cnn_trainer.network.rewrite import Tensor

Augment = Callable[[Tensor, Tensor], Tensor]


def build_augment(augmentation: Augmentation, height: int, width: int) -> Augment | None:
    """Build the function that augments a batch within the bounds of ``augmentation``; None if all of them are zero.

    ``augment(images, seed)`` takes images, floats (n, height, width, channels), and a seed, int32 (2,), and returns
    images of the same shape and dtype. The result depends only on both arguments and on each image's place in the
    batch, so give every step and every tower its own seed. Pixels from outside the image are 0; values between pixels
    are interpolated linearly.
    """
    shift, zoom = augmentation.shift_pixels, augmentation.zoom
    bounds = [shift, shift, augmentation.rotation_radians, zoom, augmentation.shear]
    if not any(bounds):
        return None

    def augment(images: Tensor, seed: Tensor) -> Tensor:
        # The generator is named because TensorFlow's choice differs between kinds of devices.
        drawn = tf.random.stateless_uniform((tf.shape(images)[0], 5), seed, -1.0, 1.0, tf.float32, alg="philox")
        shift_x, shift_y, rotation, zoom, shear = tf.unstack(drawn * tf.constant(bounds, tf.float32), axis=1)
        return transform(images, matrices(shift_x, shift_y, rotation, zoom, shear, height=height, width=width))

    return augment


def matrices(
    shift_x: Tensor, shift_y: Tensor, rotation: Tensor, zoom: Tensor, shear: Tensor, *, height: int, width: int
) -> Tensor:
    """For each image, the affine map from a pixel of the result to the place in the image where it is read.

    With x to the right, y downwards and the centre of the image as origin, an image's point p goes to

        q = R S Z p + t,   R = [[cos r, -sin r], [sin r, cos r]],   S = [[1, shear], [0, 1]],   Z = exp(zoom) I

    so that a positive rotation r looks clockwise, and a positive shear moves lower rows to the right. The result reads
    its pixel q at p = Z^-1 S^-1 R^-1 (q - t), and that map is returned. Each of the five arguments is float32 (n,): the
    shifts t in pixels (height and width), r in radians.

    Returns:
        float32 (n, 8): a0, a1, a2, b0, b1, b2, 0, 0 with x = a0 qx + a1 qy + a2 and y = b0 qx + b1 qy + b2, counted
        from the centre of the upper left pixel, as ``ImageProjectiveTransformV3`` takes it.
    """
    shrink, cosine, sine = tf.exp(-zoom), tf.cos(rotation), tf.sin(rotation)
    a0, a1 = shrink * (cosine + shear * sine), shrink * (sine - shear * cosine)
    b0, b1 = -shrink * sine, shrink * cosine
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    a2 = centre_x - a0 * (centre_x + shift_x) - a1 * (centre_y + shift_y)
    b2 = centre_y - b0 * (centre_x + shift_x) - b1 * (centre_y + shift_y)
    zero = tf.zeros_like(a0)
    return tf.stack([a0, a1, a2, b0, b1, b2, zero, zero], axis=1)


def transform(images: Tensor, maps: Tensor) -> Tensor:
    """Images (n, height, width, channels) read through ``maps``, float32 (n, 8), with 0 outside; any float dtype."""
    # Some devices have no bfloat16 kernel for this operation, and all kernels interpolate in float32 anyway.
    exact = images if images.dtype in (tf.float32, tf.float64) else tf.cast(images, tf.float32)
    result = tf.raw_ops.ImageProjectiveTransformV3(
        images=exact,
        transforms=maps,
        output_shape=tf.shape(images)[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
    return tf.cast(tf.ensure_shape(result, images.shape), images.dtype)
