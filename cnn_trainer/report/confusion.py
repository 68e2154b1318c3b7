"""The section of the confusion matrix: each cell opens the images behind its number."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from cnn_trainer.evaluation.predictions import worst_first
from cnn_trainer.report.context import Context, Examples
from cnn_trainer.report.galleries import Tile, make_tiles
from cnn_trainer.report.page import PageSection, fill
from cnn_trainer.runs.records import EvaluationRecord

_MAX_MATRIX_CLASSES = 30
_MAX_PAIRS = 100  # in the list that replaces a larger matrix
_MAX_OF_WRONG_CELL = 200
_MAX_OF_RIGHT_CELL = 40
_OTHER_SECTIONS = 65  # images in the galleries, and the one inside the network

_Pair = tuple[int, int]
"""Label and prediction, as class ids."""


@dataclass(frozen=True)
class Cell:
    """One cell of the matrix, with the images that it opens: none, some or all of its examples."""

    label: int
    prediction: int
    count: int
    heat: int
    """How dark the cell is: 0 for no example, up to 9."""
    tiles: list[Tile] = field(default_factory=list)

    @property
    def id(self) -> str:
        """The id of what it opens."""
        return f"cell-{self.label}-{self.prediction}"


def confusion_section(context: Context) -> PageSection | None:
    """The matrix, or if there are many classes the most frequent confusions; None without a score."""
    evaluation = context.evaluation
    if evaluation is None:
        return None
    names, total = context.run.record.data.class_names, 0
    is_matrix = len(names) <= _MAX_MATRIX_CLASSES
    if is_matrix:
        cells = _matrix_cells(evaluation)
    else:
        cells, total = _pair_cells(evaluation)
    if context.examples:
        cells = list(_with_tiles(context, context.examples, cells))
    rows = [cells[start : start + len(names)] for start in range(0, len(cells), len(names))]
    html = fill(
        "matrix.html" if is_matrix else "pairs.html",
        names=names,
        evaluation=evaluation,
        cells=cells,
        rows=rows,
        total=total,
        has_long_names=max(map(len, names)) > 3,
        problem=context.problem,
        sprite=context.examples.sprite if context.examples else None,
    )
    return PageSection("confusion", "Confusion matrix" if is_matrix else "Confusions", html)


def _matrix_cells(evaluation: EvaluationRecord) -> list[Cell]:
    """All cells, row by row. A wrong cell is as dark as it is frequent among the wrong ones, a right one in its row."""
    matrix = np.array(evaluation.confusion_matrix)
    most = np.full(matrix.shape, (matrix - np.diag(matrix.diagonal())).max())
    np.fill_diagonal(most, matrix.sum(axis=1))
    heats = -(-9 * matrix // most.clip(1))
    return [
        Cell(label, prediction, int(count), int(heats[label, prediction]))
        for (label, prediction), count in np.ndenumerate(matrix)
    ]


def _pair_cells(evaluation: EvaluationRecord) -> tuple[list[Cell], int]:
    """The most frequent confusions, most frequent first, and how many different ones there are."""
    matrix = np.array(evaluation.confusion_matrix)
    np.fill_diagonal(matrix, 0)
    pairs = np.argwhere(matrix)
    counts = matrix[matrix > 0]
    order = (-counts).argsort(kind="stable")[:_MAX_PAIRS]
    cells = [
        Cell(label, prediction, number, 0)
        for (label, prediction), number in zip(pairs[order].tolist(), counts[order].tolist(), strict=True)
    ]
    return cells, len(counts)


def _with_tiles(context: Context, examples: Examples, cells: list[Cell]) -> Iterator[Cell]:
    found = examples.predictions
    order = worst_first(found)
    pairs = found.labels.astype(np.int64) * found.probabilities.shape[1] + found.predictions
    by_pair = order[pairs[order].argsort(kind="stable")]  # within a pair, the largest loss stays first
    ends = pairs[by_pair].searchsorted(np.arange(found.probabilities.shape[1] ** 2 + 1))
    behind = {}
    for cell in sorted((cell for cell in cells if cell.count), key=_importance):
        place = cell.label * found.probabilities.shape[1] + cell.prediction
        behind[cell.label, cell.prediction] = by_pair[ends[place] : ends[place + 1]]
    chosen = _choose(behind, examples.sprite.capacity() - _OTHER_SECTIONS)
    for cell in cells:
        pair = (cell.label, cell.prediction)
        yield replace(cell, tiles=make_tiles(context, examples, chosen[pair])) if pair in chosen else cell


def _importance(cell: Cell) -> tuple[bool, int]:
    return cell.label == cell.prediction, -cell.count


def _choose(behind: dict[_Pair, NDArray[np.int64]], room: int) -> dict[_Pair, NDArray[np.int64]]:
    """Which examples each cell opens, ``room`` in all: as many for each as possible, or one for the first cells."""
    chosen: dict[_Pair, NDArray[np.int64]] = {}
    for most in range(_MAX_OF_WRONG_CELL, 0, -1):
        chosen = {
            pair: indexes[: most if pair[0] != pair[1] else min(most, _MAX_OF_RIGHT_CELL)]
            for pair, indexes in behind.items()
        }
        if sum(map(len, chosen.values())) <= room:
            return chosen
    return dict(list(chosen.items())[: max(0, room)])
