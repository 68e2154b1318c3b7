"""The epochs of a run, from its first step or from a checkpoint, to its result.

Whatever is needed to go on stands in ``TrainingState`` and in the model's and optimizer's variables; both go into every
checkpoint. Nothing else is carried from one step to the next, so a run that was cut anywhere ends with the same bits.
"""

import math
import shlex
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cnn_trainer.config.schema import Experiment
from cnn_trainer.data import Split, TrainingData, order_of_examples
from cnn_trainer.errors import DivergedError, RunDirectoryError, StoppedError, raised_as
from cnn_trainer.evaluation.scores import score_logits
from cnn_trainer.machine.backend import Backend
from cnn_trainer.machine.stopping import StopRequest
from cnn_trainer.network.build import build_model, keras_file
from cnn_trainer.network.logits import build_logits
from cnn_trainer.runs import checkpoint, store
from cnn_trainer.runs.checkpoint import Checkpoint
from cnn_trainer.runs.paths import CHECKPOINTS_DIR, MODEL_FILE, WEIGHTS_FILE
from cnn_trainer.runs.records import EpochMetrics
from cnn_trainer.runs.store import Run
from cnn_trainer.storage import files, strict_json
from cnn_trainer.training.augment import build_augment
from cnn_trainer.training.display import Display
from cnn_trainer.training.engine import Engine, Sums
from cnn_trainer.training.optimizer import averages, build_optimizer, lower_at_plateau
from cnn_trainer.training.tensorboard import WriteEvents, epoch_writer

# Python takes over about this often: soon enough to stop within 2 s of a signal, seldom enough to cost nothing.
_PYTHON_EVERY_SECONDS = 0.2


class TrainingState(BaseModel):
    """How far a run has come. Epochs and steps are counted from 0 here: so many are done."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    epoch: int = Field(0, ge=0)
    step: int = Field(0, ge=0)
    sums: Sums = Sums()
    step_seconds: float = Field(0.0, ge=0)
    train_seconds: float = Field(0.0, ge=0)
    best_epoch: int | None = None
    best_loss: float | None = None
    lowest_epoch: int | None = None
    lowest_loss: float | None = None
    lowered_epoch: int = Field(0, ge=0)  # the last epoch after which the schedule plateau lowered the learning rate
    history: list[EpochMetrics] = Field(default_factory=list)

    def to_state(self) -> dict[str, Any]:
        """As JSON-able data."""
        return {**dict(self), "sums": asdict(self.sums), "history": [metrics.model_dump() for metrics in self.history]}

    @classmethod
    def from_state(cls, state: dict[str, Any], place: Path) -> "TrainingState":
        """What ``to_state`` gave. Raises RunDirectoryError, naming ``place``, for other keys and types."""
        try:
            return cls.model_validate_json(strict_json.format_json(state))
        except ValidationError as error:
            fault = error.errors(include_url=False, include_context=False)[0]
            problem = f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"[:120]
            words = "the checkpoint's state is not one of this program"
            raise RunDirectoryError(f"{words}: {problem}", place=place) from None


@dataclass(frozen=True)
class Session:
    """All that one process holds while it trains a run."""

    experiment: Experiment
    model: keras.Sequential
    optimizer: keras.optimizers.Optimizer
    engine: Engine
    logits: Callable[..., np.ndarray]
    validation: Split | None
    best: dict[str, np.ndarray]
    """Weights of the best epoch so far, by variable path; unused without a validation split."""


def build_session(experiment: Experiment, training_data: TrainingData, backend: Backend) -> Session:
    """Build the model, the optimizer and the compiled steps for one run. Writes nothing."""
    height, width, channels = training_data.record.image_shape
    model = build_model(experiment, (height, width, channels), len(training_data.record.class_names))
    train = training_data.train
    steps_per_epoch = -(-len(train.labels) // experiment.training.batch_size)
    optimizer = build_optimizer(experiment, model, steps_per_epoch)
    augment = build_augment(experiment.training.augmentation, height, width)
    engine = Engine(experiment, model, optimizer, train, backend.towers, augment)
    best = {variable.path: variable.numpy() for variable in model.weights} if training_data.validation else {}
    logits = build_logits(model, backend.towers)
    return Session(experiment, model, optimizer, engine, logits, training_data.validation, best)


def train(
    run: Run, session: Session, display: Display, stop: StopRequest, warn: Callable[[str], None], resume: bool = False
) -> str:
    """Train ``run`` to its end, and write its result: weights.safetensors and model.keras.

    Args:
        run: A locked run.
        session: Built from the run's own experiment.
        display: Shown progress.
        stop: Looked at every fraction of a second.
        warn: Called with what a person should know, such as a broken checkpoint that was passed over.
        resume: Whether to go on from the newest valid checkpoint.

    Returns:
        The digest of the result's weights.

    Raises:
        StoppedError: after a checkpoint was written, where a signal asked to stop.
        DivergedError: where the loss is no longer finite.
    """
    progress = _restore(run, session, warn) if resume else TrainingState()
    store.update_record(run, status="training", error=None)
    if resume:  # in this order a kill between any two leaves a run that is taken up again
        store.write_config(run)
        store.rewrite_metrics(run, progress.history)
    training = session.experiment.training
    display.begin(
        progress.epoch + 1, progress.step, training.epochs, session.engine.steps_per_epoch, training.batch_size
    )
    try:
        with epoch_writer(run.dir, progress.history, session.experiment.runtime.tensorboard) as write_events:
            _train_epochs(run, session, progress, display, stop, write_events)
        if stop.signal_number is not None:  # writing and scoring the result may take longer than a stop should
            raise StoppedError("stopped after the last epoch", stop.signal_number, remedy=f"{_how_to_go_on(run)}")
        display.end()
        return _write_result(run, session, progress)
    except StoppedError:
        store.update_record(run, status="interrupted", **_figures(progress))
        raise
    except DivergedError as error:
        store.update_record(run, status="diverged", error=str(error), **_figures(progress))
        raise
    except Exception as error:
        store.note_failure(run, error, **_figures(progress))
        raise
    finally:
        display.end()


def _figures(progress: TrainingState) -> dict[str, Any]:
    return {
        "epochs_done": progress.epoch,
        "best_epoch": progress.best_epoch,
        "train_seconds": progress.train_seconds,
    }


def _train_epochs(
    run: Run, session: Session, progress: TrainingState, display: Display, stop: StopRequest, write_events: WriteEvents
) -> None:
    experiment, engine = session.experiment, session.engine
    checkpointed, chunk = time.monotonic(), 1
    while progress.epoch < experiment.training.epochs and not _stops_early(experiment, progress):
        order = tf.constant(order_of_examples(engine.num_examples, experiment.seed, progress.epoch + 1))
        while progress.step < engine.steps_per_epoch:
            began = time.monotonic()
            last = min(progress.step + chunk, engine.steps_per_epoch)
            sums = engine.train_steps(order, progress.step, last, progress.sums)
            seconds = time.monotonic() - began
            chunk = max(1, round(chunk * min(4.0, _PYTHON_EVERY_SECONDS / max(1e-6, seconds))))
            _advance(progress, last, sums, seconds)
            display.step(progress.epoch + 1, last, sums.loss / sums.examples, sums.correct / sums.examples)
            if stop.signal_number is not None:
                _write_checkpoint(run, session, progress)
                place = f"in epoch {progress.epoch + 1} after step {last} of {engine.steps_per_epoch}"
                raise StoppedError(f"stopped {place}", stop.signal_number, remedy=f"{_how_to_go_on(run)}")
            if time.monotonic() - checkpointed > experiment.runtime.checkpoint_seconds:
                _write_checkpoint(run, session, progress)
                checkpointed = time.monotonic()
        metrics = _end_epoch(session, progress)
        _write_checkpoint(run, session, progress)
        checkpointed = time.monotonic()
        store.append_metrics(run, metrics)
        write_events(metrics)
        display.epoch(metrics.epoch, metrics.summary())


def _how_to_go_on(run: Run) -> str:
    return f"go on with: cnn-train resume {shlex.quote(str(run.dir))}"


def _advance(progress: TrainingState, step: int, sums: Sums, seconds: float) -> None:
    if not math.isfinite(sums.loss):
        raise DivergedError(
            f"the training loss is no longer finite, between steps {progress.step + 1} and {step} of "
            f"epoch {progress.epoch + 1}",
            remedy="lower training.learning_rate or set training.gradient_clip_norm",
        )
    progress.step, progress.sums = step, sums
    progress.step_seconds += seconds
    progress.train_seconds += seconds


def _stops_early(experiment: Experiment, progress: TrainingState) -> bool:
    stopping = experiment.training.early_stopping
    return (
        stopping is not None
        and progress.lowest_epoch is not None
        and progress.epoch - progress.lowest_epoch >= stopping.patience
    )


def _end_epoch(session: Session, progress: TrainingState) -> EpochMetrics:
    """Validate, note the best epoch, and turn ``progress`` to the next epoch."""
    began = time.monotonic()
    sums, epoch = progress.sums, progress.epoch + 1
    loss = accuracy = None
    if session.validation is not None:
        weights = _result_values(session)
        logits = session.logits([weights[v.path] for v in session.model.trainable_variables], session.validation.images)
        found = score_logits(logits, session.validation.labels, session.experiment.training.loss)
        loss, accuracy = found.loss, found.accuracy
        if not math.isfinite(loss):
            raise DivergedError(
                f"the validation loss of epoch {epoch} is not finite", remedy="lower training.learning_rate"
            )
        _note_best(session, progress, epoch, loss, weights)
    spent = time.monotonic() - began
    metrics = EpochMetrics(
        epoch=epoch,
        step=epoch * session.engine.steps_per_epoch,
        train_loss=sums.loss / sums.examples,
        train_accuracy=sums.correct / sums.examples,
        validation_loss=loss,
        validation_accuracy=accuracy,
        learning_rate=session.engine.last_learning_rate(),
        images_per_second=sums.examples / max(1e-9, progress.step_seconds),
        seconds=progress.step_seconds + spent,
    )
    progress.history.append(metrics)
    progress.train_seconds += spent
    epochs_without = epoch - max(progress.best_epoch or 0, progress.lowered_epoch)
    if lower_at_plateau(session.experiment.training, session.optimizer, epochs_without):
        progress.lowered_epoch = epoch
    progress.epoch, progress.step, progress.sums, progress.step_seconds = epoch, 0, Sums(), 0.0
    return metrics


def _note_best(
    session: Session, progress: TrainingState, epoch: int, loss: float, weights: dict[str, np.ndarray]
) -> None:
    """The lowest validation loss chooses the result; only a fall by more than min_delta resets early stopping."""
    stopping = session.experiment.training.early_stopping
    if progress.lowest_loss is None or loss < progress.lowest_loss - (stopping.min_delta if stopping else 0.0):
        progress.lowest_loss, progress.lowest_epoch = loss, epoch
    if progress.best_loss is None or loss < progress.best_loss:
        progress.best_loss, progress.best_epoch = loss, epoch
        session.best.update(weights)


def _result_values(session: Session) -> dict[str, np.ndarray]:
    """The weights that would be the result now, by path: the moving averages where the experiment asks for them."""
    values = {variable.path: variable.numpy() for variable in session.model.weights}
    for variable, average in zip(session.model.trainable_variables, averages(session.optimizer), strict=False):
        values[variable.path] = average.numpy()
    return values


def _variables(session: Session) -> dict[str, keras.Variable]:
    """Every variable that training changes, under its name in a checkpoint; ``weights`` leaves out random state.

    A variable's path would not do as its name: it counts the optimizers that this process has made before.
    """
    named = [("model", v) for v in session.model.variables] + [("optimizer", v) for v in session.optimizer.variables]
    return {f"{kind}/{number:03}/{variable.name}": variable for number, (kind, variable) in enumerate(named)}


def _write_checkpoint(run: Run, session: Session, progress: TrainingState) -> None:
    arrays = {name: np.asarray(variable.numpy()) for name, variable in _variables(session).items()}
    arrays |= {f"best/{path}": array for path, array in session.best.items()}
    step = progress.epoch * session.engine.steps_per_epoch + progress.step
    checkpoint.write_checkpoint(run.dir / CHECKPOINTS_DIR, step, Checkpoint(arrays, progress.to_state()))


def _restore(run: Run, session: Session, warn: Callable[[str], None]) -> TrainingState:
    """Set the session to the newest valid checkpoint of the run. Writes nothing."""
    folder = run.dir / CHECKPOINTS_DIR
    if not checkpoint.checkpoint_paths(folder):
        warn(f"{folder}: the run was cut before its first checkpoint; it begins again")
        return TrainingState()
    variables = _variables(session)
    expected = {name: (np.dtype(v.dtype), tuple(v.shape)) for name, v in variables.items()}
    expected |= {f"best/{path}": (array.dtype, array.shape) for path, array in session.best.items()}
    found = checkpoint.read_newest(folder, expected, warn)
    progress = TrainingState.from_state(found.state, folder)
    _refuse_impossible(run, session, progress)
    for name, variable in variables.items():
        variable.assign(found.arrays[name])
    session.best.update({path: found.arrays[f"best/{path}"] for path in session.best})
    epochs = session.experiment.training.epochs
    if progress.epoch < epochs and _stops_early(session.experiment, progress):
        warn(f"early stopping ended the run after epoch {progress.epoch}; it is not trained on to {epochs}")
    return progress


def _refuse_impossible(run: Run, session: Session, progress: TrainingState) -> None:
    """Refuse a state that training this run cannot reach: a right digest does not say who wrote the checkpoint."""
    training, engine, losses = session.experiment.training, session.engine, []
    if (progress.epoch, progress.step) > (training.epochs, 0):
        raise RunDirectoryError(
            f"{progress.epoch} epochs and {progress.step} steps are done, more than the "
            f"{training.epochs} epochs that are asked for",
            place=run.dir,
            remedy="ask for more with --epochs",
        )
    if session.validation is not None:
        losses = [metrics.validation_loss for metrics in progress.history]
    examples = min(progress.step * training.batch_size, engine.num_examples)
    possible = (
        progress.step <= engine.steps_per_epoch
        and [metrics.epoch for metrics in progress.history] == list(range(1, progress.epoch + 1))
        and progress.sums.examples == examples
        and 0 <= progress.sums.correct <= examples
        and progress.lowered_epoch <= progress.epoch
        and _is_epoch_of(losses, progress.best_epoch, progress.best_loss)
        and _is_epoch_of(losses, progress.lowest_epoch, progress.lowest_loss)
    )
    if not possible:
        raise RunDirectoryError("the checkpoint's state does not fit the run", place=run.dir, remedy="it was changed")


def _is_epoch_of(losses: list[float | None], epoch: int | None, loss: float | None) -> bool:
    """Whether ``loss`` is that of ``epoch``, counted from 1; both are None where there are no losses."""
    if not losses or epoch is None or loss is None:
        return not losses and epoch is None and loss is None
    return 1 <= epoch <= len(losses) and losses[epoch - 1] == loss


def _write_result(run: Run, session: Session, progress: TrainingState) -> str:
    """Give the model the weights that are the result, and write them and the model."""
    values = session.best if progress.best_epoch is not None else _result_values(session)
    for variable in session.model.weights:
        variable.assign(values[variable.path])
    arrays = {variable.path: np.asarray(variable.numpy()) for variable in session.model.weights}
    digest = checkpoint.weights_digest(arrays.values())
    checkpoint.write_weights(run.dir / WEIGHTS_FILE, arrays)
    place = run.dir / MODEL_FILE
    with raised_as(RunDirectoryError):
        with files.reported(place, "made", "it is first written in the folder that TMPDIR names, or /tmp"):
            content = keras_file(session.model)
        files.write_atomic(place, content)
    store.update_record(run, weights_sha256=digest, **_figures(progress))
    return digest
