"""The charts of a report: each from plain numbers to one inline SVG, with a text alternative that says the numbers.

Accuracies, errors, confidences and shares are fractions from 0 to 1. Nothing is told by colour only: lines differ in
their dashes, points in their shapes, and bars bear their numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from markupsafe import Markup

from cnn_trainer.errors import count
from cnn_trainer.report.draw import COLOURS, WIDTH, draw, drawable, label_of_number, series_colours, series_dashes
from cnn_trainer.runs.records import CoveragePoint, ReliabilityBin

Measure = Literal["loss", "accuracy", "learning rate"]
IntervalKind = Literal["loss", "accuracy", "difference"]

_INTERVAL_FORMATS: dict[IntervalKind, str] = {"loss": "~g", "accuracy": "~%", "difference": "+~g"}
MEASURE_FORMATS: dict[Measure, str] = {"loss": "~g", "accuracy": "~%", "learning rate": "~g"}
_FIFTHS = [0, 0.2, 0.4, 0.6, 0.8, 1]
_LOG_FLOOR = 0.8  # where the bars of a logarithmic scale begin: a bin of one image is still seen
ROW_PIXELS = 26  # pixels for each row of a chart of rows
_MAX_POINTS = 40  # epochs; with more, the points of a curve would hide its line


@dataclass(frozen=True)
class Series:
    """A measure after each epoch from 1 on, of one run or of several that differ only in their seed."""

    name: str
    runs: tuple[tuple[float, ...], ...]
    """One row for each run; they may end at different epochs."""


@dataclass(frozen=True)
class IntervalRow:
    """A value with its interval, as a row."""

    name: str
    value: float
    low: float
    high: float


def say_number(value: float, measure: Measure) -> str:
    """A value of a measure in words."""
    return f"{value:.2%}" if measure == "accuracy" else f"{value:.4g}"


def learning_curves(
    series: Sequence[Series], measure: Measure, *, result_epoch: int | None = None, names: Sequence[str] = ()
) -> Markup:
    """A measure over the epochs: a line for each series, the mean of its runs, in a band from lowest to highest.

    Args:
        series: One or more with different names, each with at least one epoch.
        measure: What the values are.
        result_epoch: The epoch whose weights are the result, which is marked.
        names: All series of which these are some, so that each has the same colour and dashes in several charts.
    """
    present = [one.name for one in series]
    names = names or present
    indexes = list(map(names.index, present))
    rows: list[dict[str, Any]] = [
        {"series": index, "epoch": epoch, "mean": fmean(values), "low": min(values), "high": max(values)}
        for index, one in zip(indexes, series, strict=True)
        for epoch, values in enumerate(_by_epoch(one), start=1)
    ]
    colour: dict[str, Any] = {"field": "series", "type": "nominal", "scale": series_colours(len(names))}
    x = {"field": "epoch", "type": "quantitative", "scale": {"zero": False, "nice": False}}
    x["axis"] = {"tickMinStep": 1, "format": "d", "grid": False}
    y = {"type": "quantitative", "scale": {"zero": False}, "title": None, "axis": {"format": MEASURE_FORMATS[measure]}}
    legend = {"symbolType": "stroke", "symbolFillColor": "transparent", "symbolOpacity": 1, "values": indexes}
    legend["labelExpr"] = label_of_number(names)
    colour["legend"] = legend if len(names) > 1 else None
    dash = {"field": "series", "type": "nominal", "scale": series_dashes(len(names)), "legend": colour["legend"]}
    layers: list[dict[str, Any]] = [
        {
            "mark": {"type": "line", "strokeWidth": 2},
            "encoding": {"y": {"field": "mean", **y}, "color": colour, "strokeDash": dash},
        }
    ]
    if any(len(one.runs) > 1 for one in series):
        area = {"y": {"field": "low", **y}, "y2": {"field": "high"}, "color": colour}
        layers.insert(0, {"mark": {"type": "area", "opacity": 0.18}, "encoding": area})
    num_epochs = max(row["epoch"] for row in rows)
    if num_epochs <= _MAX_POINTS:
        point = {"y": {"field": "mean", **y}, "color": colour}
        layers.append({"mark": {"type": "point", "filled": True, "size": 22, "opacity": 1}, "encoding": point})
    words = [_curve_words(one, measure) for one in series]
    if result_epoch is not None:
        layers.append(_epoch_rule(result_epoch, num_epochs))
        words.append(f"the result is of epoch {result_epoch}")
    spec = {"data": {"values": rows}, "encoding": {"x": x}, "layer": layers}
    return draw(spec, f"{measure.capitalize()} over {count(num_epochs, 'epoch')}. {'. '.join(words)}.")


def _by_epoch(one: Series) -> list[list[float]]:
    """The values of all runs that reached each epoch."""
    return [[run[epoch] for run in one.runs if epoch < len(run)] for epoch in range(max(map(len, one.runs)))]


def _curve_words(one: Series, measure: Measure) -> str:
    epochs = [fmean(values) for values in _by_epoch(one)]
    best = max(epochs) if measure == "accuracy" else min(epochs)
    words = f"{one.name}: from {say_number(epochs[0], measure)} to {say_number(epochs[-1], measure)}"
    if measure != "learning rate":
        words += f", best {say_number(best, measure)} after epoch {epochs.index(best) + 1}"
    return words if len(one.runs) == 1 else f"{words}, mean of {len(one.runs)} runs"


def _epoch_rule(epoch: int, num_epochs: int) -> dict[str, Any]:
    """A vertical line at an epoch, with its name at the side that has room."""
    at = {"data": {"values": [{"epoch": epoch}]}}
    side = "right" if epoch > num_epochs / 2 else "left"
    text = {"type": "text", "text": "result", "align": side, "dx": -4 if side == "right" else 4, "y": 8}
    return {**at, "layer": [{"mark": {"type": "rule", "strokeDash": [2, 3], "opacity": 0.8}}, {"mark": text}]}


def reliability_chart(bins: Sequence[ReliabilityBin]) -> Markup:
    """A reliability diagram: the accuracy of each bin over its confidence, with the range that chance allows.

    Below it stands the number of images in each bin, on a logarithmic scale.
    """
    rows = [
        {
            "confidence": one.confidence,
            "accuracy": one.accuracy,
            "low": one.chance_low,
            "high": one.chance_high,
            "images": one.num_examples,
            "where": "within chance" if one.chance_low <= one.accuracy <= one.chance_high else "beyond chance",
        }
        for one in bins
    ]
    where = ["within chance", "beyond chance"]
    unit = {"domain": [0, 1], "nice": False}
    x = {"field": "confidence", "type": "quantitative", "scale": unit}
    y = {"type": "quantitative", "scale": unit, "title": "accuracy", "axis": {"format": "~%", "values": _FIFTHS}}
    shape = {"field": "where", "type": "nominal", "scale": {"domain": where, "range": ["circle", "diamond"]}}
    colour = {"field": "where", "type": "nominal", "scale": {"domain": where, "range": COLOURS[:2]}}
    bare = {**x, "axis": {"labels": False, "ticks": False, "title": None, "values": _FIFTHS}}
    images = {"field": "images", "type": "quantitative", "scale": {"type": "log", "domainMin": _LOG_FLOOR}}
    images["axis"] = {"format": "~s", "values": [10**power for power in range(7)]}
    bar = {"type": "rule", "strokeWidth": 9}
    above = {
        "width": WIDTH - 70,
        "height": WIDTH - 130,
        "encoding": {"x": bare},
        "layer": [
            {
                "data": {"values": [{"confidence": end, "accuracy": end} for end in (0, 1)]},
                "mark": {"type": "line", "strokeDash": [2, 3], "strokeWidth": 1, "color": "currentColor"},
                "encoding": {"y": {"field": "accuracy", **y}},
            },
            {"mark": {**bar, "opacity": 0.25}, "encoding": {"y": {"field": "low", **y}, "y2": {"field": "high"}}},
            {
                "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
                "encoding": {"y": {"field": "accuracy", **y}, "shape": shape, "color": colour},
            },
        ],
    }
    below = {
        "width": WIDTH - 70,
        "height": 60,
        "mark": {**bar, "color": COLOURS[0]},
        "encoding": {"x": {**x, "axis": {"format": "~%", "values": _FIFTHS}}, "y": images, "y2": {"datum": _LOG_FLOOR}},
    }
    beyond = sum(row["where"] == "beyond chance" for row in rows)
    words = [f"{one.confidence:.1%} confident: {one.accuracy:.1%} right of {one.num_examples:,}" for one in bins]
    text = f"Accuracy over confidence in {count(len(rows), 'bin')}, {beyond} beyond what chance allows. "
    return draw({"data": {"values": rows}, "vconcat": [above, below], "spacing": 8}, f"{text}{'; '.join(words)}.")


def error_coverage(points: Sequence[CoveragePoint]) -> Markup:
    """The error of the most confident share of the images, over that share; the points by rising share."""
    rows = [{"share": one.coverage, "error": one.error} for one in points]
    x = {"field": "share", "type": "quantitative", "scale": {"domain": [0, 1]}, "axis": {"format": "~%"}}
    y = {"field": "error", "type": "quantitative", "axis": {"format": "~%"}}
    encoding = {"x": {**x, "title": "most confident share of the images"}, "y": {**y, "title": "error"}}
    mark = {"type": "line", "strokeWidth": 2, "color": COLOURS[0], "interpolate": "step-before"}
    shown = dict.fromkeys(round(part * (len(points) - 1)) for part in _FIFTHS)
    words = [f"{points[at].error:.2%} of the {points[at].coverage:.1%} most confident" for at in shown]
    return draw({"data": {"values": rows}, "mark": mark, "encoding": encoding}, f"Error: {'; '.join(words)}.")


def interval_rows(rows: Sequence[IntervalRow], title: str, kind: IntervalKind) -> Markup:
    """A point with its interval for each row. Differences are of accuracies; they are drawn in points, around 0."""
    unit = 100 if kind == "difference" else 1
    values = [
        {"row": index, "value": one.value * unit, "low": one.low * unit, "high": one.high * unit}
        for index, one in enumerate(rows)
    ]
    x = {"type": "quantitative", "scale": {"zero": kind == "difference", "padding": 12}, "title": drawable(title)}
    x["axis"] = {"format": _INTERVAL_FORMATS[kind], "tickCount": 5, "labelFlush": False, "grid": True}
    y = {"field": "row", "type": "ordinal", "title": None, "axis": row_names([one.name for one in rows])}
    layers: list[dict[str, Any]] = [
        {
            "mark": {"type": "rule", "strokeWidth": 2, "color": COLOURS[0]},
            "encoding": {"y": y, "x": {"field": "low", **x}, "x2": {"field": "high"}},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 70, "color": COLOURS[0], "opacity": 1},
            "encoding": {"y": y, "x": {"field": "value", **x}},
        },
    ]
    if kind == "difference":
        layers.insert(0, {"mark": {"type": "rule", "strokeDash": [2, 3]}, "encoding": {"x": {"datum": 0, **x}}})
    words = [f"{one.name}: {_interval_words(one, kind)}" for one in rows]
    spec = {"data": {"values": values}, "layer": layers}
    return draw(spec, f"{title}. {'; '.join(words)}.", height=ROW_PIXELS * len(rows) + 50)


def _interval_words(one: IntervalRow, kind: IntervalKind) -> str:
    unit, form = {"loss": (1, ".4f"), "accuracy": (1, ".2%"), "difference": (100, "+.2f")}[kind]
    value, low, high = (f"{number * unit:{form}}" for number in (one.value, one.low, one.high))
    return f"{value}, 95 % interval {low} to {high}"


def row_names(names: Sequence[str]) -> dict[str, Any]:
    """An axis whose labels are the names of rows 0, 1, …."""
    return {"labelExpr": label_of_number(names), "ticks": False, "domain": False, "grid": False}
