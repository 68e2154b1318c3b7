"""MNIST's digits as photographs and scans would show them, made by random transformations with a seed.

A digit becomes pen ink on a larger page, off centre and slightly tilted. The page has a colour, grain, specks and
perhaps ruled lines, and may lie on a desk. It is lit from one side, slightly out of focus, with sensor noise, and
stored as JPEG or PNG.
"""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

PAPERS = {
    "white": (246, 246, 244),
    "cream": (240, 229, 203),
    "grey": (178, 178, 176),
    "yellow note": (250, 232, 120),
    "blue note": (160, 205, 235),
    "board": (34, 58, 46),
    "slate": (44, 46, 50),
}
INKS = {
    "black": (28, 27, 30),
    "blue": (32, 48, 140),
    "red": (176, 30, 38),
    "green": (18, 96, 50),
    "pencil": (96, 96, 98),
    "chalk": (228, 228, 220),
}
DESKS = {"walnut": (84, 56, 38), "oak": (132, 98, 62), "black": (38, 38, 40)}


@dataclass(frozen=True)
class Kind:
    """The properties of a kind of picture; a value is chosen at random between the bounds of each pair."""

    papers: tuple[str, ...] = ("white", "cream")
    inks: tuple[str, ...] = ("black", "blue", "red", "green", "pencil")
    size: tuple[float, float] = (0.3, 0.7)  # the digit's size, as a share of the page's shorter side
    lost: tuple[float, float] = (0.1, 0.3)  # share of light that is missing at the dark end
    noise: tuple[float, float] = (4, 10)  # standard deviation, of 255
    blur: tuple[float, float] = (0.8, 2.0)  # pixels
    shaded: bool = False
    ruled: bool = False
    on_desk: bool = False
    form: str = "JPEG"


KINDS = {
    "scan": Kind(size=(0.25, 0.7), lost=(0.0, 0.05), noise=(2, 5), blur=(0.4, 1.0), form="PNG"),
    "photograph": Kind(
        papers=("white", "cream", "grey", "yellow note", "blue note"), lost=(0.2, 0.5), noise=(5, 14), blur=(0.8, 2.2)
    ),
    "shadow": Kind(noise=(5, 12), shaded=True),
    "small on a page": Kind(papers=("white", "cream", "grey"), size=(0.1, 0.2), blur=(0.6, 1.4)),
    "ruled paper": Kind(inks=("black", "blue"), size=(0.3, 0.6), blur=(0.8, 1.8), ruled=True),
    "blackboard": Kind(papers=("board", "slate"), inks=("chalk",), lost=(0.1, 0.4)),
    "note on a desk": Kind(papers=("white", "yellow note", "blue note"), on_desk=True),
}

STROKES = {  # pen strokes, in a paint program's picture of 28x28
    "1": [[(14, 5), (14, 23)]],
    "7": [[(8, 7), (19, 7), (13, 23)]],
    "4": [[(17, 23), (17, 5), (8, 16), (21, 16)]],
    "6": [[(16, 4), (11, 9), (9, 15), (9, 20), (12, 23), (17, 23), (19, 20), (19, 17), (16, 15), (11, 16)]],
    "2": [[(9, 8), (12, 5), (17, 6), (18, 10), (9, 22), (20, 22)]],
}


def drawn(name, side=28, pen=1, size=(28, 28), paper=255, ink=0, place=(0, 0)):
    """A digit of ``STROKES`` on a page of ``size`` (width, height), in a square of ``side`` pixels at ``place``."""
    image = Image.new("L", size, paper)
    for stroke in STROKES[name]:
        points = [(place[0] + x * side // 28, place[1] + y * side // 28) for x, y in stroke]
        ImageDraw.Draw(image).line(points, fill=ink, width=pen)
    return np.asarray(image)


def photograph(digit, kind, seed):
    """The bytes of a picture file, and its file name extension.

    Args:
        digit: uint8 (28, 28), light on dark.
        kind: one of ``KINDS``.
        seed: decides everything else.
    """
    asked = KINDS[kind]
    random = np.random.default_rng(seed)
    height, width = (int(side) for side in random.integers(420, 1000, 2))
    size = int(random.uniform(*asked.size) * min(height, width) * 28 / 20)
    cover = _cover(digit, size, random)
    page = _colored_page(PAPERS[random.choice(asked.papers)], height, width, random)
    if asked.ruled:
        _rule(page, random)
    _write(page, cover, np.array(INKS[random.choice(asked.inks)], np.float64), random)
    if asked.on_desk:
        page = _lay_on_desk(page, random)
    page *= _light(*page.shape[:2], random.uniform(*asked.lost), asked.shaded, random)[..., np.newaxis]
    sharp = Image.fromarray(page.clip(0, 255).astype(np.uint8))
    seen = np.asarray(sharp.filter(ImageFilter.GaussianBlur(random.uniform(*asked.blur))), np.float64)
    seen = seen + random.normal(0, random.uniform(*asked.noise), seen.shape)
    file = io.BytesIO()
    options = {"quality": int(random.integers(45, 90))} if asked.form == "JPEG" else {}
    Image.fromarray(seen.clip(0, 255).astype(np.uint8)).save(file, asked.form, **options)
    return file.getvalue(), {"JPEG": ".jpg", "PNG": ".png"}[asked.form]


def _cover(digit, size, random):
    """How much ink covers each point, 0 to 1: an enlarged digit with sharp edges and another line width."""
    large = Image.fromarray(digit).rotate(random.uniform(-8, 8), Image.Resampling.BICUBIC)
    smooth = np.asarray(large.resize((size, size), Image.Resampling.BICUBIC), np.float64) / 255
    edge = random.uniform(0.35, 0.6)
    cover = 1 / (1 + np.exp(-12 * (smooth - edge)))
    uneven = _grain(size, size, 12, random) * 0.15
    return (cover * (0.9 + uneven)).clip(0, 1)


def _grain(height, width, coarse, random):
    """Smooth noise with a standard deviation of about 1, ``coarse`` pixels wide."""
    small = random.normal(0, 1, (height // coarse + 2, width // coarse + 2)).astype(np.float32)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC), np.float64)


def _colored_page(color, height, width, random):
    page = np.ones((height, width, 1)) * np.array(color, np.float64)
    page += (_grain(height, width, 3, random) * 2 + _grain(height, width, 40, random) * 3)[..., np.newaxis]
    for _ in range(int(random.integers(0, 12))):  # specks of dirt and dust
        y, x, side = random.integers(0, height - 5), random.integers(0, width - 5), random.integers(1, 5)
        page[y : y + side, x : x + side] *= random.uniform(0.4, 0.9)
    return page


def _rule(page, random):
    """Faint lines across the page, as in an exercise book."""
    height = len(page)
    step = int(random.uniform(0.09, 0.16) * height)
    for y in range(int(random.integers(0, step)), height - 2, step):
        page[y : y + 2] = page[y : y + 2] * 0.55 + np.array((150, 180, 220)) * 0.45


def _write(page, cover, ink, random):
    """Put the whole digit somewhere on the page."""
    height, width, _ = page.shape
    rows, columns = (np.flatnonzero((cover > 0.3).any(axis=axis)) for axis in (1, 0))
    cover = cover[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    room = np.array([height, width]) - cover.shape
    margin = np.minimum(0.06 * min(height, width), room / 2)
    y, x = (int(random.uniform(low, high)) for low, high in zip(margin, room - margin, strict=True))
    under = page[y : y + cover.shape[0], x : x + cover.shape[1]]
    under += cover[..., np.newaxis] * (ink - under)


def _lay_on_desk(page, random):
    """The page, slightly rotated, on something dark that is visible on all sides."""
    sheet = Image.fromarray(page.clip(0, 255).astype(np.uint8))
    whole = Image.new("L", sheet.size, 255)
    angle = random.uniform(-7, 7)
    sheet, whole = (part.rotate(angle, Image.Resampling.BICUBIC, expand=True) for part in (sheet, whole))
    left, right, top, bottom = (int(share * min(sheet.size)) for share in random.uniform(0.03, 0.25, 4))
    height, width = sheet.height + top + bottom, sheet.width + left + right
    desk = np.ones((height, width, 1)) * np.array(DESKS[random.choice(list(DESKS))], np.float64)
    desk += _grain(height, width, 6, random)[..., np.newaxis] * 5
    under = Image.fromarray(desk.clip(0, 255).astype(np.uint8))
    under.paste(sheet, (left, top), whole)
    return np.array(under, np.float64)


def _light(height, width, loss, shaded, random):
    """The share of light that arrives at each point: less to one side and to the corners, and in a soft shadow."""
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    angle = random.uniform(0, 2 * np.pi)
    slope = (np.cos(angle) * x + np.sin(angle) * y) / np.sqrt(2)
    light = 1 - loss * (slope + 1) / 2 - 0.15 * loss * (x**2 + y**2)
    if shaded:
        angle = random.uniform(0, 2 * np.pi)
        across = np.cos(angle) * x + np.sin(angle) * y - random.uniform(-0.4, 0.6)
        light = light * (1 - random.uniform(0.25, 0.5) / (1 + np.exp(-across / random.uniform(0.04, 0.15))))
    return light
