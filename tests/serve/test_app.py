"""The application without a network: what happens on a defect, and other kinds of models."""

import asyncio
import base64
import io
import json
import shutil

import httpx
import numpy as np
import pytest
from harness import probabilities, write_export
from PIL import Image

from cnn_trainer.serve.app import build_app
from cnn_trainer.serve.limits import Limits, _hasten
from cnn_trainer.serve.model import open_export
from cnn_trainer.serve.traces import Traces


def serve(export, compute=None):
    """A function that sends a request to an application that serves ``export``, and the lines of its log."""
    served, lines = open_export(export), []
    if compute is not None:
        object.__setattr__(served, "compute", compute)
    app, _ = build_app(
        served, Traces(served.manifest, "onnx", lambda *new: lines.extend(new)), Limits(2**20, 64, None, [])
    )

    def ask(method, path, **more):
        async def send():
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
                return await client.request(method, path, **more)

        return asyncio.run(send())

    return ask, lines


def test_a_defect_is_500_without_a_traceback_which_the_log_has(tiny_export):
    def fail(_):
        raise ZeroDivisionError("secret")

    ask, lines = serve(tiny_export, fail)
    for path, body in (
        ("/v1/models/tiny:predict", {"json": {"instances": np.zeros((1, 28, 28, 1), int).tolist()}}),
        ("/v1/models/tiny:predict", {"json": {"instances": np.zeros((20, 28, 28, 1), int).tolist()}}),
    ):
        lines.clear()
        answer = ask("POST", path, **body)
        assert answer.status_code == 500
        assert answer.json() == {"error": "a defect of the server; its log says more"}
        failure, access = map(json.loads, "\n".join(lines).splitlines())
        assert "ZeroDivisionError: secret" in "".join(failure["traceback"])
        assert access["status"] == 500


def test_a_defect_behind_the_routing_is_the_same(tiny_export, monkeypatch):
    ask, lines = serve(tiny_export)

    def fail(_):
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("cnn_trainer.serve.app.generate_latest", fail)
    answer = ask("GET", "/metrics")
    assert (answer.status_code, "secret" in answer.text) == (500, False)
    assert answer.json().keys() == {"error"}
    assert any("ZeroDivisionError: secret" in line for line in lines)


def test_an_export_in_litert_alone_is_served_in_it(exported, strokes, tmp_path):
    folder, _ = exported
    body = {"instances": strokes["x_test"][:20, ..., None].tolist()}
    path = "/v1/models/small:predict"
    expected = serve(folder)[0]("POST", path, json=body).json()["predictions"]
    manifest = json.loads((folder / "manifest.json").read_text())
    models = {"litert": manifest["models"]["litert"]}
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "models": models}))
    shutil.copy(folder / "model.tflite", tmp_path)
    ask, _ = serve(tmp_path)
    assert ask("GET", "/v2/models/small").json()["platform"] == "litert_tflite"
    for instances in body["instances"], body["instances"][:1]:
        found = ask("POST", path, json={"instances": instances}).json()["predictions"]
        np.testing.assert_allclose(found, expected[: len(instances)], atol=1e-5)


def test_a_path_with_a_slash_at_its_end_is_not_redirected(tiny_export):
    assert serve(tiny_export)[0]("GET", "/v2/").status_code == 404


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    """An export of a model of colour pictures."""
    return write_export(tmp_path_factory.mktemp("pets") / "export", (16, 12, 3), ["cat", "dog & <b>"], "folder")


def test_colour_pictures_are_resized_as_in_training(pets):
    ask, _ = serve(pets)
    pixels = np.random.default_rng(4).integers(0, 256, (40, 30, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    answer = ask("POST", "/page/picture", content=file.getvalue(), headers={"content-type": "image/png"})
    small = np.asarray(Image.fromarray(pixels).resize((12, 16), Image.Resampling.LANCZOS))[None]
    np.testing.assert_allclose(answer.json()["probabilities"], probabilities(small, 2)[0], atol=1e-6)


def test_the_page_of_such_a_model_offers_pictures_and_no_drawing(pets):
    page = serve(pets)[0]("GET", "/").text
    assert 'data-draws="false"' in page
    assert "Drop a picture here" in page
    assert "<b>" not in page
    assert "dog &amp; &lt;b&gt;" in page


def test_pixels_of_such_a_model_are_read_both_ways(pets):
    ask, _ = serve(pets)
    images = np.random.default_rng(5).integers(0, 256, (2, 16, 12, 3), np.uint8)
    for indent in None, 1:
        body = json.dumps({"instances": images.tolist()}, indent=indent)
        answer = ask("POST", "/v1/models/tiny:predict", content=body)
        np.testing.assert_allclose(answer.json()["predictions"], probabilities(images, 2), atol=1e-6)


def test_the_oldest_body_may_end_in_the_same_moment_as_it_is_to_make_way():
    async def both():
        timeout = asyncio.timeout(0)
        try:
            async with timeout:
                try:
                    await asyncio.sleep(1)
                finally:
                    _hasten(timeout, 0)
        except TimeoutError:
            return True

    assert asyncio.run(both())


def test_a_colour_picture_counts_by_its_pixels(pets, monkeypatch):
    monkeypatch.setattr("cnn_trainer.serve.images.MAX_PIXELS", 2 * 16 * 12 + 2 * 40 * 30)
    file = io.BytesIO()
    Image.new("RGB", (40, 30)).save(file, "PNG")
    content = {"b64": base64.b64encode(file.getvalue()).decode()}
    ask, _ = serve(pets)
    assert ask("POST", "/v1/models/tiny:predict", json={"instances": [content] * 2}).status_code == 200
    answer = ask("POST", "/v1/models/tiny:predict", json={"instances": [content] * 3})
    assert "all pictures of a request together" in answer.json()["error"]
