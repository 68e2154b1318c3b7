"""The single recipe from a config to an outcome. To train, call ``train_config`` or ``resume_run``.

Modules that import TensorFlow are imported here only after ``backend.start``, which keeps TensorFlow quiet and sets
its threads.
"""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cnn_trainer import data
from cnn_trainer.config.expand import expand_path, literal_path
from cnn_trainer.config.load import Config, change_experiment
from cnn_trainer.config.schema import Experiment
from cnn_trainer.data.splits import counts_per_class
from cnn_trainer.errors import ConfigError, DataError, DivergedError, RunDirectoryError
from cnn_trainer.evaluation.evaluate import Result, missing_data, refuse_small, score_split, write_evaluation
from cnn_trainer.machine import backend, facts, stopping
from cnn_trainer.machine.backend import Backend
from cnn_trainer.network.fits import check_fits
from cnn_trainer.network.shapes import ImageShape
from cnn_trainer.runs import checkpoint, paths, store
from cnn_trainer.runs.paths import CHECKPOINTS_DIR, CONFIG_FILE
from cnn_trainer.runs.records import DataRecord, EvaluationRecord, RunOutcome, RunRecord
from cnn_trainer.runs.store import Run
from cnn_trainer.storage import strict_json
from cnn_trainer.storage.strict_json import utc_now
from cnn_trainer.training import tensorboard
from cnn_trainer.training.balance import describe_imbalance, first_ten
from cnn_trainer.training.display import Display

if TYPE_CHECKING:
    from cnn_trainer.training.session import Session

# The fields of the backend that are recorded, under the same names.
_BACKEND = ("device", "towers", "intra_op_threads", "inter_op_threads")


@dataclass(frozen=True)
class Prepared:
    """Everything that training needs, checked and in memory; nothing has been written yet."""

    experiment: Experiment
    """The resolved experiment: the data that is actually used, the device, threads and towers are filled in."""
    data: DataRecord
    backend: Backend
    session: Session

    @property
    def tower_images(self) -> int:
        """Number of images of a batch that one tower computes."""
        return self.experiment.training.batch_size // self.backend.towers


@dataclass(frozen=True)
class Feedback:
    """Callbacks for what the recipe does. By default, only warnings are reported, as Python warnings."""

    warn: Callable[[str], None] = lambda line: warnings.warn(line, stacklevel=3)
    """Called with a line that the user should read."""
    download: data.DownloadProgress = data.no_progress
    prepared: Callable[[Prepared], None] = lambda _: None
    """Called when everything is checked and built; nothing has been written yet."""
    created: Callable[[Run], None] = lambda _: None
    """Called when the run directory exists and is locked, and training begins."""
    display: Display = field(default_factory=Display)


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


def is_done(run: Run, epochs: int | None) -> bool:
    """Whether there is nothing left to train or score, given the number of ``epochs`` that is wanted."""
    return run.record.status == "finished" and (epochs is None or epochs <= run.experiment.training.epochs)


def prepare(
    config: Config, feedback: Feedback, check_test: bool = True, trained_on: DataRecord | None = None
) -> Prepared:
    """Read the training data, check that the network fits it, start TensorFlow and build everything. Writes nothing.

    Args:
        config: The experiment to train.
        feedback: The callbacks to use.
        check_test: Whether to read the test split too, to find its faults early; nothing is scored.
        trained_on: The data of the run, if one is resumed.

    Raises ConfigError, DataError or DeviceError.
    """
    experiment = config.experiment
    for line in config.notes:
        feedback.warn(line)
    if experiment.runtime.tensorboard and not tensorboard.is_installed():
        remedy = f"install it with: {facts.install_command('tensorboard')}, or set false"
        raise ConfigError(config.fault("runtime.tensorboard", "got true, but TensorBoard is not installed", remedy))
    training_data = data.load_training(
        experiment.data,
        experiment.seed,
        feedback.warn,
        feedback.download,
        trained_on=trained_on,
        check_test=check_test,
    )
    record = training_data.record
    try:
        record.location.encode()
    except UnicodeEncodeError:
        problem, remedy = "this path must be recorded, but is not valid Unicode", "rename it, or move the data"
        raise DataError(problem, place=record.location, remedy=remedy) from None
    for line in _class_warnings(experiment, training_data):
        feedback.warn(line)
    if record.validation_from == "own" and experiment.data.validation_fraction:
        feedback.warn(data.unused_fraction(record.location, record.num_validation))
    experiment = with_data_used(experiment, record)
    placed, shape = Config(experiment, config.file, config.places), ImageShape(*record.image_shape)
    check_fits(placed, shape, record.num_whole_train, record.validation_from == "own")
    started = backend.start(experiment)
    from cnn_trainer.network import precision
    from cnn_trainer.training.session import build_session

    resolved = {f"runtime.{name}": getattr(started, name) for name in _BACKEND}
    experiment = change_experiment(experiment, resolved | {"runtime.device": started.device.split()[0]})
    prepared = Prepared(experiment, record, started, build_session(experiment, training_data, started))
    chosen = experiment.runtime.precision
    if started.device == "cpu" and chosen in ("bfloat16", "float16"):
        gain = precision.measure_gain(prepared.session.model, chosen, prepared.tower_images)
        if warning := precision.slow_warning(chosen, gain):
            feedback.warn(warning)
    feedback.prepared(prepared)
    return prepared


def _class_warnings(experiment: Experiment, found: data.TrainingData) -> Iterator[str]:
    """Warnings about the sizes of the classes, for the user to see before the first step."""
    names = found.record.class_names
    imbalance = describe_imbalance(counts_per_class(found.train.labels, len(names)), names)
    if imbalance and experiment.training.class_weights is None:
        remedy = "set training.class_weights: balanced, or else the rare class may hardly ever be predicted"
        yield f"the training split has {imbalance}; {remedy}"
    validation = found.validation and counts_per_class(found.validation.labels, len(names))
    for split, counts in ("validation", validation), ("test", found.test_counts):
        if missing := [name for name, count in zip(names, counts, strict=True) if not count] if counts else []:
            yield f"the {split} score will not cover classes that have no {split} image: {first_ten(missing)}"


def with_data_used(experiment: Experiment, record: DataRecord) -> Experiment:
    """The experiment as it is actually run, valid whatever the working folder of the next command.

    Paths are absolute; if the fallback was used, the data and the name say so. If the data has its own validation
    split, no fraction of the training split is set aside.
    """
    if record.source == record.requested:
        section = experiment.data.model_dump(exclude_none=True)
        changes: dict[str, object] = {"data.path": literal_path(Path(record.location))} if "path" in section else {}
        if record.validation_from == "own":
            changes["data.validation_fraction"] = 0.0
        tables = {
            key: literal_path(expand_path(section[key])) for key in ("test_path", "validation_path") if key in section
        }
        return change_experiment(experiment, changes | {f"data.{key}": path for key, path in tables.items()})
    name = f"{experiment.name[: 63 - len(record.source)]}-{record.source}"
    return change_experiment(experiment, {"name": name, "data": data.data_used(experiment.data, record).model_dump()})


def _create(prepared: Prepared, runs_dir: Path) -> Run:
    now = utc_now()
    record = RunRecord(
        status="created",
        name=prepared.experiment.name,
        seed=prepared.experiment.seed,
        created_at=now,
        updated_at=now,
        data=prepared.data,
        num_parameters=prepared.session.model.count_params(),
        **{name: getattr(prepared.backend, name) for name in _BACKEND},
        machine=facts.machine(),
        versions=facts.versions(),
        environment=facts.environment(),
        git_commit=facts.git_commit(),
    )
    return store.create_run(runs_dir, prepared.experiment.name, prepared.experiment, record)


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
    for name in _BACKEND:
        before[name], now[name] = str(getattr(record, name)), str(getattr(started, name))
    names = sorted(before.keys() | now.keys())
    before, now = ({name: side[name] if name in side else "not set" for name in names} for side in (before, now))
    return [f"{name} was {before[name]}, is {now[name]}" for name in names if before[name] != now[name]]


def _train(run: Run, prepared: Prepared, feedback: Feedback, evaluate: bool, resume: bool) -> RunOutcome:
    """Train a locked run to its end, and score it if ``evaluate``, which is the only time the test split is scored."""
    from cnn_trainer.training import loop

    feedback.created(run)
    with stopping.stop_requests() as stop:
        digest = loop.train_run(run, prepared.session, feedback.display, stop, feedback.warn, resume)
        if not evaluate:
            store.update_record(run, status="trained")
            return _outcome(run, None)
        session = prepared.session
        result = Result(session.model, digest, run.experiment.training.loss, session.logits)
        try:
            evaluation, score, split = score_split(run, result)
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
    return _outcome(run, evaluation)


def finished_outcome(run: Run) -> RunOutcome:
    """The outcome that a finished run reported when it ended. Raises RunDirectoryError if evaluation.json is wrong."""
    evaluation = store.read_evaluation(run.dir)
    if evaluation is None:
        remedy = f"score it again with: cnn-train evaluate {shlex.quote(str(run.dir))}"
        problem = "the run is finished, but evaluation.json is missing"
        raise RunDirectoryError(problem, place=run.dir, remedy=remedy)
    return _outcome(run, evaluation)


def _outcome(run: Run, evaluation: EvaluationRecord | None) -> RunOutcome:
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
        weights_sha256=evaluation.weights_sha256 if evaluation else str(record.weights_sha256),
    )
