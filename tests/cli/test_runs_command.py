"""``runs list`` and ``runs show``, and the completion of run names."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import get_args

import pytest
from support import invoke

from cnn_trainer.config.schema import Experiment
from cnn_trainer.runs import details, records, store
from cnn_trainer.runs.records import ClassScore, DataRecord, EpochMetrics, EvaluationRecord, RunRecord
from cnn_trainer.storage import strict_json

EXPERIMENT = Experiment.model_validate({"name": "digits", "data": {"source": "mnist"}, "model": {"builder": "cnn"}})
DATA = DataRecord(
    source="mnist-5k",
    requested="mnist",
    location="/data/mnist_5k.csv.gz",
    image_shape=[28, 28, 1],
    class_names=["0", "1"],
    num_train=4_000,
    num_validation=0,
    train_sha256="0" * 64,
)
RECORD = RunRecord(
    status="created",
    name="digits",
    seed=1,
    created_at="2026-11-23T22:46:01Z",
    updated_at="2026-11-23T22:46:01Z",
    data=DATA,
    num_parameters=121_930,
    device="cpu",
    towers=2,
    intra_op_threads=1,
    inter_op_threads=2,
    machine={},
    versions={"tensorflow": "2.21.0"},
    environment={},
)
EVALUATION = EvaluationRecord(
    split="test",
    source="mnist-5k",
    requested="mnist",
    location="/data/mnist_5k.csv.gz",
    images_sha256="1" * 64,
    num_examples=1_000,
    loss=0.0625,
    accuracy=0.975,
    accuracy_interval=[0.9634, 0.983],
    classes=[
        ClassScore(name="0", support=500, precision=0.5, recall=0.25, f1=0.125),
        ClassScore(name="1", support=500, precision=None, recall=0.75, f1=None),
    ],
    confusion_matrix=[[490, 10], [15, 485]],
    weights_sha256="2" * 64,
    evaluated_at="2026-11-23T22:50:01Z",
)


def epoch(number: int, **more: float) -> EpochMetrics:
    return EpochMetrics(
        epoch=number,
        step=32 * number,
        train_loss=1 / number,
        train_accuracy=0.9,
        learning_rate=0.001,
        images_per_second=4321.5,
        seconds=0.6,
        **more,
    )


@pytest.fixture
def runs_dir(tmp_path, monkeypatch):
    monkeypatch.delenv("CNN_TRAIN_RUNS_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    return Path("runs")


@pytest.fixture
def make_run(runs_dir):
    """A function that makes a run with a status, epochs and, if it is finished, an evaluation."""

    def make(status="finished", epochs=3, error=None, **metrics):
        run = store.create_run(runs_dir, "digits", EXPERIMENT, RECORD)
        for number in range(1, epochs + 1):
            store.append_metrics(run, epoch(number, **metrics))
        done = {} if status == "training" else {"epochs_done": epochs, "train_seconds": 65.0}
        store.update_record(run, status=status, error=error, **done)
        if status == "finished":
            (run.dir / "evaluation.json").write_bytes(strict_json.to_json(EVALUATION))
        return run

    return make


def last_line(text):
    return text.splitlines()[-1]


class TestList:
    def test_without_runs_it_says_so_and_names_the_command_that_makes_one(self, runs_dir):
        assert invoke("runs", "list") == (0, "", "no runs in runs\nnext: cnn-train train mnist\n")
        code, out, err = invoke("runs", "list", "--runs-dir", "else where", "--json")
        assert (code, json.loads(out)) == (0, {"runs_dir": "else where", "runs": []})
        assert last_line(err) == "next: cnn-train train mnist --runs-dir 'else where'"

    def test_every_run_has_a_line_the_newest_first(self, make_run):
        names = [make_run(status).dir.name for status in ("finished", "diverged", "training")]
        code, out, err = invoke("runs", "list")
        heading, *lines = out.splitlines()
        assert code == 0
        assert heading.split() == ["run", "status", "data", "epochs", "test", "accuracy", "trained"]
        assert [line.split()[0] for line in lines] == names[::-1]
        assert " ".join(lines[2].split()[1:]) == "finished mnist-5k for mnist 3 97.50% 1 min 05 s"
        assert " ".join(lines[1].split()[1:]) == "diverged mnist-5k for mnist 3 - 1 min 05 s"
        assert " ".join(lines[0].split()[1:]) == "interrupted mnist-5k for mnist 3 - -", "epochs from metrics.jsonl"
        assert f"cnn-train resume {names[2]}" in err
        assert last_line(err) == f"next: cnn-train runs show runs/{names[2]}"

    def test_a_run_that_is_trained_now_is_told_from_an_interrupted_one(self, make_run):
        run = make_run("training")
        with store.lock_run(run):
            _, out, err = invoke("runs", "list", "--json")
        assert json.loads(out)["runs"][0]["status"] == "training"
        assert "resume" not in err

    def test_json_has_one_object_a_run(self, make_run):
        run = make_run()
        _, out, _ = invoke("runs", "list", "--json")
        (found,) = json.loads(out)["runs"]
        assert found == {
            "name": run.dir.name,
            "run": str(run.dir),
            "status": "finished",
            "reason": None,
            "created_at": "2026-11-23T22:46:01Z",
            "seed": 1,
            "data": "mnist-5k",
            "requested_data": "mnist",
            "epochs": 3,
            "test_accuracy": 0.975,
            "train_seconds": 65.0,
        }

    def test_broken_runs_are_listed_with_what_is_wrong_whatever_their_bytes(self, make_run, runs_dir):
        good = make_run()
        contents = {"1": b"", "2": b"\xff\x00", "3": b"[" * 5000, "4": b'{"status": "\x1b[31m"}', "5": b"{}"}
        for number, content in contents.items():
            broken = runs_dir / f"20200101-00000{number}-b"
            broken.mkdir()
            (broken / "run.json").write_bytes(content)
        (runs_dir / "20200101-000006-\x1b[31m").mkdir()
        (runs_dir / "20200101-000007-link").symlink_to(good.dir.absolute())
        code, out, err = invoke("runs", "list")
        assert code == 0
        assert out.count(" broken ") == 7
        assert out.splitlines()[1].startswith(good.dir.name)
        assert err.count("\n") == 8, "a line for each broken one, and the next command"
        assert all(f"-00000{number}-" in err for number in range(1, 8))
        assert "\x1b" not in out + err
        _, out, _ = invoke("runs", "list", "--json")
        assert [found["status"] for found in json.loads(out)["runs"]] == ["finished"] + ["broken"] * 7

    def test_a_reason_that_a_file_gives_is_printed_without_control_characters(self, make_run):
        run = make_run("failed", error="\x1b]0;owned\x07")
        _, out, err = invoke("runs", "list")
        assert f"{run.dir.name}: \\x1b]0;owned\\x07\n" in err
        _, out, err = invoke("runs", "show", "latest")
        assert "\\x1b]0;owned\\x07" in out

    def test_a_runs_folder_that_is_a_file_is_an_error_of_the_run_directory(self, runs_dir):
        runs_dir.write_text("")
        code, out, err = invoke("runs", "list")
        assert (code, out) == (6, "")
        assert "runs: cannot be read" in err

    def test_the_environment_names_the_folder_and_the_option_comes_first(self, make_run, monkeypatch):
        make_run()
        monkeypatch.setenv("CNN_TRAIN_RUNS_DIR", "empty")
        assert "no runs in empty" in invoke("runs", "list")[2]
        assert "digits" in invoke("runs", "list", "--runs-dir", "runs")[1]


class TestChoose:
    """``--status``, ``--sort`` and ``--limit``, as text and as JSON."""

    @staticmethod
    def listed(*options):
        """The names of the runs, on which text and JSON must agree."""
        code, out, err = invoke("runs", "list", *options, "--json")
        names = [found["name"] for found in json.loads(out)["runs"]]
        lines = invoke("runs", "list", *options)[1].splitlines()[1:]
        assert (code, [line.split()[0] for line in lines]) == (0, names), err
        return names

    @pytest.fixture
    def named(self, make_run, runs_dir):
        """Four runs, a to d, from the oldest to the newest; c has no score, and d is broken."""
        names = {}
        for letter, accuracy, seconds in ("a", 0.9, 30.0), ("b", 0.95, 20.0), ("c", None, 10.0), ("d", 0.5, 1.0):
            run = make_run("trained" if accuracy is None else "finished")
            store.update_record(run, train_seconds=seconds, name="zyxw"["abcd".index(letter)])
            if accuracy is not None:
                scores = EVALUATION.model_copy(update={"accuracy": accuracy})
                (run.dir / "evaluation.json").write_bytes(strict_json.to_json(scores))
            names[letter] = run.dir.name
        (runs_dir / names["d"] / "run.json").write_text("{}")
        return names

    @pytest.mark.parametrize(
        ("options", "letters"),
        [
            ([], "dcba"),
            (["--sort", "newest"], "dcba"),
            (["--sort", "accuracy"], "badc"),
            (["--sort", "time"], "cbad"),
            (["--sort", "name"], "cbad"),
            (["--limit", 2], "dc"),
            (["--limit", 2, "--sort", "accuracy"], "ba"),
            (["--limit", 9], "dcba"),
            (["--status", "finished"], "ba"),
            (["--status", "trained"], "c"),
            (["--status", "broken"], "d"),
            (["--status", "finished", "--limit", 1], "b"),
        ],
    )
    def test_what_is_listed_and_in_which_order(self, named, options, letters):
        assert self.listed(*options) == [named[letter] for letter in letters]

    def test_a_run_that_trains_has_no_time_to_be_sorted_by(self, make_run):
        trained, trains = make_run(), make_run("interrupted")
        store.update_record(trained, train_seconds=5.0)
        store.update_record(trains, train_seconds=0.0, epochs_done=2)
        assert self.listed("--sort", "time") == [trained.dir.name, trains.dir.name]

    def test_runs_that_are_equal_are_listed_newest_first(self, make_run):
        names = [make_run().dir.name for _ in range(3)]
        for order in "name", "accuracy", "time":
            assert self.listed("--sort", order) == names[::-1]

    def test_an_interrupted_run_is_found_by_what_it_is_not_by_what_its_record_says(self, make_run):
        name = make_run("training").dir.name
        assert self.listed("--status", "interrupted") == [name]
        code, out, err = invoke("runs", "list", "--status", "training")
        assert (code, out, err) == (0, "", "no runs in runs are training\nnext: cnn-train runs list\n")

    @pytest.mark.parametrize(
        "options", [["--status", "done"], ["--sort", "loss"], ["--limit", 0], ["--limit", "many"]], ids=str
    )
    def test_what_is_not_among_the_choices_is_refused(self, make_run, options):
        make_run()
        code, out, err = invoke("runs", "list", *options)
        assert (code, out) == (2, "")
        assert options[0] in err

    def test_the_choices_are_those_of_the_records(self):
        from cnn_trainer.cli import runs

        assert set(get_args(runs._Status)) == {*get_args(records.RunStatus), "broken"}
        assert get_args(runs._Order) == get_args(details.Order)

    def test_ten_reasons_are_printed_and_the_others_counted(self, make_run):
        for _ in range(12):
            make_run("failed", error="no room left")
        _, out, err = invoke("runs", "list")
        assert out.count("failed") == 12
        assert err.count("no room left") == 10
        assert "and 2 more" in err


class TestShow:
    def test_a_finished_run_is_shown_whole(self, make_run):
        run = make_run(validation_loss=0.5, validation_accuracy=0.8125)
        code, out, err = invoke("runs", "show", run.dir.name)
        assert code == 0
        for words in (
            rf"^run +{run.dir.name}$",
            "^status +finished$",
            "^data +mnist-5k .*mnist was not at hand.* 4,000 training images of 28x28x1",
            "^experiment +digits: cnn on mnist, adam, 10 epochs in batches of 128, seed 1$",
            "^versions +tensorflow 2.21.0$",
            "^trained +3 epochs in 1 min 05 s$",
            r"^epoch +loss +accuracy +validation loss +validation accuracy +learning rate +images/s +seconds$",
            r"^ +2 +0.5000 +90.00% +0.5000 +81.25% +0.001 +4,32[12] +0.6$",
            r"97.50% .*96.34% to 98.30%",
            r"^ +0 +500 +0.5000 +0.2500 +0.1250$",
            r"^ +1 +500 +- +0.7500 +-$",
            r"^config.yaml +[0-9,]+$",
        ):
            assert re.search(words, out, re.MULTILINE), words
        assert err == f"next: cnn-train evaluate runs/{run.dir.name}\n"

    def test_json_holds_all_that_the_files_hold(self, make_run):
        run = make_run(epochs=30)
        code, out, _ = invoke("runs", "show", run.dir, "--json")
        found = json.loads(out)
        assert (code, found["faults"]) == (0, [])
        assert [EpochMetrics.model_validate(line) for line in found["metrics"]] == store.read_metrics(run)
        assert EvaluationRecord.model_validate(found["evaluation"]) == EVALUATION
        assert RunRecord.model_validate(found["record"]) == run.record
        assert Experiment.model_validate(found["config"]) == EXPERIMENT
        sizes = {each["name"]: each["bytes"] for each in found["files"]}
        assert sizes["run.json"] == (run.dir / "run.json").stat().st_size

    def test_the_last_twenty_epochs_are_shown(self, make_run):
        make_run(epochs=23)
        out = invoke("runs", "show", "latest")[1]
        shown = re.findall(r"^ +([0-9]+) +[0-9.]+ +90.00%", out, re.MULTILINE)
        assert shown == [str(number) for number in range(4, 24)]
        assert "(3 earlier epochs in metrics.jsonl)" in out

    @pytest.mark.parametrize(
        ("status", "command"),
        [
            ("created", "resume {run}"),
            ("training", "resume {run}"),
            ("interrupted", "resume {run}"),
            ("paused", "resume {run}"),
            ("failed", "resume {run}"),
            ("finished", "evaluate {run}"),
            ("diverged", "train {run}/config.yaml --set training.learning_rate=0.0001"),
        ],
    )
    def test_the_next_command_depends_on_the_status(self, make_run, status, command):
        run = make_run(status)
        err = invoke("runs", "show", "latest")[2]
        assert last_line(err) == f"next: cnn-train {command.format(run=run.dir)}"

    def test_a_run_that_is_trained_now_is_looked_at_again(self, make_run):
        run = make_run("training")
        with store.lock_run(run):
            _, out, err = invoke("runs", "show", run.dir)
        assert re.search("^status +training$", out, re.MULTILINE)
        assert last_line(err) == f"next: cnn-train runs show {run.dir}"

    def test_a_broken_run_is_shown_as_far_as_it_can_be_read(self, make_run):
        run = make_run()
        (run.dir / "config.yaml").write_text("data: [\n")
        code, out, err = invoke("runs", "show", "latest")
        assert code == 6
        assert re.search("^status +broken$", out, re.MULTILINE)
        assert "97.50%" in out
        assert "metrics.jsonl" in out
        assert "error: runs/" in err
        assert "config.yaml:" in err

    def test_every_fault_of_a_run_is_named(self, make_run):
        run = make_run()
        (run.dir / "metrics.jsonl").write_text('{"epoch": 1}\n')
        (run.dir / "evaluation.json").write_text('{"accuracy": NaN}')
        code, out, err = invoke("runs", "show", "latest", "--json")
        assert code == 6
        found = json.loads(out)
        assert [fault.partition(": ")[0].rpartition("/")[2] for fault in found["faults"]] == [
            "metrics.jsonl:1",
            "evaluation.json",
        ]
        assert found["record"]["num_parameters"] == 121_930
        assert all(fault in err for fault in found["faults"])

    def test_class_names_are_printed_without_control_characters(self, make_run):
        run = make_run()
        classes = [ClassScore(name="\x1b[2J", support=1, precision=1.0, recall=1.0, f1=1.0)]
        changed = EVALUATION.model_copy(update={"classes": classes})
        (run.dir / "evaluation.json").write_bytes(strict_json.to_json(changed))
        out = invoke("runs", "show", "latest")[1]
        assert "\\x1b[2J" in out
        assert "\x1b" not in out

    def test_the_folder_itself_and_a_link_to_it_can_be_shown(self, make_run, monkeypatch):
        run = make_run()
        Path("link").symlink_to(run.dir)
        assert run.dir.name in invoke("runs", "show", "./link")[1]
        monkeypatch.chdir(run.dir)
        code, out, _ = invoke("runs", "show", ".")
        assert code == 0
        assert run.dir.name in out

    def test_a_folder_of_many_files_is_not_listed_whole(self, make_run):
        run = make_run()
        for number in range(300):
            (run.dir / f"file-{number}").write_text("")
        out = invoke("runs", "show", "latest")[1]
        assert out.count("\nfile-") < 101
        assert last_line(out) == "and more"

    def test_an_unknown_run_is_refused_with_the_nearest_name(self, make_run):
        run = make_run()
        code, out, err = invoke("runs", "show", "digit")
        assert (code, out) == (6, "")
        assert run.dir.name in err


def program(*words, **options):
    environment = {**os.environ, **options.pop("environment", {})}
    return subprocess.Popen(
        [sys.executable, "-m", "cnn_trainer", *map(str, words)],
        env=environment,
        stdout=options.pop("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def on_terminal(columns, *words, **environment):
    """How a terminal with so many columns shows stdout."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with program(
        *words, stdout=theirs, environment={"COLUMNS": "", "LINES": "", "TERM": "xterm", "NO_COLOR": ""} | environment
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 65_536)
            except OSError:  # Linux reports this if the other end is closed
                break
            if not part:
                break
            shown += part
        process.stderr.read()
    os.close(ours)
    assert process.returncode == 0
    return shown.decode().replace("\r\n", "\n")


class TestWhereItIsShown:
    def test_what_matters_most_is_kept_at_any_width(self, make_run):
        run = make_run()
        plain = {"NO_COLOR": "1"}
        assert on_terminal(120, "runs", "list", **plain) == invoke("runs", "list")[1]
        for columns in (80, 50):
            lines = on_terminal(columns, "runs", "list", **plain).splitlines()
            assert len(lines) == 2
            assert max(map(len, lines)) <= columns
            assert re.fullmatch(rf"{run.dir.name}  finished .*  97\.50%.*", lines[1])
        narrow = on_terminal(40, "runs", "list", **plain)
        assert re.search(rf"^run +{run.dir.name}$", narrow, re.MULTILINE)
        assert re.search(r"^test accuracy +97.50%$", narrow, re.MULTILINE)

    def test_status_and_accuracy_are_coloured_unless_the_user_wants_no_colours(self, make_run):
        make_run()
        coloured = on_terminal(80, "runs", "list")
        assert "\x1b[1mfinished" in re.sub(r"\x1b\[38;5;\d+m", "", coloured)
        assert re.search(r"\x1b\[38;5;\d+m(\x1b\[1m)?97.50%\x1b\[0m", coloured)
        for environment in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
            assert "\x1b" not in on_terminal(80, "runs", "list", **environment)

    def test_a_closed_pipe_changes_no_exit_code(self, make_run):
        make_run()
        reading, writing = os.pipe()
        os.close(reading)
        with program("runs", "list", stdout=writing) as process:
            os.close(writing)
            err = process.stderr.read()
        assert process.returncode == 0
        assert "Traceback" not in err
        assert "BrokenPipe" not in err

    def test_nothing_heavy_is_loaded(self, make_run):
        make_run()
        script = """
import sys
from cnn_trainer.cli import app
for words in (["runs", "list"], ["runs", "show", "latest"]):
    app(words, standalone_mode=False)
heavy = {"tensorflow", "keras", "numpy", "rich"} & set(sys.modules)
sys.exit(f"loaded: {heavy}" if heavy else 0)
"""
        ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.count("digits") > 1


class TestCompletion:
    """Typer's protocol for bash: it takes the words so far and the number of the current one, and gives candidates."""

    @staticmethod
    def offered(words, **environment):
        protocol = {
            "_CNN_TRAIN_COMPLETE": "complete_bash",
            "COMP_WORDS": f"cnn-train {words}",
            "COMP_CWORD": str(len(words.split(" "))),
        }
        with program(environment={**protocol, **environment}) as process:
            out, err = process.communicate()
        assert not err
        return out.split()

    @pytest.mark.parametrize("command", ["runs show", "evaluate", "resume"])
    def test_names_of_runs_are_offered_newest_first(self, make_run, command):
        names = [make_run().dir.name for _ in range(2)]
        assert self.offered(f"{command} ") == ["latest", *names[::-1]]

    def test_what_is_typed_so_far_narrows_it(self, make_run):
        name = make_run().dir.name
        assert self.offered(f"runs show {name[:10]}") == [name]
        assert self.offered("runs show la") == ["latest"]
        assert self.offered("runs show ./") == []

    def test_the_runs_directory_of_the_line_or_of_the_environment_counts(self, make_run):
        run = make_run()
        run.dir.parent.rename("others")
        assert self.offered("runs show ") == []
        assert self.offered("runs show --runs-dir others ") == ["latest", run.dir.name]
        assert self.offered("runs show ", CNN_TRAIN_RUNS_DIR="others") == ["latest", run.dir.name]
