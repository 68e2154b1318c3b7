"""How much a training step has to compute, counted from the operations rather than measured."""

from collections.abc import Sequence

from cnn_trainer.network.rewrite import Convolve, Flatten, MatMul, MaxPool, Operation
from cnn_trainer.network.shapes import convolved, pooled

VariableShapes = Sequence[tuple[int, ...]]


def flop_per_image(operations: Sequence[Operation], image_shape: tuple[int, int, int], shapes: VariableShapes) -> int:
    """Floating-point operations in convolutions and matrix products that training on one image needs.

    A multiply-add counts as two. Each of these layers needs the same number again for the gradient of its kernel, and
    again for the gradient of its input, which the first layer does not need. Everything else is small compared to this,
    and is not counted. ``image_shape`` is the shape of the part of an image that is read, ``shapes`` are the shapes of
    the trainable variables.
    """
    height, width, channels = image_shape
    forward: list[int] = []
    for operation in operations:
        match operation:
            case Convolve(kernel, (rows, columns), padding):
                height, width = convolved((height, width), (rows, columns), padding)
                channels = shapes[kernel][-1]
                forward.append(2 * height * width * rows * columns * shapes[kernel][-2] * channels)
            case MaxPool(size):
                height, width = pooled((height, width), size)
            case Flatten():
                height, width, channels = 1, 1, height * width * channels
            case MatMul(kernel):
                forward.append(2 * shapes[kernel][0] * shapes[kernel][1])
    return 3 * sum(forward) - forward[0]
