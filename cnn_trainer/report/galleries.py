"""Images with what the run says about them: the tiles that several sections show, and the sections of two galleries."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from cnn_trainer.evaluation.predictions import worst_first
from cnn_trainer.report.context import Context, Examples
from cnn_trainer.report.page import PageSection, fill

_SHOWN = 30
_SIDE = 68  # the longer side of an image on the page, in CSS pixels


@dataclass(frozen=True)
class Tile:
    """One example as the page shows it; probabilities are fractions from 0 to 1."""

    index: int
    view_box: str
    width: int
    height: int
    """The size of the image on the page, in CSS pixels."""
    label: str
    prediction: str
    of_label: float
    of_prediction: float
    loss: float
    """The negative log likelihood of the label, in nats."""
    next_best: tuple[str, float]
    """The class with the second largest probability, and this probability."""


def make_tiles(context: Context, examples: Examples, indexes: Iterable[int]) -> list[Tile]:
    """The tiles of some examples; their images become part of the page."""
    names, found = context.run.record.data.class_names, examples.predictions
    sprite = examples.sprite
    width, height = (max(1, _SIDE * side // max(sprite.width, sprite.height)) for side in (sprite.width, sprite.height))
    tiles = []
    for index in map(int, indexes):
        shares, label = found.probabilities[index], int(found.labels[index])
        prediction = int(shares.argmax())
        rest = shares.copy()
        rest[prediction] = -1
        second, of_label = int(rest.argmax()), float(shares[label])
        tiles.append(
            Tile(
                index=index,
                view_box=sprite.view_box(index),
                width=width,
                height=height,
                label=names[label],
                prediction=names[prediction],
                of_label=of_label,
                of_prediction=float(shares[prediction]),
                loss=-math.log(of_label) if of_label else math.inf,
                next_best=(names[second], float(shares[second])),
            )
        )
    return tiles


def worst_section(context: Context) -> PageSection | None:
    """The misread examples with the largest losses; None without examples, or if none is misread."""
    if context.examples is None:
        return None
    found = context.examples.predictions
    order = worst_first(found)
    wrong = order[found.predictions[order] != found.labels[order]]
    if not len(wrong):
        return None
    tiles = make_tiles(context, context.examples, wrong[:_SHOWN])
    html = fill("gallery.html", tiles=tiles, kind="worst", total=len(wrong), split=_split(context))
    return PageSection("worst", "Worst losses", html)


def uncertain_section(context: Context) -> PageSection | None:
    """The examples that are read correctly with the least certainty; None without examples, or if there is none."""
    if context.examples is None:
        return None
    found = context.examples.predictions
    order = worst_first(found)
    right = order[found.predictions[order] == found.labels[order]]
    if not len(right):
        return None
    tiles = make_tiles(context, context.examples, right[:_SHOWN])
    html = fill("gallery.html", tiles=tiles, kind="uncertain", total=len(right), split=_split(context))
    return PageSection("uncertain", "Right, but least certain", html)


def _split(context: Context) -> str:
    return context.evaluation.split if context.evaluation else ""
