"""What the program writes about a run, as JSON: read back under the same schema, unknown keys refused."""

import math
from collections.abc import Sequence
from heapq import nsmallest
from typing import Annotated, Final, Literal

from pydantic import Field

from cnn_trainer.storage.strict_json import SCHEMA_VERSION, Record

MAX_CONFUSIONS: Final = 20
"""How many are recorded, of the pairs of classes that were confused."""

RunStatus = Literal["created", "training", "interrupted", "paused", "diverged", "failed", "trained", "finished"]


class DataRecord(Record):
    """Which data a run was trained on."""

    source: str = Field(description="What was used: data.source of the config, or mnist-5k in place of mnist.")
    requested: str = Field(description="What the config asked for; differs from source if the fallback was taken.")
    location: str = Field(description="The file or folder that was read.")
    image_shape: list[Annotated[int, Field(ge=1, le=65_536)]] = Field(
        description="Height, width and channels.", min_length=3, max_length=3
    )
    class_names: list[str] = Field(
        description="One name a class, in the order of the labels 0, 1, ….", min_length=2, max_length=1000
    )
    num_train: int = Field(description="Training examples, those set aside for validation not counted.", ge=1)
    num_validation: int = Field(description="Validation examples; 0 if there is no validation split.", ge=0)
    train_sha256: str = Field(description="Digest of the whole training split's images and labels.")
    validation_from: Literal["own", "carved"] | None = Field(
        None, description="own: a validation split of the source; carved: set aside from its training split."
    )
    validation_sha256: str | None = Field(
        None, description="Digest of the source's own validation split, if it is used."
    )
    pixel_dtype: str = Field("uint8", description="Of the images in the source.")
    white: Literal[1, 255] = Field(255, description="The value in the source that stands for 255.")

    @property
    def num_whole_train(self) -> int:
        """Examples of the source's training split, with those that were carved out of it for validation."""
        return self.num_train if self.validation_from == "own" else self.num_train + self.num_validation


class EpochMetrics(Record):
    """One line of metrics.jsonl."""

    epoch: int = Field(description="Counted from 1.", ge=1)
    step: int = Field(description="Steps since the start of training.", ge=1)
    train_loss: float = Field(
        description="Mean over the epoch's examples as trained: augmented, smoothed, dropped out, weighted by class."
    )
    train_accuracy: float = Field(description="Of the same examples, not weighted.", ge=0, le=1)
    validation_loss: float | None = Field(
        None, description="Mean over the validation examples, not weighted, so that it compares with that of any run."
    )
    validation_accuracy: float | None = Field(None, ge=0, le=1)
    learning_rate: float = Field(description="Of the epoch's last step.")
    images_per_second: float = Field(description="Of the training steps only.")
    seconds: float = Field(description="Of the whole epoch, validation included.")

    def summary(self) -> str:
        """The epoch in words."""
        words = f"loss {self.train_loss:.4f}  accuracy {self.train_accuracy:.2%}"
        if self.validation_loss is not None and self.validation_accuracy is not None:
            words += f"  validation loss {self.validation_loss:.4f}  accuracy {self.validation_accuracy:.2%}"
        return f"{words}  {self.images_per_second:,.0f} images/s  {self.seconds:.1f} s"


class RunRecord(Record):
    """What run.json holds."""

    schema_version: Literal[1] = SCHEMA_VERSION
    status: RunStatus
    name: str
    seed: int
    created_at: str = Field(description="UTC, ISO 8601.")
    updated_at: str = Field(description="UTC, ISO 8601.")
    data: DataRecord
    num_parameters: int = Field(ge=0)
    device: str = Field(description="cpu, or gpu and the name of its model.")
    towers: int = Field(ge=1)
    intra_op_threads: int = Field(ge=1)
    inter_op_threads: int = Field(ge=1)
    machine: dict[str, str] = Field(description="Processor model, its features, operating system.")
    versions: dict[str, str] = Field(description="Of Python, TensorFlow, Keras, NumPy and this program.")
    environment: dict[str, str] = Field(description="From a short list of names that change how TensorFlow works.")
    git_commit: str | None = Field(None, description="Of the working folder, with +dirty if it has changes.")
    epochs_done: int = Field(0, ge=0)
    best_epoch: int | None = Field(None, description="Whose weights are the result, where validation chose.")
    train_seconds: float = Field(0.0, ge=0, description="Spent training, over all sessions of the run.")
    weights_sha256: str | None = Field(None, description="Digest of the result's weights.")
    error: str | None = Field(None, description="Why the run failed or diverged.")


class ClassScore(Record):
    """How one class was recognised."""

    name: str
    support: int = Field(description="Examples of this class.", ge=0)
    precision: float | None = Field(description="null if the class was never predicted.", ge=0, le=1)
    recall: float | None = Field(description="null if the class has no example.", ge=0, le=1)
    f1: float | None = Field(description="null if precision or recall is, or both are 0.", ge=0, le=1)


class Confusion(Record):
    """Examples of one class that were taken for another."""

    label: str = Field(description="Name of the true class.")
    prediction: str = Field(description="Name of the predicted class.")
    count: int = Field(ge=1)


def balanced_accuracy(classes: Sequence[ClassScore]) -> float:
    """The mean of the recalls of the classes that have an example: a rare class counts as much as a frequent one.

    With as many examples of each class it is the accuracy. As K. H. Brodersen and others define it for two classes (The
    Balanced Accuracy and Its Posterior Distribution, 2010), and scikit-learn's ``balanced_accuracy_score`` for more.
    """
    recalls = [score.recall for score in classes if score.recall is not None]
    return math.fsum(recalls) / max(1, len(recalls))


def frequent_confusions(matrix: Sequence[Sequence[int]], class_names: Sequence[str]) -> list[Confusion]:
    """The ``MAX_CONFUSIONS`` most frequent confusions, the most frequent first, from a matrix (true, predicted)."""
    found = [
        (-count, label, prediction)
        for label, row in enumerate(matrix)
        for prediction, count in enumerate(row)
        if count > 0 and prediction != label < len(class_names) > prediction
    ]
    return [
        Confusion(label=class_names[label], prediction=class_names[prediction], count=-count)
        for count, label, prediction in nsmallest(MAX_CONFUSIONS, found)
    ]


class EvaluationRecord(Record):
    """What evaluation.json holds: the score of a run's result on one split.

    Files of earlier versions lack ``confusions`` and ``balanced_accuracy``, which follow from the rest.
    """

    split: Literal["train", "validation", "test"]
    source: str = Field(description="Which data set the images are of.")
    requested: str = Field(description="What the config asked for; differs from source if the fallback was taken.")
    location: str = Field(description="The file or folder that was read.")
    images_sha256: str = Field(description="Digest of the images and labels that were scored.")
    num_examples: int = Field(ge=1)
    classes: list[ClassScore]
    confusion_matrix: list[list[int]] = Field(description="Row: true class; column: predicted class.")
    confusions: list[Confusion] = Field(
        default_factory=lambda record: frequent_confusions(
            record["confusion_matrix"], [score.name for score in record["classes"]]
        ),
        description="The most frequent confusions, the most frequent first; 20 at most.",
    )
    loss: float = Field(description="Mean over the examples, without class weights, label smoothing and penalties.")
    accuracy: float = Field(ge=0, le=1)
    accuracy_interval: list[float] = Field(description="95 % interval of the accuracy (Wilson).")
    balanced_accuracy: float = Field(
        default_factory=lambda record: balanced_accuracy(record["classes"]),
        description="Mean of the recalls of the classes that the split has.",
        ge=0,
        le=1,
    )
    weights_sha256: str = Field(description="Digest of the weights that were scored.")
    evaluated_at: str = Field(description="UTC, ISO 8601.")


class RunOutcome(Record):
    """What ``train`` and ``resume`` report in the end, and print with --json."""

    run: str = Field(description="The run directory.")
    status: RunStatus
    data: str = Field(description="Which data set the run was trained on.")
    requested_data: str = Field(description="What the config asked for.")
    data_location: str = Field(description="The file or folder that it was read from.")
    epochs: int
    best_epoch: int | None
    train_seconds: float
    test_loss: float | None = Field(description="null if the test split was not opened, as all that begins with test.")
    test_accuracy: float | None
    test_accuracy_interval: list[float] | None
    test_balanced_accuracy: float | None
    test_examples: int | None
    test_images_sha256: str | None
    weights_sha256: str
