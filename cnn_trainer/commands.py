"""What the commands train, resume and evaluate do, each from its input to the record that it reports.

Modules that import TensorFlow are imported here only after ``backend.start``, which keeps TensorFlow quiet and sets
its threads.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cnn_trainer import backend, checkpoint, config, data, files, runs, tensorboard
from cnn_trainer.backend import Backend
from cnn_trainer.config import Config, ImageShape
from cnn_trainer.errors import ConfigError, DataError, DivergedError, RunDirectoryError
from cnn_trainer.files import printable
from cnn_trainer.progress import Display
from cnn_trainer.records import DataRecord, EvaluationRecord, RunOutcome, RunRecord, utc_now
from cnn_trainer.run_dirs import CHECKPOINTS_DIR, CONFIG_FILE, WEIGHTS_FILE
from cnn_trainer.runs import Run
from cnn_trainer.schema import Experiment
from cnn_trainer.stopping import StopRequest

if TYPE_CHECKING:
    import keras

    from cnn_trainer.evaluation import SplitName
    from cnn_trainer.training import Session

Say = Callable[[str], None]


@dataclass(frozen=True)
class Prepared:
    """All that training needs, checked and in memory; nothing is written yet."""

    experiment: Experiment
    """Resolved: the data that is really used, device, threads and towers are filled in."""
    data: DataRecord
    backend: Backend
    session: Session


def prepare(loaded: Config, say: Say, progress: data.Progress) -> Prepared:
    """Read the training data, check that the network fits it, start TensorFlow and build everything.

    Raises:
        ConfigError, DataError, DeviceError: before anything is written.
    """
    experiment = loaded.experiment
    if experiment.runtime.tensorboard and not tensorboard.is_installed():
        remedy = "install it with: pip install 'cnn-trainer[tensorboard]', or set false"
        raise ConfigError(loaded.fault("runtime.tensorboard", f"got true, and TensorBoard is not installed; {remedy}"))
    training_data = data.load_training(experiment.data, experiment.seed, say, progress)
    record = training_data.record
    _require_unicode(record.location)
    experiment = with_data_used(experiment, record)
    whole = record.num_train + record.num_validation
    config.check_fits(Config(experiment, loaded.file, loaded.places), ImageShape(*record.image_shape), whole)
    started = backend.start(experiment)
    warning = backend.precision_warning(experiment, started.device)
    if warning:
        say(f"WARNING: {warning}")
    from cnn_trainer import training

    experiment = _with_backend(experiment, started)
    return Prepared(experiment, record, started, training.build_session(experiment, training_data, started))


def _require_unicode(location: str) -> None:
    try:
        location.encode()
    except UnicodeEncodeError:
        remedy = "rename what is not, or move the data"
        raise DataError(
            f"{printable(location)}: a run records this path, which is not Unicode text; {remedy}"
        ) from None


def with_data_used(experiment: Experiment, record: DataRecord) -> Experiment:
    """The experiment as it is really run, from whatever folder the next command is started.

    A path is absolute; where the fallback was taken, data and name say so.
    """
    if record.source == record.requested:
        named = "path" in experiment.data.model_dump(exclude_none=True)
        used = experiment.data.model_copy(update={"path": record.location} if named else {})
        return experiment.model_copy(update={"data": used})
    name = f"{experiment.name[: 63 - len(record.source)]}-{record.source}"
    return experiment.model_copy(update={"name": name, "data": data.data_used(experiment.data, record)})


def _with_backend(experiment: Experiment, started: Backend) -> Experiment:
    resolved = {
        "device": started.device.split()[0],
        "towers": started.towers,
        "intra_op_threads": started.intra_op_threads,
        "inter_op_threads": started.inter_op_threads,
    }
    return experiment.model_copy(update={"runtime": experiment.runtime.model_copy(update=resolved)})


def create_run(prepared: Prepared, runs_dir: Path) -> Run:
    """Create the run directory of a prepared experiment. Raises RunDirectoryError."""
    started, now = prepared.backend, utc_now()
    record = RunRecord(
        status="created",
        name=prepared.experiment.name,
        seed=prepared.experiment.seed,
        created_at=now,
        updated_at=now,
        data=prepared.data,
        num_parameters=prepared.session.model.count_params(),
        device=started.device,
        towers=started.towers,
        intra_op_threads=started.intra_op_threads,
        inter_op_threads=started.inter_op_threads,
        machine=backend.machine(),
        versions=backend.versions(),
        environment=backend.environment(),
        git_commit=backend.git_commit(),
    )
    return runs.create_run(runs_dir, prepared.experiment.name, prepared.experiment, record)


def train_run(
    run: Run, prepared: Prepared, display: Display, stop: StopRequest, say: Say, resume: bool = False
) -> RunOutcome:
    """Train a locked run to its end and evaluate its result on the test split, which is opened here first.

    Raises:
        StoppedError, DivergedError: as ``training.train``; the run directory then says so.
        DataError: where the test split is broken; the run keeps its result, and ``resume`` scores it later.
    """
    from cnn_trainer import evaluation, training

    digest = training.train(run, prepared.session, display, stop, say, resume)
    try:
        score = evaluation.evaluate(run, prepared.session.model, digest, prepared.backend.towers)
        evaluation.write_evaluation(run, *score)
    except DataError as error:
        runs.update_record(run, status="failed", error=printable(error))
        remedy = f"once that is repaired, score it with: cnn-train resume {shlex.quote(str(run.dir))}"
        raise DataError(f"{error}; the run keeps its result; {remedy}") from None
    except DivergedError as error:
        runs.update_record(run, status="diverged", error=str(error))
        raise
    except RunDirectoryError as error:
        runs.note_failure(run, error)
        raise
    runs.update_record(run, status="finished")
    return _outcome(run, score[0])


def finished_outcome(run: Run) -> RunOutcome:
    """What a finished run reported when it ended. Raises RunDirectoryError where its evaluation.json is not right."""
    evaluated = runs.read_evaluation(run.dir)
    if evaluated is None:
        remedy = f"score it again with: cnn-train evaluate {shlex.quote(str(run.dir))}"
        raise RunDirectoryError(
            f"{printable(run.dir)}: the run is finished, but evaluation.json is not there; {remedy}"
        )
    return _outcome(run, evaluated)


def _outcome(run: Run, evaluated: EvaluationRecord) -> RunOutcome:
    record = run.record
    return RunOutcome(
        run=str(run.dir),
        status=record.status,
        data=record.data.source,
        requested_data=record.data.requested,
        epochs=record.epochs_done,
        best_epoch=record.best_epoch,
        train_seconds=record.train_seconds,
        test_loss=evaluated.loss,
        test_accuracy=evaluated.accuracy,
        test_accuracy_interval=evaluated.accuracy_interval,
        test_examples=evaluated.num_examples,
        test_images_sha256=evaluated.images_sha256,
        weights_sha256=evaluated.weights_sha256,
    )


def prepare_resume(run: Run, epochs: int | None, say: Say, progress: data.Progress) -> Prepared:
    """Rebuild the session of a run from its own config, and say where this machine is not the one that began it.

    Args:
        run: The run to go on with.
        epochs: Train on to so many epochs; None for what the run was asked for.
        say: Told what differs.
        progress: Told of a download.

    Raises:
        RunDirectoryError: where the training data is no longer what the run was trained on, or the run diverged.
    """
    if run.record.status == "diverged":
        raise RunDirectoryError(f"{run.dir}: the run diverged and would do so again; {run.record.error}")
    if epochs is not None:
        training = run.experiment.training.model_copy(update={"epochs": epochs})
        run.experiment = run.experiment.model_copy(update={"training": training})
        if training.schedule.name in ("cosine", "one-cycle"):
            say(
                f"WARNING: the schedule {training.schedule.name} depends on the number of epochs; "
                "the result differs from that of a run that was asked for as many at once"
            )
    refuse_small(run, checkpoint.checkpoint_paths(run.dir / CHECKPOINTS_DIR))
    prepared = prepare(Config(run.experiment, str(run.dir / CONFIG_FILE)), say, progress)
    if prepared.data.train_sha256 != run.record.data.train_sha256:
        raise RunDirectoryError(
            f"{prepared.data.location}: these are not the images that the run was trained on "
            f"(digest {prepared.data.train_sha256[:12]}…, the run has {run.record.data.train_sha256[:12]}…)"
        )
    for difference in differences(run.record, prepared.backend):
        say(f"WARNING: {difference}; the bits of the result may differ from those of a run that was not cut")
    return prepared


def refuse_small(run: Run, paths: list[Path]) -> None:
    """Refuse a network that none of these files can hold, before memory is taken for it: a stranger wrote the config.

    Raises:
        ConfigError: where the network does not fit the images of the run.
    """
    record, place = run.record.data, Config(run.experiment, str(run.dir / CONFIG_FILE))
    shape = ImageShape(*record.image_shape)
    config.check_fits(place, shape, record.num_train + record.num_validation)
    weights = config.count_weights(run.experiment.model, shape)
    for path in paths:
        with files.reported(path, "read"):
            if path.lstat().st_size >= 4 * weights:
                return
    if paths:
        problem = f"too small for the {weights:,} weights of the network in {CONFIG_FILE}, which was changed"
        raise RunDirectoryError(f"{printable(paths[0])}: {problem}; repeat the run from its config")


def differences(record: RunRecord, started: Backend) -> list[str]:
    """What decides over a run's bits and is different now from when ``record`` was written, one line each."""
    before = {**record.versions, **record.machine, **record.environment, "device": record.device}
    now = {**backend.versions(), **backend.machine(), **backend.environment(), "device": started.device}
    for name in ("towers", "intra_op_threads", "inter_op_threads"):
        before[name], now[name] = str(getattr(record, name)), str(getattr(started, name))
    lines = []
    for name in sorted(before.keys() | now.keys()):
        was, has_become = (side[name] if name in side else "not set" for side in (before, now))
        if was != has_become:
            lines.append(f"{name} was {was}, is {has_become}")
    return lines


def evaluate_run(run: Run, split_name: SplitName, path: Path | None, device: str | None = None) -> EvaluationRecord:
    """Score the result of a run on one split, all rebuilt from the run directory.

    The score is written into the run directory, unless the data was read from another ``path``.
    """
    model, digest, started = load_result(run, device)
    from cnn_trainer import evaluation

    evaluated, score, split = evaluation.evaluate(run, model, digest, started.towers, split_name, path)
    if path is None:
        evaluation.write_evaluation(run, evaluated, score, split)
    return evaluated


def load_result(run: Run, device: str | None) -> tuple[keras.Sequential, str, Backend]:
    """Start TensorFlow and load the result of a run: the model, the digest of its weights, and how TensorFlow runs.

    Raises:
        RunDirectoryError, ConfigError, DeviceError: where there is no result, or it cannot be computed here.
    """
    experiment = run.experiment
    if device:
        experiment = experiment.model_copy(update={"runtime": experiment.runtime.model_copy(update={"device": device})})
    runs.require_result(run)
    refuse_small(run, [run.dir / WEIGHTS_FILE])
    started = backend.start(experiment)
    from cnn_trainer import evaluation

    return *evaluation.load_result(run), started
