"""Builds what a process needs to train a run from the experiment."""

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from cnn_trainer.config.schema import Experiment
from cnn_trainer.data import Split, TrainingData
from cnn_trainer.data.splits import counts_per_class
from cnn_trainer.machine.backend import Backend
from cnn_trainer.network import rewrite
from cnn_trainer.network.build import build_model
from cnn_trainer.network.logits import build_logits
from cnn_trainer.training.augment import build_augment
from cnn_trainer.training.balance import balanced_weights
from cnn_trainer.training.engine import Batch, Engine
from cnn_trainer.training.gradients import Objective, add_towers, augmented, plain_gradients, with_penalties
from cnn_trainer.training.optimizer import build_optimizer


@dataclass(frozen=True)
class Session:
    """What training changes, and the tools that it uses to do so."""

    experiment: Experiment
    model: keras.Sequential
    optimizer: keras.optimizers.Optimizer
    engine: Engine
    logits: Callable[..., np.ndarray]
    validation: Split | None
    best: dict[str, np.ndarray]
    """Weights of the best epoch so far, by variable path; unused without a validation split."""
    class_weights: list[float] | None
    """The weight of each class in the training loss; None if all classes count alike."""


def build_session(experiment: Experiment, training_data: TrainingData, backend: Backend) -> Session:
    """Build the model, the optimizer and the compiled steps of a run. Writes nothing."""
    height, width, channels = training_data.record.image_shape
    model = build_model(experiment, (height, width, channels), len(training_data.record.class_names))
    train = training_data.train
    steps_per_epoch = -(-len(train.labels) // experiment.training.batch_size)
    optimizer = build_optimizer(experiment, model, steps_per_epoch)
    engine = build_engine(experiment, model, optimizer, train, backend.towers)
    best = {variable.path: variable.numpy() for variable in model.weights} if training_data.validation else {}
    logits = build_logits(model, backend.towers)
    weights = class_weights(experiment, train, model.output_shape[-1])
    return Session(experiment, model, optimizer, engine, logits, training_data.validation, best, weights)


def class_weights(experiment: Experiment, train: Split, num_classes: int) -> list[float] | None:
    """The weight of each class in the loss, as ``experiment`` asks for; validation examples are not counted."""
    if experiment.training.class_weights is None:
        return None
    return balanced_weights(counts_per_class(train.labels, num_classes))


def build_engine(
    experiment: Experiment, model: keras.Sequential, optimizer: keras.optimizers.Optimizer, train: Split, towers: int
) -> Engine:
    """Build the engine of an experiment: batches from memory, plain gradients, and towers added in this process.

    Raises ValueError for several towers if the model needs the whole batch in one tower.
    """
    operations, size = rewrite.fast_form(model)
    across = rewrite.looks_across_batch(operations)
    if towers > 1 and across:
        raise ValueError(f"got {towers} towers, but the model needs the whole batch in one tower")
    training, dtype = experiment.training, tf.as_dtype(experiment.runtime.precision)
    num_classes = model.output_shape[-1]
    weights = class_weights(experiment, train, num_classes)
    objective = Objective(training.loss, training.label_smoothing, num_classes, weights)
    gradients = plain_gradients(model, objective, dtype, optimizer)
    augment = build_augment(training.augmentation, *train.images.shape[1:3])
    if augment is not None:
        gradients = augmented(gradients, augment, dtype)
    return Engine(
        model.trainable_variables,
        optimizer,
        # An augmentation may move any pixel into the part that the network reads, so images are not cropped before it.
        from_memory(train, size if augment is None else None),
        gradients,
        with_penalties(add_towers, model, optimizer),
        num_examples=len(train.labels),
        batch_size=training.batch_size,
        towers=towers,
        seed=experiment.seed,
        may_fill_up=not across,
    )


def from_memory(split: Split, size: tuple[int, int] | None = None) -> Batch:
    """Batches from a split that is held in the device's memory as bytes.

    If ``size`` is given, only the upper left part of each image, of this height and width, is held.
    """
    images = split.images
    if size is not None:
        images = np.ascontiguousarray(images[:, : size[0], : size[1]])
    held_images, held_labels = tf.convert_to_tensor(images), tf.convert_to_tensor(split.labels, tf.int32)
    return lambda indexes: (tf.gather(held_images, indexes), tf.gather(held_labels, indexes))
