"""Chromium on the page: opens it and draws digits as a person would."""

import shutil
from contextlib import contextmanager

import numpy as np
from playwright.sync_api import sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

DESKTOP = {"viewport": {"width": 1120, "height": 860}}
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}


@contextmanager
def started():
    """A browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_OPTIONS)
        yield browser
        browser.close()


@contextmanager
def opened(browser, url, expected="nothing", **kind):
    """The page at ``url``. At the end, it checks that no script failed and that no other site was asked for anything.

    An error whose message contains ``expected`` does not count.
    """
    context = browser.new_context(**kind)
    page = context.new_page()
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: None if request.url.startswith((url, "data:")) else faults.append(request.url))
    page.goto(url)
    yield page
    context.close()
    assert [fault for fault in faults if expected not in fault] == []


def lines_of(image):
    """The horizontal lines with which a pen fills the bright pixels of a uint8 image, as shares of its side.

    The pen is two pixels wide, so every other row is enough.
    """
    side = len(image)
    for row in range(0, side, 2):
        pixels = image.reshape(side, side)[row : row + 2].max(axis=0) >= 128
        steps = np.flatnonzero(np.diff(np.concatenate([[0], pixels.astype(int), [0]])))
        for start, end in steps.reshape(-1, 2):
            yield ((start + 0.5) / side, (row + 1) / side), ((end - 0.5) / side, (row + 1) / side)


def draw(page, lines):
    """Draw lines with the mouse."""
    box = page.locator("#canvas").bounding_box()
    for start, end in lines:
        for place, act in (start, page.mouse.down), (end, page.mouse.up):
            page.mouse.move(box["x"] + place[0] * box["width"], box["y"] + place[1] * box["height"])
            act()


def draw_by_touch(page, lines):
    """Draw lines with a finger."""
    box = page.locator("#canvas").bounding_box()
    session = page.context.new_cdp_session(page)
    for line in lines:
        for kind, place in zip(("touchStart", "touchMove"), line, strict=True):
            point = {"x": box["x"] + place[0] * box["width"], "y": box["y"] + place[1] * box["height"]}
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [point]})
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    session.detach()


def read(page):
    """What the page says once it has answered the whole drawing."""
    page.locator("#bars[aria-busy=false]").wait_for()
    return page.locator("#best").inner_text()
