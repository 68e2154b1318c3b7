"""The page around the sections: templates, style, and a policy that lets the page load nothing.

Text from files is passed to templates as it is. Here it is escaped: characters that are not printable become backslash
escapes, and Jinja2 escapes what means something in HTML.
"""

import base64
import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cnn_trainer.errors import count
from cnn_trainer.machine.terminal import printable

STYLES = ("page.css", "charts.css")
"""The style sheets in ``templates/``, in their order on the page. The policy names the digest of all of them."""


MAX_NAME = 24
"""Characters of the name of a class next to an image."""


@dataclass(frozen=True)
class PageSection:
    """One part of the page, with a heading of the second level; those inside ``html`` begin with the third."""

    id: str
    """Unique on the page: lower-case letters, digits and hyphens."""
    title: str
    html: Markup


@dataclass(frozen=True)
class KeyFigure:
    """A number under the verdict."""

    name: str
    value: str
    note: str = ""
    """What puts it into proportion, such as its interval."""


def fill(template: str, **values: Any) -> Markup:
    """The HTML of a file in ``templates/``; every value that is not Markup is escaped."""
    return Markup(_environment().get_template(template).render(values))  # noqa: S704 -- escaped by Jinja2


def build_page(
    title: str,
    verdict: str | Markup,
    sections: Sequence[PageSection],
    hidden: Markup | None = None,
    figures: Sequence[KeyFigure] = (),
    reload_seconds: int | None = None,
) -> bytes:
    """The whole HTML file.

    Args:
        title: What the page is about; it becomes the heading of the first level.
        verdict: One or a few plain sentences.
        sections: In their order on the page.
        figures: The most important numbers, shown under the verdict.
        hidden: What sections refer to but what is not shown itself, such as the images that they show parts of.
        reload_seconds: After how long a browser loads the page again; None for never.
    """
    style = "\n".join((resources.files(__package__) / "templates" / name).read_text("utf-8") for name in STYLES)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return fill(
        "page.html",
        title=title,
        verdict=verdict,
        sections=sections,
        hidden=hidden or "",
        figures=figures,
        reload_seconds=reload_seconds,
        style=Markup(style),  # noqa: S704 -- our own file
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'",
    ).encode()


def percent(share: float | None) -> str:
    """A fraction as a percentage with two decimals; a dash for None."""
    return "–" if share is None else f"{share:.2%}"


def percent_interval(ends: Sequence[float] | None) -> str:
    """Both ends of an interval of fractions as percentages; a dash for None."""
    return "–" if ends is None else f"{percent(ends[0])} to {percent(ends[1])}"


def probability(share: float) -> str:
    """A probability as a percentage that is 0 or 100 only if it rounds to that within a hundredth of a percent."""
    if 0 < share < 0.0005:
        return "<0.1%"
    if 0.9995 <= share < 1:
        return ">99.9%"
    return f"{share:.1%}"


def breakable(key: str) -> Markup:
    """A dotted key that may be broken into lines after its dots and underscores."""
    return Markup("<wbr>").join(re.split(r"(?<=[._])", printable(key)))


def short(name: str) -> str:
    """A name, cut if it is long."""
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"


def in_nats(loss: float) -> str:
    """A loss with two decimals."""
    return f"{loss:.2f}" if math.isfinite(loss) else "∞"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("cnn_trainer.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    environment.filters |= {
        "breakable": breakable,
        "percent": percent,
        "interval": percent_interval,
        "count": count,
        "probability": probability,
        "short": short,
        "loss": in_nats,
    }
    return environment
