"""Compares finished runs on the images that all of them were scored on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cnn_trainer.analysis.difference import (
    LEVEL,
    Difference,
    Estimate,
    Losses,
    Moments,
    Right,
    compare_all,
    estimate_accuracies,
    estimate_differences,
    estimate_means,
    measure_moments,
    pair_indexes,
)
from cnn_trainer.analysis.scored import ScoredRun, read_scored_run, without_collection
from cnn_trainer.errors import RunDirectoryError, UsageError
from cnn_trainer.runs.store import Run
from cnn_trainer.storage import strict_json

if TYPE_CHECKING:
    from cnn_trainer.data.splits import SplitName

MACHINE_KEYS = frozenset(("runtime.device", "runtime.towers", "runtime.intra_op_threads", "runtime.inter_op_threads"))
"""Keys that a run fills in with what the machine has: they decide how fast it is and in which order sums are rounded,
not what it is meant to learn."""


@dataclass(frozen=True)
class Group:
    """Runs that differ only in their seeds."""

    runs: tuple[ScoredRun, ...]
    accuracy: float
    """The mean over the runs."""
    low: float
    high: float
    """The 95 % interval: over images for a single run, over images and seeds for several."""
    loss: float
    """The mean over the runs."""
    loss_interval: tuple[float, float] | None
    """The 95 % interval, likewise; None if a run's score was saved without the probabilities."""
    right: Right
    """(runs, images)."""


class Pair(NamedTuple):
    """Two groups compared, by their positions."""

    first: int
    second: int
    difference: Difference
    loss_difference: Estimate | None
    """The loss of the first minus that of the second; None if a run's score was saved without the probabilities, or
    the two groups minimised different kinds of loss."""

    @property
    def is_told_apart(self) -> bool:
        """Whether the groups differ by more than chance explains."""
        return self.difference.p_value < LEVEL


@dataclass(frozen=True)
class Comparison:
    """Groups of runs on the same images, and every pair of them."""

    split: "SplitName"
    images_sha256: str
    num_images: int
    groups: tuple[Group, ...]
    differing: dict[str, tuple[str, ...]]
    """The config keys whose values differ, with the value in each group as JSON."""
    pairs: tuple[Pair, ...]


@without_collection()
def compare_runs(run_dirs: Sequence[Path], split: "SplitName") -> Comparison:
    """Compare two or more runs by their saved scores on ``split``.

    Raises:
        UsageError: if a run is named twice, or repeats the config and the seed of another.
        RunDirectoryError: if a run has no such score, or not of its present weights, or on other images than the first.
    """
    refuse_named_twice(run_dirs)
    runs = [read_scored_run(run_dir, split) for run_dir in run_dirs]
    for scored in runs[1:]:
        if scored.evaluation.images_sha256 != runs[0].evaluation.images_sha256:
            problem = f"was scored on other {split} images than {runs[0].run.dir}, so their scores cannot be compared"
            raise RunDirectoryError(problem, place=scored.run.dir, remedy="compare runs with the same data and split")
    for repeated, other in repetitions(runs):
        problem = f"has the config and the seed of {other.run.dir}, so it says nothing new about other seeds"
        raise UsageError(problem, place=repeated.run.dir, remedy="name only one of them")
    return compare_scored(runs, split)


def refuse_named_twice(run_dirs: Iterable[Path]) -> None:
    """Raise UsageError if two of the directories are the same."""
    seen: set[Path] = set()
    for run_dir in run_dirs:
        resolved = run_dir.resolve()
        if resolved in seen:
            raise UsageError("is named twice", place=run_dir, remedy="name each run once")
        seen.add(resolved)


def repetitions(runs: Iterable[ScoredRun]) -> list[tuple[ScoredRun, ScoredRun]]:
    """The runs that repeat the config and the seed of an earlier one, each with that one."""
    first: dict[object, ScoredRun] = {}
    runs = list(runs)
    known = zip(runs, _settings_of(runs), strict=True)
    found = [(scored, first.setdefault((what, scored.run.experiment.seed), scored)) for scored, (what, _) in known]
    return [(scored, other) for scored, other in found if scored is not other]


def compare_scored(
    runs: Sequence[ScoredRun], split: "SplitName", by_seed: bool = True, best_first: bool = False
) -> Comparison:
    """Compare runs that were scored on the same images.

    Args:
        runs: At least one run.
        split: The split that they were scored on.
        by_seed: Whether runs that differ only in their seed are one group, rather than each a group of its own.
        best_first: Whether the groups are in the order of their accuracy, and of their loss if that is equal, rather
            than in the order of ``runs``.
    """
    members: dict[object, list[tuple[ScoredRun, dict[str, Any]]]] = {}
    for scored, (what, settings) in zip(runs, _settings_of(runs), strict=True):
        members.setdefault(what if by_seed else scored.run.dir, []).append((scored, settings))
    groups = sorted(members.values(), key=_by_accuracy) if best_first else list(members.values())
    together = [[scored for scored, _ in group] for group in groups]
    differing = [group[0][1] for group in groups]
    if by_seed:
        differing = [{key: value for key, value in settings.items() if key != "seed"} for settings in differing]
    right = [np.concatenate([scored.right for scored in group]) for group in together]
    losses = [_losses_of(group) for group in together]
    found, found_losses = measure_moments(right), _loss_moments(together, losses)
    first = runs[0].evaluation
    return Comparison(
        split,
        first.images_sha256,
        first.num_examples,
        _groups(together, right, found, found_losses),
        _differing(differing),
        _pairs(found, found_losses),
    )


def _by_accuracy(group: Sequence[tuple[ScoredRun, object]]) -> tuple[float, float]:
    accuracy = np.mean([scored.evaluation.accuracy for scored, _ in group])
    return -float(accuracy), float(np.mean([scored.evaluation.loss for scored, _ in group]))


def _losses_of(group: Sequence[ScoredRun]) -> Losses | None:
    """(runs, images)."""
    found = [scored.losses for scored in group if scored.losses is not None]
    return np.concatenate(found) if len(found) == len(group) else None


def _loss_moments(
    together: Sequence[Sequence[ScoredRun]], losses: Sequence[Losses | None]
) -> list[tuple[list[int], Moments]]:
    """For each kind of loss, the groups whose losses are known, by their positions, and their moments."""
    kinds: dict[str, list[int]] = {}
    for index, group in enumerate(together):
        if losses[index] is not None:
            kinds.setdefault(group[0].run.experiment.training.loss, []).append(index)
    return [
        (indexes, measure_moments([known for index in indexes if (known := losses[index]) is not None]))
        for indexes in kinds.values()
    ]


def _groups(
    together: Sequence[Sequence[ScoredRun]],
    right: Sequence[Right],
    found: Moments,
    found_losses: Sequence[tuple[list[int], Moments]],
) -> tuple[Group, ...]:
    known = {
        index: estimate
        for indexes, moments in found_losses
        for index, estimate in zip(indexes, estimate_means(moments), strict=True)
    }
    groups = []
    for index, (runs, accuracy) in enumerate(zip(together, estimate_accuracies(found), strict=True)):
        loss = float(np.mean([scored.evaluation.loss for scored in runs]))
        interval = (max(0.0, known[index].low), known[index].high) if index in known else None
        groups.append(Group(tuple(runs), *accuracy, loss, interval, right[index]))
    return tuple(groups)


def _pairs(found: Moments, found_losses: Sequence[tuple[list[int], Moments]]) -> tuple[Pair, ...]:
    first, second = (indexes.tolist() for indexes in pair_indexes(len(found.means)))
    losses: dict[tuple[int, int], Estimate] = {}
    for indexes, moments in found_losses:
        known = zip(*(np.array(indexes)[part].tolist() for part in pair_indexes(len(indexes))), strict=True)
        losses |= zip(known, estimate_differences(moments), strict=True)
    rows = zip(first, second, compare_all(found), strict=True)
    return tuple(Pair(one, other, difference, losses.get((one, other))) for one, other, difference in rows)


def _settings_of(runs: Iterable[ScoredRun]) -> list[tuple[object, dict[str, Any]]]:
    """For each run, what is equal for runs that differ only in their seed, and its whole config by dotted key.

    A split seed that is the run's seed can be meant as such, or be the same for all seeds: it is taken as the latter if
    another run with the same config has it, and else as none, as if it were not given.
    """
    found = [_flat(scored.run) for scored in runs]
    known = {*MACHINE_KEYS, "seed", "data.split_seed"}
    what = [strict_json.format_json({key: value for key, value in flat.items() if key not in known}) for flat in found]
    fixed = {
        (key, flat["data.split_seed"])
        for key, flat in zip(what, found, strict=True)
        if flat["data.split_seed"] not in (None, flat["seed"])
    }
    for key, flat in zip(what, found, strict=True):
        seed = flat["seed"]
        if flat["data.split_seed"] == seed and (key, seed) not in fixed:
            flat["data.split_seed"] = None
    return [((key, flat["data.split_seed"]), flat) for key, flat in zip(what, found, strict=True)]


def _flat(run: Run) -> dict[str, Any]:
    """The run's config by dotted key."""
    flat: dict[str, Any] = {}

    def flatten(value: Any, key: str) -> None:
        if isinstance(value, dict) and value:
            for name, part in value.items():
                flatten(part, f"{key}.{name}" if key else name)
        else:
            flat[key] = value

    flatten(run.experiment.model_dump(mode="json"), "")
    return flat


def _differing(found: Sequence[dict[str, Any]]) -> dict[str, tuple[str, ...]]:
    keys = dict.fromkeys(key for settings in found for key in settings)
    differing = [key for key in keys if len({repr(settings[key]) if key in settings else "" for settings in found}) > 1]
    shown = {
        key: tuple(strict_json.format_json(settings[key]) if key in settings else "-" for settings in found)
        for key in differing
    }
    return {key: values for key, values in shown.items() if len(set(values)) > 1}
