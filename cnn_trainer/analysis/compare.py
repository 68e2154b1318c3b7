"""Compares finished runs on the images that all of them were scored on."""

import csv
import io
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from cnn_trainer.analysis.difference import (
    LEVEL,
    Difference,
    Right,
    compare_groups,
    group_interval,
    holm,
)
from cnn_trainer.data.splits import SplitName
from cnn_trainer.errors import RunDirectoryError, UsageError, raised_as
from cnn_trainer.evaluation.scores import wilson_interval
from cnn_trainer.runs import paths, store
from cnn_trainer.runs.records import EvaluationRecord
from cnn_trainer.runs.store import Run
from cnn_trainer.storage import files, strict_json

_MAX_PREDICTIONS_BYTES = 1024 * 1024 * 1024
# Keys that decide how fast a run is and in which order sums are rounded, not what it is meant to learn.
_HOW = ("runtime.device", "runtime.towers", "runtime.intra_op_threads", "runtime.inter_op_threads")


@dataclass(frozen=True)
class ScoredRun:
    """A run with its score on a split."""

    run: Run
    evaluation: EvaluationRecord
    right: Right
    """Whether each image was classified correctly: (1, images)."""


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
    right: Right
    """(runs, images)."""


@dataclass(frozen=True)
class Pair:
    """Two groups compared, by their positions. The p-value is corrected for the number of pairs."""

    first: int
    second: int
    difference: Difference

    @property
    def is_told_apart(self) -> bool:
        """Whether the groups differ by more than chance explains."""
        return self.difference.p_value < LEVEL


@dataclass(frozen=True)
class Comparison:
    """Groups of runs on the same images, and every pair of them."""

    split: SplitName
    images_sha256: str
    num_images: int
    groups: tuple[Group, ...]
    differing: dict[str, tuple[str, ...]]
    """The config keys whose values differ, with the value in each group as JSON."""
    pairs: tuple[Pair, ...]


def compare_runs(run_dirs: Sequence[Path], split: SplitName) -> Comparison:
    """Compare two or more runs by their saved scores on ``split``.

    Raises:
        UsageError: if a run is named twice.
        RunDirectoryError: if a run has no such score, or not of its present weights, or on other images than the first.
    """
    resolved = [run_dir.resolve() for run_dir in run_dirs]
    for index, run_dir in enumerate(resolved):
        if run_dir in resolved[:index]:
            raise UsageError("is named twice", place=run_dirs[index], remedy="name each run once")
    runs = [_read(run_dir, split) for run_dir in run_dirs]
    for scored in runs[1:]:
        if scored.evaluation.images_sha256 != runs[0].evaluation.images_sha256:
            problem = f"was scored on other {split} images than {runs[0].run.dir}, so their scores cannot be compared"
            raise RunDirectoryError(problem, place=scored.run.dir, remedy="compare runs with the same data and split")
    members: dict[str, list[ScoredRun]] = {}
    settings: dict[str, dict[str, Any]] = {}  # of the first run of each group
    for scored in runs:
        found = _settings(scored.run)
        what = strict_json.format_json(_without(found, _HOW))
        settings.setdefault(what, found)
        members.setdefault(what, []).append(scored)
    groups = tuple(map(_group, members.values()))
    differing = _differing(list(settings.values()))
    first = runs[0].evaluation
    return Comparison(split, first.images_sha256, first.num_examples, groups, differing, _pairs(groups))


def _group(runs: Sequence[ScoredRun]) -> Group:
    right = np.concatenate([scored.right for scored in runs])
    if len(runs) == 1:
        low, high = wilson_interval(int(right.sum()), right.shape[1])
    else:
        low, high = group_interval(right)
    loss = float(np.mean([scored.evaluation.loss for scored in runs]))
    return Group(tuple(runs), float(right.mean()), low, high, loss, right)


def _pairs(groups: Sequence[Group]) -> tuple[Pair, ...]:
    pairs = list(combinations(range(len(groups)), 2))
    differences = [compare_groups(groups[first].right, groups[second].right) for first, second in pairs]
    corrected = holm([difference.p_value for difference in differences])
    return tuple(
        Pair(first, second, replace(difference, p_value=p_value))
        for (first, second), difference, p_value in zip(pairs, differences, corrected, strict=True)
    )


def _read(run_dir: Path, split: SplitName) -> ScoredRun:
    run = store.open_run(run_dir)
    store.require_result(run)
    remedy = f"score it with: cnn-train evaluate {shlex.quote(str(run_dir))}"
    remedy += "" if split == "test" else f" --split {split}"
    evaluation = store.read_evaluation(run_dir, split)
    if evaluation is None:
        raise RunDirectoryError(f"has no score on its {split} split", place=run_dir, remedy=remedy)
    if evaluation.weights_sha256 != run.record.weights_sha256:
        place = run_dir / paths.evaluation_file(split)
        raise RunDirectoryError("is the score of weights that the run no longer has", place=place, remedy=remedy)
    return ScoredRun(run, evaluation, _read_right(run_dir / paths.predictions_file(split), evaluation, remedy))


@raised_as(RunDirectoryError)
def _read_right(path: Path, evaluation: EvaluationRecord, remedy: str) -> Right:
    """Whether each prediction in the CSV file is correct: (1, images). It must belong to ``evaluation``."""
    heading, _, rows = files.read_bounded(path, _MAX_PREDICTIONS_BYTES).decode(errors="replace").partition("\n")
    try:
        right = np.array([row["label"] == row["prediction"] for row in csv.DictReader(io.StringIO(rows))], bool)
    except (KeyError, csv.Error):
        right = np.zeros(0, bool)
    is_whole = len(right) == evaluation.num_examples and int(right.sum()) == round(evaluation.accuracy * len(right))
    if heading != f"# images sha256 {evaluation.images_sha256}" or not is_whole:
        raise RunDirectoryError("does not belong to the run's score", place=path, remedy=remedy)
    return right[np.newaxis]


def _settings(run: Run) -> dict[str, Any]:
    """The run's config by dotted key, without its seed; a split seed that is the seed counts as none."""
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
    return _without(flat, ("seed",))


def _without(settings: dict[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in keys}


def _differing(found: Sequence[dict[str, Any]]) -> dict[str, tuple[str, ...]]:
    keys = dict.fromkeys(key for settings in found for key in settings)
    shown = {
        key: tuple(strict_json.format_json(settings[key]) if key in settings else "-" for settings in found)
        for key in keys
    }
    return {key: values for key, values in shown.items() if len(set(values)) > 1}
