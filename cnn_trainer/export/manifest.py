"""What stands beside exported models: where they come from, their digests, and what was measured on each of them.

An export is a folder of its own that can be moved anywhere. ``serve`` reads nothing else.
"""

from typing import Annotated, Final, Literal

from pydantic import Field

from cnn_trainer.runs.records import DataRecord
from cnn_trainer.storage.strict_json import SCHEMA_VERSION, Record

MANIFEST_FILE: Final = "manifest.json"
EXPORT_DIR: Final = "export"
"""Where in a run directory an export goes unless another place is named."""

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
    """What int8 numbers stand for: a value is scale * (number - zero_point)."""

    input_scale: float
    input_zero_point: int
    output_scale: float
    output_zero_point: int


MICRO_QUANTIZATION: Final = Quantization(
    input_scale=1.0, input_zero_point=-128, output_scale=1 / 256, output_zero_point=-128
)
"""Of every litert-micro file: its input is pixel - 128, and a probability is (output + 128) / 256."""


class MicroRecord(Record):
    """What TensorFlow Lite Micro made of a litert-micro file, compared with what LiteRT made of it."""

    runtime: str = Field(description="Name and version.")
    num_examples: int = Field(description="Taken from the whole test split at equal distances.", ge=1)
    max_difference: float = Field(description="Largest difference of a probability.", ge=0, le=1)
    mean_difference: float = Field(description="Mean over the examples of the largest of each.", ge=0, le=1)
    mean_difference_allowed: float


class ParityRecord(Record):
    """What an exported model did in its own runtime, in a process that did not have the run's model."""

    runtime: str = Field(description="Name and version.")
    split: Literal["test"] = "test"
    images_sha256: Sha256 = Field(description="Digest of the images and labels that were used.")
    num_examples: int = Field(ge=1)
    max_difference: float = Field(description="Largest difference of a probability from the run's own.", ge=0, le=1)
    max_difference_allowed: float | None = Field(description="null if only the accuracy is bounded.")
    equal_predictions: float = Field(description="Share of examples with the run's own prediction.", ge=0, le=1)
    accuracy: float = Field(ge=0, le=1)
    accuracy_loss_allowed: float = Field(description="Fraction below the run's own accuracy.", ge=0)
    latency_seconds: float = Field(description="Median of one image at a time, one thread.", gt=0)
    images_per_second: float = Field(description="In batches.", gt=0)
    micro: MicroRecord | None = Field(
        None, description="Only of litert-micro; null there if tflite-micro was not installed."
    )


class ExportedModel(Record):
    """One exported model."""

    format: Format
    path: str = Field(description="File or folder, relative to the manifest; one of PATHS.")
    num_bytes: int = Field(description="Of the file, or of all files in the folder.", ge=1)
    sha256: dict[str, Sha256] = Field(description="Digest of each file, by its path relative to the manifest.")
    quantization: Quantization | None = Field(None, description="Only of litert-micro, whose ends are int8.")
    parity: ParityRecord


class Manifest(Record):
    """What manifest.json holds."""

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str = Field(description="The experiment's name.", pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    run: str = Field(description="Name of the run directory.")
    created_at: str = Field(description="UTC, ISO 8601.")
    versions: dict[str, str] = Field(description="Of the programs that exported.")
    weights_sha256: Sha256 = Field(description="Digest of the run's weights.")
    num_parameters: int = Field(ge=1)
    data: DataRecord = Field(description="What the run was trained on; with the classes' names and the images' shape.")
    test_accuracy: float = Field(description="Of the run itself.", ge=0, le=1)
    test_examples: int = Field(ge=1)
    input_name: Literal["image"] = INPUT_NAME
    output_name: Literal["probabilities"] = OUTPUT_NAME
    models: dict[Format, ExportedModel] = Field(description="By format.", min_length=1)
