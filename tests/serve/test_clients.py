"""Clients of other projects work unchanged, with their own defaults: binary tensors in both directions."""

import json
import os
import subprocess

import numpy as np
import pytest
import tritonclient.http as triton
from harness import probabilities
from tritonclient.utils import InferenceServerException


@pytest.fixture
def triton_client(server):
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as client:
        yield client


def tensor(batch, **options):
    source = triton.InferInput("image", list(batch.shape), "UINT8")
    source.set_data_from_numpy(batch, **options)
    return source


def test_triton_finds_server_and_model(triton_client):
    assert triton_client.is_server_live()
    assert triton_client.is_server_ready()
    assert triton_client.is_model_ready("tiny")
    assert triton_client.get_server_metadata()["name"] == "cnn-trainer"
    assert triton_client.get_model_metadata("tiny")["inputs"][0]["shape"] == [-1, 28, 28, 1]


@pytest.mark.parametrize("outputs", [None, [triton.InferRequestedOutput("probabilities")]])
@pytest.mark.parametrize("compression", [None, "gzip"])
def test_triton_infers_as_it_does_by_default(triton_client, batch, outputs, compression):
    options = {"outputs": outputs, "request_id": "7", "request_compression_algorithm": compression}
    answer = triton_client.infer("tiny", [tensor(batch)], **options)
    assert answer.get_response()["id"] == "7"
    assert answer.get_output("probabilities")["parameters"] == {"binary_data_size": 120}
    np.testing.assert_allclose(answer.as_numpy("probabilities"), probabilities(batch), atol=1e-6)


def test_triton_infers_in_json(triton_client, batch):
    outputs = [triton.InferRequestedOutput("probabilities", binary_data=False)]
    answer = triton_client.infer("tiny", [tensor(batch, binary_data=False)], outputs=outputs)
    np.testing.assert_allclose(answer.as_numpy("probabilities"), probabilities(batch), atol=1e-6)


@pytest.mark.parametrize("is_binary", [True, False])
def test_triton_is_told_the_names_of_the_likeliest_classes(triton_client, batch, is_binary):
    outputs = [triton.InferRequestedOutput("probabilities", binary_data=is_binary, class_count=3)]
    found = triton_client.infer("tiny", [tensor(batch)], outputs=outputs).as_numpy("probabilities")
    assert found.shape == (3, 3)
    texts = [text.decode() if isinstance(text, bytes) else text for text in found[:, 0]]
    assert [text.split(":")[2] for text in texts] == [str(at) for at in probabilities(batch).argmax(axis=1)]


def test_triton_is_told_what_is_wrong(triton_client, batch):
    with pytest.raises(InferenceServerException, match="expected \\[n, 28, 28, 1\\]"):
        triton_client.infer("tiny", [tensor(batch.reshape(3, 784))])


KSERVE = """\
import asyncio, json, sys
import numpy as np
from kserve import InferInput, InferRequest, InferenceRESTClient, RESTConfig

async def main():
    batch = np.array(json.loads(sys.argv[2]), np.uint8)
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await client.is_server_live(sys.argv[1]) and await client.is_server_ready(sys.argv[1])
    assert await client.is_model_ready(sys.argv[1], "tiny")
    source = InferInput("image", list(batch.shape), "UINT8")
    source.set_data_from_numpy(batch)
    answer = await client.infer(sys.argv[1], InferRequest("tiny", [source]), model_name="tiny")
    print(json.dumps(answer.outputs[0].as_numpy().tolist()))

asyncio.run(main())
"""


def test_kserve_infers_as_it_does_by_default(server, batch):
    """kserve brings 70 packages, so it runs in an environment of its own, if there is one."""
    python = os.environ.get("CNN_TRAIN_KSERVE_PYTHON")
    if python is None:
        pytest.skip("CNN_TRAIN_KSERVE_PYTHON names no Python that has kserve")
    words = [python, "-c", KSERVE, server.url, json.dumps(batch.tolist())]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(json.loads(done.stdout.splitlines()[-1]), probabilities(batch), atol=1e-6)
