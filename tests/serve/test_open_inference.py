"""The client of the Open Inference Protocol's own project works."""

import json

import httpx
import numpy as np
import pytest
from harness import probabilities
from open_inference.openapi.client import OpenInferenceClient
from open_inference.openapi.errors.bad_request_error import BadRequestError
from open_inference.openapi.types import InferenceRequest

INFER = "/v2/models/tiny/infer"


@pytest.fixture(scope="module")
def oip(server):
    with httpx.Client(timeout=60) as client:
        yield OpenInferenceClient(base_url=server.url, httpx_client=client)


def tensor(images, **changes):
    whole = {"name": "image", "shape": list(images.shape), "datatype": "UINT8", "data": images.ravel().tolist()}
    return {**whole, **changes}


def test_the_client_finds_server_and_model_ready(oip):
    oip.check_server_liveness()
    oip.check_server_readiness()
    oip.check_model_readiness("tiny")
    oip.check_model_version_readiness("tiny", "1")


def test_the_client_reads_the_metadata(oip):
    assert oip.read_server_metadata().name == "cnn-trainer"
    for found in oip.read_model_metadata("tiny"), oip.read_model_version_metadata("tiny", "1"):
        assert (found.name, found.versions, found.platform) == ("tiny", ["1"], "onnxruntime_onnx")
        assert [(each.name, each.datatype, each.shape) for each in found.inputs] == [
            ("image", "UINT8", [-1, 28, 28, 1])
        ]
        assert [(each.name, each.datatype, each.shape) for each in found.outputs] == [
            ("probabilities", "FP32", [-1, 10])
        ]


def test_the_client_infers(oip, batch):
    request = InferenceRequest.parse_obj(
        {"id": "42", "inputs": [tensor(batch)], "outputs": [{"name": "probabilities"}]}
    )
    for answer in oip.model_infer("tiny", request=request), oip.model_version_infer("tiny", "1", request=request):
        assert (answer.model_name, answer.model_version, answer.id) == ("tiny", "1", "42")
        (output,) = answer.outputs
        assert (output.name, output.datatype, output.shape) == ("probabilities", "FP32", [3, 10])
        np.testing.assert_allclose(np.reshape(output.data.__root__, (3, 10)), probabilities(batch), atol=1e-6)


def test_the_client_is_told_what_is_wrong(oip, batch):
    request = InferenceRequest.parse_obj({"inputs": [tensor(batch, datatype="FP32")]})
    with pytest.raises(BadRequestError) as caught:
        oip.model_infer("tiny", request=request)
    assert "UINT8" in caught.value.body["error"]


def test_data_may_be_nested_and_an_id_is_given_back_only_where_there_was_one(client, batch):
    answer = client.post(INFER, json={"inputs": [tensor(batch, data=batch.tolist())]}).json()
    assert answer.keys() == {"model_name", "model_version", "outputs"}
    np.testing.assert_allclose(np.reshape(answer["outputs"][0]["data"], (3, 10)), probabilities(batch), atol=1e-6)


ZEROS = np.zeros((1, 28, 28, 1), np.uint8)
BAD = {
    "no inputs": ({}, "inputs: expected a list of one tensor, image"),
    "two inputs": ({"inputs": [tensor(ZEROS)] * 2}, "inputs: expected a list of one tensor"),
    "another name": ({"inputs": [tensor(ZEROS, name="x")]}, "inputs[0].name"),
    "no data": ({"inputs": [{"name": "image", "shape": [1, 28, 28, 1], "datatype": "UINT8"}]}, "the key data"),
    "another shape": ({"inputs": [tensor(ZEROS, shape=[1, 784])]}, "expected [n, 28, 28, 1]"),
    "a negative batch": ({"inputs": [tensor(ZEROS, shape=[-1, 28, 28, 1])]}, "-1 images"),
    "a boolean batch": ({"inputs": [tensor(ZEROS, shape=[True, 28, 28, 1])]}, "expected [n, 28, 28, 1]"),
    "an immense batch": ({"inputs": [tensor(ZEROS, shape=[10**30, 28, 28, 1])]}, "images; send 1 to 1024"),
    "too few values": ({"inputs": [tensor(ZEROS, data=[0] * 783)]}, "783 values, but the shape has 784"),
    "too few images": ({"inputs": [tensor(ZEROS, shape=[2, 28, 28, 1], data=ZEROS.tolist())]}, "1 image, but"),
    "a value beyond": ({"inputs": [tensor(ZEROS, data=[0] * 783 + [256])]}, "got 256"),
    "an infinite value": ({"inputs": [tensor(ZEROS, data=[0] * 783 + [1e308 * 10])]}, "not a valid JSON number"),
    "an unknown output": ({"inputs": [tensor(ZEROS)], "outputs": [{"name": "logits"}]}, "outputs[0].name"),
    "a word for a truth": (
        {"inputs": [tensor(ZEROS)], "outputs": [{"name": "probabilities", "parameters": {"binary_data": "yes"}}]},
        "true or false",
    ),
    "a negative classification": (
        {"inputs": [tensor(ZEROS)], "outputs": [{"name": "probabilities", "parameters": {"classification": -1}}]},
        "a number of classes",
    ),
    "parameters in a list": ({"inputs": [tensor(ZEROS)], "parameters": []}, "parameters: expected an object"),
    "a number for an id": ({"id": 1, "inputs": [tensor(ZEROS)]}, "id: expected a string"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_body_is_refused_with_its_place(client, name):
    body, message = BAD[name]
    answer = client.post(INFER, content=json.dumps(body), headers={"content-type": "application/json"})
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/json")
    assert message in answer.json()["error"]


def binary(images, size=None, **changes):
    """A request with a binary tensor, and the length of its JSON."""
    whole = tensor(images, parameters={"binary_data_size": images.nbytes if size is None else size}, **changes)
    del whole["data"]
    text = json.dumps({"inputs": [whole]}).encode()
    return text + images.tobytes(), {"inference-header-content-length": str(len(text))}


def test_a_binary_tensor_is_read_and_the_answer_is_json_unless_asked_for(client, batch):
    content, headers = binary(batch)
    answer = client.post(INFER, content=content, headers=headers)
    assert answer.headers["content-type"] == "application/json"
    np.testing.assert_allclose(
        np.reshape(answer.json()["outputs"][0]["data"], (3, 10)), probabilities(batch), atol=1e-6
    )


@pytest.mark.parametrize("length", ["-1", "x", "9" * 30, "100000", "", "\u00b2".encode()])
def test_a_wrong_length_of_the_json_is_refused(client, batch, length):
    content, _ = binary(batch)
    answer = client.post(INFER, content=content, headers={"inference-header-content-length": length})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("inference-header-content-length: ")


@pytest.mark.parametrize("size", [0, 2351, 2353, -1, True, "2352", [2352]])
def test_a_binary_tensor_of_another_size_than_its_shape_is_refused(client, batch, size):
    content, headers = binary(batch, size)
    answer = client.post(INFER, content=content, headers=headers)
    assert answer.status_code == 400
    assert "2352" in answer.json()["error"]


def test_bytes_that_no_tensor_names_and_tensors_twice_are_refused(client, batch):
    content, headers = binary(batch)
    assert client.post(INFER, content=content + b"x", headers=headers).status_code == 400
    text = json.dumps({"inputs": [tensor(batch)]}).encode()
    headers = {"inference-header-content-length": str(len(text))}
    answer = client.post(INFER, content=text + b"x", headers=headers)
    assert answer.json() == {"error": "inputs[0]: 1 byte after the JSON, but no binary_data_size"}
    both = json.dumps({"inputs": [tensor(batch, parameters={"binary_data_size": batch.nbytes})]}).encode()
    headers = {"inference-header-content-length": str(len(both))}
    answer = client.post(INFER, content=both + batch.tobytes(), headers=headers)
    assert "both data and binary_data_size" in answer.json()["error"]


def test_the_likeliest_classes_come_with_their_names(client, batch):
    asked = {"inputs": [tensor(batch)], "outputs": [{"name": "probabilities", "parameters": {"classification": 2}}]}
    (output,) = client.post(INFER, json=asked).json()["outputs"]
    expected = probabilities(batch)
    best = np.argsort(-expected, axis=1)[:, :2]
    assert (output["datatype"], output["shape"]) == ("BYTES", [3, 2])
    found = [text.split(":") for text in output["data"]]
    assert [(index, name) for _, index, name in found] == [(str(at), str(at)) for at in best.ravel()]
    np.testing.assert_allclose(
        [float(value) for value, *_ in found], np.take_along_axis(expected, best, 1).ravel(), atol=1e-6
    )


def test_another_media_type_is_415(client):
    headers = {"content-type": "application/x-www-form-urlencoded"}
    assert client.post(INFER, content=b"{}", headers=headers).status_code == 415


def test_an_unknown_model_is_404(client):
    assert client.get("/v2/models/other/ready").status_code == 404
    assert "error" in client.post("/v2/models/other/infer", json={}).json()
