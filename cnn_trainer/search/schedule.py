"""Decides which job comes next. The decision depends only on the search and its results so far.

The search is replayed in virtual time, in which the duration of a job is its amount of computation, known in advance.
A decision is made when a lane is free, and uses only the results of jobs that ended earlier in virtual time. So it does
not matter how many workers there are, how fast they are, or how often any of them was killed.

Trials are promoted to the next rung as in asynchronous successive halving: Li and others, "A System for Massively
Parallel Hyperparameter Tuning" (2020), algorithm 2.
"""

import bisect
import heapq
import math
import random
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cnn_trainer.search.records import JobResult
from cnn_trainer.search.spec import Changes, Search, canonical, epoch_cost, num_proposals, rung_epochs, score

_MAX_PLAYED = 1000  # trials for expected_epochs; more would take seconds


def label(trial: int, final: int | None) -> str:
    """``0007`` for a trial, ``0007-final-2`` for a final."""
    return f"{trial:04}" + (f"-final-{final}" if final else "")


@dataclass(frozen=True)
class Job:
    """A piece of work: training a trial up to its next rung, or retraining one of the best trials on a fresh seed."""

    trial: int
    """Number of the trial, counted from 1."""
    final: int | None
    """Number of the fresh seed, counted from 1; None in the search itself."""
    rung: int
    """Number of the rung, counted from 1. A final has the last rung."""
    first_epoch: int
    """First epoch to train, from 1. If it is 1, a run directory exists only if this job was interrupted."""
    last_epoch: int
    """The trial pauses after this epoch, or ends if its experiment has no more epochs."""
    changes: Changes
    """Changes to ``search.base.experiment``, for ``change_experiment``. A final also changes ``seed``: it trains with
    another seed but validates on the same images, because the base has a split seed."""

    @property
    def label(self) -> str:
        """The beginning of the name of its run directory."""
        return label(self.trial, self.final)


@dataclass(frozen=True)
class Plan:
    """The jobs to do now."""

    jobs: tuple[Job, ...]
    """Jobs without a result, in the order in which to start them. Any number of them can run at the same time."""
    is_done: bool
    """Whether nothing is left to train."""


@dataclass
class Seen:
    """What is known about a trial when a decision is made."""

    trial: int
    changes: Changes
    scores: list[float] = field(default_factory=list)
    """One score for each rung that it has reached. Lower is better; infinite if it diverged."""
    is_under_way: bool = False
    """Whether it is being trained to its next rung."""


Propose = Callable[[int, Sequence[Seen]], Changes]
"""Returns the changes of the trial with this number, given all trials before it: ``proposals.propose`` of a search."""


Known = Mapping[tuple[int, int | None, int], JobResult]
"""Results by trial, final and rung."""


def ranking(trials: Iterable[Seen]) -> list[Seen]:
    """The trials that have a score and did not diverge, best first: by highest rung, then by lowest score there."""
    sound = [seen for seen in trials if seen.scores and math.isfinite(seen.scores[-1])]
    return sorted(sound, key=lambda seen: (-len(seen.scores), seen.scores[-1], seen.trial))


class Schedule:
    """A search in virtual time, as far as it has results. It depends only on the search and the results.

    Args:
        search: The search to schedule.
        propose: Called once for each trial that has no result yet.
    """

    def __init__(self, search: Search, propose: Propose) -> None:
        self.search, self.propose = search, propose
        self.trials: list[Seen] = []  # in order of their numbers, with the scores known so far
        self._costs: dict[str, int] = {}  # of an epoch, by changes
        self._reached: list[list[tuple[float, int]]] = [[] for _ in rung_epochs(search)]  # scores and trials, sorted
        self._under_way: list[tuple[int, int, Job]] = []  # a heap ordered by virtual end, then by trial
        self._now = 0

    def plan(self, results: Iterable[JobResult]) -> Plan:
        """The jobs that can be worked on now, given the results of all finished jobs, in any order."""
        known = {(result.trial, result.final, result.rung): result for result in results}
        self._advance(known)
        jobs = [job for _, _, job in sorted(self._under_way)] or self._finals()
        jobs = [job for job in jobs if (job.trial, job.final, job.rung) not in known]
        return Plan(tuple(jobs), not jobs)

    def _advance(self, known: Known) -> None:
        """Advance to the first job in virtual time that has no result yet, or to the end."""
        while True:
            while len(self._under_way) < self.search.spec.lanes and (job := self._next_job(known)):
                heapq.heappush(self._under_way, (self._now + self._cost(job), job.trial, job))
            if not self._under_way:
                return
            end, number, job = self._under_way[0]
            if (number, None, job.rung) not in known:
                return
            heapq.heappop(self._under_way)
            self._now, seen = end, self.trials[number - 1]
            seen.scores.append(score(self.search, known[number, None, job.rung]))
            seen.is_under_way = False
            bisect.insort(self._reached[job.rung - 1], (seen.scores[-1], number))

    def _next_job(self, known: Known) -> Job | None:
        """The next job for a free lane: the highest promotion that is allowed, or else a new trial, or else None."""
        epochs = rung_epochs(self.search)
        for rung in range(len(epochs) - 1, 0, -1):
            if (seen := self._promotable(rung)) is not None:
                seen.is_under_way = True
                return Job(seen.trial, None, rung + 1, epochs[rung - 1] + 1, epochs[rung], seen.changes)
        number = len(self.trials) + 1
        if number > num_proposals(self.search):
            return None
        first = known.get((number, None, 1))
        changes = self.propose(number, self.trials) if first is None else first.changes
        self.trials.append(Seen(number, changes, is_under_way=True))
        return Job(number, None, 1, 1, epochs[0], changes)

    def _cost(self, job: Job) -> int:
        changes = canonical(job.changes)
        if changes not in self._costs:
            self._costs[changes] = epoch_cost(self.search, job.changes)
        return (job.last_epoch - job.first_epoch + 1) * self._costs[changes]

    def _promotable(self, rung: int) -> Seen | None:
        """The best trial waiting at ``rung``, if it is among the best 1/factor of all trials that have reached it."""
        reached = self._reached[rung - 1]
        factor = self.search.spec.rungs.factor if self.search.spec.rungs else len(reached) + 1
        for value, number in reached[: len(reached) // factor]:
            seen = self.trials[number - 1]
            if len(seen.scores) == rung and not seen.is_under_way and math.isfinite(value):
                return seen
        return None

    def _finals(self) -> list[Job]:
        """Jobs that train each of the best trials from the first epoch to the last on the same fresh seeds."""
        spec, experiment, epochs = self.search.spec, self.search.base.experiment, rung_epochs(self.search)
        seeds = [(experiment.seed + number) % 2**31 for number in range(1, spec.final.seeds + 1)]
        return [
            Job(seen.trial, number, len(epochs), 1, epochs[-1], {**seen.changes, "seed": seed})
            for seen in ranking(self.trials)[: spec.final.trials]
            for number, seed in enumerate(seeds, start=1)
        ]


def expected_epochs(search: Search) -> int:
    """The number of epochs that the trials of a whole search take, not counting the finals.

    It cannot be known beforehand, since a trial may be promoted at its time and be beaten later. So the schedule is
    played three times with made-up results, in which the trials of a TPE search get better and better, and the
    median is taken.
    """
    return statistics.median_low(_played_epochs(search, seed) for seed in range(3))


def _played_epochs(search: Search, seed: int) -> int:
    epochs, num_trials = rung_epochs(search), num_proposals(search)
    num_played = min(num_trials, _MAX_PLAYED)
    fall = 0.75 if search.spec.method == "tpe" else 0.0
    rng = random.Random(seed)  # noqa: S311
    results = []
    for trial in range(1, num_played + 1):
        value = rng.random() * (1 - fall * trial / num_played)
        for rung, epoch in enumerate(epochs, start=1):
            result = {"trial": trial, "rung": rung, "changes": {}, "status": "ok", "epochs": epoch}
            measures = {"validation_loss": value, "validation_accuracy": 1 - value, "seconds": 0.0, "step_seconds": 0.0}
            results.append(JobResult.model_validate(result | measures))
    schedule = Schedule(search, lambda *_: {})
    schedule.plan(results)
    played = sum(epochs[len(seen.scores) - 1] for seen in schedule.trials if seen.scores)
    return round(played * num_trials / num_played)
