import json
import sys

import numpy as np
import pytest
from support import invoke

from cnn_trainer.benchmark import compare
from cnn_trainer.config.load import load_config
from cnn_trainer.errors import CnnTrainError


@pytest.fixture
def images(tmp_path):
    """150 training and 30 test images of 12x12 pixels in 3 classes, and a config for them."""
    random = np.random.default_rng(1)
    arrays = {}
    for split, number in (("train", 150), ("test", 30)):
        arrays[f"x_{split}"] = random.integers(0, 256, (number, 12, 12), np.uint8)
        arrays[f"y_{split}"] = np.arange(number) % 3
    np.savez(tmp_path / "images.npz", **arrays)
    path = tmp_path / "small.yaml"
    path.write_text(
        f"name: small\ndata: {{source: npz, path: {tmp_path / 'images.npz'}, validation_fraction: 0.2}}\n"
        "model: {builder: cnn, filters: [4]}\n"
        "training: {batch_size: 32, ema_decay: 0.9, label_smoothing: 0.1, augmentation: {zoom: 0.1}}\n"
        "runtime: {device: cpu}\n",
        encoding="utf-8",
    )
    return path


def test_every_program_runs_as_a_process_of_its_own(images):
    code, out, err = invoke("benchmark", images, "--rounds", 1, "--epochs", 2, "--json")
    assert code == 0, err
    found = compare.BenchmarkRecord.model_validate_json(out)
    assert (found.num_train, found.num_test, found.batch_size) == (150, 30, 32)
    names = [program.name for program in found.training]
    assert names[:3] == ["Model.fit", "cnn-train, float32", "cnn-train, bfloat16"]
    assert [program.name for program in found.evaluation] == ["Model.evaluate", "cnn-train evaluate"]
    for program in found.training:
        assert program.seconds.median > 0.5, "TensorFlow alone takes longer to start"
        assert program.images_per_second.median > 0
        assert program.share_of_limit > 0
    assert found.training[1].ratio.median == pytest.approx(
        found.training[1].images_per_second.median / found.training[0].images_per_second.median
    )
    for step in ("Model.fit", "cnn-train, bfloat16", "matrix products"):
        assert f"round 1 of 1: {step}\n" in err


def fake_measure(rates, turns):
    """Replaces the processes: programs with fixed rates, on a machine that halves its speed from round to round."""
    counts = {}

    def measure(task, experiment):
        turns.append(task.name)
        number = counts.setdefault(task.name, 0)
        counts[task.name] += 1
        if task.name == "matrix products":
            flop = {"flop_per_image": 2000, "flop_per_image_cropped": 1000}
            return {**flop, "float32": 1e6 / 2**number, "bfloat16": 4e6 / 2**number, "seconds": 1.0}
        rate = rates[task.name] / 2**number
        epochs = [1.0, rate * 0.75, rate * 1.5]  # the first compiles; the others take 1/rate each on average
        found = {"images_per_second": epochs, "seconds": 1000 / rate}
        return {**found, "num_examples": 30} if "evaluate" in task.name else found

    return measure


def test_ratios_are_taken_round_by_round_and_the_machine_cancels_out(images, monkeypatch):
    rates = {"Model.fit": 100, "cnn-train, float32": 250, "cnn-train, bfloat16": 500, "PyTorch": 200}
    rates |= {"Model.evaluate": 1000, "cnn-train evaluate": 3000}
    turns = []
    monkeypatch.setattr(compare, "_measure", fake_measure(rates, turns))
    monkeypatch.setattr(compare, "_newest_run", lambda folder: _record())
    found = compare.benchmark(load_config(images), 3, 3, lambda _: None, lambda *_: None)
    fit, float32, bfloat16 = found.training[:3]
    assert fit.ratio is None
    assert fit.images_per_second.rounds == [100, 50, 25]
    assert (fit.images_per_second.lowest, fit.images_per_second.median, fit.images_per_second.highest) == (25, 50, 100)
    assert float32.ratio.rounds == [2.5, 2.5, 2.5]
    assert bfloat16.seconds_ratio.rounds == [5, 5, 5]
    # 1,000 operations per image, and products at 500,000 per second in the middle round: the limit is 500 images/s.
    assert float32.share_of_limit == pytest.approx(125 / 500)
    assert bfloat16.share_of_limit == pytest.approx(250 / 2000)
    assert found.evaluation[1].ratio.median == 3
    assert found.evaluation[1].seconds is None
    num_programs = len(turns) // 3
    assert len({turns[start] for start in range(0, len(turns), num_programs)}) == 3, "each round begins with another"


def _record():
    class Data:
        source, num_train = "npz", 150

    class Run:
        data, device, towers, machine, versions = Data, "cpu", 2, {"cores": "2"}, {}

    return Run


def test_what_the_plain_programs_do_not_have_is_left_out(images):
    experiment = compare._measured(load_config(images).experiment, 4)
    assert experiment.training.epochs == 4
    assert experiment.data.validation_fraction == 0
    assert not any(experiment.training.augmentation.model_dump().values())
    assert (experiment.training.label_smoothing, experiment.training.ema_decay) == (0, None)


@pytest.mark.parametrize(("code", "expected"), [(4, 4), (1, 1), (-9, 1)])
def test_a_program_that_fails_ends_the_benchmark_with_its_words_and_its_exit_code(
    code, expected, images, tmp_path, monkeypatch
):
    end = "os.kill(os.getpid(), 9)" if code < 0 else f"sys.exit({code})"
    program = f"import os, sys\ndef main():\n    sys.stderr.write('no room left\\n')\n    {end}\n"
    (tmp_path / "failing.py").write_text(program, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    with pytest.raises(CnnTrainError) as caught:
        compare._measure(compare._Task("Model.fit", "failing:main", ()), load_config(images).experiment)
    reason = f"exit code {code}: no room left" if code > 0 else "its process was ended by SIGKILL"
    assert str(caught.value) == f"Model.fit: failed ({reason})"
    assert caught.value.exit_code == expected


@pytest.mark.parametrize(("installed", "checkout"), [(True, True), (True, False), (False, True)])
def test_pytorch_is_measured_in_a_checkout_if_it_is_installed(installed, checkout, images, tmp_path, monkeypatch):
    monkeypatch.setattr(compare.importlib.util, "find_spec", lambda _: installed or None)
    if not checkout:
        monkeypatch.setattr(compare, "TORCH_FOLDER", tmp_path)
    tasks = compare._tasks(load_config(images).experiment, tmp_path)
    assert ("PyTorch" in [task.name for task in tasks]) == (installed and checkout)


def test_a_wrong_config_is_refused_before_anything_runs(tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text("data: {source: mnist-5k}\nmodel: {builder: cnn, filtres: [1]}\n", encoding="utf-8")
    code, out, err = invoke("benchmark", path, "--json")
    assert (code, out) == (3, "")
    assert "round" not in err
    assert "filters" in err


def test_text_output_is_a_table(images, monkeypatch):
    rates = {"Model.fit": 100, "cnn-train, float32": 250, "cnn-train, bfloat16": 500, "PyTorch": 200}
    rates |= {"Model.evaluate": 1000, "cnn-train evaluate": 3000}
    monkeypatch.setattr(compare, "_measure", fake_measure(rates, []))
    record = _record()
    record.machine = {"cores": "2", "architecture": "x86_64"}
    monkeypatch.setattr(compare, "_newest_run", lambda folder: record)
    code, out, _ = invoke("benchmark", images, "--rounds", 2)
    assert code == 0
    assert "2 rounds: median (lowest to highest)" in out
    assert "cnn-train, float32" in out
    assert "188 (125 to 250)  2.50 (2.50 to 2.50)" in out
    with pytest.raises(json.JSONDecodeError):
        json.loads(out)
