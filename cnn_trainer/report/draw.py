"""Draws a Vega-Lite specification as inline SVG, by vl-convert, in the form that a page with a strict policy needs.

The SVG has no script, no style attribute and no id, so that it obeys any Content-Security-Policy and several fit on one
page. Text and lines have the colour of the page's text, and the marks that of the page's variables ``--chart-1`` to
``--chart-6``: a page in dark colours needs no other drawing.
"""

import re
from collections.abc import Sequence
from threading import Thread
from typing import Any
from xml.etree import ElementTree

import vl_convert
from markupsafe import Markup

from cnn_trainer.machine.terminal import printable

VEGA_LITE_VERSION = "6.4"  # of Vega-Lite, one of those in vl-convert: a newer package draws the same bytes
WIDTH, HEIGHT = 400, 260

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
        "labelLimit": 150,
    },
    "legend": {**_TEXT, "orient": "top", "title": None, "symbolStrokeWidth": 2, "symbolSize": 250, "labelLimit": 320},
    "text": {"color": "currentColor", "fontSize": 12},
    "rule": {"color": "currentColor"},
}
_SVG = "http://www.w3.org/2000/svg"
_LEFT_OUT = re.compile(r"role|class|pointer-events|aria-.*|version")


def start_drawing() -> None:
    """Start the engine inside vl-convert in the background, which takes half a second, while there is other work."""
    # The thread ends with the program, so that it does not delay an error.
    Thread(target=draw, args=({"mark": "point", "data": {"values": []}}, ""), daemon=True).start()


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
    # Nothing may be fetched, whatever the specification says.
    drawn = vl_convert.vegalite_to_svg(
        _printable({**spec, **size, "config": config}),
        vl_version=VEGA_LITE_VERSION,
        allowed_base_urls=[],
        show_warnings=False,
    )
    return _inline(drawn, printable(words), "wide chart" if width > 1.5 * WIDTH else "chart")


def named_colours(names: Sequence[str]) -> dict[str, Any]:
    """The scale that gives each name its own colour, in their order."""
    return {"domain": list(names), "range": [COLOURS[index % len(COLOURS)] for index in range(len(names))]}


def named_dashes(names: Sequence[str]) -> dict[str, Any]:
    """The scale that gives each name its own dashes, in their order."""
    return {"domain": list(names), "range": [DASHES[index % len(DASHES)] for index in range(len(names))]}


def _printable(part: Any) -> Any:
    """A part of a specification without the characters that XML does not allow or that turn text around."""
    if isinstance(part, dict):
        return {key: _printable(value) for key, value in part.items()}
    if isinstance(part, list):
        return [_printable(value) for value in part]
    return printable(part) if isinstance(part, str) else part


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
