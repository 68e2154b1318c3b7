"""Ranks groups of runs in tiers: those that cannot be told apart stand together."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cnn_trainer.analysis.compare import Comparison, compare_scored, refuse_named_twice, repetitions
from cnn_trainer.analysis.scored import ScoredRun, has_score, read_scored_run, without_collection
from cnn_trainer.errors import RunDirectoryError
from cnn_trainer.runs import store

if TYPE_CHECKING:
    from cnn_trainer.data.splits import SplitName


@dataclass(frozen=True)
class Leaderboard:
    """Groups of runs on the same images, the most accurate first, and the tier of each, counted from 1."""

    comparison: Comparison
    tiers: tuple[int, ...]


@dataclass(frozen=True)
class Ranking:
    """All boards: one for each set of images that runs were scored on, the one with the most runs first."""

    split: "SplitName"
    boards: tuple[Leaderboard, ...]
    left_out: dict[Path, str]
    """Run directories that are on no board, and why."""


def tiers_of(comparison: Comparison) -> tuple[int, ...]:
    """The tier of each group, counted from 1: one below the lowest tier of a group that is shown to be better.

    So tier 1 holds every group that none is shown to be better than, for each group in another tier there is one in the
    tier above it that is shown to be better, and two groups of the same tier cannot be told apart. All of this
    is true with a probability of at least 95 %, because the p-values are corrected for the number of pairs.
    """
    better: list[list[int]] = [[] for _ in comparison.groups]  # for each group, those that are shown to be better
    for pair in comparison.pairs:
        if pair.is_told_apart:
            ends = (pair.first, pair.second)
            best, other = ends if pair.difference.value > 0 else ends[::-1]
            better[other].append(best)
    tiers = [1] * len(better)
    for index in sorted(range(len(better)), key=lambda index: -comparison.groups[index].accuracy):
        tiers[index] = 1 + max((tiers[best] for best in better[index]), default=0)
    return tuple(tiers)


@without_collection()
def rank_runs(
    run_dirs: Sequence[Path], split: "SplitName | None" = None, by_seed: bool = True, skip: bool = False
) -> Ranking:
    """Rank runs by their saved scores.

    Args:
        run_dirs: The runs, the newest first.
        split: The split that they were scored on; None for validation if all runs that have a score have one on the
            same validation images, else test.
        by_seed: Whether runs that differ only in their seed are one group. If they are, only the first of the runs with
            the same config and the same seed counts.
        skip: Leave out runs that have no score, and the like, instead of refusing them.

    Raises:
        UsageError: if a run is named twice.
        RunDirectoryError: without ``skip``, if a run has no such score, or not of its present weights.
    """
    refuse_named_twice(run_dirs)
    if split is None:
        split = "validation" if _have_validated(run_dirs) else "test"
    runs: dict[str, list[ScoredRun]] = {}  # by the digest of the images
    left_out: dict[Path, str] = {}
    for run_dir in run_dirs:
        try:
            scored = read_scored_run(run_dir, split)
        except RunDirectoryError as error:
            if not skip:
                raise
            left_out[run_dir] = error.problem
        else:
            runs.setdefault(scored.evaluation.images_sha256, []).append(scored)
    boards = []
    for found in sorted(runs.values(), key=len, reverse=True):
        repeated = repetitions(found) if by_seed else []
        left_out |= {
            scored.run.dir: f"has the config and the seed of {other.run.dir.name}" for scored, other in repeated
        }
        kept = [scored for scored in found if scored.run.dir not in left_out]
        comparison = compare_scored(kept, split, by_seed, best_first=True)
        boards.append(Leaderboard(comparison, tiers_of(comparison)))
    return Ranking(split, tuple(boards), left_out)


def _have_validated(run_dirs: Sequence[Path]) -> bool:
    """Whether all runs that have a score have one on validation, and runs of the same data on the same images."""
    images = set()
    for run_dir in run_dirs:
        if has_score(run_dir, "validation"):
            with suppress(RunDirectoryError):  # it is refused or left out when it is read again
                found, record = store.read_evaluation(run_dir, "validation"), store.read_run_record(run_dir)
                images.add((record.data.train_sha256, found and found.images_sha256))
        elif has_score(run_dir, "test"):
            return False
    return 0 < len(images) == len({data for data, _ in images})
