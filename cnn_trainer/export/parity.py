"""Checks that an exported model is still the same: runs it on the whole test split, and compares it with the run.

The exported model runs in its own runtime in another process (``parity_process``), which gets a path and the images.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from cnn_trainer.errors import CheckFailedError
from cnn_trainer.export.manifest import Format, MicroRecord, ParityRecord
from cnn_trainer.machine.child import run_child
from cnn_trainer.storage import files

MAX_DIFFERENCE: Final[dict[Format, float | None]] = {
    "saved-model": 1e-5,
    "onnx": 1e-5,
    "litert": 1e-5,
    "keras": 1e-5,
    "litert-float16": 5e-3,  # float16 has 11 bits: each weight changes by up to 1 in 2,048
    "litert-int8": None,  # probabilities are multiples of 1/256, so only the accuracy counts
    "litert-micro": None,
}
"""How far a probability may differ from the run's own; None if only the accuracy is bounded."""

MAX_MICRO_DIFFERENCE: Final = 0.01
"""The largest mean difference allowed between TensorFlow Lite Micro and LiteRT, which round in different ways.

The largest difference of a single image says little: rounding made it 0.04 on MNIST, with a mean of 0.0006.
"""

MAX_ACCURACY_LOSS: Final = 0.005
"""How far the accuracy may be below the run's own, in every format (a fraction)."""

_LEFT_OUT = "this format is left out of the export"


@dataclass(frozen=True)
class Expected:
    """The run's own results on the test split."""

    images: NDArray[np.uint8]
    """(examples, height, width, channels)."""
    labels: NDArray[np.int32]
    probabilities: NDArray[np.floating]
    """(examples, classes)."""
    images_sha256: str
    """Digest of images and labels."""


def write_images(path: Path, expected: Expected) -> None:
    """Write the images for ``check_parity``. Raises RunDirectoryError."""
    files.write_atomic(path, safetensors.numpy.save({"images": np.ascontiguousarray(expected.images)}))


def check_parity(name: Format, path: Path, images_path: Path, expected: Expected) -> ParityRecord:
    """Run the exported model at ``path`` on the images that ``write_images`` wrote, and compare the results.

    Raises CheckFailedError if it does not run, or differs by more than its bound.
    """
    measured, probabilities = _run(name, path, images_path, expected.probabilities.shape)
    micro = measured.pop("micro")
    predictions, own = probabilities.argmax(axis=1), expected.probabilities.argmax(axis=1)
    record = ParityRecord(
        **measured,
        images_sha256=expected.images_sha256,
        num_examples=len(expected.labels),
        max_difference=min(1.0, float(np.abs(probabilities - expected.probabilities).max())),
        max_difference_allowed=MAX_DIFFERENCE[name],
        equal_predictions=float((predictions == own).mean()),
        accuracy=float((predictions == expected.labels).mean()),
        accuracy_loss_allowed=MAX_ACCURACY_LOSS,
        micro=micro and MicroRecord(**micro, mean_difference_allowed=MAX_MICRO_DIFFERENCE),
    )
    _judge(name, record, float((own == expected.labels).mean()))
    return record


def _run(
    name: Format, path: Path, images_path: Path, shape: tuple[int, ...]
) -> tuple[dict[str, Any], NDArray[np.float32]]:
    """Run the model. Returns the measurements and the probabilities, of this shape. Raises CheckFailedError."""
    answer_path = images_path.with_name("answer.safetensors")
    paths = [str(place) for place in (path, images_path, answer_path)]
    ended = run_child("cnn_trainer.export.parity_process:main", name, *paths)
    if ended.failure:
        raise CheckFailedError(f"its own runtime cannot run it ({ended.failure})", place=name, remedy=_LEFT_OUT)
    probabilities = safetensors.numpy.load_file(answer_path)["probabilities"]
    if probabilities.shape != shape or probabilities.dtype != np.float32:
        found = f"returns {probabilities.dtype} {probabilities.shape}, expected float32 {shape}"
        raise CheckFailedError(found, place=name, remedy=_LEFT_OUT)
    if not ((probabilities >= 0) & (probabilities <= 1 + 1e-5)).all():  # also false for NaN
        raise CheckFailedError("returns numbers that are not probabilities", place=name, remedy=_LEFT_OUT)
    return json.loads(ended.stdout), probabilities


def _judge(name: Format, record: ParityRecord, own_accuracy: float) -> None:
    """Refuse a model that differs by more than its bound. Raises CheckFailedError."""
    faults, allowed = [], record.max_difference_allowed
    if allowed is not None and record.max_difference > allowed:
        faults.append(f"a probability differs by {record.max_difference:.1e}; at most {allowed:g} is allowed")
    if record.micro and record.micro.mean_difference > record.micro.mean_difference_allowed:
        mean, bound = record.micro.mean_difference, record.micro.mean_difference_allowed
        found = f"the probabilities of {record.micro.runtime} differ from LiteRT's"
        faults.append(f"{found} by {mean:.1e} on average; at most {bound:g} is allowed")
    if own_accuracy - record.accuracy > record.accuracy_loss_allowed + 1e-9:  # allows for rounding
        lost = f"the accuracy is {record.accuracy:.4f}, the run's is {own_accuracy:.4f}"
        faults.append(f"{lost}; it may be at most {record.accuracy_loss_allowed:g} lower")
    if faults:
        raise CheckFailedError(f"differs from the run: {'; '.join(faults)}", place=name, remedy=_LEFT_OUT)
