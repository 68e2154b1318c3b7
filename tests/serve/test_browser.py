"""The page in Chromium, on a trained run: drawn on by mouse, finger and keyboard, and checked by axe.

The full form, with ``CNN_TRAIN_SOAK=1``, draws 50 digits; the quick form 10.
"""

import base64
import io
import os

import browser
import httpx
import numpy as np
import pytest
from harness import Server
from PIL import Image

from cnn_trainer import data
from cnn_trainer.config.schema.data import Mnist5k

pytestmark = pytest.mark.skipif(not browser.CHROMIUM, reason="no Chromium is installed")

COUNT = 50 if os.environ.get("CNN_TRAIN_SOAK") else 10
CONFIG = """\
name: digits
data: {source: mnist-5k}
model: {builder: cnn}
training: {epochs: 3}
"""


@pytest.fixture(scope="module")
def url(cnn_train, tmp_path_factory):
    """The page of a server of a run that was trained and exported here."""
    folder = tmp_path_factory.mktemp("browser")
    (folder / "digits.yaml").write_text(CONFIG)
    trained = cnn_train("train", "digits.yaml", "--json", cwd=folder)
    assert trained.code == 0, trained.err
    answer = cnn_train("export", trained.run, "--format", "onnx", cwd=folder)
    assert answer.code == 0, answer.err
    with Server(folder / trained.run, folder / "log") as server:
        yield f"{server.url}/"


@pytest.fixture(scope="module")
def chromium():
    with browser.started() as chromium:
        yield chromium


@pytest.fixture
def page(chromium, url):
    with browser.opened(chromium, url, **browser.DESKTOP) as page:
        yield page


@pytest.fixture(scope="module")
def digits():
    """Images of the test split, and their labels, in the same order each time."""
    split = data.load_split(Mnist5k(source="mnist-5k"), 1, "test")
    chosen = np.random.default_rng(9).permutation(len(split.labels))[:COUNT]
    return list(zip(split.images[chosen], split.labels[chosen].tolist(), strict=True))


ONE = [((0.5, 0.2), (0.5, 0.8))]
SEVEN = [((0.3, 0.25), (0.7, 0.25)), ((0.7, 0.25), (0.45, 0.8))]


def test_digits_that_are_drawn_with_the_mouse_are_read(page, digits):
    right = 0
    for image, label in digits:
        browser.draw(page, browser.lines_of(image))
        right += browser.read(page) == str(label)
        page.locator("#clear").click()
    assert right >= 0.9 * COUNT


def test_the_page_shows_what_the_server_answers(page, url, digits):
    image, _ = digits[0]
    file = io.BytesIO()
    Image.fromarray(image[..., 0]).save(file, "PNG")
    answer = httpx.post(f"{url}page/picture", content=file.getvalue(), headers={"content-type": "image/png"}).json()
    page.locator("#file").set_input_files({"name": "digit.png", "mimeType": "image/png", "buffer": file.getvalue()})
    best = int(np.argmax(answer["probabilities"]))
    page.locator("#best", has_text=str(best)).wait_for()
    shown = page.locator("#bars .value").all_inner_texts()
    for text, probability in zip(shown, answer["probabilities"], strict=True):
        assert abs(float(text.strip(">%")) / 100 - probability) <= 0.0011
    assert page.locator("#bars .best .label").inner_text() == str(best)
    assert page.locator("#seen").get_attribute("src") == f"data:image/png;base64,{answer['seen']}"


def test_the_bars_move_while_the_pen_is_still_down(page):
    box = page.locator("#canvas").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 0.2 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 0.8 * box["height"], steps=10)
    assert browser.read(page) == "1"
    page.mouse.up()
    assert browser.read(page) == "1"


def test_undo_takes_back_a_stroke_and_a_clearing(page):
    browser.draw(page, ONE)
    assert browser.read(page) == "1"
    page.locator("#clear").click()
    assert browser.read(page) == ""
    assert page.locator("#sure").inner_text() == "Nothing to read yet"
    page.locator("#undo").click()
    assert browser.read(page) == "1"
    page.keyboard.press("Control+z")
    assert browser.read(page) == ""
    assert page.locator("#undo").is_disabled()


def test_a_digit_is_drawn_with_the_keyboard_alone(page):
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "canvas"
    page.keyboard.press("Space")
    for _ in range(14):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    page.keyboard.press("ArrowRight")
    assert browser.read(page) == "1"
    page.keyboard.press("Delete")
    assert browser.read(page) == ""


def test_a_screen_reader_hears_the_result_once_the_drawing_rests(page):
    browser.draw(page, SEVEN)
    browser.read(page)
    spoken = page.locator("#spoken[role=status]", has_text="Reads 7")
    spoken.wait_for(state="attached")
    assert "; then " in spoken.inner_text()


def test_a_finger_draws_on_a_phone_and_nothing_is_wider_than_the_screen(chromium, url):
    with browser.opened(chromium, url, **browser.PHONE) as page:
        browser.draw_by_touch(page, SEVEN)
        assert browser.read(page) == "7"
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert page.evaluate("scrollY") == 0, "drawing must not scroll the page"


@pytest.mark.parametrize("kind", [browser.DESKTOP, browser.PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_axe_finds_nothing(chromium, url, kind, color_scheme):
    from axe_playwright_python.sync_playwright import Axe

    with browser.opened(chromium, url, **kind, color_scheme=color_scheme, reduced_motion="reduce") as page:
        assert Axe().run(page).response["violations"] == []
        browser.draw(page, ONE)
        browser.read(page)
        assert Axe().run(page).response["violations"] == []
        page.goto(f"{url}docs")
        assert Axe().run(page).response["violations"] == []


def test_a_picture_that_is_dropped_is_read(page, digits):
    image, label = digits[0]
    paper = Image.fromarray(255 - image[..., 0]).resize((1400, 1400), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    paper.save(file, "BMP")  # of 2 MB, so the page makes it smaller
    transfer = page.evaluate_handle(
        "(text) => { const data = new DataTransfer(), bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));"
        "data.items.add(new File([bytes], 'digit.bmp', {type: 'image/bmp'})); return data; }",
        base64.b64encode(file.getvalue()).decode(),
    )
    page.dispatch_event(".paper", "drop", {"dataTransfer": transfer})
    page.locator("#best", has_text=str(label)).wait_for()
    browser.draw(page, ONE)
    assert browser.read(page) == "1", "drawing begins on new paper"
    page.locator("#undo").click()
    assert browser.read(page) == str(label)


def test_what_is_no_picture_is_said_to_be_none(page):
    page.locator("#file").set_input_files({"name": "a.txt", "mimeType": "text/plain", "buffer": b"hello"})
    page.locator("#problem", has_text="a.txt is not a picture").wait_for()


def test_what_the_server_refuses_is_said(chromium, url):
    file = io.BytesIO()
    Image.new("L", (60, 60), 200).save(file, "PNG")
    with browser.opened(chromium, url, expected="status of 400", **browser.DESKTOP) as page:
        page.locator("#file").set_input_files({"name": "blank.png", "mimeType": "image/png", "buffer": file.getvalue()})
        page.locator("#problem", has_text="nothing stands out").wait_for()


def test_a_server_that_is_gone_is_said_to_be(chromium, url):
    with browser.opened(chromium, url, expected="ERR_FAILED", **browser.DESKTOP) as page:
        page.route("**/page/drawing", lambda route: route.abort())
        browser.draw(page, ONE)
        page.locator("#problem", has_text="does not answer").wait_for()
