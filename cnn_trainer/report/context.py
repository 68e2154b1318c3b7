"""What the page of one run is made from, read from its directory without trusting it."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnn_trainer import data
from cnn_trainer.config.schema.data import Mnist, MnistLike
from cnn_trainer.data import places
from cnn_trainer.data.splits import SplitName
from cnn_trainer.errors import CnnTrainError, DataError, RunDirectoryError
from cnn_trainer.evaluation.evaluate import missing_data
from cnn_trainer.evaluation.predictions import Predictions, evaluate_command, read_predictions
from cnn_trainer.evaluation.scores import confusion_matrix
from cnn_trainer.report.sprite import Sprite
from cnn_trainer.runs import details, paths, store
from cnn_trainer.runs.records import EpochMetrics, EvaluationRecord
from cnn_trainer.runs.store import Run


@dataclass(frozen=True)
class Examples:
    """The examples of the scored split: images in its order, and what the run says about them.

    Attributes:
        split: Its name.
        images: uint8 (examples, height, width, channels).
        predictions: Their labels and probabilities.
        sprite: The images of the page.
    """

    split: SplitName
    images: NDArray[np.uint8]
    predictions: Predictions
    sprite: Sprite


@dataclass(frozen=True)
class Context:
    """One run. Text in it is exactly as in the files, not escaped."""

    run: Run
    status: details.ShownStatus
    metrics: list[EpochMetrics]
    evaluation: EvaluationRecord | None
    """The score on the test split; None if there is none of the run's present weights."""
    examples: Examples | None
    """None without a score, and if ``problem`` says why they cannot be shown."""
    problem: CnnTrainError | None


def read_context(run_dir: Path, data_path: Path | None = None) -> Context:
    """Read a run, and the images that its score was measured on.

    Args:
        run_dir: The run.
        data_path: Where the data is; None for the place in the run's config. Nothing is downloaded.

    Raises:
        RunDirectoryError: if one of its files is broken, except those that only examples need.
    """
    run = store.open_run(run_dir)
    evaluation = store.read_evaluation(run_dir)
    if evaluation and evaluation.weights_sha256 != run.record.weights_sha256:
        evaluation = None
    if evaluation and not _adds_up(run, evaluation):
        contradiction = "its figures contradict each other, or the run"
        raise RunDirectoryError(contradiction, place=run_dir / paths.EVALUATION_FILE, remedy=_score_again(run))
    examples: Examples | None = None
    problem: CnnTrainError | None = None
    if evaluation:
        try:
            examples = _read_examples(run, evaluation, data_path)
        except (DataError, RunDirectoryError) as error:
            problem = error
    status = details.summarize(run_dir.resolve()).status
    return Context(run, status, store.read_metrics(run), evaluation, examples, problem)


def _adds_up(run: Run, evaluation: EvaluationRecord) -> bool:
    """Whether the counts of a score, which is not trusted, are those of one set of examples in the run's classes."""
    names, matrix = run.record.data.class_names, evaluation.confusion_matrix
    return (
        [score.name for score in evaluation.classes] == names
        and [len(row) for row in matrix] == [len(names)] * len(names)
        and min(map(min, matrix)) >= 0
        and [score.support for score in evaluation.classes] == list(map(sum, matrix))
        and sum(map(sum, matrix)) == evaluation.num_examples
        and sum(row[label] for label, row in enumerate(matrix)) == round(evaluation.accuracy * evaluation.num_examples)
        and len(evaluation.accuracy_interval) == 2
    )


def _score_again(run: Run) -> str:
    return f"score the run again: {evaluate_command(run.dir, 'test')}"


def _read_examples(run: Run, evaluation: EvaluationRecord, data_path: Path | None) -> Examples:
    predictions = read_predictions(run.dir, evaluation)
    matrix = confusion_matrix(predictions.labels, predictions.predictions, len(evaluation.classes))
    if matrix.tolist() != evaluation.confusion_matrix:
        place = run.dir / paths.probabilities_file(evaluation.split)
        raise RunDirectoryError("does not belong to the run's score", place=place, remedy=_score_again(run))
    try:
        split = _read_split(run, evaluation, data_path)
    except DataError as error:
        raise (missing_data(error, run, "report") if data_path is None else error) from None
    if data.split_digest(split) != evaluation.images_sha256:
        problem = f"does not hold the {evaluation.split} images that the run was scored on"
        remedy = "name the place of the right ones with --data PATH"
        raise DataError(problem, place=data_path or run.record.data.location, remedy=remedy)
    return Examples(evaluation.split, split.images, predictions, Sprite(split.images))


def _read_split(run: Run, evaluation: EvaluationRecord, data_path: Path | None) -> data.Split:
    """The scored split, wherever it is on this machine. Raises DataError."""
    record = run.record.data
    section = data.data_used(run.experiment.data, record)
    if isinstance(section, Mnist | MnistLike) and section.path is None and data_path is None:
        found, looked_at = places.locate(section.source)
        if found is None and os.path.lexists(record.location):
            data_path = Path(record.location)
        elif found is None:
            raise DataError(f"is not at hand; looked at: {', '.join(looked_at)}", place=section.source)
    return data.load_split(section, run.experiment.seed, evaluation.split, data_path, trained_on=record)
