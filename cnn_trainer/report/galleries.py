"""Images with what the run says about them: the tiles that several sections show, and the sections of two galleries."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup

from cnn_trainer.evaluation.predictions import worst_first
from cnn_trainer.report.context import Context, Examples
from cnn_trainer.report.page import PageSection, fill

_SHOWN = 32
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
    """The wrongly classified examples with the largest losses; None without examples, or if there are none."""
    html = _gallery(context, is_right=False)
    return PageSection("worst", "Worst losses", html) if html else None


def uncertain_section(context: Context) -> PageSection | None:
    """The correctly classified examples with the lowest probabilities; None without examples, or if there are none."""
    html = _gallery(context, is_right=True)
    return PageSection("uncertain", "Right, but least certain", html) if html else None


def _gallery(context: Context, is_right: bool) -> Markup:
    if context.examples is None:
        return Markup()
    found = context.examples.predictions
    order = worst_first(found)
    chosen = order[(found.predictions[order] == found.labels[order]) == is_right]
    if not len(chosen):
        return Markup()
    tiles = make_tiles(context, context.examples, chosen[:_SHOWN])
    return fill("gallery.html", tiles=tiles, is_right=is_right, total=len(chosen), split=context.examples.split)
