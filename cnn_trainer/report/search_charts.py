"""The charts of a search: its rungs, its trials in parallel coordinates, and the importance of its keys."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from cnn_trainer.errors import count
from cnn_trainer.report.charts import MEASURE_FORMATS, ROW_PIXELS, Measure, row_names
from cnn_trainer.report.draw import COLOURS, WIDTH, draw, drawable

_MARKED = {
    False: {"strokeWidth": 1, "color": "currentColor", "opacity": 0.35},
    True: {"strokeWidth": 2.5, "color": COLOURS[1], "opacity": 1},
}


@dataclass(frozen=True)
class TrialLine:
    """One trial of a search: its position on each axis, or its value at each rung."""

    values: tuple[float, ...]
    is_marked: bool
    """Whether it is one of the best, which are drawn in front and in colour."""


@dataclass(frozen=True)
class ParallelAxis:
    """A vertical axis of parallel coordinates."""

    name: str
    ticks: tuple[tuple[float, str], ...]
    """Positions from 0 (bottom) to 1 (top), and what stands there."""


def importance_bars(shares: Mapping[str, float]) -> Markup:
    """A bar for the share of each key, with its number."""
    rows = [{"row": index, "share": share, "words": f"{share:.0%}"} for index, share in enumerate(shares.values())]
    x = {
        "field": "share",
        "type": "quantitative",
        "axis": None,
        "scale": {"domain": [0, max(0.01, *shares.values()) * 1.12]},
    }
    y = {"field": "row", "type": "ordinal", "title": None, "axis": row_names(list(shares))}
    text = {"mark": {"type": "text", "align": "left", "dx": 4}, "encoding": {"text": {"field": "words"}}}
    layers = [{"mark": {"type": "bar", "color": COLOURS[0], "height": {"band": 0.6}}}, text]
    words = [f"{key}: {share:.0%}" for key, share in shares.items()]
    spec = {"data": {"values": rows}, "encoding": {"x": x, "y": y}, "layer": layers}
    size = {"width": WIDTH + 100, "height": ROW_PIXELS * len(shares) + 10}
    return draw(spec, f"Importance. {'; '.join(words)}.", **size)


def rung_lines(epochs: Sequence[int], trials: Sequence[TrialLine], measure: Measure) -> Markup:
    """The value of each trial at each rung that it reached: who was compared after how many epochs, and who went on.

    Args:
        epochs: The epochs of the rungs, rising.
        trials: Each with its values at the first rungs; at least one value.
        measure: What the values are.
    """
    rows = [
        {"trial": trial, "epochs": str(number), "value": value, "is_marked": one.is_marked}
        for trial, one in enumerate(trials)
        for number, value in zip(epochs, one.values, strict=False)
    ]
    x: dict[str, Any] = {"field": "epochs", "type": "ordinal", "title": "compared after epochs"}
    x |= {"sort": None, "scale": {"domain": list(map(str, epochs))}, "axis": {"labelAngle": 0}}
    y: dict[str, Any] = {"field": "value", "type": "quantitative", "title": f"validation {measure}"}
    is_log = measure == "loss" and min(value for one in trials for value in one.values) > 0
    y["scale"] = {"type": "log", "nice": False, "padding": 12} if is_log else {"zero": False}
    encoding = {"x": x, "y": {**y, "axis": {"format": MEASURE_FORMATS[measure]}}, "detail": {"field": "trial"}}
    layers = [
        {
            **_chosen(is_marked),
            "mark": {"type": "line", "point": {"size": 26, "filled": True, "color": style["color"]}, **style},
        }
        for is_marked, style in _MARKED.items()
    ]
    reached = [sum(len(one.values) > index for one in trials) for index in range(len(epochs))]
    words = [
        f"after {count(number, 'epoch')}: {count(sum_, 'trial')}" for number, sum_ in zip(epochs, reached, strict=True)
    ]
    return draw(
        {"data": {"values": rows}, "encoding": encoding, "layer": layers}, f"Rungs: {'; '.join(words)}.", height=320
    )


def _chosen(is_marked: bool) -> dict[str, Any]:
    return {"transform": [{"filter": f"datum.is_marked === {json.dumps(is_marked)}"}]}


def parallel_coordinates(axes: Sequence[ParallelAxis], trials: Sequence[TrialLine]) -> Markup:
    """Parallel coordinates: a line for each trial across the axes; its values are positions from 0 to 1."""
    rows = [
        {"trial": number, "axis": index, "position": position, "is_marked": one.is_marked}
        for number, one in enumerate(trials)
        for index, position in enumerate(one.values)
    ]
    names = [
        {"axis": index, "position": 1.28, "words": re.findall(r"[^.]*\.|[^.]+", drawable(axis.name))}
        for index, axis in enumerate(axes)
    ]
    ticks = [
        {"axis": index, "position": position, "words": drawable(words)}
        for index, axis in enumerate(axes)
        for position, words in axis.ticks
    ]
    x = {
        "field": "axis",
        "type": "quantitative",
        "axis": None,
        "scale": {"domain": [-0.15, len(axes) - 0.75], "nice": False},
    }
    y = {"field": "position", "type": "quantitative", "axis": None, "scale": {"domain": [-0.05, 1.29], "nice": False}}
    text = {"text": {"field": "words"}}
    layers = [
        {
            "data": {"values": [{"axis": index, "bottom": 0, "position": 1} for index in range(len(axes))]},
            "mark": {"type": "rule", "opacity": 0.6},
            "encoding": {"y2": {"field": "bottom"}},
        },
        *(
            {**_chosen(is_marked), "mark": {"type": "line", **style}, "encoding": {"detail": {"field": "trial"}}}
            for is_marked, style in _MARKED.items()
        ),
        {
            "data": {"values": names},
            "mark": {"type": "text", "baseline": "top"},
            "encoding": text,
        },
        {"data": {"values": ticks}, "mark": {"type": "text", "align": "left", "dx": 5, "dy": -7}, "encoding": text},
    ]
    spec = {"data": {"values": rows}, "encoding": {"x": x, "y": y}, "layer": layers}
    words = f"{count(len(trials), 'trial')} across {', '.join(axis.name for axis in axes)}."
    return draw(spec, words, width=max(WIDTH, 150 * len(axes)), height=340)
