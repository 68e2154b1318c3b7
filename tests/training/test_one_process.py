"""Several runs, one after another, in one process: each as if it had its own process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import safetensors.numpy
from support import settings

RANDOM = [
    "training.batch_size=64",
    "training.ema_decay=0.9",
    "training.schedule={name: cosine}",
    "training.augmentation={shift_pixels: 1, rotation_radians: 0.1}",
    "data.validation_fraction=0.25",
    "model.conv_dropout=0.1",
    "model.dropout=0.2",
]
PLAIN = [
    "training.batch_size=64",
    "training.optimizer=momentum",
    "model={builder: mlp, hidden_units: [8], dropout: 0.3}",
    "seed=5",
]

# As in a notebook: an event loop runs, and there is no terminal. Keras counts the objects of this process.
SEVERAL = """
import asyncio, json, sys
from pathlib import Path
import keras
from cnn_trainer.config.load import load_config
from cnn_trainer.training.run import train_config

keras.config.set_image_data_format("channels_first")
keras.config.set_dtype_policy("mixed_bfloat16")
keras.config.set_floatx("float64")

async def cells():
    outcomes = []
    for overrides in json.loads(sys.argv[1]):
        outcomes.append(train_config(load_config(Path("small.yaml"), overrides), Path("several")))
        await asyncio.sleep(0)
    return [[outcome.run, outcome.weights_sha256, outcome.test_loss] for outcome in outcomes]

print(json.dumps(asyncio.run(cells())))
"""


def checkpoint(run_dir):
    newest = max((Path(run_dir) / "checkpoints").glob("*.safetensors"))
    return {name: array.tobytes() for name, array in safetensors.numpy.load_file(newest).items()}


def test_runs_in_one_process_have_the_same_bits_as_runs_in_separate_processes(small_config, cnn_train):
    folder = small_config.parent
    words = [sys.executable, "-W", "ignore", "-c", SEVERAL, json.dumps([RANDOM, PLAIN, RANDOM])]
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    pipes = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
    done = subprocess.run(words, cwd=folder, env=environment, check=False, **pipes)
    assert done.returncode == 0, done.stderr
    several = json.loads(done.stdout)
    alone = []
    for overrides in (RANDOM, PLAIN):
        answer = cnn_train("train", "small.yaml", *settings(*overrides), "--json", cwd=folder)
        alone.append([str(folder / answer.run), answer.json["weights_sha256"], answer.json["test_loss"]])
    assert alone[0][1] != alone[1][1]
    for found, wanted in zip(several, [*alone, alone[0]], strict=True):
        assert found[1:] == wanted[1:]
        assert checkpoint(folder / found[0]) == checkpoint(wanted[0])
