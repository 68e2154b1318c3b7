"""Runs to compare; the tests of this folder can also import its plain, slow forms of the statistics."""

import hashlib
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from support import edit_json

from cnn_trainer.evaluation import predictions
from cnn_trainer.runs import store

sys.path.insert(0, str(Path(__file__).parent))

COLUMNS = "index,label,prediction,probability,label_name,prediction_name"
NAMES = ('"one, ""two"",\n3,4,5"', "# 7", "plain")


@pytest.fixture
def variant(finished_run, tmp_path):
    """A function that makes a run like ``finished_run`` with other config keys, and some predictions turned wrong.

    ``is_old`` makes it a run of an earlier version, which has no file with probabilities.
    """

    def make(name, seed=1, wrong=(), is_old=False, **training):
        run = shutil.copytree(finished_run, tmp_path / name)
        config = yaml.safe_load((run / "config.yaml").read_text())
        config["seed"] = seed
        config["training"].update(training)
        (run / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        edit_json(run / "run.json", seed=seed)
        evaluation = store.read_evaluation(run)
        known = predictions.read_predictions(run, evaluation)
        guesses = known.labels.copy()
        guesses[list(wrong)] = (guesses[list(wrong)] + 1) % 3
        probabilities = np.where(np.arange(3) == guesses[:, np.newaxis], 0.75, 0.125).astype(np.float32)
        content = predictions.encode_predictions(replace(known, probabilities=probabilities))
        (run / "probabilities.safetensors").write_bytes(content)
        accuracy = (len(guesses) - len(wrong)) / len(guesses)
        edit_json(run / "evaluation.json", accuracy=accuracy, probabilities_sha256=hashlib.sha256(content).hexdigest())
        if is_old:
            (run / "probabilities.safetensors").unlink()
            edit_json(run / "evaluation.json", schema_version=1, probabilities_sha256=None)
            rows = zip(range(len(guesses)), known.labels.tolist(), guesses.tolist(), strict=True)
            lines = [f"# images sha256 {evaluation.images_sha256}", COLUMNS]
            lines += [f"{index},{label},{guess},0.75,{NAMES[label]},{NAMES[guess]}" for index, label, guess in rows]
            (run / "predictions.csv").write_text("\n".join([*lines, ""]))
        return run

    make.rescore = rescore
    return make


def rescore(run, images_sha256, split="test"):
    """Pretend that the run was scored on images with this digest, or on another split."""
    found = predictions.read_predictions(run, store.read_evaluation(run))
    content = predictions.encode_predictions(replace(found, images_sha256=images_sha256))
    end = "" if split == "test" else f"-{split}"
    (run / f"probabilities{end}.safetensors").write_bytes(content)
    shutil.copy(run / "evaluation.json", run / "temporary.json")
    (run / "temporary.json").rename(run / f"evaluation{end}.json")
    digest = hashlib.sha256(content).hexdigest()
    edit_json(run / f"evaluation{end}.json", split=split, images_sha256=images_sha256, probabilities_sha256=digest)
