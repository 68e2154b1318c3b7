"""The epochs of a run, from its first step or from a checkpoint, to its result.

Everything needed to continue is in ``TrainingState`` and in the variables of the model and the optimizer; both go into
every checkpoint. Nothing else is carried from one step to the next, so a run that is interrupted anywhere ends with the
same bits.
"""

import math
import shlex
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from pydantic import BaseModel, ConfigDict, Field

from cnn_trainer.config.schema import Experiment
from cnn_trainer.data import order_of_examples
from cnn_trainer.errors import DivergedError, RunDirectoryError, StoppedError, count, raised_as
from cnn_trainer.evaluation.scores import score_logits
from cnn_trainer.machine.stopping import StopRequest
from cnn_trainer.network.build import keras_file
from cnn_trainer.runs import checkpoint, store
from cnn_trainer.runs.checkpoint import Checkpoint
from cnn_trainer.runs.paths import CHECKPOINTS_DIR, MODEL_FILE, WEIGHTS_FILE
from cnn_trainer.runs.records import EpochMetrics
from cnn_trainer.runs.store import Run
from cnn_trainer.storage import files, strict_json
from cnn_trainer.training.display import Display
from cnn_trainer.training.engine import Sums
from cnn_trainer.training.optimizer import averages, last_learning_rate, lower_at_plateau
from cnn_trainer.training.session import Session
from cnn_trainer.training.tensorboard import WriteEvents, epoch_writer

# Control returns to Python about this often: soon enough to stop within 2 s of a signal, seldom enough to cost nothing.
_PYTHON_EVERY_SECONDS = 0.2


class TrainingState(BaseModel):
    """The progress of a run. Epochs and steps are counted from 0 here: they are the numbers of those that are done."""

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
    lowered_epoch: int = Field(0, ge=0)  # the last epoch after which the plateau schedule lowered the learning rate
    history: list[EpochMetrics] = Field(default_factory=list)


def train_run(
    run: Run,
    session: Session,
    display: Display,
    stop: StopRequest,
    warn: Callable[[str], None],
    resume: bool = False,
    until: int | None = None,
) -> str:
    """Train a locked run to its end, write its result (weights.safetensors and model.keras), and return its digest.

    ``session`` is built from the run's own experiment, ``stop`` is checked several times a second, and ``warn`` is
    called with what the user should know, such as that a broken checkpoint was skipped. With ``resume``, training
    continues from the newest valid checkpoint. If epochs are left after epoch ``until``, the run pauses there,
    as if it had been interrupted, and the digest returned is that of the result it would have now.

    Raises:
        StoppedError: after a checkpoint was written, if a signal asked to stop.
        DivergedError: if the loss is no longer finite.
        RunDirectoryError: if the run was trained beyond epoch ``until``, or cannot be read or written.
    """
    state = _restore(run, session, warn) if resume else TrainingState()
    training = session.experiment.training
    last = training.epochs if until is None else min(until, training.epochs)
    if (state.epoch, state.step) > (last, 0):
        problem = f"the run was trained beyond epoch {last}, where it was to pause"
        raise RunDirectoryError(problem, place=run.dir, remedy="move it away, so that it is trained anew")
    store.update_record(run, status="training", error=None)
    if resume:  # in this order, a run killed between any two can still be resumed
        store.write_config(run)
        store.rewrite_metrics(run, state.history)
    display.begin(state.epoch + 1, state.step, last, session.engine.steps_per_epoch, training.batch_size)
    try:
        with epoch_writer(run.dir, state.history, session.experiment.runtime.tensorboard) as write_events:
            _train_epochs(run, session, state, last, display, stop, write_events)
        if stop.signal_number is not None:  # writing and scoring the result may take too long for a stop
            raise _stopped(run, "after the last epoch", stop.signal_number)
        display.end()
        if state.epoch < training.epochs and not _stops_early(session.experiment, state):
            store.update_record(run, status="paused", **_figures(state))
            return checkpoint.weights_digest(_result(session, state).values())
        return _write_result(run, session, state)
    except StoppedError:
        store.update_record(run, status="interrupted", **_figures(state))
        raise
    except DivergedError as error:
        store.update_record(run, status="diverged", error=str(error), **_figures(state))
        raise
    except Exception as error:
        store.note_failure(run, error, **_figures(state))
        raise
    finally:
        display.end()


def _figures(state: TrainingState) -> dict[str, Any]:
    return {"epochs_done": state.epoch, "best_epoch": state.best_epoch, "train_seconds": state.train_seconds}


def _train_epochs(
    run: Run,
    session: Session,
    state: TrainingState,
    last_epoch: int,
    display: Display,
    stop: StopRequest,
    write_events: WriteEvents,
) -> None:
    experiment, engine = session.experiment, session.engine
    checkpointed, chunk = time.monotonic(), 1
    while state.epoch < last_epoch and not _stops_early(experiment, state):
        order = tf.constant(order_of_examples(engine.num_examples, experiment.seed, state.epoch + 1))
        while state.step < engine.steps_per_epoch:
            began = time.monotonic()
            last = min(state.step + chunk, engine.steps_per_epoch)
            sums = engine.train_steps(order, state.step, last, state.sums)
            seconds = time.monotonic() - began
            chunk = max(1, round(chunk * min(4.0, _PYTHON_EVERY_SECONDS / max(1e-6, seconds))))
            if not math.isfinite(sums.loss):
                steps = f"between steps {state.step + 1} and {last} of epoch {state.epoch + 1}"
                remedy = "lower training.learning_rate or set training.gradient_clip_norm"
                raise DivergedError(f"the training loss became infinite or NaN {steps}", remedy=remedy)
            state.step, state.sums = last, sums
            state.step_seconds += seconds
            state.train_seconds += seconds
            display.step(state.epoch + 1, last, sums.loss / sums.examples, sums.correct / sums.examples)
            if stop.signal_number is not None:
                _write_checkpoint(run, session, state)
                place = f"in epoch {state.epoch + 1} after step {last} of {engine.steps_per_epoch}"
                raise _stopped(run, place, stop.signal_number)
            if time.monotonic() - checkpointed > experiment.runtime.checkpoint_seconds:
                _write_checkpoint(run, session, state)
                checkpointed = time.monotonic()
        metrics = _end_epoch(session, state)
        _write_checkpoint(run, session, state)
        checkpointed = time.monotonic()
        store.append_metrics(run, metrics)
        write_events(metrics)
        display.epoch(metrics.epoch, metrics.summary())


def _stopped(run: Run, place: str, signal_number: int) -> StoppedError:
    remedy = f"continue with: cnn-train resume {shlex.quote(str(run.dir))}"
    return StoppedError(f"stopped {place}", signal_number, remedy=remedy)


def _stops_early(experiment: Experiment, state: TrainingState) -> bool:
    stopping, lowest = experiment.training.early_stopping, state.lowest_epoch
    return stopping is not None and lowest is not None and state.epoch - lowest >= stopping.patience


def _end_epoch(session: Session, state: TrainingState) -> EpochMetrics:
    """Validate, note the best epoch, and advance ``state`` to the next epoch."""
    began = time.monotonic()
    sums, epoch = state.sums, state.epoch + 1
    loss = accuracy = None
    if session.validation is not None:
        weights = _result_values(session)
        logits = session.logits([weights[v.path] for v in session.model.trainable_variables], session.validation.images)
        found = score_logits(logits, session.validation.labels, session.experiment.training.loss)
        loss, accuracy = found.loss, found.accuracy
        if not math.isfinite(loss):
            problem = f"the validation loss of epoch {epoch} is not finite"
            raise DivergedError(problem, remedy="lower training.learning_rate")
        _note_best(session, state, epoch, loss, weights)
    spent = time.monotonic() - began
    metrics = EpochMetrics(
        epoch=epoch,
        step=epoch * session.engine.steps_per_epoch,
        train_loss=sums.loss / sums.examples,
        train_accuracy=sums.correct / sums.examples,
        validation_loss=loss,
        validation_accuracy=accuracy,
        learning_rate=last_learning_rate(session.optimizer),
        images_per_second=sums.examples / max(1e-9, state.step_seconds),
        seconds=state.step_seconds + spent,
    )
    state.history.append(metrics)
    state.train_seconds += spent
    epochs_without = epoch - max(state.best_epoch or 0, state.lowered_epoch)
    if lower_at_plateau(session.experiment.training, session.optimizer, epochs_without):
        state.lowered_epoch = epoch
    state.epoch, state.step, state.sums, state.step_seconds = epoch, 0, Sums(), 0.0
    return metrics


def _note_best(session: Session, state: TrainingState, epoch: int, loss: float, weights: dict[str, np.ndarray]) -> None:
    """The lowest validation loss decides the result; only a decrease by more than min_delta resets early stopping."""
    stopping = session.experiment.training.early_stopping
    if state.lowest_loss is None or loss < state.lowest_loss - (stopping.min_delta if stopping else 0.0):
        state.lowest_loss, state.lowest_epoch = loss, epoch
    if state.best_loss is None or loss < state.best_loss:
        state.best_loss, state.best_epoch = loss, epoch
        session.best.update(weights)


def _result_values(session: Session) -> dict[str, np.ndarray]:
    """The weights that would now be the result, by path: the moving averages if the experiment asks for them."""
    values = {variable.path: variable.numpy() for variable in session.model.weights}
    for variable, average in zip(session.model.trainable_variables, averages(session.optimizer), strict=False):
        values[variable.path] = average.numpy()
    return values


def _variables(session: Session) -> dict[str, keras.Variable]:
    """Every variable that training changes, by its name in a checkpoint, including random state (unlike ``weights``).

    A variable's path cannot be its name, because the path counts the optimizers that this process has created.
    """
    named = [("model", v) for v in session.model.variables] + [("optimizer", v) for v in session.optimizer.variables]
    return {f"{kind}/{number:03}/{variable.name}": variable for number, (kind, variable) in enumerate(named)}


def _write_checkpoint(run: Run, session: Session, state: TrainingState) -> None:
    arrays = {name: np.asarray(variable.numpy()) for name, variable in _variables(session).items()}
    arrays |= {f"best/{path}": array for path, array in session.best.items()}
    step = state.epoch * session.engine.steps_per_epoch + state.step
    checkpoint.write_checkpoint(run.dir / CHECKPOINTS_DIR, step, Checkpoint(arrays, state.model_dump()))


def _restore(run: Run, session: Session, warn: Callable[[str], None]) -> TrainingState:
    """Restore the session from the newest valid checkpoint of the run. Writes nothing."""
    folder = run.dir / CHECKPOINTS_DIR
    if not checkpoint.checkpoint_paths(folder):
        warn(f"{folder}: the run was interrupted before its first checkpoint; it starts again")
        return TrainingState()
    variables = _variables(session)
    expected = {name: (np.dtype(v.dtype), tuple(v.shape)) for name, v in variables.items()}
    expected |= {f"best/{path}": (array.dtype, array.shape) for path, array in session.best.items()}
    found = checkpoint.read_newest(folder, expected, warn)
    with raised_as(RunDirectoryError):
        state = strict_json.validated(TrainingState, found.state, folder)
    _refuse_impossible(run, session, state)
    for name, variable in variables.items():
        variable.assign(found.arrays[name])
    session.best.update({path: found.arrays[f"best/{path}"] for path in session.best})
    epochs = session.experiment.training.epochs
    if state.epoch < epochs and _stops_early(session.experiment, state):
        warn(f"early stopping ended the run after epoch {state.epoch}; it is not trained up to epoch {epochs}")
    return state


def _refuse_impossible(run: Run, session: Session, state: TrainingState) -> None:
    """Refuse a state that this run cannot reach: a correct digest does not tell who wrote the checkpoint."""
    training, engine = session.experiment.training, session.engine
    if (state.epoch, state.step) > (training.epochs, 0):
        done = f"{count(state.epoch, 'epoch')} and {count(state.step, 'step')} are done"
        problem = f"asked for {count(training.epochs, 'epoch')} in all, but {done}"
        raise RunDirectoryError(problem, place=run.dir, remedy="ask for more with --epochs")
    losses = [metrics.validation_loss for metrics in state.history] if session.validation is not None else []
    examples = min(state.step * training.batch_size, engine.num_examples)
    possible = (
        state.step <= engine.steps_per_epoch
        and [metrics.epoch for metrics in state.history] == list(range(1, state.epoch + 1))
        and state.sums.examples == examples
        and 0 <= state.sums.correct <= examples
        and state.lowered_epoch <= state.epoch
        and _is_epoch_of(losses, state.best_epoch, state.best_loss)
        and _is_epoch_of(losses, state.lowest_epoch, state.lowest_loss)
    )
    if not possible:
        raise RunDirectoryError("the checkpoint's state does not fit the run", place=run.dir, remedy="it was changed")


def _is_epoch_of(losses: list[float | None], epoch: int | None, loss: float | None) -> bool:
    """Whether ``loss`` is the one of ``epoch``, counted from 1; both are None if there are no losses."""
    if not losses or epoch is None or loss is None:
        return not losses and epoch is None and loss is None
    return 1 <= epoch <= len(losses) and losses[epoch - 1] == loss


def _result(session: Session, state: TrainingState) -> dict[str, np.ndarray]:
    """The weights that are the result if training ends here, by path, in the order of the model's weights."""
    values = session.best if state.best_epoch is not None else _result_values(session)
    return {variable.path: np.asarray(values[variable.path]) for variable in session.model.weights}


def _write_result(run: Run, session: Session, state: TrainingState) -> str:
    """Set the model to the weights that are the result, and write both. Returns the digest of the weights."""
    arrays = _result(session, state)
    for variable in session.model.weights:
        variable.assign(arrays[variable.path])
    digest = checkpoint.weights_digest(arrays.values())
    checkpoint.write_weights(run.dir / WEIGHTS_FILE, arrays)
    place = run.dir / MODEL_FILE
    with raised_as(RunDirectoryError):
        with files.reported(place, "created", "it is first written to the folder in TMPDIR, or to /tmp"):
            content = keras_file(session.model)
        files.write_atomic(place, content)
    store.update_record(run, weights_sha256=digest, **_figures(state))
    return digest
