"""``train --seeds``: the same runs as one by one, what they say together, and what happens if it is stopped."""

import csv
import json
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean, stdev

import pytest
from screen import CONTROL, Screen
from support import invoke, read_json, read_metrics, settings, signals_heard

PROGRAM = Path(sys.executable).parent / "cnn-train"
DIVERGES = settings("training.optimizer=sgd", "training.learning_rate=1000", "model.activation=linear")
TIMES = ("images_per_second", "seconds")


def bits(run_dir):
    """Everything of a run that does not depend on when and how fast it was trained."""
    metrics = [{key: value for key, value in line.items() if key not in TIMES} for line in read_metrics(run_dir)]
    _its_name, *config = (run_dir / "config.yaml").read_text().splitlines()
    return metrics, config, (run_dir / "weights.safetensors").read_bytes(), (run_dir / "predictions.csv").read_bytes()


def test_the_runs_are_those_of_separate_commands_however_many_are_trained_at_a_time(small_config, cnn_train):
    folder = small_config.parent
    alone = []
    for seed in (3, 1, 2):
        answer = cnn_train("train", small_config, "--set", f"seed={seed}", "--json", cwd=folder)
        alone.append((answer.json["weights_sha256"], bits(folder / answer.run)))
    assert len({digest for digest, _ in alone}) == 3
    for workers in ([], ["--workers", "2"]):
        answer = cnn_train("train", small_config, "--seeds", "3,1-2", *workers, "--json", cwd=folder)
        assert answer.code == 0, answer.err
        runs = answer.json["runs"]
        assert [run["seed"] for run in runs] == [3, 1, 2]
        found = [(run["outcome"]["weights_sha256"], bits(folder / run["run"])) for run in runs]
        assert found == alone


def test_the_mean_the_deviation_and_the_interval_are_those_of_the_runs(small_config, cnn_train):
    folder = small_config.parent
    answer = cnn_train("train", small_config, "--set", "training.epochs=1", "--seeds", "1-3", "--json", cwd=folder)
    runs = [folder / run["run"] for run in answer.json["runs"]]
    accuracies = []
    for run_dir in runs:
        rows = csv.DictReader((run_dir / "predictions.csv").read_text().splitlines()[1:])
        accuracies.append(mean(row["label"] == row["prediction"] for row in rows))
    losses = [read_json(run_dir / "evaluation.json")["loss"] for run_dir in runs]
    summary = answer.json["summary"]
    assert summary["num_runs"] == 3
    assert (summary["accuracy"], summary["accuracy_deviation"]) == pytest.approx((mean(accuracies), stdev(accuracies)))
    assert (summary["loss"], summary["loss_deviation"]) == pytest.approx((mean(losses), stdev(losses)))
    compared = json.loads(invoke("runs", "compare", *runs, "--json")[1])
    assert summary["accuracy_interval"] == compared["groups"][0]["accuracy_interval"]
    low, high = summary["accuracy_interval"]
    words = answer.err
    for seed, run in zip((1, 2, 3), answer.json["runs"], strict=True):
        assert f"seed {seed}  test accuracy {run['outcome']['test_accuracy']:.2%}  loss " in words
    assert (
        f"3 seeds: mean test accuracy {mean(accuracies):.2%}, standard deviation {stdev(accuracies) * 100:.2f} points"
        in words
    )
    assert f"interval of the mean accuracy: {low:.2%} to {high:.2%}, for other seeds and other test images" in words
    assert "data: npz, 192 training images of 12x12x1" in words
    command = words.splitlines()[-1].removeprefix("next: cnn-train ")
    assert cnn_train(*shlex.split(command), cwd=folder).code == 0


def test_a_test_split_that_depends_on_the_seed_has_no_interval_of_the_mean(tmp_path, strokes, cnn_train):
    images, labels = strokes["x_train"], strokes["y_train"]
    rows = [",".join(map(str, [label, *image.ravel()])) for label, image in zip(labels, images, strict=True)]
    (tmp_path / "strokes.csv").write_text("\n".join(rows) + "\n")
    config = tmp_path / "small.yaml"
    config.write_text(
        "data: {source: csv, path: strokes.csv, label: first}\n"
        "model: {builder: cnn, filters: [4], dense_units: [8]}\ntraining: {epochs: 1, batch_size: 16}\n"
    )
    answer = cnn_train("train", config, "--seeds", "1,2", "--json", cwd=tmp_path)
    assert answer.code == 0, answer.err
    assert answer.json["summary"]["accuracy_interval"] is None
    assert (
        "the runs have different test images, so there is no interval of the mean; with data.split_seed," in answer.err
    )
    answer = cnn_train("train", config, "--seeds", "1,2", "--set", "data.split_seed=4", "--json", cwd=tmp_path)
    assert answer.json["summary"]["accuracy_interval"] is not None


def test_one_seed_has_no_summary(small_config, cnn_train):
    answer = cnn_train("train", small_config, "--seeds", "4", "--json")
    assert answer.code == 0
    assert (answer.json["summary"], answer.json["runs"][0]["seed"]) == (None, 4)
    assert "mean" not in answer.err
    assert answer.err.splitlines()[-1] == f"next: cnn-train runs show {answer.json['runs'][0]['run']}"


def test_runs_that_diverge_are_reported_and_decide_the_exit_code(small_config, cnn_train):
    answer = cnn_train("train", small_config, *DIVERGES, "--seeds", "1,2", "--json", "--quiet", cwd=small_config.parent)
    assert answer.code == 8
    assert [run["outcome"] for run in answer.json["runs"]] == [None, None]
    for run in answer.json["runs"]:
        assert f"WARNING: seed {run['seed']}: {run['failure']}" in answer.err
        assert read_json(small_config.parent / run["run"] / "run.json")["status"] == "diverged"
    assert answer.err.endswith("error: 2 of 2 runs failed: seeds 1, 2\n")


def test_what_is_wrong_with_the_data_is_found_once_and_nothing_is_written(small_config, cnn_train):
    (small_config.parent / "strokes.npz").unlink()
    answer = cnn_train("train", small_config, "--seeds", "1-3", cwd=small_config.parent)
    assert answer.code == 4
    assert len(answer.err.splitlines()) == 1
    assert answer.err.startswith("error: ")
    assert not (small_config.parent / "runs").exists()


def test_quiet_shows_nothing_and_a_dry_run_writes_nothing(small_config, cnn_train):
    folder = small_config.parent
    assert cnn_train("train", small_config, "--seeds", "1,2", "--quiet", cwd=folder).err == ""
    before = sorted((folder / "runs").iterdir())
    answer = cnn_train("train", small_config, "--seeds", "7-9", "--workers", "2", "--dry-run", cwd=folder)
    assert answer.code == 0
    assert "experiment: small, seed 7" in answer.err
    assert answer.err.endswith(f"next: cnn-train train {small_config} --workers 2 --seeds 7-9\n")
    assert sorted((folder / "runs").iterdir()) == before


def test_every_run_has_the_name_that_was_asked_for(small_config, cnn_train):
    answer = cnn_train("train", small_config, "--seeds", "1,2", "--name", "twins", "--json")
    assert all(Path(run["run"]).name.partition("-twins")[1] for run in answer.json["runs"])


@pytest.mark.parametrize("columns", [100, 50])
def test_a_terminal_gets_a_bar_for_the_group_and_for_each_run_that_go_away(on_terminal, small_config, columns):
    code, received = on_terminal(
        columns, "train", small_config, "--seeds", "1-3", "--workers", "2", *settings("training.epochs=60")
    )
    assert code == 0, received
    drawn, epoch = CONTROL.sub("", received), r"epoch \d+ " if columns == 100 else ""
    assert re.search(r"0 of 3 runs [━╸╺]+ \d+% .*left", drawn)
    assert re.search(r"2 of 3 runs", drawn)
    for seed in (1, 2, 3):
        assert re.search(rf"seed {seed} .*\d+% +{epoch}accuracy \d+\.\d\d%.* left", drawn)
    screen = Screen(columns).write(received)
    assert screen.cursor_shown
    shown = "\n".join(screen.lines)
    assert "━" not in shown
    assert "left" not in shown
    assert len(re.findall(r"^seed \d  test accuracy", shown, re.MULTILINE)) == 3


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        ("", "'' is not a seed; give numbers or ranges, such as 1,2,3 or 1-5"),
        ("1,,2", "'' is not a seed; give numbers or ranges, such as 1,2,3 or 1-5"),
        ("1,two", "'two' is not a seed; give numbers or ranges, such as 1,2,3 or 1-5"),
        ("1 2", "'1 2' is not a seed; give numbers or ranges, such as 1,2,3 or 1-5"),
        ("-1", "'-1' is not a seed; give numbers or ranges, such as 1,2,3 or 1-5"),
        ("1.5", "'1.5' is not a seed; give numbers or ranges, such as 1,2,3 or 1-5"),
        ("²", "'²' is not a seed; give numbers or ranges, such as 1,2,3 or 1-5"),
        ("1,2,1", "seed 1 is named twice; name each seed once"),
        ("1-3,02", "seed 2 is named twice; name each seed once"),
        ("5-1", "5-1 is empty; write 1-5"),
        ("2147483648", "2147483648 is too large; a seed is at most 2147483647"),
        ("1-2000000000", "more than 1000 seeds; train them in several groups"),
    ],
)
def test_wrong_seeds_are_refused(small_config, seeds, message):
    code, out, err = invoke("train", small_config, f"--seeds={seeds}")
    assert (code, out, err) == (2, "", f"error: --seeds {seeds}: {message}\n")


def test_options_that_contradict_each_other_are_refused(small_config):
    code, _, err = invoke("train", small_config, "--seeds", "1,2", "--set", "seed=3")
    assert (code, err) == (2, "error: --seeds 1,2: also got --set seed; use one of the two\n")
    code, _, err = invoke("train", small_config, "--workers", "2")
    assert (code, err) == (2, "error: --workers: needs --seeds: a single run is trained by one process\n")


def start(words, folder, **pipes):
    with signals_heard():
        return subprocess.Popen(
            [PROGRAM, *words], cwd=folder, text=True, stderr=subprocess.PIPE, start_new_session=True, **pipes
        )


def wait_for_checkpoints(folder, number):
    give_up = time.monotonic() + 60
    while len({path.parent for path in folder.glob("runs/*/checkpoints/*")}) < number:
        assert time.monotonic() < give_up
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_group_names_the_commands_that_do_the_rest(small_config, cnn_train, number):
    folder = small_config.parent
    words = ["train", "small.yaml", "--set", "training.epochs=300", "--workers", "2"]
    process = start([*words, "--seeds", "1-3"], folder)
    wait_for_checkpoints(folder, 2)
    began = time.monotonic()
    process.send_signal(number)
    err = process.communicate(timeout=30)[1]
    assert process.returncode == 128 + number
    assert time.monotonic() - began < 6  # 2 s on a machine with nothing else to do
    last = err.splitlines()[-1]
    assert last.startswith("stopped with 0 of 3 runs done; continue with: cnn-train resume ")
    commands = [shlex.split(command)[1:] for command in last.partition(": ")[2].split(" && ")]
    assert [command[0] for command in commands] == ["resume", "resume", "train"]
    assert commands[2] == [*words, "--seeds", "3"]
    statuses = [read_json(path)["status"] for path in folder.glob("runs/*/run.json")]
    assert statuses == ["interrupted", "interrupted"]
    resumed = cnn_train(*commands[0], "--json", cwd=folder).json
    seed = read_json(folder / resumed["run"] / "run.json")["seed"]
    whole = cnn_train(*words[:-2], "--set", f"seed={seed}", "--json", cwd=folder).json
    assert resumed["weights_sha256"] == whole["weights_sha256"]


def test_a_config_from_standard_input_continues_with_the_recorded_one(small_config):
    folder = small_config.parent
    process = start(["train", "-", "--set", "training.epochs=300", "--seeds", "1-2"], folder, stdin=subprocess.PIPE)
    process.stdin.write(small_config.read_text())
    process.stdin.close()
    process.stdin = None
    wait_for_checkpoints(folder, 1)
    process.terminate()
    last = process.communicate(timeout=30)[1].splitlines()[-1]
    rest = shlex.split(last.rpartition(" && ")[2])
    assert rest[:3] == ["cnn-train", "train", str(next(folder.glob("runs/*")).relative_to(folder) / "config.yaml")]
    assert rest[-2:] == ["--seeds", "2"]


def test_if_the_parent_is_killed_the_worker_ends_and_leaves_a_run_that_can_be_resumed(small_config, cnn_train):
    folder = small_config.parent
    process = start(["train", "small.yaml", "--set", "training.epochs=300", "--seeds", "1-2"], folder)
    wait_for_checkpoints(folder, 1)
    process.kill()
    process.communicate(timeout=30)
    run_dir = next(folder.glob("runs/*"))
    answer = cnn_train("resume", run_dir, "--json")  # refused as long as the worker holds the lock
    assert answer.code == 0, answer.err
    assert answer.json["epochs"] == 300
