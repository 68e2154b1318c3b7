"""The page of a run in Chromium, with scripts switched off: what it loads, shows and opens, and what axe says."""

import io

import browser
import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.skipif(not browser.CHROMIUM, reason="no Chromium is installed")

NARROW = {**browser.PHONE, "viewport": {"width": 360, "height": 740}}
KINDS = {"desktop": browser.DESKTOP, "phone": NARROW}


@pytest.fixture(scope="module")
def chromium():
    with browser.started() as chromium:
        yield chromium


@pytest.fixture
def page(chromium, reported):
    """The page without scripts; at the end it is checked that it has asked for nothing and broken no policy."""
    with browser.opened(chromium, reported.file.as_uri(), **browser.DESKTOP, java_script_enabled=False) as page:
        yield page


def test_it_is_complete_without_scripts_and_asks_for_nothing(chromium, reported):
    asked = []
    context = chromium.new_context(**browser.DESKTOP, java_script_enabled=False)
    page = context.new_page()
    page.on("request", lambda request: asked.append(request.url[:50]))
    page.goto(reported.file.as_uri())
    sections = reported.page.all("section")
    assert len(sections) == 8
    for section in sections:
        assert page.locator(f"#{section.attrs['aria-labelledby']}").is_visible()
    assert page.locator("#worst ~ ul svg").first.is_visible()
    context.close()
    assert asked[0] == reported.file.as_uri()[:50]
    assert all(url.startswith("data:image/png;base64,") for url in asked[1:])


def test_a_cell_is_opened_and_closed_by_mouse(page):
    button = page.locator("td.wrong button").first
    box = page.locator(f"#{button.get_attribute('popovertarget')}")
    assert not box.is_visible()
    button.click()
    assert box.is_visible()
    assert box.locator("li svg").first.is_visible()
    box.locator("button").click()
    assert not box.is_visible()


def test_a_cell_is_opened_and_closed_by_keyboard(page):
    button = page.locator("td.wrong button").first
    box = page.locator(f"#{button.get_attribute('popovertarget')}")
    button.focus()
    page.keyboard.press("Enter")
    assert box.is_visible()
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert not box.is_visible(), "the first stop in the box is the button that closes it"
    page.keyboard.press("Enter")
    assert box.is_visible(), "the focus is back on the cell"
    page.keyboard.press("Escape")
    assert not box.is_visible()


def test_the_image_on_the_screen_is_that_of_the_example(page, reported):
    tile = reported.page.one("section", aria_labelledby="worst").all("li")[3]
    index = int(tile.one("b").text[1:])
    shot = Image.open(io.BytesIO(page.locator("#worst ~ ul li svg").nth(3).screenshot())).convert("L")
    seen = np.asarray(shot.resize((28, 28), Image.Resampling.BOX)).astype(float)
    differences = np.abs(reported.images.astype(float) - seen).mean(axis=(1, 2))
    assert differences.argmin() == index
    assert differences[index] < 25  # 28 pixels are drawn as 68


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_axe_finds_nothing(chromium, reported, kind, color_scheme):
    from axe_playwright_python.sync_playwright import Axe

    # axe is a script, so that the page's policy has to be switched off for it.
    options = {**KINDS[kind], "color_scheme": color_scheme, "reduced_motion": "reduce", "bypass_csp": True}
    with browser.opened(chromium, reported.file.as_uri(), **options) as page:
        for details in page.locator("details").all():
            details.locator("summary").click()
        assert Axe().run(page).response["violations"] == []
        page.locator("td.wrong button").first.click()
        assert Axe().run(page).response["violations"] == []


def test_nothing_is_wider_than_a_phone(chromium, reported):
    with browser.opened(chromium, reported.file.as_uri(), **NARROW, bypass_csp=True) as page:
        for details in page.locator("details").all():
            details.locator("summary").click()
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        page.locator("td.wrong button").first.click()
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        box = page.locator("[popover]:popover-open").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360


def test_printed_it_has_the_images_of_the_wrong_cells(chromium, reported):
    with browser.opened(chromium, reported.file.as_uri(), **browser.DESKTOP, bypass_csp=True) as page:
        page.emulate_media(media="print")
        assert not page.locator("nav").is_visible()
        assert page.locator("[popover].wrong").first.is_visible()
        assert not page.locator("[popover].right").first.is_visible()


def test_dark_is_dark(chromium, reported):
    for color_scheme, bright in ("light", True), ("dark", False):
        options = {**browser.DESKTOP, "color_scheme": color_scheme, "bypass_csp": True}
        with browser.opened(chromium, reported.file.as_uri(), **options) as page:
            colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (int(colour.split("(")[1].split(",")[0]) > 128) == bright
