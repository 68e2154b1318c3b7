"""What people read about a run: sentences and tables made from records."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cnn_trainer.cli.tables import stderr_width, table, wrap
from cnn_trainer.errors import count
from cnn_trainer.runs.records import DataRecord, RunOutcome, RunRecord
from cnn_trainer.training.balance import first_ten
from cnn_trainer.training.display import format_seconds

if TYPE_CHECKING:
    from cnn_trainer.machine.backend import Backend
    from cnn_trainer.runs.store import Run
    from cnn_trainer.training.prepare import Prepared


def data_name(source: str, requested: str) -> str:
    """The data set's name; if the fallback was taken, also what it replaces."""
    return source if source == requested else f"{source} (the fallback: {requested} was not at hand)"


def preparation(prepared: "Prepared") -> list[str]:
    """What is about to be trained: the experiment, the data, the model and the device."""
    experiment, backend, data = prepared.experiment, prepared.backend, prepared.data
    lines = [
        f"experiment: {experiment.name}, seed {experiment.seed}",
        f"data: {data_words(data)}",
        f"model: {experiment.model.builder}, {count(prepared.session.model.count_params(), 'parameter')}",
        f"device: {backend.device} ({backend.reason}), {experiment.runtime.precision}, {parallel(backend)}",
    ]
    if weights := prepared.session.class_weights:
        shown = [f"{weight:.3g} ({name})" for weight, name in zip(weights, data.class_names, strict=True)]
        lines.append(f"class weights: {first_ten(shown)}")
    return [part for line in lines for part in wrap(line, stderr_width(), "  ")]


def group_preparation(run: "Run", seeds: Sequence[int]) -> list[str]:
    """What is about to be trained with several seeds, as the first run recorded it."""
    experiment, record = run.experiment, run.record
    lines = [
        f"experiment: {experiment.name}, seeds {', '.join(map(str, seeds))}",
        f"data: {data_words(record.data)}",
        f"model: {experiment.model.builder}, {count(record.num_parameters, 'parameter')}",
        f"device: {record.device}, {experiment.runtime.precision}, {parallel(record)}",
    ]
    return [part for line in lines for part in wrap(line, stderr_width(), "  ")]


def parallel(found: "Backend | RunRecord") -> str:
    """How much runs in parallel."""
    threads, operations = count(found.intra_op_threads, "thread"), count(found.inter_op_threads, "operation")
    return f"{count(found.towers, 'tower')}, {threads} in an operation, {operations} at a time"


def data_words(data: DataRecord) -> str:
    """Which data, how much of it, and where it was read."""
    words = f"{data_name(data.source, data.requested)}, {count(data.num_train, 'training image')}"
    if data.num_validation:
        words += f" and {count(data.num_validation, 'validation image')}"
    shape = "x".join(map(str, data.image_shape))
    words += f" of {shape}, {count(len(data.class_names), 'class', 'classes')}, from {data.location}"
    words += ", which has its own validation split" if data.validation_from == "own" else ""
    converted = conversion(data.pixel_dtype, data.white)
    return f"{words}; {converted}" if converted else words


def conversion(pixel_dtype: str, white: int) -> str | None:
    """What was done to the pixels of the source; None if nothing."""
    if (pixel_dtype, white) == ("uint8", 255):
        return None
    values = "False and True" if pixel_dtype == "bool" else f"{pixel_dtype}, 0 to {white},"
    return f"pixels converted from {values} to uint8, 0 to 255"


def layers(model: Any) -> list[str]:
    """One line per layer: its name, its type, the shape of its output, its parameters."""
    rows = []
    for layer in model.layers:
        shape = "x".join(str(size) for size in layer.output.shape[1:])
        rows.append((layer.name, type(layer).__name__, shape, f"{layer.count_params():,}"))
    return table(("layer", "type", "output", "parameters"), rows, stderr_width())


def outcome(found: RunOutcome) -> list[str]:
    """The lines about a finished run that are printed below its score."""
    best = f", result of epoch {found.best_epoch} (lowest validation loss)" if found.best_epoch else ""
    return [
        f"trained {count(found.epochs, 'epoch')} in {format_seconds(found.train_seconds)}{best}",
        f"weights sha256 {found.weights_sha256}",
        f"run directory {found.run}",
    ]
