"""Which job comes next: a pure function from a search and its results so far.

The search is replayed in virtual time, in which a job takes as long as it has to compute, known beforehand. A decision
is taken when a lane is free, and sees the results of the jobs that ended before in virtual time, and no others. So it
does not matter how many workers there are, nor how fast they are, nor how often any of them was killed.

The promotion to the next rung is that of asynchronous successive halving: Li and others, "A System for Massively
Parallel Hyperparameter Tuning" (2020), algorithm 2.
"""

import heapq
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cnn_trainer.search.records import JobResult
from cnn_trainer.search.spec import Changes, Search, epoch_cost, num_proposals, rung_epochs, score


def label(trial: int, final: int | None) -> str:
    """``0007`` for a trial, ``0007-final-2`` for a final."""
    return f"{trial:04}" + (f"-final-{final}" if final else "")


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
    changes: Changes
    """Of ``search.base.experiment``, for ``change_experiment``. Those of a final have also ``seed``: it trains with
    another, and validates on the same images, since the base has a split seed."""

    @property
    def label(self) -> str:
        """What the name of its run directory begins with."""
        return label(self.trial, self.final)


@dataclass(frozen=True)
class Plan:
    """What is to be done now."""

    jobs: tuple[Job, ...]
    """Issued and without a result, in the order in which to begin them; any number of them at a time, by anybody."""
    is_done: bool
    """Whether nothing is left to train."""


@dataclass
class Seen:
    """A trial as a decision sees it."""

    trial: int
    changes: Changes
    scores: list[float] = field(default_factory=list)
    """One for each rung that it has reached, the lower the better; infinite if it diverged."""
    is_under_way: bool = False
    """Whether it is on the way to its next rung."""


Propose = Callable[[int, Sequence[Seen]], Changes]
"""What the trial of this number changes, given all trials before it: ``proposals.proposer``."""


Known = Mapping[tuple[int, int | None, int], JobResult]
"""Results by trial, final and rung."""


def plan(search: Search, results: Iterable[JobResult], propose: Propose) -> Plan:
    """The jobs that can be worked on now.

    Args:
        search: What decides.
        results: Of all jobs that were done so far, in any order.
        propose: Is asked for each trial that has no result yet.
    """
    known = {(result.trial, result.final, result.rung): result for result in results}
    trials, jobs = _replay(search, known, propose)
    if not jobs:
        finals = _finals(search, trials)
        jobs = [job for job in finals if (job.trial, job.final, job.rung) not in known]
    return Plan(tuple(jobs), not jobs)


def ranking(trials: Iterable[Seen]) -> list[Seen]:
    """The trials that have a score and did not diverge, best first: who went further, then who is lower there."""
    sound = [seen for seen in trials if seen.scores and math.isfinite(seen.scores[-1])]
    return sorted(sound, key=lambda seen: (-len(seen.scores), seen.scores[-1], seen.trial))


def _replay(search: Search, known: Known, propose: Propose) -> tuple[list[Seen], list[Job]]:
    """All trials as the first decision that cannot be taken yet sees them, and the jobs that are under way then."""
    trials: list[Seen] = []
    under_way: list[tuple[int, int, Job]] = []  # a heap by virtual end, then by trial
    now = 0
    while True:
        while len(under_way) < search.spec.lanes and (job := _next_job(search, trials, known, propose)):
            cost = (job.last_epoch - job.first_epoch + 1) * epoch_cost(search, job.changes)
            heapq.heappush(under_way, (now + cost, job.trial, job))
        if not under_way:
            return trials, []
        now, number, job = under_way[0]
        if (number, None, job.rung) not in known:
            return trials, [job for _, _, job in sorted(under_way) if (job.trial, None, job.rung) not in known]
        heapq.heappop(under_way)
        trials[number - 1].scores.append(score(search, known[number, None, job.rung]))
        trials[number - 1].is_under_way = False


def _next_job(search: Search, trials: list[Seen], known: Known, propose: Propose) -> Job | None:
    """What a free lane takes: the highest promotion that is allowed, else a new trial, else nothing."""
    epochs, factor = rung_epochs(search), search.spec.rungs.factor if search.spec.rungs else 1
    for rung in range(len(epochs) - 1, 0, -1):
        if (seen := _promotable(trials, rung, factor)) is not None:
            seen.is_under_way = True
            return Job(seen.trial, None, rung + 1, epochs[rung - 1] + 1, epochs[rung], seen.changes)
    number = len(trials) + 1
    if number > num_proposals(search):
        return None
    first = known.get((number, None, 1))
    changes = propose(number, trials) if first is None else first.changes
    trials.append(Seen(number, changes, is_under_way=True))
    return Job(number, None, 1, 1, epochs[0], changes)


def _promotable(trials: Sequence[Seen], rung: int, factor: int) -> Seen | None:
    """The best trial that stands at ``rung``, if it is among the best 1 of ``factor`` of all that have reached it."""
    reached = sorted((seen.scores[rung - 1], seen.trial) for seen in trials if len(seen.scores) >= rung)
    for value, number in reached[: len(reached) // factor]:
        seen = trials[number - 1]
        if len(seen.scores) == rung and not seen.is_under_way and math.isfinite(value):
            return seen
    return None


def _finals(search: Search, trials: Sequence[Seen]) -> list[Job]:
    """The best trials, each from its first epoch to its last on fresh seeds, the same for all of them."""
    experiment, epochs = search.base.experiment, rung_epochs(search)
    seeds = [(experiment.seed + number) % 2**31 for number in range(1, search.spec.final.seeds + 1)]
    return [
        Job(seen.trial, number, len(epochs), 1, epochs[-1], {**seen.changes, "seed": seed})
        for seen in ranking(trials)[: search.spec.final.trials]
        for number, seed in enumerate(seeds, start=1)
    ]
