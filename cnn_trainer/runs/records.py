"""What the program writes about a run, as JSON: read back under the same schema, unknown keys refused."""

from typing import Annotated, Literal

from pydantic import Field

from cnn_trainer.storage.strict_json import SCHEMA_VERSION, Record

RunStatus = Literal["created", "training", "interrupted", "diverged", "failed", "trained", "finished"]


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
        description="Mean over the epoch's examples as trained: augmented, smoothed, dropped out."
    )
    train_accuracy: float = Field(ge=0, le=1)
    validation_loss: float | None = None
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


class EvaluationRecord(Record):
    """What evaluation.json holds: the score of a run's result on one split."""

    split: Literal["train", "validation", "test"]
    source: str = Field(description="Which data set the images are of.")
    requested: str = Field(description="What the config asked for; differs from source if the fallback was taken.")
    location: str = Field(description="The file or folder that was read.")
    images_sha256: str = Field(description="Digest of the images and labels that were scored.")
    num_examples: int = Field(ge=1)
    loss: float = Field(description="Mean over the examples, without label smoothing and penalties.")
    accuracy: float = Field(ge=0, le=1)
    accuracy_interval: list[float] = Field(description="95 % interval of the accuracy (Wilson).")
    classes: list[ClassScore]
    confusion_matrix: list[list[int]] = Field(description="Row: true class; column: predicted class.")
    weights_sha256: str = Field(description="Digest of the weights that were scored.")
    evaluated_at: str = Field(description="UTC, ISO 8601.")


class RunOutcome(Record):
    """What ``train`` and ``resume`` report in the end, and print with --json."""

    run: str = Field(description="The run directory.")
    status: RunStatus
    data: str = Field(description="Which data set the run was trained on.")
    requested_data: str = Field(description="What the config asked for.")
    epochs: int
    best_epoch: int | None
    train_seconds: float
    test_loss: float | None = Field(description="null if the test split was not opened, as all that begins with test.")
    test_accuracy: float | None
    test_accuracy_interval: list[float] | None
    test_examples: int | None
    test_images_sha256: str | None
    weights_sha256: str
