"""The schema of an experiment: every key with its default, unit and bounds.

Defaults are set here and nowhere else. The models are frozen and refuse unknown keys, values of another type,
NaN and infinity. Nothing here reads files or imports TensorFlow.
"""

from typing import Annotated

from pydantic import Field, model_validator

from cnn_trainer.config.schema.data import Csv, Folder, Idx, Mnist, Mnist5k, MnistLike, Npz, Parquet
from cnn_trainer.config.schema.model import Cnn, Mlp
from cnn_trainer.config.schema.section import KeyProblem, Section, default_kind
from cnn_trainer.config.schema.training import Runtime, Training


class Experiment(Section):
    """One experiment of cnn-train: data, model, training, and how the machine is used."""

    name: str = Field(
        "experiment",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="Name of its runs: at most 64 letters, digits, dots, hyphens and underscores.",
    )
    seed: int = Field(
        1, ge=0, le=2**31 - 1, description="Seed for everything random: weights, order, splits, augmentation, Dropout."
    )
    data: Annotated[
        Mnist | MnistLike | Mnist5k | Npz | Idx | Folder | Csv | Parquet,
        Field(discriminator="source"),
        default_kind("source", "mnist"),
    ] = Field(default_factory=Mnist, description="What to train on.")
    model: Annotated[Cnn | Mlp, Field(discriminator="builder"), default_kind("builder", "cnn")] = Field(
        default_factory=Cnn, description="Which network to train."
    )
    training: Training = Field(Training(), description="How to train it.")
    runtime: Runtime = Field(Runtime(), description="How to use the machine.")

    @model_validator(mode="after")
    def _normalization_needs_one_tower(self) -> "Experiment":
        if self.model.batch_normalization and self.runtime.towers not in (None, 1):
            problem = f"got {self.runtime.towers}, but model.batch_normalization normalises over the whole batch"
            raise KeyProblem("runtime.towers", problem, "set runtime.towers to 1 or null")
        return self
