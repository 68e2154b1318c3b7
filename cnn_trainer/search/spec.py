"""The contents of a space file, and what can be computed from it: rungs, costs and scores."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, model_validator

from cnn_trainer.config.load import Config, change_experiment
from cnn_trainer.config.schema.section import KeyProblem, Section
from cnn_trainer.config.strict_yaml import Value
from cnn_trainer.network.shapes import ImageShape, layer_sizes
from cnn_trainer.search.records import JobResult
from cnn_trainer.storage.strict_json import format_json

Goal = Literal["validation_loss", "validation_accuracy"]
Method = Literal["tpe", "random", "grid"]

Changes = Mapping[str, Value]
"""A trial's changes to the experiment of its search, by dotted key, for ``change_experiment``."""


class Dimension(Section):
    """The possible values of a key: a range from low to high, or a list of choices."""

    low: float | None = Field(None, ge=-1e15, le=1e15, description="The smallest value.")
    high: float | None = Field(None, ge=-1e15, le=1e15, description="The largest value.")
    log: bool = Field(False, description="Sample the range on a logarithmic scale.")
    choices: list[Any] | None = Field(None, min_length=1, max_length=100, description="The possible values.")

    @model_validator(mode="after")
    def _a_range_or_choices(self) -> "Dimension":
        if self.choices is None and self.low is not None and self.high is not None:
            if self.low >= self.high:
                raise KeyProblem("high", f"got {self.high:.15g}", f"must be greater than low, {self.low:.15g}")
            if self.log and self.low <= 0:
                raise KeyProblem("low", f"got {self.low:.15g}", "must be greater than 0 with log: true")
        elif self.choices is None or self.log or not (self.low is self.high is None):
            raise ValueError("expected either low and high, or choices")
        else:
            seen: list[str] = []
            for value in self.choices:
                try:
                    text = canonical(value)
                except ValueError:
                    raise KeyProblem("choices", f"got {value}", "must be a finite number") from None
                if text in seen:
                    raise KeyProblem("choices", f"{text[:60]} appears twice", "list each value once")
                seen.append(text)
        return self

    def bounds(self) -> tuple[float, float]:
        """The low and high ends of a range."""
        if self.low is None or self.high is None:
            raise AssertionError("choices have no bounds")
        return self.low, self.high


class Rungs(Section):
    """The epochs after which trials are compared: first, then factor times as many, and so on up to last."""

    first: int = Field(1, ge=1, le=100_000, description="Epochs of the first rung.")
    factor: int = Field(3, ge=2, le=100, description="The best 1 of factor trials is promoted to the next rung.")
    last: int = Field(27, ge=1, le=100_000, description="Epochs of the last rung, the most that a trial can train.")

    @model_validator(mode="after")
    def _rise(self) -> "Rungs":
        if self.first > self.last:
            raise KeyProblem("first", f"got {self.first}", f"must be at most last, {self.last}")
        return self


class Final(Section):
    """Retraining of the best trials on fresh seeds, which gives values that played no part in choosing them."""

    trials: int = Field(3, ge=1, le=100, description="Number of the best trials to retrain.")
    seeds: int = Field(5, ge=1, le=20, description="Fresh seeds for each of them; an interval needs at least 2.")


class SearchSpec(Section):
    """A space file: the settings of one search."""

    name: str = Field("search", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="Name of the search.")
    experiment: str = Field(min_length=1, description="Path of the config that trials change, relative to this file.")
    seed: int = Field(1, ge=0, le=2**31 - 1, description="Seed of the proposals. Training uses the experiment's seed.")
    goal: Goal = Field("validation_loss", description="The measure by which trials are compared.")
    validation_fraction: float = Field(
        0.1, gt=0, le=0.5, description="Share of the training split to validate on if the experiment sets none aside."
    )
    space: dict[str, Any] = Field(min_length=1, max_length=100, description="A Dimension for each dotted key.")
    method: Method = Field("tpe", description="How trials are proposed. A grid tries all combinations of choices.")
    trials: int = Field(64, ge=1, le=10_000, description="Number of trials; fewer if the space has fewer points.")
    rungs: Rungs | None = Field(None, description="If null, every trial trains for the experiment's epochs.")
    lanes: int = Field(4, ge=1, le=1024, description="Trials under way at a time, whatever the number of workers.")
    trial_towers: int = Field(1, ge=1, le=1024, description="The value of runtime.towers for every trial.")
    final: Final = Field(Final(), description="Which trials are retrained at the end, and on how many seeds.")


@dataclass(frozen=True)
class Search:
    """A checked space file with everything else that determines the results of a search."""

    spec: SearchSpec
    base: Config
    """The experiment that trials change, with epochs (of the last rung), towers, threads and split seed set."""
    space: Mapping[str, Dimension]
    """The dimensions by dotted key, in the order of the file."""
    whole_keys: frozenset[str]
    """The keys that take only whole numbers."""
    shape: ImageShape
    num_train: int
    """Number of training examples, not counting those set aside for validation."""


def canonical(value: object) -> str:
    """A JSON text for comparing values: 1, 1.0 and true are three different values."""
    return format_json(value)


def num_points(search: Search) -> float:
    """The number of different points in the space; infinite if a range includes fractions."""
    return math.prod(num_values(search, key) for key in search.space)


def num_values(search: Search, key: str) -> float:
    """The number of different values in a dimension."""
    dimension = search.space[key]
    if dimension.choices is not None:
        return len(dimension.choices)
    low, high = dimension.bounds()
    return int(high) - int(low) + 1 if key in search.whole_keys else math.inf


def num_proposals(search: Search) -> int:
    """The number of trials in the search. No point is proposed twice."""
    return int(min(search.spec.trials, num_points(search)))


def rung_epochs(search: Search) -> tuple[int, ...]:
    """The number of epochs after which a trial reaches each rung, in rising order."""
    rungs = search.spec.rungs
    if rungs is None:
        return (search.base.experiment.training.epochs,)
    epochs = [rungs.first]
    while epochs[-1] * rungs.factor < rungs.last:
        epochs.append(epochs[-1] * rungs.factor)
    return (*epochs, rungs.last) if epochs[-1] < rungs.last else tuple(epochs)


def final_epochs(search: Search) -> int:
    """The number of epochs that the finals take, if none of them stops early."""
    final = search.spec.final
    return min(final.trials, num_proposals(search)) * final.seeds * rung_epochs(search)[-1]


def epoch_cost(search: Search, changes: Changes) -> int:
    """Virtual time of an epoch of a trial: multiply-adds of the forward pass, plus one per weight in each step."""
    experiment = change_experiment(search.base.experiment, changes)
    layers = list(layer_sizes(experiment.model, search.shape))
    steps = math.ceil(search.num_train / experiment.training.batch_size)
    return (
        1 + search.num_train * sum(layer.products for layer in layers) + steps * sum(layer.weights for layer in layers)
    )


def score(search: Search, result: JobResult) -> float:
    """The score that the search minimises: the loss, or minus the accuracy; infinite if the job diverged."""
    is_loss = search.spec.goal == "validation_loss"
    value = result.validation_loss if is_loss else result.validation_accuracy
    if value is None:
        return math.inf
    return value if is_loss else -value


def identity(results: Sequence[JobResult]) -> str:
    """SHA-256 of all results, not counting times. The same file gives the same digest, however the work was done."""
    in_order = sorted(results, key=lambda one: (one.trial, one.final or 0, one.rung))
    facts = [one.model_dump(exclude={"seconds", "step_seconds"}) for one in in_order]
    return hashlib.sha256(format_json(facts).encode()).hexdigest()
