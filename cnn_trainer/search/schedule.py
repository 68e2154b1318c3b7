"""Which job comes next: a pure function from a search and its results so far."""

from collections.abc import Mapping
from dataclasses import dataclass

from cnn_trainer.config.strict_yaml import Value


@dataclass(frozen=True)
class Job:
    """A piece of work: to train a trial up to its next rung, or one of the best trials anew on a fresh seed."""

    trial: int
    """Counted from 1."""
    final: int | None
    """Which of the fresh seeds, counted from 1; None in the search itself."""
    rung: int
    """Counted from 1. A final has the last."""
    first_epoch: int
    """Counted from 1; if it is 1, there is no run directory yet, or one that was cut on the way to this rung."""
    last_epoch: int
    """The trial pauses after this one, or ends if its experiment has no more."""
    changes: Mapping[str, Value]
    """Of ``search.base.experiment``, by dotted key, for ``change_experiment``. Those of a final have also ``seed`` and
    ``data.split_seed``, so that it trains with another seed and validates on the same images."""

    @property
    def label(self) -> str:
        """``0007`` for a trial, ``0007-final-2`` for a final: what its run directory's name begins with."""
        return f"{self.trial:04}" + (f"-final-{self.final}" if self.final else "")


@dataclass(frozen=True)
class Plan:
    """What is to be done now."""

    jobs: tuple[Job, ...]
    """Issued and without a result, in the order in which to begin them; any number of them at a time, by anybody."""
    is_done: bool
    """Whether nothing is left to train."""
