"""The chart of a run's loss and accuracy that is drawn in the terminal."""

import math
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import typer

from cnn_trainer.machine import terminal

if TYPE_CHECKING:
    from cnn_trainer.runs.records import EpochMetrics

_MIN_COLUMNS, _MIN_LINES = 60, 20  # of a terminal that has room for the chart
_MAX_WIDTH, _HEIGHT = 80, 6  # of one curve, in columns and lines
_SCALE, _LABEL = 7, 11  # columns on the left and on the right of it
_COLOURS = {"train": terminal.GOOD, "validation": terminal.FIGURE}
_SMALLEST_LOSS = 1e-9  # a loss can be 0, and its scale is logarithmic


def curve_lines(metrics: "Sequence[EpochMetrics]") -> list[str]:
    """The chart for the terminal of stderr, with escape sequences if it takes colours.

    No lines for fewer than two epochs, or if stderr is not a terminal that can draw, is too small or is not UTF-8.
    """
    from cnn_trainer.cli.tables import terminal_size

    size = terminal_size(sys.stderr)
    encoding = getattr(sys.stderr, "encoding", None) or ""
    has_room = size is not None and size[0] >= _MIN_COLUMNS and size[1] >= _MIN_LINES
    if len(metrics) < 2 or not has_room or not terminal.can_draw(sys.stderr) or encoding.lower() != "utf-8":
        return []
    width = min(_MAX_WIDTH, size[0] - _SCALE - _LABEL - 2) if size else _MAX_WIDTH
    epochs = [line.epoch for line in metrics]
    losses = {"train": [line.train_loss for line in metrics]}
    accuracies = {"train": [line.train_accuracy for line in metrics]}
    if all(line.validation_loss is not None for line in metrics):
        losses["validation"] = [line.validation_loss or 0.0 for line in metrics]
        accuracies["validation"] = [line.validation_accuracy or 0.0 for line in metrics]
    logs = {name: [math.log(max(value, _SMALLEST_LOSS)) for value in values] for name, values in losses.items()}
    ends = f"{epochs[0]}{epochs[-1]:>{width - len(str(epochs[0]))}}"
    return [
        "",
        "loss, on a logarithmic scale",
        *_curves(epochs, logs, width, lambda value: f"{math.exp(value):.4f}"),
        "accuracy",
        *_curves(epochs, accuracies, width, lambda value: f"{value:.2%}"),
        f"{'epoch':>{_SCALE}} {ends}",
        "",
    ]


def _curves(
    epochs: Sequence[int], series: dict[str, list[float]], width: int, words: Callable[[float], str]
) -> list[str]:
    """Curves over the epochs: the ends of the scale on the left, the name of each curve where it ends on the right."""
    from plotille import Canvas

    is_plain = not terminal.takes_colour(sys.stderr)
    values = [value for curve in series.values() for value in curve]
    low, high = min(values), max(values)
    span = high - low or 1.0
    dots_per_epoch, dots_per_value = (2 * width - 1) / (epochs[-1] - epochs[0]), (4 * _HEIGHT - 1) / span
    canvas = Canvas(
        width,
        _HEIGHT,
        xmin=epochs[0],
        ymin=low,
        xmax=epochs[-1] + 1 / dots_per_epoch,  # the canvas ends before these limits
        ymax=low + span + 1 / dots_per_value,
        mode="byte",
        no_color=is_plain,
    )
    for name, curve in reversed(series.items()):
        points = list(zip(epochs, curve, strict=True))
        for (first, before), (second, after) in pairwise(points):
            canvas.line(first, before, second, after, color=_COLOURS[name])
    scale = {0: words(high), _HEIGHT - 1: words(low)}
    labels = {row: name if is_plain else typer.style(name, fg=_COLOURS[name]) for name, row in _rows(series, low, span)}
    return [
        f"{scale.get(row, ''):>{_SCALE}} {line} {labels.get(row, '')}".rstrip()
        for row, line in enumerate(canvas.plot("\n").split("\n"))
    ]


def _rows(series: dict[str, list[float]], low: float, span: float) -> list[tuple[str, int]]:
    """The line from the top, a different one for each curve, in which it ends."""
    ends = sorted(((curve[-1], name) for name, curve in series.items()), reverse=True)
    rows = [(name, round((_HEIGHT - 1) * (1 - (value - low) / span))) for value, name in ends]
    if len(rows) == 2 and rows[0][1] == rows[1][1]:
        first = min(rows[0][1], _HEIGHT - 2)
        rows = [(rows[0][0], first), (rows[1][0], first + 1)]
    return rows
