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

# Keys that decide how fast a run is and in which order sums are rounded, not what it is meant to learn.
_HOW = ("runtime.device", "runtime.towers", "runtime.intra_op_threads", "runtime.inter_op_threads")


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
    first: dict[tuple[str, int], ScoredRun] = {}
    found = [(scored, first.setdefault((_what(scored.run), scored.run.experiment.seed), scored)) for scored in runs]
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
    members: dict[object, list[ScoredRun]] = {}
    for scored in runs:
        members.setdefault(_what(scored.run) if by_seed else scored.run.dir, []).append(scored)
    together = list(members.values())
    if best_first:
        together.sort(key=_by_accuracy)
    right = [np.concatenate([scored.right for scored in group]) for group in together]
    losses = [_losses_of(group) for group in together]
    found, found_losses = measure_moments(right), _loss_moments(together, losses)
    first = runs[0].evaluation
    return Comparison(
        split,
        first.images_sha256,
        first.num_examples,
        _groups(together, right, found, found_losses),
        _differing([_settings(group[0].run, by_seed) for group in together]),
        _pairs(found, found_losses),
    )


def _by_accuracy(group: Sequence[ScoredRun]) -> tuple[float, float]:
    accuracy = np.mean([scored.evaluation.accuracy for scored in group])
    return -float(accuracy), float(np.mean([scored.evaluation.loss for scored in group]))


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


def _settings(run: Run, by_seed: bool = True) -> dict[str, Any]:
    """The run's config by dotted key, ``by_seed`` without its seed. A split seed that is the seed counts as none."""
    flat: dict[str, Any] = {}

    def flatten(value: Any, key: str) -> None:
        if isinstance(value, dict) and value:
            for name, part in value.items():
                flatten(part, f"{key}.{name}" if key else name)
        else:
            flat[key] = value

    flatten(run.experiment.model_dump(mode="json"), "")
    if flat["data.split_seed"] == flat["seed"]:
        flat["data.split_seed"] = None
    if by_seed:
        del flat["seed"]
    return flat


def _what(run: Run) -> str:
    """What the run is meant to learn: equal for runs that differ only in their seed."""
    return strict_json.format_json({key: value for key, value in _settings(run).items() if key not in _HOW})


def _differing(found: Sequence[dict[str, Any]]) -> dict[str, tuple[str, ...]]:
    keys = dict.fromkeys(key for settings in found for key in settings)
    differing = [key for key in keys if len({repr(settings[key]) if key in settings else "" for settings in found}) > 1]
    shown = {
        key: tuple(strict_json.format_json(settings[key]) if key in settings else "-" for settings in found)
        for key in differing
    }
    return {key: values for key, values in shown.items() if len(set(values)) > 1}
