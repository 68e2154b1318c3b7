"""The single recipe from a config to an outcome. To train, call ``train_config`` or ``resume_run``."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from cnn_trainer import data
from cnn_trainer.config.load import Config, change_experiment
from cnn_trainer.config.schema import Experiment
from cnn_trainer.errors import DataError, DivergedError, RunDirectoryError
from cnn_trainer.evaluation.evaluate import (
    Result,
    add_calibration,
    missing_data,
    refuse_small,
    score_split,
    write_evaluation,
)
from cnn_trainer.machine import facts, stopping
from cnn_trainer.machine.backend import Backend
from cnn_trainer.runs import checkpoint, paths, store
from cnn_trainer.runs.paths import CHECKPOINTS_DIR, CONFIG_FILE, RECORD_FILE
from cnn_trainer.runs.records import EvaluationRecord, RunOutcome, RunRecord
from cnn_trainer.runs.store import Run
from cnn_trainer.storage import strict_json
from cnn_trainer.storage.strict_json import utc_now
from cnn_trainer.training.prepare import BACKEND_FACTS, Feedback, Prepared, prepare


def train_config(config: Config, runs_dir: Path, feedback: Feedback | None = None, evaluate: bool = True) -> RunOutcome:
    """Train an experiment in a new run directory under ``runs_dir``, and score its result on the test split.

    Without ``evaluate``, the test split is not read, and the status of the run stays ``trained``.

    Raises:
        ConfigError, DataError, DeviceError: before anything is written.
        RunDirectoryError: if the run directory cannot be created or written.
        StoppedError, DivergedError: the run directory then records it.
        DataError: also if the test split is broken; the run keeps its result, and ``resume_run`` can score it later.
    """
    told = feedback or Feedback()
    paths.require_writable(runs_dir)
    prepared = prepare(config, told, check_test=evaluate)
    run = _create(prepared, runs_dir)
    with store.lock_run(run, told.warn):
        return _train(run, prepared, told, evaluate, resume=False)


def resume_run(
    run: Run,
    epochs: int | None = None,
    feedback: Feedback | None = None,
    evaluate: bool = True,
    data_path: Path | None = None,
) -> RunOutcome:
    """Train an interrupted run to its end, with the same bits as if it had not been interrupted.

    A finished run does not change unless ``epochs`` asks for more; None keeps the run's own number. Warnings say how
    this machine differs from the one that began the run. If the data has moved, ``data_path`` is its new place, which
    the run records.

    Raises:
        ConfigError: if the config with that many epochs is not valid; the run does not change.
        RunDirectoryError: if the training data is not what the run was trained on, or the run diverged.
        DataError, DeviceError, StoppedError, DivergedError: as for ``train_config``.
    """
    if is_done(run, epochs):
        return finished_outcome(run)
    told = feedback or Feedback()
    with store.lock_run(run, told.warn):  # before TensorFlow starts, so that a second process is refused at once
        prepared = _prepare_resume(run, epochs, told, evaluate, data_path)
        return _train(run, prepared, told, evaluate, resume=True)


def train_until(config: Config, run_dir: Path, until: int, feedback: Feedback | None = None) -> RunOutcome:
    """Train an experiment in ``run_dir`` up to the end of epoch ``until``, and pause the run if epochs are left.

    A run that is there goes on where it was left. The test split is not opened. However often a run is paused or
    interrupted, its result is that of ``train_config``.

    Raises:
        RunDirectoryError: also if ``run_dir`` is a run of another experiment, or was trained beyond epoch ``until``.
        ConfigError, DataError, DeviceError, StoppedError, DivergedError: as for ``resume_run``.
    """
    told = feedback or Feedback()
    if os.path.lexists(run_dir / RECORD_FILE):
        run = store.open_run(run_dir)
        with store.lock_run(run, told.warn):
            _refuse_other(run, config.experiment)
            if run.record.status == "diverged":
                raise DivergedError(str(run.record.error))
            prepared = _prepare_resume(run, None, told, check_test=False, data_path=None)
            return _train(run, prepared, told, evaluate=False, resume=True, until=until)
    prepared = prepare(config, told, check_test=False)
    run = _create(prepared, run_dir.parent, run_dir.name)
    with store.lock_run(run, told.warn):
        return _train(run, prepared, told, evaluate=False, resume=False, until=until)


def _refuse_other(run: Run, experiment: Experiment) -> None:
    for name in ("seed", "model", "training"):
        if getattr(run.experiment, name) != getattr(experiment, name):
            problem = f"is a run of another experiment: {name} differs in its {CONFIG_FILE}"
            raise RunDirectoryError(problem, place=run.dir, remedy="move it away")


def is_done(run: Run, epochs: int | None) -> bool:
    """Whether there is nothing left to train or score, given the number of ``epochs`` that is wanted."""
    return run.record.status == "finished" and (epochs is None or epochs <= run.experiment.training.epochs)


def _create(prepared: Prepared, runs_dir: Path, folder: str | None = None) -> Run:
    now = utc_now()
    record = RunRecord(
        status="created",
        name=prepared.experiment.name,
        seed=prepared.experiment.seed,
        created_at=now,
        updated_at=now,
        data=prepared.data,
        num_parameters=prepared.session.model.count_params(),
        **{name: getattr(prepared.backend, name) for name in BACKEND_FACTS},
        machine=facts.machine(),
        versions=facts.versions(),
        environment=facts.environment(),
        git_commit=facts.git_commit(),
    )
    return store.create_run(runs_dir, prepared.experiment.name, prepared.experiment, record, folder)


def _prepare_resume(
    run: Run, epochs: int | None, feedback: Feedback, check_test: bool, data_path: Path | None
) -> Prepared:
    """Rebuild the session of a run from its own config, and warn how this machine differs from the first one."""
    if run.record.status == "diverged":
        raise RunDirectoryError(f"the run diverged and would do so again: {run.record.error}", place=run.dir)
    config_file = str(run.dir / CONFIG_FILE)
    experiment = run.experiment  # the run's own changes only when nothing can be refused any more
    if epochs is not None:
        experiment = change_experiment(experiment, {"training.epochs": epochs}, config_file)
        schedule = experiment.training.schedule.name
        if schedule in ("cosine", "one-cycle"):
            difference = "the result differs from that of a run with that number from the start"
            feedback.warn(f"the schedule {schedule} depends on the number of epochs; {difference}")
    refuse_small(run, checkpoint.checkpoint_paths(run.dir / CHECKPOINTS_DIR))
    recorded = run.record.data
    if data_path is not None:
        moved = data.at_path(experiment.data, data_path).model_dump()
        experiment = change_experiment(experiment, {"data": moved}, config_file)
    try:
        prepared = prepare(Config(experiment, config_file), feedback, check_test, recorded)
    except DataError as error:
        raise (missing_data(error, run, "resume") if data_path is None else error) from None
    for found, wanted, done in (
        (prepared.data.train_sha256, recorded.train_sha256, "trained"),
        (prepared.data.validation_sha256, recorded.validation_sha256, "validated"),
    ):
        if found != wanted:
            digests = f"their digest is {str(found)[:12]}…, the run's is {str(wanted)[:12]}…"
            problem = f"these are not the images that the run was {done} on ({digests})"
            raise RunDirectoryError(problem, place=prepared.data.location)
    for difference in differences(run.record, prepared.backend):
        feedback.warn(f"{difference}; the bits of the result may differ from those of an uninterrupted run")
    if data_path is not None:  # written with the other changes, when training begins
        experiment = change_experiment(experiment, {"data": prepared.experiment.data.model_dump()})
        run.record = strict_json.changed(
            run.record, data=strict_json.changed(recorded, location=prepared.data.location)
        )
    run.experiment = experiment
    return prepared


def differences(record: RunRecord, started: Backend) -> list[str]:
    """Everything that determines a run's bits and has changed since ``record`` was written, one line each."""
    before = {**record.versions, **record.machine, **record.environment}
    now = {**facts.versions(), **facts.machine(), **facts.environment()}
    for name in BACKEND_FACTS:
        before[name], now[name] = str(getattr(record, name)), str(getattr(started, name))
    names = sorted(before.keys() | now.keys())
    before, now = ({name: side[name] if name in side else "not set" for name in names} for side in (before, now))
    return [f"{name} was {before[name]}, is {now[name]}" for name in names if before[name] != now[name]]


def _train(
    run: Run, prepared: Prepared, feedback: Feedback, evaluate: bool, resume: bool, until: int | None = None
) -> RunOutcome:
    """Train a locked run to its end, and score it if ``evaluate``, which is the only time the test split is scored.

    Without ``evaluate``, training may pause after epoch ``until``.
    """
    from cnn_trainer.training import loop

    feedback.created(run)
    with stopping.stop_requests() as stop:
        digest = loop.train_run(run, prepared.session, feedback.display, stop, feedback.warn, resume, until)
        if not evaluate:
            if run.record.status != "paused":
                store.update_record(run, status="trained")
            return _outcome(run, None, digest)
        session = prepared.session
        result = Result(session.model, digest, run.experiment.training.loss, session.logits)
        try:
            evaluation, score, split = score_split(run, result)
            evaluation = add_calibration(evaluation, result, score, split, session.validation)
            write_evaluation(run, evaluation, score, split.labels)
        except DataError as error:
            store.note_failure(run, error)
            repair = "" if error.remedy is None else f"{error.remedy}; "
            resume_it = f"cnn-train resume {shlex.quote(str(run.dir))}"
            remedy = f"{repair}the run keeps its result; once the data is repaired, score it with: {resume_it}"
            raise DataError(error.problem, place=error.place, remedy=remedy) from None
        except DivergedError as error:
            store.update_record(run, status="diverged", error=str(error))
            raise
        except RunDirectoryError as error:
            store.note_failure(run, error)
            raise
        store.update_record(run, status="finished")
    return _outcome(run, evaluation, digest)


def finished_outcome(run: Run) -> RunOutcome:
    """The outcome that a finished run reported when it ended. Raises RunDirectoryError if evaluation.json is wrong."""
    evaluation = store.read_evaluation(run.dir)
    if evaluation is None:
        remedy = f"score it again with: cnn-train evaluate {shlex.quote(str(run.dir))}"
        problem = "the run is finished, but evaluation.json is missing"
        raise RunDirectoryError(problem, place=run.dir, remedy=remedy)
    return _outcome(run, evaluation, evaluation.weights_sha256)


def _outcome(run: Run, evaluation: EvaluationRecord | None, digest: str) -> RunOutcome:
    record = run.record
    return RunOutcome(
        run=str(run.dir),
        status=record.status,
        data=record.data.source,
        requested_data=record.data.requested,
        data_location=record.data.location,
        epochs=record.epochs_done,
        best_epoch=record.best_epoch,
        train_seconds=record.train_seconds,
        test_loss=evaluation.loss if evaluation else None,
        test_accuracy=evaluation.accuracy if evaluation else None,
        test_accuracy_interval=evaluation.accuracy_interval if evaluation else None,
        test_balanced_accuracy=evaluation.balanced_accuracy if evaluation else None,
        test_examples=evaluation.num_examples if evaluation else None,
        test_images_sha256=evaluation.images_sha256 if evaluation else None,
        weights_sha256=digest,
    )
