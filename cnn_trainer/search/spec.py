"""What a space file says, and what follows from it by arithmetic: rungs, costs, scores."""

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
"""What a trial changes in the experiment of its search, by dotted key, for ``change_experiment``."""


class Dimension(Section):
    """The values that a key can take: all from low to high, or some choices."""

    low: float | None = Field(None, ge=-1e15, le=1e15, description="The smallest value.")
    high: float | None = Field(None, ge=-1e15, le=1e15, description="The largest value.")
    log: bool = Field(False, description="Whether equal ratios, not equal differences, are equally likely.")
    choices: list[Any] | None = Field(None, min_length=1, max_length=100, description="Values, lists or sections.")

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
                    raise KeyProblem("choices", f"{text[:60]} is there twice", "give each value once")
                seen.append(text)
        return self

    def bounds(self) -> tuple[float, float]:
        """Low and high of a range."""
        if self.low is None or self.high is None:
            raise AssertionError("choices have no bounds")
        return self.low, self.high


class Rungs(Section):
    """The epochs after which trials are compared: first, then factor times as many, and so on to last."""

    first: int = Field(1, ge=1, le=100_000, description="Epochs of the first rung.")
    factor: int = Field(3, ge=2, le=100, description="One trial of so many is promoted to the next rung.")
    last: int = Field(27, ge=1, le=100_000, description="Epochs of the last rung: all that a trial can get.")

    @model_validator(mode="after")
    def _rise(self) -> "Rungs":
        if self.first > self.last:
            raise KeyProblem("first", f"got {self.first}", f"must be at most last, {self.last}")
        return self


class Final(Section):
    """Which trials are retrained on fresh seeds, to see what they are worth where nothing was chosen by it."""

    trials: int = Field(3, ge=1, le=100, description="The best so many are retrained.")
    seeds: int = Field(5, ge=1, le=20, description="Fresh seeds for each of them; an interval needs 2.")


class SearchSpec(Section):
    """One search of cnn-train."""

    name: str = Field("search", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="What the search is called.")
    experiment: str = Field(min_length=1, description="The config that trials change: a path, from this file's folder.")
    seed: int = Field(1, ge=0, le=2**31 - 1, description="Seed of the proposals; that of training is the experiment's.")
    goal: Goal = Field("validation_loss", description="What the best trial is best in.")
    validation_fraction: float = Field(
        0.1, gt=0, le=0.5, description="Share of the training split to validate on if the experiment sets none aside."
    )
    space: dict[str, Any] = Field(min_length=1, max_length=100, description="A Dimension for each dotted key.")
    method: Method = Field("tpe", description="How trials are proposed. A grid takes all combinations of choices.")
    trials: int = Field(64, ge=1, le=10_000, description="How many are proposed, unless the space has fewer points.")
    rungs: Rungs | None = Field(None, description="null: every trial is trained for the experiment's epochs.")
    lanes: int = Field(4, ge=1, le=1024, description="Trials that are under way at a time, whoever works on them.")
    trial_towers: int = Field(1, ge=1, le=1024, description="runtime.towers of every trial.")
    final: Final = Field(Final(), description="What is retrained in the end.")


@dataclass(frozen=True)
class Search:
    """A space file, checked, with all that decides which trial is proposed when: a search is a function of this."""

    spec: SearchSpec
    base: Config
    """The experiment that trials change. It has the epochs of the last rung, towers, threads and a split seed."""
    space: Mapping[str, Dimension]
    """By dotted key, in the order of the file."""
    whole_keys: frozenset[str]
    """The keys whose ranges are of whole numbers."""
    shape: ImageShape
    num_train: int
    """Training examples, those set aside for validation not counted."""


def canonical(value: object) -> str:
    """A JSON text by which values can be compared: 1, 1.0 and true are three values."""
    return format_json(value)


def num_points(search: Search) -> float:
    """How many different points the space has; infinite if a range is not of whole numbers."""
    return math.prod(num_values(search, key) for key in search.space)


def num_values(search: Search, key: str) -> float:
    """How many different values a dimension has."""
    dimension = search.space[key]
    if dimension.choices is not None:
        return len(dimension.choices)
    low, high = dimension.bounds()
    return int(high) - int(low) + 1 if key in search.whole_keys else math.inf


def num_proposals(search: Search) -> int:
    """How many trials the search has: no point is proposed twice."""
    return int(min(search.spec.trials, num_points(search)))


def rung_epochs(search: Search) -> tuple[int, ...]:
    """After how many epochs a trial reaches each rung, rising."""
    rungs = search.spec.rungs
    if rungs is None:
        return (search.base.experiment.training.epochs,)
    epochs = [rungs.first]
    while epochs[-1] * rungs.factor < rungs.last:
        epochs.append(epochs[-1] * rungs.factor)
    return (*epochs, rungs.last) if epochs[-1] < rungs.last else tuple(epochs)


def epoch_cost(search: Search, changes: Changes) -> int:
    """How long an epoch of a trial takes in virtual time: multiply-adds, forward, and a look at each weight a step."""
    experiment = change_experiment(search.base.experiment, changes)
    layers = list(layer_sizes(experiment.model, search.shape))
    steps = math.ceil(search.num_train / experiment.training.batch_size)
    return (
        1 + search.num_train * sum(layer.products for layer in layers) + steps * sum(layer.weights for layer in layers)
    )


def score(search: Search, result: JobResult) -> float:
    """What the search makes as low as it can: the loss, or minus the accuracy; infinite if the job diverged."""
    is_loss = search.spec.goal == "validation_loss"
    value = result.validation_loss if is_loss else result.validation_accuracy
    if value is None:
        return math.inf
    return value if is_loss else -value


def identity(results: Sequence[JobResult]) -> str:
    """SHA-256 of all that a search comes to, times aside: the same for the same file, whoever worked on it and how."""
    in_order = sorted(results, key=lambda one: (one.trial, one.final or 0, one.rung))
    facts = [one.model_dump(exclude={"seconds", "step_seconds"}) for one in in_order]
    return hashlib.sha256(format_json(facts).encode()).hexdigest()
