"""Draws a Vega-Lite specification as inline SVG, by vl-convert, in the form that a page with a strict policy needs.

The SVG has no script, no style attribute and no id, so that it obeys any Content-Security-Policy and several fit on one
page. Text and lines have the colour of the page's text, and the marks that of the page's variables ``--chart-1`` to
``--chart-6``: a page in dark colours needs no other drawing.
"""

import json
import re
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

import vl_convert
from markupsafe import Markup

from cnn_trainer.machine.terminal import printable

VEGA_LITE_VERSION = "6.4"  # of Vega-Lite, one of those in vl-convert: a newer package draws the same bytes
WIDTH, HEIGHT = 400, 260
MAX_LABEL = 40  # characters

# For pages without the variables. Each is told from white at 3:1 or more, and from its neighbours by colour-blind eyes.
PALETTE = ("#0072b2", "#c64d00", "#00785a", "#a3428f", "#7a6000", "#5b5b5b")
COLOURS = tuple(f"var(--chart-{number},{colour})" for number, colour in enumerate(PALETTE, start=1))
DASHES = ([1, 0], [7, 3], [2, 2], [9, 3, 2, 3], [4, 4], [12, 4], [1, 3])  # one more than colours: 42 differ

_TEXT = {"labelColor": "currentColor", "titleColor": "currentColor", "labelFontSize": 12, "titleFontSize": 12}
_CONFIG = {
    "aria": False,  # one text for the whole instead of one for each mark
    "background": "transparent",
    "font": "sans-serif",
    "padding": 4,
    "view": {"stroke": None},
    "axis": {
        **_TEXT,
        "titleFontWeight": "normal",
        "domainColor": "currentColor",
        "domainOpacity": 0.5,
        "tickColor": "currentColor",
        "tickOpacity": 0.5,
        "gridColor": "currentColor",
        "gridOpacity": 0.13,
        "labelLimit": 0,
    },
    "legend": {**_TEXT, "orient": "top", "title": None, "symbolStrokeWidth": 2, "symbolSize": 250, "labelLimit": 0},
    "text": {"color": "currentColor", "fontSize": 12, "limit": 0},
    "rule": {"color": "currentColor"},
}
_SVG = "http://www.w3.org/2000/svg"
_LEFT_OUT = re.compile(r"role|class|pointer-events|aria-.*|version")


def draw(spec: dict[str, Any], words: str, *, width: int = WIDTH, height: int = HEIGHT) -> Markup:
    """Draw a specification.

    Args:
        spec: Vega-Lite, without size and config.
        words: What one would see, with the numbers: the text alternative.
        width: In pixels, with labels.
        height: In pixels, with labels.
    """
    size = {"width": width, "height": height, "autosize": {"type": "fit", "contains": "padding"}}
    config = {**_CONFIG, **spec.pop("config", {})}
    # Nothing may be fetched, whatever the specification says. The first call takes 0.4 seconds; to make one before in a
    # thread saves nothing, because vl-convert keeps the interpreter's lock (2026-11-25).
    drawn = vl_convert.vegalite_to_svg(
        {**spec, **size, "config": config},
        vl_version=VEGA_LITE_VERSION,
        allowed_base_urls=[],
        show_warnings=False,
    )
    return _inline(drawn, printable(words), "wide chart" if width > 1.5 * WIDTH else "chart")


def series_colours(number: int) -> dict[str, Any]:
    """The scale that gives the series 0, 1, … their colours."""
    return {"domain": list(range(number)), "range": [COLOURS[index % len(COLOURS)] for index in range(number)]}


def series_dashes(number: int) -> dict[str, Any]:
    """The scale that gives the series 0, 1, … their dashes."""
    return {"domain": list(range(number)), "range": [DASHES[index % len(DASHES)] for index in range(number)]}


def drawable(text: str) -> str:
    """A text as it may be drawn: of characters that can be seen, and not too long.

    Vega would cut it at a width in pixels, but then it halves characters beyond U+FFFF, and fails.
    """
    shown = printable(text)
    return shown if len(shown) <= MAX_LABEL else f"{shown[: MAX_LABEL - 1]}…"


def label_of_number(texts: Sequence[str]) -> str:
    """The expression that labels the numbers 0, 1, … with these texts, two of which may be equal."""
    return f"{json.dumps(list(map(drawable, texts)))}[datum.value]"


def _inline(drawn: str, words: str, kind: str) -> Markup:
    """The SVG as an image with a text alternative, without what only scripts and other styles would need."""
    ElementTree.register_namespace("", _SVG)
    root = ElementTree.fromstring(drawn)  # noqa: S314 -- drawn just now, with text escaped
    _strip(root)
    body = Markup(ElementTree.tostring(root, encoding="unicode").partition(">")[2])  # noqa: S704 -- serialized just now
    frame = Markup('<svg class="{}" role="img" aria-label="{}" viewBox="{}" width="{}" height="{}">{}')
    return frame.format(kind, words, root.attrib["viewBox"], root.attrib["width"], root.attrib["height"], body)


def _strip(element: ElementTree.Element) -> None:
    for child in list(element):
        is_empty = child.tag == f"{{{_SVG}}}path" and {"fill", "stroke"}.isdisjoint(child.attrib)
        if is_empty or child.get("display") == "none":
            element.remove(child)
        else:
            _strip(child)
            if child.tag == f"{{{_SVG}}}g" and not len(child):
                element.remove(child)
    for name in [name for name in element.attrib if _LEFT_OUT.fullmatch(name)]:
        del element.attrib[name]
    if element.get("opacity") == "1":
        del element.attrib["opacity"]
