"""``export``: a run's result written in other formats, each let in only when it has been shown to be the same model.

All is written and checked in a temporary folder inside the export, and then renamed. The manifest names, at every
instant, only what is there: a format that is being replaced is taken out of it first and put back last.
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
"""Training images that int8 is calibrated on, the same ones for the same run."""

_STAGING = ".tmp-export-"
_OTHER_PLACE = "or name another place with --output"
_MAX_BYTES_IN_ONE_FILE = 2**31  # of a protocol buffer (ONNX) and of a FlatBuffer (LiteRT)


@dataclass(frozen=True)
class Exported:
    """What came of an export."""

    dir: Path
    manifest: Manifest | None
    """As it stands in ``dir`` now; None if nothing was let in."""
    refused: dict[Format, str]
    """Why, of each format that was not let in."""


@raised_as(RunDirectoryError)
def export_run(run: Run, wanted: Sequence[Format], output: Path | None, data_path: Path | None, say: Say) -> Exported:
    """Export the result of a run.

    Args:
        run: A run that has a result.
        wanted: Formats, at least one.
        output: The folder to export to, made if it is missing; None for the folder export of the run directory.
        data_path: Where to read the data; None for where the run's config says.
        say: Told what is done, a line each.

    Raises:
        UsageError, DeviceError, DataError, RunDirectoryError: before anything is written, but for a disk that fails.
    """
    formats.require(wanted)
    store.require_result(run)
    refuse_small(run, [run.dir / WEIGHTS_FILE])
    _refuse_large(run, wanted)
    export_dir = run.dir / EXPORT_DIR if output is None else output
    if output is None and os.path.lexists(export_dir):
        files.require_folder(export_dir)  # a stranger's run could lead anywhere
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
            problem = f"the network has {weights:,} weights, and such a file holds 2 GiB at most"
            raise UsageError(f"--format {name}: {problem}", remedy="use --format saved-model")


@contextmanager
def _opened(export_dir: Path, say: Say) -> Iterator[Path]:
    """Hold an export for this process only; gives a folder to write in. What is empty afterwards is removed.

    Raises RunDirectoryError if the folder cannot be made or written, or another process holds it. If the file system
    cannot lock a folder, as NFS cannot, it says so and goes on.
    """
    with files.reported(export_dir, "written", _OTHER_PLACE):
        made = [folder for folder in (export_dir, *export_dir.parents) if not folder.exists()]
        export_dir.mkdir(parents=True, exist_ok=True)
        folder = os.open(export_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            if not files.try_lock(folder):
                remedy = f"wait for it, {_OTHER_PLACE}"
                raise RunDirectoryError("another process exports to this place", place=export_dir, remedy=remedy)
        except OSError as error:
            problem = f"the file system cannot lock this folder ({error.strerror})"
            say(f"WARNING: {export_dir}: {problem}; make sure that no other process exports to it meanwhile")
        for stray in export_dir.glob(f"{_STAGING}*"):  # of a process that was killed
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
    """The manifest that is there, None if there is none.

    Raises RunDirectoryError if what is there is not to be replaced: the export of another run, or no export.
    """
    earlier = folder.read(export_dir) if os.path.lexists(export_dir / MANIFEST_FILE) else None
    if earlier and earlier.run != _run_name(run) and earlier.weights_sha256 != run.record.weights_sha256:
        problem = f"holds the export of another run, {str(earlier.run)[:140]}"
        raise RunDirectoryError(problem, place=export_dir, remedy=f"remove it, {_OTHER_PLACE}")
    for name in wanted:
        path = export_dir / PATHS[name]
        if os.path.lexists(path) and not (earlier and name in earlier.models):
            problem = f"stands there already, and no {MANIFEST_FILE} says that it was exported"
            raise RunDirectoryError(problem, place=path, remedy=f"move it away, {_OTHER_PLACE}")
    return earlier


def _prepare(
    run: Run, wanted: Sequence[Format], data_path: Path | None
) -> tuple[formats.ExportSource, EvaluationRecord, parity.Expected]:
    """The model to export, the run's score on the test split, and what must come out. Starts TensorFlow, on the CPU."""
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
    """The Keras model, or its copy if it computes in float64, which the other formats do not do throughout."""
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
    """Write and check every format; what was let in, and why the others were not."""
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
            say(f"WARNING: {name}: only LiteRT has run it, not TensorFlow Lite Micro; {install}")
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
    return run.dir.resolve().name.encode(errors="backslashreplace").decode()  # JSON holds only Unicode text


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
        # An export travels: where the data stood on this machine is no one else's business.
        data=strict_json.changed(run.record.data, location=Path(run.record.data.location).name),
        test_accuracy=evaluated.accuracy,
        test_examples=evaluated.num_examples,
        models=models,
    )


def _publish(export_dir: Path, staging: Path, new: Manifest, earlier: Manifest | None, say: Say) -> Manifest:
    """Give what was let in its final names; the manifest that stands there afterwards.

    Models of an earlier export of the same weights stay, if they are what their manifest says. Those of other weights,
    which the run had before it was trained on, are removed.
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
                say(f"{name}: removed, for it was exported from other weights of the run")
        for name in new.models:
            if name not in staying:
                _move_in(staging, export_dir, PATHS[name])
    merged = staying | new.models
    return _write_manifest(export_dir, new, {name: merged[name] for name in PATHS if name in merged})


def _kept(export_dir: Path, before: Models, new: Models, say: Say) -> Models:
    """What need not be touched: intact models that are not replaced, or would be by the same bytes."""
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
    """Out of the export into the folder that is removed in the end; at once, however much is in it."""
    if os.path.lexists(path):
        path.rename(Path(tempfile.mkdtemp(dir=staging)) / path.name)


def _move_in(staging: Path, export_dir: Path, path: str) -> None:
    staged, final = staging / path, export_dir / path
    if final.parent != export_dir:
        final.parent.mkdir(exist_ok=True)
        files.require_folder(final.parent)
    if staged.is_dir() or final.is_dir():  # only a file can take the place of a file in one step
        _move_away(final, staging)
    staged.rename(final)
    files.sync_folder(final.parent)


def _write_manifest(export_dir: Path, new: Manifest, models: Models) -> Manifest:
    """Write it with ``models``, or remove what is there if there are none."""
    path = export_dir / MANIFEST_FILE
    if not models:
        with files.reported(path, "removed"):
            path.unlink(missing_ok=True)
        return new
    manifest = strict_json.changed(new, models=models)
    files.write_atomic(path, strict_json.to_json(manifest))
    return manifest
