"""``export``: writes a run's result in other formats, and publishes each only after it has proved to be the same model.

Everything is written and checked in a temporary folder inside the export, and then renamed. At every instant, the
manifest names only what exists: a format that is being replaced is removed from it first and added back last.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cnn_trainer import data
from cnn_trainer.config.load import change_experiment
from cnn_trainer.data import splits
from cnn_trainer.errors import CheckFailedError, RunDirectoryError, UsageError, count, raised_as
from cnn_trainer.evaluation.evaluate import load_result, refuse_small, score_split
from cnn_trainer.export import folder, formats, parity
from cnn_trainer.export.manifest import (
    EXPORT_DIR,
    MANIFEST_FILE,
    MICRO_QUANTIZATION,
    PATHS,
    ExportedModel,
    Format,
    Manifest,
)
from cnn_trainer.machine import facts
from cnn_trainer.network.shapes import ImageShape, count_weights
from cnn_trainer.runs import store
from cnn_trainer.runs.paths import WEIGHTS_FILE
from cnn_trainer.runs.records import EvaluationRecord
from cnn_trainer.runs.store import Run
from cnn_trainer.storage import files, strict_json
from cnn_trainer.storage.strict_json import utc_now

Say = Callable[[str], None]
Models = dict[Format, ExportedModel]

CALIBRATION_EXAMPLES: Final = 500
"""Number of training images used to calibrate int8; always the same images for the same run."""

_STAGING = ".tmp-export-"
_OTHER_PLACE = "or name another place with --output"
_MAX_BYTES_IN_ONE_FILE = 2**31  # limit of a protocol buffer (ONNX) and of a FlatBuffer (LiteRT)


@dataclass(frozen=True)
class Exported:
    """The outcome of an export."""

    dir: Path
    manifest: Manifest | None
    """The manifest that is now in ``dir``; None if no format passed its check."""
    refused: dict[Format, str]
    """The reason for each format that did not pass its check."""


@raised_as(RunDirectoryError)
def export_run(run: Run, wanted: Sequence[Format], output: Path | None, data_path: Path | None, say: Say) -> Exported:
    """Export the result of a run.

    Args:
        run: A run that has a result.
        wanted: The formats to write, at least one.
        output: The folder to export to, created if it is missing; None for ``export`` in the run directory.
        data_path: Where to read the data; None for the place in the run's config.
        say: Called with one line for each thing that is done.

    Raises:
        UsageError, DeviceError, DataError, RunDirectoryError: before anything is written, unless the disk fails later.
    """
    formats.require(wanted)
    store.require_result(run)
    refuse_small(run, [run.dir / WEIGHTS_FILE])
    _refuse_large(run, wanted)
    export_dir = run.dir / EXPORT_DIR if output is None else output
    if output is None and os.path.lexists(export_dir):
        files.require_folder(export_dir)  # a run from elsewhere could lead anywhere
    with _opened(export_dir, say) as staging:
        earlier = _earlier(run, export_dir, wanted)
        say("scoring the run itself on its test split")
        source, evaluated, expected = _prepare(run, wanted, data_path)
        passed, refused = _write_all(wanted, staging, source, expected, say)
        manifest = None
        if passed:
            new = _manifest(run, evaluated, source.model.count_params(), passed)
            manifest = _publish(export_dir, staging, new, earlier, say)
    return Exported(export_dir, manifest, refused)


def _refuse_large(run: Run, wanted: Sequence[Format]) -> None:
    weights = count_weights(run.experiment.model, ImageShape(*run.record.data.image_shape))
    for name in wanted:
        if name not in ("saved-model", "keras") and 4 * weights >= _MAX_BYTES_IN_ONE_FILE:
            problem = f"the network has {weights:,} weights, but such a file holds at most 2 GiB"
            raise UsageError(f"--format {name}: {problem}", remedy="use --format saved-model")


@contextmanager
def _opened(export_dir: Path, say: Say) -> Iterator[Path]:
    """Lock an export for this process only, and yield a folder to write in. Folders left empty are removed afterwards.

    Raises RunDirectoryError if the folder cannot be created or written, or another process holds it. If the file system
    cannot lock a folder, as NFS cannot, it warns and continues.
    """
    with files.reported(export_dir, "written", _OTHER_PLACE):
        made = [folder for folder in (export_dir, *export_dir.parents) if not folder.exists()]
        export_dir.mkdir(parents=True, exist_ok=True)
        folder = os.open(export_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            if not files.try_lock(folder):
                remedy = f"wait for it, {_OTHER_PLACE}"
                raise RunDirectoryError("another process is exporting to this place", place=export_dir, remedy=remedy)
        except OSError as error:
            problem = f"the file system cannot lock this folder ({error.strerror})"
            say(f"WARNING: {export_dir}: {problem}; make sure that no other process exports to it at the same time")
        for stray in export_dir.glob(f"{_STAGING}*"):  # left by a process that was killed
            shutil.rmtree(stray, ignore_errors=True)
        files.remove_stray(export_dir)
        with files.reported(export_dir, "written", _OTHER_PLACE):
            staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=export_dir))
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    finally:
        os.close(folder)
        for path in made:
            with suppress(OSError):  # not empty: something was exported
                path.rmdir()


def _earlier(run: Run, export_dir: Path, wanted: Sequence[Format]) -> Manifest | None:
    """The existing manifest, or None if there is none.

    Raises RunDirectoryError if there is something that must not be replaced: the export of another run, or other files.
    """
    earlier = folder.read(export_dir) if os.path.lexists(export_dir / MANIFEST_FILE) else None
    if earlier and earlier.run != _run_name(run) and earlier.weights_sha256 != run.record.weights_sha256:
        problem = f"holds the export of another run, {str(earlier.run)[:140]}"
        raise RunDirectoryError(problem, place=export_dir, remedy=f"remove it, {_OTHER_PLACE}")
    for name in wanted:
        path = export_dir / PATHS[name]
        if os.path.lexists(path) and not (earlier and name in earlier.models):
            problem = f"already exists, but is not in a {MANIFEST_FILE} of an export"
            raise RunDirectoryError(problem, place=path, remedy=f"move it away, {_OTHER_PLACE}")
    return earlier


def _prepare(
    run: Run, wanted: Sequence[Format], data_path: Path | None
) -> tuple[formats.ExportSource, EvaluationRecord, parity.Expected]:
    """The model to export, the run's score on the test split, and the results to expect. Starts TensorFlow (CPU)."""
    result = load_result(run, "cpu")
    evaluated, score, split = score_split(run, result, "test", data_path)
    calibration = split.images[:0] if formats.CALIBRATED.isdisjoint(wanted) else _calibration(run, data_path)
    source = formats.ExportSource(_as_float32(run, result.model), run.record.updated_at, calibration)
    return source, evaluated, parity.Expected(split.images, split.labels, score.probabilities, evaluated.images_sha256)


def _calibration(run: Run, data_path: Path | None) -> NDArray[np.uint8]:
    experiment = run.experiment
    train = data.load_split(experiment.data, experiment.seed, "train", data_path, trained_on=run.record.data)
    chosen = splits.permutation(len(train), experiment.seed, splits.Stream.CALIBRATION)[:CALIBRATION_EXAMPLES]
    return train.images[chosen]


def _as_float32(run: Run, model: Any) -> Any:
    """The Keras model, or a float32 copy if it computes in float64, which not all formats support throughout."""
    if model.compute_dtype == "float32":
        return model
    from cnn_trainer.network.build import build_model

    experiment = change_experiment(run.experiment, {"runtime.precision": "float32"})
    copy = build_model(experiment, model.input_shape[1:], model.output_shape[-1])
    for own, other in zip(copy.weights, model.weights, strict=True):
        own.assign(other.numpy().astype("float32"))
    return copy


def _write_all(
    wanted: Sequence[Format], staging: Path, source: formats.ExportSource, expected: parity.Expected, say: Say
) -> tuple[Models, dict[Format, str]]:
    """Write and check every format. Returns the models that passed, and the reasons why the others did not."""
    images_path = staging / "images.safetensors"
    parity.write_images(images_path, expected)
    passed: Models = {}
    refused: dict[Format, str] = {}
    for name in wanted:
        say(f"{name}: writing it, then running it on {count(len(expected.labels), 'test image')}")
        path = staging / PATHS[name]
        with files.reported(path, "written"):
            path.parent.mkdir(exist_ok=True)
        formats.write(name, source, path)
        try:
            record = parity.check_parity(name, path, images_path, expected)
        except CheckFailedError as error:
            refused[name] = str(error)
            continue
        if name == "litert-micro" and record.micro is None:
            install = f"install it on Linux on x86-64 with: {facts.install_command('cnn-trainer[litert-micro]')}"
            say(f"WARNING: {name}: it was checked only with LiteRT, not with TensorFlow Lite Micro; {install}")
        num_bytes, digests = folder.content(staging, PATHS[name], sys.maxsize)
        passed[name] = ExportedModel(
            format=name,
            path=PATHS[name],
            num_bytes=num_bytes,
            sha256=digests,
            quantization=MICRO_QUANTIZATION if name == "litert-micro" else None,
            parity=record,
        )
    return passed, refused


def _run_name(run: Run) -> str:
    return run.dir.resolve().name.encode(errors="backslashreplace").decode()  # JSON allows only Unicode


def _manifest(run: Run, evaluated: EvaluationRecord, num_parameters: int, models: Models) -> Manifest:
    versions = facts.versions()
    for name in ("onnx", "tf2onnx"):
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return Manifest(
        name=run.experiment.name,
        run=_run_name(run),
        created_at=utc_now(),
        versions=versions,
        weights_sha256=evaluated.weights_sha256,
        num_parameters=num_parameters,
        # An export is passed on: where the data is on this machine is nobody else's business.
        data=strict_json.changed(run.record.data, location=Path(run.record.data.location).name),
        test_accuracy=evaluated.accuracy,
        test_examples=evaluated.num_examples,
        models=models,
    )


def _publish(export_dir: Path, staging: Path, new: Manifest, earlier: Manifest | None, say: Say) -> Manifest:
    """Give the models that passed their final names. Returns the resulting manifest.

    Models of an earlier export of the same weights stay if they match their manifest. Models of other weights, which
    the run had before it was trained further, are removed.
    """
    before: Models = earlier.models if earlier else {}
    outdated = earlier is not None and earlier.weights_sha256 != new.weights_sha256
    staying: Models = {} if outdated else _kept(export_dir, before, new.models, say)
    if staying != before:
        _write_manifest(export_dir, new, staying)
    with files.reported(export_dir, "written"):
        for name in before:
            if outdated and name not in new.models:
                _move_away(export_dir / PATHS[name], staging)
                say(f"{name}: removed, because it was exported from earlier weights of the run")
        for name in new.models:
            if name not in staying:
                _move_in(staging, export_dir, PATHS[name])
    merged = staying | new.models
    return _write_manifest(export_dir, new, {name: merged[name] for name in PATHS if name in merged})


def _kept(export_dir: Path, before: Models, new: Models, say: Say) -> Models:
    """Intact models that stay as they are: they are not replaced, or would be replaced by the same bytes."""
    kept: Models = {}
    for name, model in before.items():
        try:
            folder.verify(export_dir, model)
        except RunDirectoryError as error:
            if name not in new:
                say(f"WARNING: {error}")
            continue
        if name not in new or new[name].sha256 == model.sha256:
            kept[name] = model
    return kept


def _move_away(path: Path, staging: Path) -> None:
    """Move it out of the export, in one step, into the folder that is removed at the end."""
    if os.path.lexists(path):
        path.rename(Path(tempfile.mkdtemp(dir=staging)) / path.name)


def _move_in(staging: Path, export_dir: Path, path: str) -> None:
    staged, final = staging / path, export_dir / path
    if final.parent != export_dir:
        final.parent.mkdir(exist_ok=True)
        files.require_folder(final.parent)
    if staged.is_dir() or final.is_dir():  # only a file can replace a file in one step
        _move_away(final, staging)
    staged.rename(final)
    files.sync_folder(final.parent)


def _write_manifest(export_dir: Path, new: Manifest, models: Models) -> Manifest:
    """Write the manifest with ``models``, or remove the existing one if there are none."""
    path = export_dir / MANIFEST_FILE
    if not models:
        with files.reported(path, "removed"):
            path.unlink(missing_ok=True)
        return new
    manifest = strict_json.changed(new, models=models)
    files.write_atomic(path, strict_json.to_json(manifest))
    return manifest
