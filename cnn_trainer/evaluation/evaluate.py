"""Scores a run's result, with a function for each step: load it from its directory, score it on images, record it.

Importing this module loads neither TensorFlow nor Keras; ``load_result`` starts TensorFlow.
"""

import csv
import hashlib
import io
import os
import shlex
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnn_trainer import data
from cnn_trainer.config.load import Config, change_experiment
from cnn_trainer.data.splits import Split, SplitName
from cnn_trainer.errors import DataError, DivergedError, RunDirectoryError, raised_as
from cnn_trainer.evaluation import scores
from cnn_trainer.evaluation.calibration import Validation, calibrate
from cnn_trainer.evaluation.predictions import Predictions, encode_predictions, rounded
from cnn_trainer.evaluation.scores import Score
from cnn_trainer.machine import backend
from cnn_trainer.network.fits import check_fits
from cnn_trainer.network.shapes import ImageShape, count_weights
from cnn_trainer.runs import checkpoint, paths, store
from cnn_trainer.runs.paths import CONFIG_FILE, WEIGHTS_FILE
from cnn_trainer.runs.records import EvaluationRecord
from cnn_trainer.runs.store import Run
from cnn_trainer.storage import files, strict_json


@dataclass(frozen=True)
class Result:
    """What a run has learned, ready to score images.

    Attributes:
        model: The Keras model, with the weights that are the result.
        weights_sha256: Their digest.
        loss: The loss that the run minimised.
        forward: The result of ``build_logits`` for the model.
    """

    model: Any
    weights_sha256: str
    loss: str
    forward: Callable[..., NDArray[np.floating]]

    def score(self, images: NDArray[np.uint8], labels: NDArray[np.integer]) -> Score:
        """Score uint8 images (examples, height, width, channels) against their labels, integers (examples,)."""
        return scores.score_logits(self.logits(images), labels, self.loss)

    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Probabilities, float64 (examples, classes), of uint8 images (examples, height, width, channels)."""
        return np.exp(scores.log_softmax(self.logits(images)))

    def logits(self, images: NDArray[np.uint8]) -> NDArray[np.floating]:
        """Logits (examples, classes), in the dtype of the weights, of uint8 images (examples, height, ...)."""
        return self.forward(self.model.trainable_variables, images)


def load_result(run: Run, device: str | None = None) -> Result:
    """Start TensorFlow, and load the result of a run.

    Args:
        run: A run that has a result.
        device: Where to compute: auto, cpu or gpu; None for the device of the run's config.

    Raises:
        RunDirectoryError: if the run has no result yet, or its weights do not match the digest in run.json.
        ConfigError: if the network does not fit the images of the run.
        DeviceError: if the device is not available or TensorFlow does not start.
    """
    store.require_result(run)
    refuse_small(run, [run.dir / WEIGHTS_FILE])
    experiment = change_experiment(run.experiment, {"runtime.device": device}) if device else run.experiment
    started = backend.start(experiment)
    from cnn_trainer.network.build import build_model
    from cnn_trainer.network.logits import build_logits

    height, width, channels = run.record.data.image_shape
    model = build_model(run.experiment, (height, width, channels), len(run.record.data.class_names))
    path = run.dir / WEIGHTS_FILE
    expected = {variable.path: (np.dtype(variable.dtype), tuple(variable.shape)) for variable in model.weights}
    arrays = checkpoint.read_weights(path, expected)
    digest = checkpoint.weights_digest(arrays[variable.path] for variable in model.weights)
    if digest != run.record.weights_sha256:
        resume = f"resume the run: cnn-train resume {shlex.quote(str(run.dir))}"
        remedy = "restore them from a backup" if run.record.status == "finished" else resume
        raise RunDirectoryError("these weights do not match the digest in run.json", place=path, remedy=remedy)
    for variable in model.weights:
        variable.assign(arrays[variable.path])
    return Result(model, digest, run.experiment.training.loss, build_logits(model, started.towers))


def refuse_small(run: Run, weight_files: Sequence[Path]) -> None:
    """Refuse a network too large for all of these files, before memory is allocated: the config is not trusted.

    Raises:
        ConfigError: if the network does not fit the images of the run.
        RunDirectoryError: if all files are too small.
    """
    record, place = run.record.data, Config(run.experiment, str(run.dir / CONFIG_FILE))
    shape = ImageShape(*record.image_shape)
    check_fits(place, shape, record.num_whole_train, record.validation_from == "own")
    weights = count_weights(run.experiment.model, shape)
    for path in weight_files:
        with raised_as(RunDirectoryError), files.reported(path, "read"):
            if path.lstat().st_size >= 4 * weights:
                return
    if weight_files:
        problem = f"is too small for the {weights:,} weights of the network in {CONFIG_FILE}, which was changed"
        raise RunDirectoryError(problem, place=weight_files[0], remedy="repeat the run from its config")


def score_split(
    run: Run,
    result: Result,
    split_name: SplitName = "test",
    path: Path | None = None,
    warn: Callable[[str], None] = warnings.warn,
) -> tuple[EvaluationRecord, Score, Split]:
    """Score the result of a run on one split of its data, read at ``path`` or from the place in the run's config.

    ``warn`` is called if the images at ``path`` are dark.

    Returns:
        The record for evaluation.json, the score with its values for every example, and the split.

    Raises:
        DataError: if the data cannot be read, or does not fit the model.
        DivergedError: if the loss is not finite, or a probability has no finite logarithm.
    """
    experiment, record = run.experiment, run.record.data
    split = data.load_split(experiment.data, experiment.seed, split_name, path, trained_on=record, warn=warn)
    score = result.score(split.images, split.labels)
    _require_finite(score, split_name)
    matrix = scores.confusion_matrix(split.labels, score.predictions, len(record.class_names))
    digest = data.split_digest(split)
    content = encode_predictions(_predictions(score, split.labels, digest))
    evaluation = EvaluationRecord(
        schema_version=2,
        split=split_name,
        source=record.source,
        requested=record.requested,
        location=str(path) if path else record.location,
        images_sha256=digest,
        num_examples=len(split.labels),
        classes=scores.class_scores(matrix, record.class_names),
        confusion_matrix=matrix.tolist(),
        probabilities_sha256=hashlib.sha256(content).hexdigest(),
        loss=score.loss,
        accuracy=score.accuracy,
        accuracy_interval=list(scores.wilson_interval(int(matrix.trace()), len(split.labels))),
        weights_sha256=result.weights_sha256,
        evaluated_at=strict_json.utc_now(),
    )
    return evaluation, score, split


def _require_finite(score: Score, split_name: SplitName) -> None:
    if not np.isfinite(score.log_probabilities).all():  # the very last steps made the weights too large
        raise DivergedError(f"the {split_name} loss is not a finite number", remedy="lower training.learning_rate")


def _predictions(score: Score, labels: NDArray[np.integer], images_sha256: str) -> Predictions:
    return Predictions(labels.astype(np.int32), rounded(score.probabilities, score.predictions), images_sha256)


def add_calibration(
    evaluation: EvaluationRecord, result: Result, score: Score, split: Split, validation: Split | None
) -> EvaluationRecord:
    """The record with the figures of ``calibration.calibrate``; ``validation`` is the run's split, if it has one.

    Raises DivergedError as ``score_split`` does.
    """
    seen = None
    if validation is not None:
        found = score if validation is split else result.score(validation.images, validation.labels)
        _require_finite(found, "validation")
        seen = Validation(found.log_probabilities, validation.labels, data.split_digest(validation))
    return strict_json.changed(evaluation, calibration=calibrate(score, split.labels, seen))


def _load_validation(run: Run, path: Path | None, warn: Callable[[str], None]) -> Split | None:
    """The run's validation split, from where the run found it, or else from ``path``; None if it has none.

    If it can no longer be read, ``warn`` is called.
    """
    experiment, record = run.experiment, run.record.data
    if not record.num_validation:
        return None
    place = None if path is None or os.path.lexists(record.location) else path
    try:
        return data.load_split(experiment.data, experiment.seed, "validation", place, trained_on=record)
    except DataError as error:
        warn(f"the score has no temperature, because the validation split cannot be read: {error}")
        return None


def missing_data(error: DataError, run: Run, command: str) -> DataError:
    """``error``; if the data of the run has moved, its remedy names the option of ``command`` for the new place."""
    data_used = run.record.data
    if os.path.lexists(data_used.location) or data_used.source == "mnist-5k":  # it comes with a package
        return error
    moved_to = f"if the data has moved: cnn-train {command} {shlex.quote(str(run.dir))} --data PATH"
    remedy = f"{error.remedy}; {moved_to}" if error.remedy else moved_to
    return DataError(error.problem, place=error.place, remedy=remedy)


@raised_as(RunDirectoryError)
def write_evaluation(run: Run, evaluation: EvaluationRecord, score: Score, labels: NDArray[np.integer]) -> None:
    """Write predictions.csv, probabilities.safetensors and evaluation.json; for train, evaluation-train.json and so on.

    evaluation.json comes last and has the digest of the probabilities, so that a process that is killed in between
    leaves no score that seems to belong to other predictions.

    predictions.csv begins with a comment, ``# images sha256 …``, and a heading. One line for each image follows, in the
    order of the split: index, label, prediction, probability of the prediction, label_name, prediction_name. Label and
    prediction are class ids; the names are those in run.json, quoted if they contain a comma or a quote.
    """
    names = run.record.data.class_names
    lines = io.StringIO(f"# images sha256 {evaluation.images_sha256}\n")
    lines.seek(0, io.SEEK_END)
    write = csv.writer(lines, lineterminator="\n").writerow
    write(("index", "label", "prediction", "probability", "label_name", "prediction_name"))
    chosen = score.probabilities.max(axis=1)
    rows: Any = zip(labels.tolist(), score.predictions.tolist(), chosen.tolist(), strict=True)
    for index, (label, guess, sure) in enumerate(rows):
        write((index, label, guess, f"{sure:.6f}", names[label], names[guess]))
    files.write_atomic(run.dir / paths.predictions_file(evaluation.split), lines.getvalue().encode())
    content = encode_predictions(_predictions(score, labels, evaluation.images_sha256))
    files.write_atomic(run.dir / paths.probabilities_file(evaluation.split), content)
    files.write_atomic(run.dir / paths.evaluation_file(evaluation.split), strict_json.to_json(evaluation))


def evaluate_result(
    run: Run,
    result: Result,
    split_name: SplitName = "test",
    path: Path | None = None,
    warn: Callable[[str], None] = warnings.warn,
) -> EvaluationRecord:
    """Score a loaded result on one split, with its calibration, and save the score in the run directory.

    The score is not saved if the data is read from another ``path``. If the run directory cannot be written to,
    ``warn`` is called, and the score is not saved either. A ``trained`` run becomes ``finished`` once its test score is
    saved.

    Raises:
        DataError, DivergedError: as for ``score_split``.
        RunDirectoryError: if the run has got other weights in the meantime.
    """
    try:
        evaluation, score, split = score_split(run, result, split_name, path, warn)
    except DataError as error:
        raise (missing_data(error, run, "evaluate") if path is None else error) from None
    validation = split if split_name == "validation" else _load_validation(run, path, warn)
    evaluation = add_calibration(evaluation, result, score, split, validation)
    if path is not None:
        return evaluation
    now = store.read_run_record(run.dir)
    if now.weights_sha256 != result.weights_sha256:
        problem = "the run has been trained further since its weights were loaded"
        raise RunDirectoryError(problem, place=run.dir, remedy="load and evaluate it again")
    try:
        write_evaluation(run, evaluation, score, split.labels)
    except RunDirectoryError as error:
        warn(f"the score is not saved: {error}")
        return evaluation
    if split_name == "test" and now.status == "trained":
        with store.lock_run(run, warn):  # this reads the record again
            if run.record.status == "trained":
                store.update_record(run, status="finished")
    return evaluation
