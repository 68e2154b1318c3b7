"""A client that is written for TensorFlow Serving's REST interface works unchanged.

Requests and answers are those of https://www.tensorflow.org/tfx/serving/api_rest.
"""

import base64
import io
import json
import subprocess
import urllib.request

import httpx
import numpy as np
import pytest
from harness import probabilities
from PIL import Image
from python_multipart.multipart import File

from cnn_trainer.serve import images

MODEL = "/v1/models/tiny"


def picture_file(image, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(image[..., 0]).save(file, kind)
    return file.getvalue()


def b64(content):
    return {"b64": base64.b64encode(content).decode()}


@pytest.mark.parametrize("path", [MODEL, f"{MODEL}/versions/1"])
def test_the_status_is_what_tensorflow_serving_says_of_a_loaded_model(client, path):
    fine = {"error_code": "OK", "error_message": ""}
    expected = {"model_version_status": [{"version": "1", "state": "AVAILABLE", "status": fine}]}
    assert client.get(path).json() == expected


def test_the_metadata_has_the_signature(client):
    answer = client.get(f"{MODEL}/metadata").json()
    assert answer["model_spec"] == {"name": "tiny", "signature_name": "", "version": "1"}
    signature = answer["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["method_name"] == "tensorflow/serving/predict"
    (image,) = signature["inputs"].values()
    assert image["dtype"] == "DT_UINT8"
    assert [size["size"] for size in image["tensor_shape"]["dim"]] == ["-1", "28", "28", "1"]
    assert signature["outputs"].keys() == {"probabilities"}
    assert signature["outputs"]["probabilities"]["dtype"] == "DT_FLOAT"


@pytest.mark.parametrize("path", [f"{MODEL}:predict", f"{MODEL}/versions/1:predict"])
@pytest.mark.parametrize("named", [False, True])
def test_the_row_format_gives_predictions(client, batch, path, named):
    images = batch.tolist()
    instances = [{"image": image} for image in images] if named else images
    answer = client.post(path, json={"signature_name": "serving_default", "instances": instances})
    assert answer.status_code == 200, answer.text
    assert answer.json().keys() == {"predictions"}
    np.testing.assert_allclose(answer.json()["predictions"], probabilities(batch), atol=1e-6)


@pytest.mark.parametrize("named", [False, True])
def test_the_column_format_gives_outputs(client, batch, named):
    images = batch.tolist()
    answer = client.post(f"{MODEL}:predict", json={"inputs": {"image": images} if named else images})
    assert answer.json().keys() == {"outputs"}
    np.testing.assert_allclose(answer.json()["outputs"], probabilities(batch), atol=1e-6)


def test_what_curl_sends_as_in_the_documentation_is_read(server, batch):
    """``curl -d`` declares its body as a form, and so does urllib."""
    body = json.dumps({"instances": batch.tolist()}, indent=1).encode()
    with urllib.request.urlopen(f"{server.url}{MODEL}:predict", body) as answer:  # noqa: S310 -- it is of http
        assert answer.headers["content-type"] == "application/json"
        np.testing.assert_allclose(json.load(answer)["predictions"], probabilities(batch), atol=1e-6)


def test_a_large_batch_is_answered_image_by_image(client):
    images = np.random.default_rng(2).integers(0, 10, (300, 28, 28, 1), np.uint8)
    body = json.dumps({"instances": images.tolist()}, separators=(",", ":"))
    answer = client.post(f"{MODEL}:predict", content=body, headers={"content-type": "application/json"})
    np.testing.assert_allclose(answer.json()["predictions"], probabilities(images), atol=1e-6)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "TIFF"])
def test_a_picture_in_base64_stands_for_its_pixels(client, batch, kind):
    framed = batch.copy()
    framed[:, [0, -1]], framed[:, :, [0, -1]] = 0, 0  # like MNIST's images; others are made like them
    items = [b64(picture_file(image, kind)) for image in framed]
    expected = probabilities(framed)
    for body in {"instances": items}, {"instances": [{"image": item} for item in items]}, {"inputs": {"image": items}}:
        answer = client.post(f"{MODEL}:predict", json=body)
        assert answer.status_code == 200, answer.text
        np.testing.assert_allclose(next(iter(answer.json().values())), expected, atol=1e-6)


def test_a_picture_as_people_have_it_is_made_like_mnist(client):
    paper = np.full((200, 150), 230, np.uint8)
    paper[40:160, 70:85] = 30
    answer = client.post(f"{MODEL}:predict", json={"instances": [b64(picture_file(paper[..., None], "JPEG"))]})
    assert answer.status_code == 200, answer.text
    from cnn_trainer.pictures import like_mnist

    prepared = like_mnist.like_mnist(like_mnist.decode(picture_file(paper[..., None], "JPEG"), "", "grey"))
    np.testing.assert_allclose(answer.json()["predictions"], probabilities(prepared[None, ..., None]), atol=1e-6)


def framed(batch):
    """The images with a dark frame, like MNIST's; without it they would be changed."""
    dark = batch.copy()
    dark[:, [0, -1]], dark[:, :, [0, -1]] = 0, 0
    return dark


def as_data_url(text):
    return f"data:image/png;base64,{text}"


def in_lines(text):
    return "\r\n".join(text[at : at + 76] for at in range(0, len(text), 76)) + "\n"


def for_urls(text):
    return text.translate(str.maketrans("+/", "-_")).rstrip("=")


@pytest.mark.parametrize(
    "written", [as_data_url, in_lines, for_urls, lambda text: as_data_url(for_urls(in_lines(text)))]
)
def test_base64_is_read_as_it_is_commonly_written(client, batch, written):
    dark = framed(batch)
    texts = [b64(picture_file(image))["b64"] for image in dark]
    assert any(set(text) & set("+/") for text in texts)
    answer = client.post(f"{MODEL}:predict", json={"instances": [{"b64": written(text)} for text in texts]})
    assert answer.status_code == 200, answer.text
    np.testing.assert_allclose(answer.json()["predictions"], probabilities(dark), atol=1e-6)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"])
def test_the_body_may_be_the_file_of_a_picture(client, kind):
    image = np.zeros((1, 28, 28, 1), np.uint8)
    image[:, 4:24, 12:16] = 255  # as large as a digit of MNIST, so it is not changed
    answer = client.post(
        f"{MODEL}:predict", content=picture_file(image[0], kind), headers={"content-type": f"image/{kind.lower()}"}
    )
    assert answer.status_code == 200, answer.text
    np.testing.assert_allclose(answer.json()["predictions"], probabilities(image), atol=0.02)


def test_a_form_with_files_is_read_as_curl_sends_it(server, batch, tmp_path):
    dark = framed(batch)
    words = ["curl", "--silent", "--show-error"]
    for number, image in enumerate(dark):
        (tmp_path / f"{number}.png").write_bytes(picture_file(image))
        words += ["-F", f"file=@{tmp_path / f'{number}.png'}"]
    done = subprocess.run([*words, f"{server.url}{MODEL}:predict"], capture_output=True, text=True, check=True)
    np.testing.assert_allclose(json.loads(done.stdout)["predictions"], probabilities(dark), atol=1e-6)


def test_a_large_file_in_a_form_stays_in_memory(monkeypatch):
    """The serving image has no folder that can be written to."""

    def fail(_):
        raise AssertionError("a file was written")

    monkeypatch.setattr(File, "flush_to_disk", fail)
    content = np.random.default_rng(6).bytes(5_000_000)
    request = httpx.Request("POST", "http://localhost", files={"file": content})
    assert images.read_form(request.read(), request.headers["content-type"]) == ([content], ["form[0]"])


FORM = "multipart/form-data; boundary=x"
PART = b'--x\r\nContent-Disposition: form-data; name="file"; filename="7.png"\r\n\r\n'
FORMS = {
    "no boundary": ("multipart/form-data", b"", "needs a boundary"),
    "nothing": (FORM, b"", "the form has no complete file"),
    "no file": (
        FORM,
        b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n7\r\n--x--\r\n',
        "the form has no complete file",
    ),
    "another boundary": (FORM, b"--y\r\n\r\n\r\n--y--\r\n", "not valid multipart/form-data"),
    "no end": (FORM, PART + b"7", "the form has no complete file"),
    "junk in a header": (FORM, PART.replace(b"\r\n\r\n", b"\r\n\r7"), "not valid multipart/form-data"),
    "no picture": (FORM, PART + b"7\r\n--x--\r\n", "form[0]: is not a PNG, JPEG, WebP, TIFF, GIF or BMP"),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_wrong_form_is_refused(client, name):
    kind, content, message = FORMS[name]
    answer = client.post(f"{MODEL}:predict", content=content, headers={"content-type": kind})
    assert answer.status_code == 400
    assert message in answer.json()["error"]
    assert "b'" not in answer.json()["error"]


def test_the_files_of_a_form_are_counted_before_any_is_decoded(client):
    content = (PART + b"7\r\n") * 1025 + b"--x--\r\n"
    answer = client.post(f"{MODEL}:predict", content=content, headers={"content-type": FORM})
    assert answer.json() == {"error": "form: 1025 images; send 1 to 1024 in a request"}


PIXEL = [[[0]] * 28] * 28
BAD = {
    "no key": ({}, "the body must have one of the keys instances and inputs"),
    "both keys": ({"instances": [PIXEL], "inputs": [PIXEL]}, "one of the keys"),
    "a list": ([PIXEL], "must be a JSON object"),
    "an unknown signature": ({"signature_name": "train", "instances": [PIXEL]}, "serving_default"),
    "no image": ({"instances": []}, "instances: 0 images"),
    "a number": ({"instances": 3}, "expected a list of images"),
    "an image without its list": ({"instances": PIXEL}, "shape [28, 28, 1]"),
    "no channel": ({"instances": [[[0] * 28] * 28]}, "shape [28, 28, 1]"),
    "a row too few": ({"instances": [PIXEL[1:]]}, "shape [28, 28, 1]"),
    "a ragged row": ({"instances": [[[[0]] * 27, [[0]] * 29, *PIXEL[2:]]]}, "shape [28, 28, 1]"),
    "a text for a row": ({"instances": [["0" * 28, *PIXEL[1:]]]}, "shape [28, 28, 1]"),
    "256": ({"instances": [[[[256]] * 28] * 28]}, "from 0 to 255, got 256"),
    "-1": ({"instances": [[[[-1]] * 28] * 28]}, "got -1"),
    "a fraction": ({"instances": [[[[0.5]] * 28] * 28]}, "got 0.5"),
    "a boolean": ({"instances": [[[[True]] * 28] * 28]}, "got true"),
    "null": ({"instances": [[[[None]] * 28] * 28]}, "got null"),
    "a text": ({"instances": [[[["0"]] * 28] * 28]}, 'got "0"'),
    "another input": ({"inputs": {"images": [PIXEL]}}, "the one key image"),
    "no base64": ({"instances": [{"b64": "%"}]}, "instances[0]: expected a picture file in base64"),
    "no picture": ({"instances": [b64(b"picture")]}, "instances[0]: is not a PNG, JPEG, WebP, TIFF, GIF or BMP"),
    "a blank picture": ({"instances": [b64(picture_file(np.zeros((50, 50, 1), np.uint8)))]}, "nothing stands out"),
    "pictures and pixels": ({"instances": [b64(b""), PIXEL]}, "instances[1]: expected a picture"),
    "too many": ({"instances": [{"b64": ""}] * 1025}, "1025 images; send 1 to 1024"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_body_is_refused_with_its_place(client, name):
    body, message = BAD[name]
    answer = client.post(f"{MODEL}:predict", json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/json")
    assert answer.json().keys() == {"error"}
    assert message in answer.json()["error"]


def test_pictures_with_more_pixels_than_a_request_may_have_are_refused_unread(client):
    file = io.BytesIO()
    picture = Image.new("L", (4000, 4000))
    picture.paste(255, (1500, 500, 2000, 3500))
    picture.save(file, "PNG")
    assert len(file.getvalue()) < 100_000
    answer = client.post(f"{MODEL}:predict", json={"instances": [b64(file.getvalue()), b64(file.getvalue())]})
    assert answer.status_code == 400
    assert "instances[1]: has 4000x4000 pixels" in answer.json()["error"]
    assert "all pictures of a request together may have 16777216" in answer.json()["error"]


def test_a_large_photograph_is_read_smaller_wherever_it_stands(client):
    file = io.BytesIO()
    picture = Image.new("L", (5000, 4000), 250)  # more pixels than a request may have
    picture.paste(20, (2200, 800, 2600, 3200))
    picture.save(file, "JPEG")
    half = io.BytesIO()
    picture.resize((2500, 2000)).save(half, "JPEG")
    items = [b64(content.getvalue()) for content in (half, file, file)]
    answer = client.post(f"{MODEL}:predict", json={"instances": items})
    assert answer.status_code == 200, answer.text
    found = answer.json()["predictions"]
    assert found[1] == found[2]
    np.testing.assert_allclose(found[1], found[0], atol=0.01)


@pytest.mark.parametrize("path", ["/v1/models/other", "/v1/models/tiny/versions/2", "/v1", "/v1/models/tiny:classify"])
def test_what_is_not_there_is_404_in_json(client, path):
    answer = client.get(path)
    assert answer.status_code == 404
    assert "tiny" in answer.json()["error"]


def test_a_wrong_method_is_405_in_json(client):
    answer = client.get(f"{MODEL}:predict")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.json().keys() == {"error"}


def test_a_type_that_is_no_json_is_415(client):
    answer = client.post(f"{MODEL}:predict", content=b"{}", headers={"content-type": "text/csv"})
    assert answer.status_code == 415
    assert "text/csv" in answer.json()["error"]


@pytest.mark.parametrize("signature", [None, "", "serving_default"])
def test_the_signature_may_be_left_open(client, signature):
    answer = client.post(f"{MODEL}:predict", json={"signature_name": signature, "instances": [PIXEL]})
    assert answer.status_code == 200, answer.text
