"""The records of a run that are written as JSON, and read back under the same schema; unknown keys are refused."""

import math
from collections.abc import Sequence
from heapq import nsmallest
from typing import Annotated, Final, Literal

from pydantic import Field

from cnn_trainer.storage.strict_json import SCHEMA_VERSION, Record

MAX_CONFUSIONS: Final = 20
"""The largest number of confused pairs of classes that is recorded."""

RunStatus = Literal["created", "training", "interrupted", "paused", "diverged", "failed", "trained", "finished"]


class DataRecord(Record):
    """The data that a run was trained on."""

    source: str = Field(description="The source that was used: data.source, or mnist-5k as the fallback for mnist.")
    requested: str = Field(description="The config's data.source; differs from source if the fallback was used.")
    location: str = Field(description="The file or folder that was read.")
    image_shape: list[Annotated[int, Field(ge=1, le=65_536)]] = Field(
        description="Height and width in pixels, and number of channels.", min_length=3, max_length=3
    )
    class_names: list[str] = Field(
        description="One name per class, in the order of the labels 0, 1, ….", min_length=2, max_length=1000
    )
    num_train: int = Field(description="Number of training examples, without those set aside for validation.", ge=1)
    num_validation: int = Field(description="Number of validation examples; 0 if there is no validation split.", ge=0)
    train_sha256: str = Field(description="Digest of the whole training split's images and labels.")
    validation_from: Literal["own", "carved"] | None = Field(
        None, description="own: the source has a validation split; carved: it was set aside from the training split."
    )
    validation_sha256: str | None = Field(
        None, description="Digest of the source's own validation split, if it is used."
    )
    pixel_dtype: str = Field("uint8", description="Data type of the images in the source.")
    white: Literal[1, 255] = Field(255, description="The value in the source that is read as 255.")

    @property
    def num_whole_train(self) -> int:
        """Number of examples in the source's training split, including those set aside for validation."""
        return self.num_train if self.validation_from == "own" else self.num_train + self.num_validation


class EpochMetrics(Record):
    """One line of metrics.jsonl."""

    epoch: int = Field(description="Counted from 1.", ge=1)
    step: int = Field(description="Number of steps since the start of training.", ge=1)
    train_loss: float = Field(
        description="Mean over the epoch's examples, with augmentation, label smoothing, dropout and class weights."
    )
    train_accuracy: float = Field(description="Accuracy on the same examples, without class weights.", ge=0, le=1)
    validation_loss: float | None = Field(
        None, description="Mean over the validation examples, without class weights, so that runs can be compared."
    )
    validation_accuracy: float | None = Field(None, ge=0, le=1)
    learning_rate: float = Field(description="Learning rate of the epoch's last step.")
    images_per_second: float = Field(description="Images per second over the training steps only.")
    seconds: float = Field(description="Seconds that the whole epoch took, including validation.")

    def summary(self) -> str:
        """The epoch in words."""
        words = f"loss {self.train_loss:.4f}  accuracy {self.train_accuracy:.2%}"
        if self.validation_loss is not None and self.validation_accuracy is not None:
            words += f"  validation loss {self.validation_loss:.4f}  accuracy {self.validation_accuracy:.2%}"
        return f"{words}  {self.images_per_second:,.0f} images/s  {self.seconds:.1f} s"


class RunRecord(Record):
    """The content of run.json."""

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
    machine: dict[str, str] = Field(description="Processor model, processor features and operating system.")
    versions: dict[str, str] = Field(description="Versions of Python, TensorFlow, Keras, NumPy and this program.")
    environment: dict[str, str] = Field(description="Environment variables that change how TensorFlow works.")
    git_commit: str | None = Field(None, description="Commit of the working folder, with +dirty if it has changes.")
    epochs_done: int = Field(0, ge=0)
    best_epoch: int | None = Field(None, description="The epoch whose weights are the result, if validation chose it.")
    train_seconds: float = Field(0.0, ge=0, description="Seconds spent training, over all sessions of the run.")
    weights_sha256: str | None = Field(None, description="Digest of the result's weights.")
    error: str | None = Field(None, description="Why the run failed or diverged.")


class ClassScore(Record):
    """The scores of one class."""

    name: str
    support: int = Field(description="Number of examples of this class.", ge=0)
    precision: float | None = Field(description="null if the class was never predicted.", ge=0, le=1)
    recall: float | None = Field(description="null if the class has no examples.", ge=0, le=1)
    f1: float | None = Field(description="null if precision or recall is null, or both are 0.", ge=0, le=1)


class Confusion(Record):
    """How often examples of one class were mistaken for another."""

    label: str = Field(description="Name of the true class.")
    prediction: str = Field(description="Name of the predicted class.")
    count: int = Field(ge=1)


def balanced_accuracy(classes: Sequence[ClassScore]) -> float:
    """The mean recall of the classes that have examples, so that a rare class counts as much as a frequent one.

    If all classes have the same number of examples, it equals the accuracy. It is defined by K. H. Brodersen et al. for
    two classes (The Balanced Accuracy and Its Posterior Distribution, 2010), and by scikit-learn's
    ``balanced_accuracy_score`` for more.
    """
    recalls = [score.recall for score in classes if score.recall is not None]
    return math.fsum(recalls) / max(1, len(recalls))


def frequent_confusions(matrix: Sequence[Sequence[int]], class_names: Sequence[str]) -> list[Confusion]:
    """The ``MAX_CONFUSIONS`` most frequent confusions in a matrix (true, predicted), most frequent first."""
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


class BrierScore(Record):
    """The Brier score and its parts: score = miscalibration - discrimination + uncertainty."""

    score: float = Field(description="Squared errors of the probabilities, summed over classes; mean over examples.")
    miscalibration: float = Field(description="What recalibrating the probabilities would gain; 0 is best.")
    discrimination: float = Field(description="How well the probabilities tell the classes apart; more is better.")
    uncertainty: float = Field(description="The score of probabilities that are the classes' shares of the split.")


class CalibrationError(Record):
    """The expected calibration error of the predictions, and what chance does to it."""

    error: float = Field(description="Mean distance of confidence and accuracy over the bins, weighted by examples.")
    interval: list[float] = Field(description="95 % confidence interval.", min_length=2, max_length=2)
    chance_mean: float = Field(description="Its mean if the model were perfectly calibrated.")
    chance_limit: float = Field(description="What a perfectly calibrated model stays below in 95 % of splits.")
    num_draws: int = Field(description="Number of random draws behind the interval and the limit.")
    seed: int = Field(description="Seed of these draws.")


class ReliabilityBin(Record):
    """The predictions with a confidence above ``low`` and up to ``high``, in the reliability diagram."""

    low: float
    high: float
    num_examples: int = Field(ge=1)
    confidence: float = Field(description="Mean probability of the predictions.")
    accuracy: float = Field(ge=0, le=1)
    chance_low: float = Field(description="The lowest accuracy that chance allows a perfectly calibrated model here.")
    chance_high: float = Field(description="The highest accuracy that chance allows a perfectly calibrated model here.")


class Temperature(Record):
    """The temperature that calibrates the run best on its validation split, and what it does to the scored split."""

    temperature: float = Field(description="Logits are to be divided by it; 1 if no other is better.", gt=0)
    validation_images_sha256: str = Field(description="Digest of the validation images and labels.")
    validation_loss_before: float = Field(description="Negative log likelihood of the validation split, in nats.")
    validation_loss: float = Field(description="The same with the temperature.")
    negative_log_likelihood: float = Field(description="That of the scored split with the temperature, in nats.")
    calibration_error: CalibrationError = Field(description="That of the scored split with the temperature.")


class CoveragePoint(Record):
    """The error of the most confident part of the predictions."""

    coverage: float = Field(description="The share of the examples that are kept, the most confident ones.", gt=0, le=1)
    error: float = Field(description="The share of them that is wrong.", ge=0, le=1)
    min_confidence: float = Field(description="The lowest confidence among them.")


class Calibration(Record):
    """How far the probabilities of a run can be relied on. Definitions: ``cnn_trainer.evaluation.calibration``."""

    negative_log_likelihood: float = Field(description="Mean over the examples, in nats.", ge=0)
    brier: BrierScore
    confidence: float = Field(description="Mean probability of the predictions.")
    confidence_gap: Literal["over-confident", "under-confident"] | None = Field(
        description="null if chance can explain the difference between mean confidence and accuracy (two-sided, 5 %)."
    )
    calibration_error: CalibrationError
    bins: list[ReliabilityBin] = Field(description="The reliability diagram; bins without examples are left out.")
    band_coverage: float = Field(description="Probability that a perfectly calibrated model stays inside every bin.")
    temperature: Temperature | None = Field(description="null without a validation split.")
    coverage: list[CoveragePoint] = Field(description="Error against coverage.")
    coverage_area: float = Field(description="Mean of that error over all coverages.", ge=0, le=1)


class EvaluationRecord(Record):
    """The content of evaluation.json: the scores of a run's result on one split.

    Files of version 1 lack ``schema_version``, ``calibration`` and ``probabilities_sha256``, and the first of them also
    ``confusions`` and ``balanced_accuracy``, which are computed from the other fields.
    """

    schema_version: Literal[1, 2] = 1
    split: Literal["train", "validation", "test"]
    source: str = Field(description="The source of the images.")
    requested: str = Field(description="The config's data.source; differs from source if the fallback was used.")
    location: str = Field(description="The file or folder that was read.")
    images_sha256: str = Field(description="Digest of the images and labels that were scored.")
    num_examples: int = Field(ge=1)
    classes: list[ClassScore]
    confusion_matrix: list[list[int]] = Field(description="Row: true class; column: predicted class.")
    confusions: list[Confusion] = Field(
        default_factory=lambda record: frequent_confusions(
            record["confusion_matrix"], [score.name for score in record["classes"]]
        ),
        description="The most frequent confusions, most frequent first; at most 20.",
    )
    calibration: Calibration | None = Field(None, description="null in files of version 1.")
    probabilities_sha256: str | None = Field(
        None, description="SHA-256 of the file with the probabilities; null in files of version 1."
    )
    loss: float = Field(description="Mean over the examples, without class weights, label smoothing or penalties.")
    accuracy: float = Field(ge=0, le=1)
    accuracy_interval: list[float] = Field(description="95 % confidence interval of the accuracy (Wilson).")
    balanced_accuracy: float = Field(
        default_factory=lambda record: balanced_accuracy(record["classes"]),
        description="Mean recall of the classes that have examples in the split.",
        ge=0,
        le=1,
    )
    weights_sha256: str = Field(description="Digest of the weights that were scored.")
    evaluated_at: str = Field(description="UTC, ISO 8601.")


class RunOutcome(Record):
    """What ``train`` and ``resume`` report at the end, and print with --json."""

    run: str = Field(description="The run directory.")
    status: RunStatus
    data: str = Field(description="The source that the run was trained on.")
    requested_data: str = Field(description="The config's data.source.")
    data_location: str = Field(description="The file or folder that the data was read from.")
    epochs: int
    best_epoch: int | None
    train_seconds: float
    test_loss: float | None = Field(
        description="This and the other test_ fields are null if the test split was not read."
    )
    test_accuracy: float | None
    test_accuracy_interval: list[float] | None
    test_balanced_accuracy: float | None
    test_examples: int | None
    test_images_sha256: str | None
    weights_sha256: str
