"""The page as it is sent: it loads nothing from elsewhere, and nothing that its own security policy forbids."""

import base64
import io
import re

import numpy as np
import pytest
from harness import probabilities
from PIL import Image

PAGES = ["/", "/docs"]
FILES = {"/page/style.css": "text/css", "/page/page.js": "text/javascript", "/page/icon.svg": "image/svg+xml"}


@pytest.mark.parametrize("path", [*PAGES, *FILES])
def test_a_strict_policy_comes_with_every_part(client, path):
    answer = client.get(path)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'self'; ")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", FILES)
def test_the_parts_have_their_types(client, path):
    assert client.get(path).headers["content-type"].startswith(FILES[path])


@pytest.mark.parametrize("path", [*PAGES, *FILES])
def test_nothing_foreign_is_named(client, path):
    text = client.get(path).text.replace('xmlns="http://www.w3.org/2000/svg"', "").replace("http://HOST", "")
    assert re.findall(r"https?:|@import|src=\"//|url\(", text) == []


@pytest.mark.parametrize("path", PAGES)
def test_there_is_no_script_and_no_style_inside_the_page(client, path):
    text = client.get(path).text
    assert re.findall(r"<script(?![^>]*src=)|<style| style=| on[a-z]+=", text) == []


def test_the_page_names_model_data_and_accuracy(client):
    text = client.get("/").text
    for words in "tiny", "mnist, 60,000 images", "99.00% of the 10,000 images in the test split of mnist":
        assert words in text
    assert "$" not in text


def test_the_docs_name_every_path(client):
    text = client.get("/docs").text
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/v1/models/tiny:predict", "/v2/models/tiny/infer", "/v2/health/ready", "/metrics"} <= paths.keys()
    assert [path for path in paths if path not in text and "/versions/" not in path] == []


def test_a_picture_is_answered_with_probabilities_and_what_was_seen(client, batch):
    image = batch[0].copy()
    image[[0, -1]], image[:, [0, -1]] = 0, 0
    file = io.BytesIO()
    Image.fromarray(image[..., 0]).save(file, "PNG")
    answer = client.post("/page/picture", content=file.getvalue(), headers={"content-type": "image/png"}).json()
    np.testing.assert_allclose(answer["probabilities"], probabilities(image[None])[0], atol=1e-6)
    seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["seen"]))))
    np.testing.assert_array_equal(seen, image[..., 0])


@pytest.mark.parametrize(
    ("content", "kind", "status"), [(b"x", "image/png", 400), (b"", "image/png", 400), (b"x", "image/svg+xml", 415)]
)
def test_what_is_no_picture_is_refused(client, content, kind, status):
    answer = client.post("/page/picture", content=content, headers={"content-type": kind})
    assert answer.status_code == status
    assert answer.json().keys() == {"error"}


def test_a_missing_type_is_said_to_be_missing(client):
    answer = client.post("/page/picture", content=b"7")
    assert answer.status_code == 415
    assert "content-type: got none; expected image/" in answer.json()["error"]
