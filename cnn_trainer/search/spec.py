"""The space file of a search: strict YAML to a checked, frozen search, or to the list of all that is wrong with it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from cnn_trainer.config.load import Config
from cnn_trainer.config.schema.section import Section
from cnn_trainer.network.shapes import ImageShape

Goal = Literal["validation_loss", "validation_accuracy"]
Method = Literal["tpe", "random", "grid"]
Choice = bool | int | float | str | list[int] | list[float] | None


class Range(Section):
    """Every number from low to high, both included."""

    low: int | float
    high: int | float
    log: bool = Field(False, description="Whether equal ratios, not equal differences, are equally likely.")


class Choices(Section):
    """One of some values."""

    choices: list[Choice] = Field(min_length=1, max_length=100)


class Rungs(Section):
    """The epochs after which trials are compared: first, first times factor, and so on to last."""

    first: int = Field(1, ge=1, le=100_000)
    factor: int = Field(3, ge=2, le=100, description="One trial of so many goes on to the next rung.")
    last: int = Field(27, ge=1, le=100_000)


class Final(Section):
    """Which trials are trained anew, to see what they are worth on other seeds than those that chose them."""

    trials: int = Field(3, ge=1, le=100)
    seeds: int = Field(5, ge=1, le=20, description="Fresh seeds for each of these trials.")


class SearchSpec(Section):
    """What a space file says."""

    name: str = Field("search", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    experiment: str = Field(min_length=1, description="The config that trials change; a path beside this file.")
    seed: int = Field(1, ge=0, le=2**31 - 1)
    goal: Goal = "validation_loss"
    space: dict[str, Range | Choices] = Field(min_length=1, max_length=100)
    method: Method = "tpe"
    trials: int = Field(64, ge=1, le=10_000)
    rungs: Rungs | None = None
    lanes: int = Field(4, ge=1, le=1024, description="Trials that are under way at a time, whoever works on them.")
    trial_towers: Annotated[int, Field(ge=1, le=1024)] = 1
    final: Final = Final()


@dataclass(frozen=True)
class Search:
    """A space file, checked, with all that decides what is proposed when: a search is a function of this."""

    spec: SearchSpec
    base: Config
    """The experiment that trials change. Its epochs are those of the last rung; one tower and thread unless asked."""
    shape: ImageShape
    num_train: int
    """Training examples, those set aside for validation not counted."""


def load_search(path: Path) -> Search:
    """The search that the space file at ``path`` describes. Raises ConfigError with every fault."""
    raise NotImplementedError(path)
