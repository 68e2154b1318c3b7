"""The page of several runs: which group of runs is better, by how much, and how all of them were trained."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from statistics import fmean
from typing import Literal

from markupsafe import Markup

from cnn_trainer.analysis.compare import Comparison, Group
from cnn_trainer.analysis.verdict import group_name, verdict_of
from cnn_trainer.errors import count
from cnn_trainer.report.charts import IntervalRow, Measure, Series, interval_rows, learning_curves
from cnn_trainer.report.page import Figure, PageSection, build_page, fill, percent
from cnn_trainer.runs import store
from cnn_trainer.runs.records import EpochMetrics

_MAX_DRAWN_GROUPS = 8  # more curves over one another could not be told apart
_MAX_DRAWN_PAIRS = 28  # of 8 groups

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
        *([PageSection("differences", "Differences", _differences(found))] if found.pairs else []),
        *([PageSection("training", "Training", html)] if (html := _training(ordered)) else []),
        PageSection("runs", "The runs", fill("several_runs.html", found=found, named=named, command=shlex.join(words))),
    ]
    return build_page(title, _verdict(found), sections, figures=[_figure(name, group) for name, group in ordered[:4]])


def _figure(name: str, group: Group) -> Figure:
    return Figure(f"Group {name}", percent(group.accuracy), f"{percent(group.low)} to {percent(group.high)}")


def _verdict(found: Comparison) -> str:
    if not found.pairs:
        group = found.groups[0]
        words = (
            f"All runs differ only in their seed. They classify {percent(group.accuracy)} of the {found.split} images "
        )
        return words + f"correctly on average (95 % interval {percent(group.low)} to {percent(group.high)})."
    if len(found.pairs) == 1:
        return _sentence(verdict_of(found, found.pairs[0]))
    apart = sum(pair.is_told_apart for pair in found.pairs)
    words = f"{apart} of {count(len(found.pairs), 'pair')} of groups can be told apart. "
    if apart == 0:
        return words + "No group is known to be better than another."
    beaten = {pair.second if pair.difference.value > 0 else pair.first for pair in found.pairs if pair.is_told_apart}
    best = [group_name(index) for index in range(len(found.groups)) if index not in beaten]
    if len(best) == 1:
        return words + f"{best[0]} is the only group that no other is better than."
    return words + f"No other group is better than {', '.join(best[:-1])} or {best[-1]}."


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


def _accuracy(found: Comparison, ordered: Sequence[tuple[str, Group]]) -> Markup:
    rows = [IntervalRow(name, group.accuracy, group.low, group.high) for name, group in ordered]
    chart = interval_rows(rows, f"{found.split} accuracy", "accuracy")
    return fill("several_accuracy.html", found=found, ordered=ordered, chart=chart)


def _differences(found: Comparison) -> Markup:
    rows = [
        IntervalRow(
            f"{group_name(pair.first)} − {group_name(pair.second)}",
            pair.difference.value,
            pair.difference.low,
            pair.difference.high,
        )
        for pair in found.pairs[:_MAX_DRAWN_PAIRS]
    ]
    names = [group_name(index) for index in range(len(found.groups))]
    return fill(
        "several_differences.html",
        chart=interval_rows(rows, f"difference of {found.split} accuracy, points", "difference"),
        num_drawn=len(rows),
        pairs=[(group_name(pair.first), group_name(pair.second), pair) for pair in found.pairs],
        verdicts=[_sentence(verdict_of(found, pair)) for pair in found.pairs],
        differing=found.differing,
        names=names,
    )


def _training(ordered: Sequence[tuple[str, Group]]) -> Markup | None:
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
