"""Where the compiled step takes its images and labels from."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from cnn_trainer.data import Split
from cnn_trainer.network.rewrite import Tensor

Batch = Callable[[Tensor], tuple[Tensor, Tensor]]
"""``batch(indexes)`` is traced into the compiled step, once for each tower.

It takes int32 (n,), numbers of training examples, and gives their images, uint8 (n, height, width, channels), and
labels, int32 (n,), in the same order.
"""


def from_memory(split: Split, size: tuple[int, int] | None = None) -> Batch:
    """Batches of a split that is held in the device's memory, as bytes.

    Args:
        split: The examples.
        size: Height and width of the upper left part of the images that will be read; None for all of them.
    """
    images = split.images
    if size is not None:
        images = np.ascontiguousarray(images[:, : size[0], : size[1]])
    held_images, held_labels = tf.convert_to_tensor(images), tf.convert_to_tensor(split.labels, tf.int32)
    return lambda indexes: (tf.gather(held_images, indexes), tf.gather(held_labels, indexes))
