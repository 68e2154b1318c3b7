"""The page of several runs: which group of runs is better, by how much, and how all of them were trained."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from statistics import fmean
from typing import Literal

from markupsafe import Markup

from cnn_trainer.analysis.compare import Comparison, Group
from cnn_trainer.analysis.rank import tiers_of
from cnn_trainer.analysis.verdict import group_name, verdict_of
from cnn_trainer.errors import count
from cnn_trainer.report.charts import IntervalRow, Measure, Series, interval_rows, learning_curves
from cnn_trainer.report.page import KeyFigure, PageSection, build_page, fill, percent
from cnn_trainer.runs import store
from cnn_trainer.runs.records import EpochMetrics

_MAX_DRAWN_GROUPS = 8  # more curves over one another could not be told apart
_MAX_ALL_PAIRS = 8  # groups; with more, only the pairs with the most accurate one are shown
_MAX_ROWS = 40  # of a chart
_MAX_VERDICTS = 10
_MAX_NAMED = 5  # groups in the verdict

Named = tuple[str, Group]
"""A group with its name."""

_Field = Literal["train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "learning_rate"]
_CURVES: tuple[tuple[_Field, str, Measure], ...] = (
    ("validation_loss", "Validation loss", "loss"),
    ("validation_accuracy", "Validation accuracy", "accuracy"),
    ("train_loss", "Training loss", "loss"),
    ("train_accuracy", "Training accuracy", "accuracy"),
    ("learning_rate", "Learning rate", "learning rate"),
)


@dataclass(frozen=True)
class _Curves:
    """One measure of all groups: the chart, and the numbers behind it."""

    title: str
    chart: Markup
    names: list[str]
    epochs: list[tuple[str, ...]]
    """For each epoch, the mean of each group in words; a dash if none of its runs reached it."""


def build_several_page(found: Comparison, words: Sequence[str]) -> bytes:
    """The page of a comparison as an HTML file.

    Args:
        found: The comparison.
        words: The command line that writes the page again.

    Raises:
        RunDirectoryError: if the metrics of a run cannot be read.
    """
    num_runs = sum(len(group.runs) for group in found.groups)
    title = f"Comparison of {count(num_runs, 'run')} in {count(len(found.groups), 'group')}"
    named = [(group_name(index), group) for index, group in enumerate(found.groups)]
    ordered = sorted(named, key=lambda one: -one[1].accuracy)
    sections = [
        PageSection("accuracy", "Accuracy", _accuracy(found, ordered)),
        *([PageSection("differences", "Differences", _differences(found, ordered))] if found.pairs else []),
        *([PageSection("training", "Training", html)] if (html := _training(ordered)) else []),
        PageSection("runs", "The runs", fill("several_runs.html", found=found, named=named, command=shlex.join(words))),
    ]
    return build_page(title, _verdict(found), sections, figures=[_figure(name, group) for name, group in ordered[:4]])


def _figure(name: str, group: Group) -> KeyFigure:
    return KeyFigure(f"Group {name}", percent(group.accuracy), f"{percent(group.low)} to {percent(group.high)}")


def _verdict(found: Comparison) -> str:
    if not found.pairs:
        group = found.groups[0]
        words = f"All runs differ only in their seed: {percent(group.accuracy)} of the {found.split} images are right"
        return words + f" on average (95 % interval {percent(group.low)} to {percent(group.high)})."
    if len(found.pairs) == 1:
        return _sentence(verdict_of(found, found.pairs[0]))
    tiers = tiers_of(found)
    if max(tiers) == 1:
        return f"Of {len(tiers)} groups, none is shown to be better than another."
    first = [group_name(index) for index, tier in enumerate(tiers) if tier == 1]
    if len(first) > _MAX_NAMED:
        return f"Of {len(tiers)} groups, {len(first)} are in the first tier: none is shown to be better than these."
    names = first[0] if len(first) == 1 else f"{', '.join(first[:-1])} or {first[-1]}"
    return f"Of {len(tiers)} groups, none is shown to be better than {names}."


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


def _accuracy(found: Comparison, ordered: Sequence[Named]) -> Markup:
    rows = [IntervalRow(name, group.accuracy, group.low, group.high) for name, group in ordered[:_MAX_ROWS]]
    tiers = {group_name(index): tier for index, tier in enumerate(tiers_of(found))}
    return fill(
        "several_accuracy.html",
        found=found,
        rows=[(tiers[name], name, group) for name, group in ordered],
        chart=interval_rows(rows, f"{found.split} accuracy", "accuracy"),
        num_drawn=len(rows),
    )


def _differences(found: Comparison, ordered: Sequence[Named]) -> Markup:
    best = ordered[0][0]
    named = [(group_name(pair.first), group_name(pair.second), pair) for pair in found.pairs]
    is_large = len(ordered) > _MAX_ALL_PAIRS
    shown = [pair for pair in named if not is_large or best in pair[:2]]
    rows = [
        IntervalRow(f"{first} − {second}", pair.difference.value, pair.difference.low, pair.difference.high)
        for first, second, pair in shown[:_MAX_ROWS]
    ]
    names = [group_name(index) for index in range(len(found.groups))]
    return fill(
        "several_differences.html",
        chart=interval_rows(rows, f"difference of {found.split} accuracy, points", "difference"),
        num_drawn=len(rows),
        pairs=shown,
        num_pairs=len(named),
        best=best if is_large else None,
        verdicts=[_sentence(verdict_of(found, pair)) for _, _, pair in shown] if len(shown) <= _MAX_VERDICTS else [],
        has_counts=any(pair.difference.quadrants for _, _, pair in shown),
        has_losses=any(pair.loss_difference for _, _, pair in shown),
        keys=list(found.differing),
        values=list(zip(names, *found.differing.values(), strict=True)),
    )


def _training(ordered: Sequence[Named]) -> Markup | None:
    drawn = sorted(ordered[:_MAX_DRAWN_GROUPS], key=lambda one: (len(one[0]), one[0]))
    histories = [(name, [store.read_metrics(scored.run) for scored in group.runs]) for name, group in drawn]
    made = [_curves(histories, *curve) for curve in _CURVES]
    return fill(
        "several_training.html",
        curves=[curves for curves in made if curves],
        num_left_out=len(ordered) - len(drawn),
        has_bands=any(len(runs) > 1 for _, runs in histories),
    )


def _curves(
    histories: Sequence[tuple[str, list[list[EpochMetrics]]]], field: _Field, title: str, measure: Measure
) -> _Curves | None:
    """The curves of one field, of the groups that have it; None if no group does."""
    series = [
        Series(name, tuple(run for run in (_values(one, field) for one in runs) if run)) for name, runs in histories
    ]
    series = [one for one in series if one.runs]
    if not series:
        return None
    columns = [[_mean(values, measure) for values in zip_longest(*one.runs)] for one in series]
    chart = learning_curves(series, measure, names=[name for name, _ in histories])
    epochs = list(zip_longest(*columns, fillvalue="–"))
    return _Curves(title, chart, [one.name for one in series], epochs)


def _values(history: Sequence[EpochMetrics], field: _Field) -> tuple[float, ...]:
    found = [getattr(metrics, field) for metrics in history]
    return () if None in found else tuple(found)


def _mean(values: Sequence[float | None], measure: Measure) -> str:
    mean = fmean([value for value in values if value is not None])
    return percent(mean) if measure == "accuracy" else f"{mean:.4g}"
