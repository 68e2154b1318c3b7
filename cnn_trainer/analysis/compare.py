"""Compares finished runs on the images that all of them were scored on."""

import csv
import io
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from cnn_trainer.analysis.difference import (
    LEVEL,
    Difference,
    Quadrants,
    Right,
    compare_groups,
    group_interval,
    holm,
    quadrants,
)
from cnn_trainer.data.splits import SplitName
from cnn_trainer.errors import RunDirectoryError, UsageError, raised_as
from cnn_trainer.evaluation.scores import wilson_interval
from cnn_trainer.runs import store
from cnn_trainer.runs.paths import EVALUATION_FILE
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
    quadrants: Quadrants | None
    """None unless both are single runs."""

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
    settings = [_settings(scored.run) for scored in runs]
    by_settings: dict[str, list[ScoredRun]] = {}
    for scored, found in zip(runs, settings, strict=True):
        by_settings.setdefault(strict_json.format_json(_without(found, _HOW)), []).append(scored)
    groups = tuple(map(_group, by_settings.values()))
    differing = _differing([_settings(group.runs[0].run) for group in groups])
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
    found = []
    for (first, second), difference, p_value in zip(pairs, differences, corrected, strict=True):
        one, other = groups[first].right, groups[second].right
        counts = quadrants(one, other) if len(one) == len(other) == 1 else None
        found.append(Pair(first, second, Difference(**{**vars(difference), "p_value": p_value}), counts))
    return tuple(found)


def _read(run_dir: Path, split: SplitName) -> ScoredRun:
    run = store.open_run(run_dir)
    store.require_result(run)
    suffix = "" if split == "test" else f"-{split}"
    path = run_dir / EVALUATION_FILE.replace(".", f"{suffix}.")
    remedy = f"score it with: cnn-train evaluate {shlex.quote(str(run_dir))}"
    remedy += "" if split == "test" else f" --split {split}"
    with raised_as(RunDirectoryError):
        if not path.exists():
            raise RunDirectoryError(f"has no score on its {split} split", place=run_dir, remedy=remedy)
        evaluation = strict_json.read_record(EvaluationRecord, path, store.MAX_EVALUATION_BYTES)
    if evaluation.weights_sha256 != run.record.weights_sha256:
        raise RunDirectoryError("is the score of weights that the run no longer has", place=path, remedy=remedy)
    return ScoredRun(run, evaluation, _read_right(run_dir / f"predictions{suffix}.csv", evaluation, remedy))


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
