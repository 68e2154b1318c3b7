"""Digits of MNIST as people have them: photographed and scanned, made by transformation from a seed.

A digit becomes ink of some pen on a larger page, off centre and a little askew; the page has a colour, a grain, specks,
perhaps ruled lines; it is lit from one side, seen through a lens that is not quite sharp, by a sensor with noise, and
kept as JPEG or PNG.
"""

import io

import numpy as np
from PIL import Image, ImageFilter

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
_DARK_INKS = ("black", "blue", "red", "green", "pencil")

# What a picture is like: papers, inks, the digit's height as a share of the page's shorter side, how much light is lost
# at the dark end, whether there is a shadow, ruled lines, noise (standard deviation), blur (radius in pixels), format.
KINDS = {
    "scan": (("white", "cream"), _DARK_INKS, (0.25, 0.7), (0.0, 0.05), False, False, (2, 5), (0.4, 1.0), "PNG"),
    "photograph": (
        ("white", "cream", "grey", "yellow note", "blue note"),
        _DARK_INKS,
        (0.3, 0.7),
        (0.2, 0.5),
        False,
        False,
        (5, 14),
        (0.8, 2.2),
        "JPEG",
    ),
    "shadow": (("white", "cream"), _DARK_INKS, (0.3, 0.7), (0.1, 0.3), True, False, (5, 12), (0.8, 2.0), "JPEG"),
    "small on a page": (
        ("white", "cream", "grey"),
        _DARK_INKS,
        (0.1, 0.2),
        (0.1, 0.3),
        False,
        False,
        (4, 10),
        (0.6, 1.4),
        "JPEG",
    ),
    "ruled paper": (
        ("white", "cream"),
        ("black", "blue"),
        (0.3, 0.6),
        (0.1, 0.3),
        False,
        True,
        (4, 10),
        (0.8, 1.8),
        "JPEG",
    ),
    "blackboard": (("board", "slate"), ("chalk",), (0.3, 0.7), (0.1, 0.4), False, False, (4, 10), (0.8, 2.0), "JPEG"),
}


def photograph(digit, kind, seed):
    """The bytes of a picture file, and the name ending that goes with them.

    Args:
        digit: uint8 (28, 28), light on dark.
        kind: one of ``KINDS``.
        seed: decides over everything else.
    """
    papers, inks, sizes, losses, shaded, ruled, noises, blurs, form = KINDS[kind]
    random = np.random.default_rng(seed)
    height, width = (int(side) for side in random.integers(420, 1000, 2))
    size = int(random.uniform(*sizes) * min(height, width) * 28 / 20)
    cover = _cover(digit, size, random)
    page = _colored_page(PAPERS[random.choice(papers)], height, width, random)
    if ruled:
        _rule(page, random)
    _write(page, cover, np.array(INKS[random.choice(inks)], np.float64), random)
    page *= _light(height, width, random.uniform(*losses), shaded, random)[..., np.newaxis]
    sharp = Image.fromarray(page.clip(0, 255).astype(np.uint8))
    seen = np.asarray(sharp.filter(ImageFilter.GaussianBlur(random.uniform(*blurs))), np.float64)
    seen = seen + random.normal(0, random.uniform(*noises), seen.shape)
    file = io.BytesIO()
    options = {"quality": int(random.integers(45, 90))} if form == "JPEG" else {}
    Image.fromarray(seen.clip(0, 255).astype(np.uint8)).save(file, form, **options)
    return file.getvalue(), {"JPEG": ".jpg", "PNG": ".png"}[form]


def _cover(digit, size, random):
    """How much ink covers each point, 0 to 1: the digit enlarged, its edges sharp again, its line of another width."""
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
    """Put the digit somewhere on the page, whole."""
    height, width, _ = page.shape
    rows, columns = (np.flatnonzero((cover > 0.3).any(axis=axis)) for axis in (1, 0))
    cover = cover[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    room = np.array([height, width]) - cover.shape
    margin = np.minimum(0.06 * min(height, width), room / 2)
    y, x = (int(random.uniform(low, high)) for low, high in zip(margin, room - margin, strict=True))
    under = page[y : y + cover.shape[0], x : x + cover.shape[1]]
    under += cover[..., np.newaxis] * (ink - under)


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
