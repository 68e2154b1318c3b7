"""The manifest next to exported models: where they come from, their digests, and what was measured on each of them.

An export is a self-contained folder that can be moved anywhere. ``serve`` reads nothing else.
"""

from typing import Annotated, Final, Literal

from pydantic import Field

from cnn_trainer.runs.records import DataRecord
from cnn_trainer.storage.strict_json import SCHEMA_VERSION, Record

MANIFEST_FILE: Final = "manifest.json"
EXPORT_DIR: Final = "export"
"""The folder for an export in a run directory, unless another place is given."""

INPUT_NAME: Final = "image"
"""uint8 (batch, height, width, channels), values 0 to 255, in every format but litert-micro."""
OUTPUT_NAME: Final = "probabilities"
"""float32 (batch, classes), in every format but litert-micro."""

Format = Literal["saved-model", "onnx", "litert", "litert-float16", "litert-int8", "litert-micro", "keras"]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

PATHS: Final[dict[Format, str]] = {
    "saved-model": "saved-model/1",  # TensorFlow Serving asks for a folder of numbered versions
    "onnx": "model.onnx",
    "litert": "model.tflite",
    "litert-float16": "model-float16.tflite",
    "litert-int8": "model-int8.tflite",
    "litert-micro": "model-micro.tflite",
    "keras": "model.keras",
}
"""Name of each format's file or folder in an export."""


class Quantization(Record):
    """The meaning of int8 numbers: a value is scale * (number - zero_point)."""

    input_scale: float
    input_zero_point: int
    output_scale: float
    output_zero_point: int


MICRO_QUANTIZATION: Final = Quantization(
    input_scale=1.0, input_zero_point=-128, output_scale=1 / 256, output_zero_point=-128
)
"""The quantization of every litert-micro file: its input is pixel - 128, a probability is (output + 128) / 256."""


class MicroRecord(Record):
    """How the results of TensorFlow Lite Micro compare with those of LiteRT for the same litert-micro file."""

    runtime: str = Field(description="Name and version of the runtime.")
    num_examples: int = Field(
        description="Number of examples, taken at equal distances from the whole test split.", ge=1
    )
    max_difference: float = Field(description="Largest difference between two probabilities.", ge=0, le=1)
    mean_difference: float = Field(description="Mean of the largest difference in each example.", ge=0, le=1)
    mean_difference_allowed: float


class ParityRecord(Record):
    """The results of an exported model in its own runtime, in a process that did not have the run's model."""

    runtime: str = Field(description="Name and version of the runtime.")
    split: Literal["test"] = "test"
    images_sha256: Sha256 = Field(description="Digest of the images and labels that were used.")
    num_examples: int = Field(ge=1)
    max_difference: float = Field(description="Largest difference between a probability and the run's own.", ge=0, le=1)
    max_difference_allowed: float | None = Field(description="null if only the accuracy is bounded.")
    equal_predictions: float = Field(
        description="Fraction of examples with the same prediction as the run.", ge=0, le=1
    )
    accuracy: float = Field(ge=0, le=1)
    accuracy_loss_allowed: float = Field(description="How far below the run's own accuracy it may be.", ge=0)
    latency_seconds: float = Field(description="Median time for one image at a time, with one thread.", gt=0)
    images_per_second: float = Field(description="Images per second in batches, with one thread.", gt=0)
    micro: MicroRecord | None = Field(
        None, description="Only for litert-micro; null also there if tflite-micro was not installed."
    )


class ExportedModel(Record):
    """One exported model."""

    format: Format
    path: str = Field(description="File or folder, relative to the manifest; one of PATHS.")
    num_bytes: int = Field(description="Size of the file, or of all files in the folder.", ge=1)
    sha256: dict[str, Sha256] = Field(description="Digest of each file, by its path relative to the manifest.")
    quantization: Quantization | None = Field(
        None, description="Only for litert-micro, whose input and output are int8."
    )
    parity: ParityRecord


class Manifest(Record):
    """The content of manifest.json."""

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str = Field(description="The experiment's name.", pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    run: str = Field(description="Name of the run directory.")
    created_at: str = Field(description="UTC, ISO 8601.")
    versions: dict[str, str] = Field(description="Versions of the programs that exported.")
    weights_sha256: Sha256 = Field(description="Digest of the run's weights.")
    num_parameters: int = Field(ge=1)
    data: DataRecord = Field(description="The data that the run was trained on, with class names and image shape.")
    test_accuracy: float = Field(description="Accuracy of the run itself.", ge=0, le=1)
    test_examples: int = Field(ge=1)
    input_name: Literal["image"] = INPUT_NAME
    output_name: Literal["probabilities"] = OUTPUT_NAME
    models: dict[Format, ExportedModel] = Field(description="The exported models by format.", min_length=1)
