"""The command line itself, and the commands under ``cnn-train config``."""

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import cnn_trainer
from cnn_trainer.__main__ import main
from cnn_trainer.config import template
from cnn_trainer.config.load import load_config
from cnn_trainer.errors import DataError, StoppedError
from cnn_trainer.network import fits

CONFIGS = Path(__file__).parents[2] / "configs"
MNIST = CONFIGS / "mnist.yaml"
WRONG = "seed: x\ndata: {source: mnits}\nmodel: {builder: cnn}\n"


@dataclass
class Result:
    code: int
    out: str
    err: str


Command = Callable[..., Result]


@pytest.fixture
def cnn_train(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Run the command line in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gc.freeze", lambda: None)  # meant for the end of a process
    monkeypatch.setenv("PYDANTIC_DISABLE_PLUGINS", "1")

    def run(*words: str | Path) -> Result:
        monkeypatch.setattr(sys, "argv", ["cnn-train", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        assert isinstance(end.value.code, int)
        return Result(end.value.code, *capsys.readouterr())

    return run


def process(*words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    command = [sys.executable, "-m", "cnn_trainer", *map(str, words)]
    options = {"capture_output": True, "text": True, "timeout": 60, **options}
    options["env"] = {**os.environ, **options.get("env", {})}
    return subprocess.run(command, check=False, **options)


# config check


def test_check_says_ok_and_what_to_do_next(cnn_train: Command) -> None:
    result = cnn_train("config", "check", MNIST)
    assert result.code == 0
    assert result.out == ""
    assert result.err.splitlines() == [
        f"{MNIST}: ok: mnist-cnn: cnn on mnist, adam, 10 epochs in batches of 128",
        f"next: cnn-train train {MNIST}",
    ]


def test_check_lists_every_fault_of_every_file(cnn_train: Command, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(WRONG)
    result = cnn_train("config", "check", "a.yaml", MNIST, "missing.yaml")
    assert result.code == 3
    assert result.out == ""
    assert result.err.splitlines() == [
        f"{MNIST}: ok: mnist-cnn: cnn on mnist, adam, 10 epochs in batches of 128",
        "error: a.yaml:1: seed: got 'x'; expected a whole number",
        "error: a.yaml:2: data.source: got 'mnits'; allowed: mnist, fashion-mnist, kmnist, qmnist, "
        "emnist-digits, emnist-letters, emnist-balanced, mnist-5k, npz, idx, folder, csv, parquet; did you mean mnist?",
        "error: missing.yaml: there is no such file; start one with: cnn-train config init",
    ]


def test_check_prints_one_json_object(cnn_train: Command, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(WRONG)
    result = cnn_train("config", "check", MNIST, "a.yaml", "--json")
    assert result.code == 3
    good, bad = json.loads(result.out)["configs"]
    assert good == {"file": str(MNIST), "ok": True, "faults": []}
    assert bad["file"] == "a.yaml"
    assert not bad["ok"]
    assert [fault.partition(": ")[0] for fault in bad["faults"]] == ["a.yaml:1", "a.yaml:2"]


def test_check_reads_overrides_and_repeats_them_in_the_next_command(cnn_train: Command) -> None:
    result = cnn_train("config", "check", MNIST, "--set", "training.epochs=3", "--set", "model.filters=[8, 16]")
    assert result.code == 0
    assert "3 epochs" in result.err
    assert result.err.endswith(f"train {MNIST} --set training.epochs=3 --set 'model.filters=[8, 16]'\n")
    result = cnn_train("config", "check", MNIST, "--set", "training.epochs=0")
    assert result.code == 3
    assert result.err == "error: --set training.epochs=0: training.epochs: got 0; must be at least 1\n"


def test_what_another_kind_drops_is_said(cnn_train: Command) -> None:
    note = "--set data.source=mnist-5k: dropped data.fallback, which goes with source: mnist"
    result = cnn_train("config", "check", "mnist", "--set", "data.source=mnist-5k")
    assert result.err.splitlines() == [
        note,
        "mnist: ok: mnist-cnn: cnn on mnist-5k, adam, 10 epochs in batches of 128",
        "next: cnn-train train mnist --set data.source=mnist-5k",
    ]
    result = cnn_train("config", "show", "mnist", "--set", "data.source=mnist-5k")
    assert result.err.splitlines()[0] == note
    assert "fallback" not in result.out


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n", b"\x00" * 100, b"<!DOCTYPE html>\n<html>", b"a: [", b""])
def test_what_is_no_config_ends_with_code_3_and_one_line(cnn_train: Command, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.yaml").write_bytes(content)
    result = cnn_train("config", "check", "a.yaml")
    assert result.code == 3
    assert result.err.startswith("error: a.yaml:")
    assert result.err.count("\n") == 1


def test_a_directory_and_an_unreadable_file_end_with_code_3(cnn_train: Command, tmp_path: Path) -> None:
    assert cnn_train("config", "check", tmp_path) == Result(
        3, "", f"error: {tmp_path}: cannot be read: Is a directory\n"
    )
    (tmp_path / "a.yaml").touch(mode=0)
    if os.access(tmp_path / "a.yaml", os.R_OK):
        pytest.skip("this user can read every file")
    result = cnn_train("config", "check", "a.yaml")
    assert result == Result(3, "", "error: a.yaml: cannot be read: Permission denied\n")


def test_control_characters_of_a_file_do_not_reach_the_terminal(cnn_train: Command, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f'"\\e[2J\\nmore": 1\n{MNIST.read_text(encoding="utf-8")}', encoding="utf-8")
    result = cnn_train("config", "check", "a.yaml")
    assert result.code == 3
    assert result.err.startswith("error: a.yaml:1: \\x1b[2J\\nmore: unknown key")
    assert result.err.count("\n") == 1


def test_check_reads_standard_input(tmp_path: Path) -> None:
    run = process("config", "check", "-", input="name: x\n")
    assert (run.returncode, run.stdout) == (0, "")
    assert run.stderr == "standard input: ok: x: cnn on mnist, adam, 10 epochs in batches of 128\n"
    run = process("config", "check", "-", "--set", "seed=y", input="name: x\ndata: {source: mnits}\n", cwd=tmp_path)
    assert run.returncode == 3
    assert [line.partition("; ")[0] for line in run.stderr.splitlines()] == [
        "error: standard input:2: data.source: got 'mnits'",
        "error: --set seed=y: seed: got 'y'",
    ]
    assert process("config", "check", "-", input="x" * 70_000).stderr.startswith(
        "error: standard input:1: the file is larger than 64 KiB"
    )
    assert "a config is a mapping of keys" in process("config", "check", "-", stdin=subprocess.DEVNULL).stderr


def test_a_near_file_is_named(cnn_train: Command, tmp_path: Path) -> None:
    (tmp_path / "my-digits.yaml").write_text("name: x\n")
    for typed in ("my-digit.yaml", "my_digits.yml"):
        assert cnn_train("config", "check", typed).err == (
            f"error: {typed}: there is no such file; did you mean my-digits.yaml?\n"
        )
    assert cnn_train("config", "check", "my-digits").err.endswith("; did you mean my-digits.yaml?\n")
    typed = tmp_path / "my-digist.yaml"
    assert cnn_train("config", "check", typed).err.endswith(f"did you mean {tmp_path / 'my-digits.yaml'}?\n")


# config show


def test_show_prints_a_config_that_is_the_same_experiment(cnn_train: Command, tmp_path: Path) -> None:
    result = cnn_train("config", "show", MNIST, "--set", "seed=9")
    assert result.code == 0
    assert result.err == f"next: cnn-train train {MNIST} --set seed=9\n"
    (tmp_path / "shown.yaml").write_text(result.out, encoding="utf-8")
    assert load_config(tmp_path / "shown.yaml").experiment == load_config(MNIST, ["seed=9"]).experiment


def test_show_prints_one_json_object(cnn_train: Command) -> None:
    shown = json.loads(cnn_train("config", "show", MNIST, "--json").out)
    assert shown == load_config(MNIST).experiment.model_dump()


def test_show_refuses_a_wrong_config(cnn_train: Command, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(WRONG)
    result = cnn_train("config", "show", "a.yaml")
    assert result.code == 3
    assert result.out == ""
    assert result.err.count("error: a.yaml:") == 2


# config schema and init


def test_schema_prints_the_json_schema(cnn_train: Command) -> None:
    result = cnn_train("config", "schema")
    assert result.code == 0
    assert json.loads(result.out) == template.json_schema()
    assert result.err == "next: cnn-train config init\n"


def test_init_writes_a_config_and_its_schema(cnn_train: Command, tmp_path: Path) -> None:
    result = cnn_train("config", "init")
    assert result.code == 0
    assert result.err.splitlines() == [
        "written: experiment.yaml",
        "written: experiment.schema.json",
        "next: cnn-train config check experiment.yaml",
    ]
    assert cnn_train("config", "check", "experiment.yaml").code == 0
    assert json.loads((tmp_path / "experiment.schema.json").read_text()) == template.json_schema()


def test_init_writes_the_network_that_is_asked_for(cnn_train: Command, tmp_path: Path) -> None:
    result = cnn_train("config", "init", "my mlp.yaml", "--model", "mlp")
    assert result.code == 0
    assert result.err.endswith("next: cnn-train config check 'my mlp.yaml'\n")
    assert load_config(tmp_path / "my mlp.yaml").experiment.model.builder == "mlp"


def test_init_leaves_an_existing_file_alone(cnn_train: Command, tmp_path: Path) -> None:
    (tmp_path / "experiment.yaml").write_text("mine")
    result = cnn_train("config", "init")
    assert result.code == 2
    assert result.err == "error: experiment.yaml: already exists, and is not changed; name another file\n"
    assert [path.name for path in tmp_path.iterdir()] == ["experiment.yaml"]
    assert (tmp_path / "experiment.yaml").read_text() == "mine"


def test_init_says_where_it_cannot_write(cnn_train: Command) -> None:
    result = cnn_train("config", "init", "no/such/folder/x.yaml")
    assert result.code == 1
    assert result.err.startswith("error: no/such/folder/x.yaml: cannot be written: No such file or directory")


# the command line itself


def test_version_goes_to_stdout(cnn_train: Command) -> None:
    assert cnn_train("--version") == Result(0, f"cnn-train {cnn_trainer.__version__}\n", "")


@pytest.mark.parametrize(
    "words", [["nonsense"], ["config", "check"], ["config", "show", "--nonsense"], ["config", "x"]]
)
def test_a_wrong_command_line_ends_with_code_2(cnn_train: Command, words: list[str]) -> None:
    result = cnn_train(*words)
    assert result.code == 2
    assert result.out == ""
    assert "Usage: cnn-train" in result.err


def test_help_is_shown_where_nothing_is_asked(cnn_train: Command) -> None:
    for words in ([], ["config"]):
        result = cnn_train(*words)
        assert "Usage: cnn-train" in result.out + result.err


def test_interrupting_ends_with_code_130(cnn_train: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fits, "load_checked", interrupted)
    assert cnn_train("config", "check", MNIST).code == 130


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (DataError("x.npz: broken"), 4, "error: x.npz: broken\n"),
        (StoppedError("stopped by SIGTERM", 15), 143, "stopped by SIGTERM\n"),
    ],
)
def test_an_expected_failure_is_a_line_and_its_exit_code(
    cnn_train: Command, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, line: str
) -> None:
    def failing(*_: object) -> None:
        raise error

    monkeypatch.setattr(fits, "load_checked", failing)
    assert cnn_train("config", "show", MNIST) == Result(code, "", line)


def test_a_defect_keeps_a_plain_traceback_without_values() -> None:
    program = (
        "import sys\nfrom cnn_trainer import __main__\nfrom cnn_trainer.network import fits\n"
        "def load(*args):\n    word = 'se' + 'cret'\n    raise RuntimeError('a defect')\n"
        f"fits.load_checked = load\nsys.argv = ['cnn-train', 'config', 'show', {str(MNIST)!r}]\n__main__.main()\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr.startswith("Traceback (most recent call last):")
    assert run.stderr.endswith("RuntimeError: a defect\n")
    assert "secret" not in run.stderr


def test_the_module_runs_like_the_entry_point(tmp_path: Path) -> None:
    run = process("config", "check", "missing.yaml", cwd=tmp_path)
    assert (run.returncode, run.stdout) == (3, "")
    assert run.stderr == "error: missing.yaml: there is no such file; start one with: cnn-train config init\n"
    assert process("nonsense").returncode == 2
    assert process("--help").stdout.startswith("Usage: cnn-train ")


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("words", [["schema"], ["check", MNIST]], ids=["schema", "check"])
def test_a_pipe_that_is_closed_early_changes_nothing(stream: str, words: list[str | Path]) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: write_end}
        run = process("config", *words, capture_output=False, **streams)
    finally:
        os.close(write_end)
    assert run.returncode == 0
    assert "Traceback" not in (run.stderr or "")
    assert "ignored" not in (run.stderr or "")


def test_output_into_head_leaves_no_noise() -> None:
    run = subprocess.run(
        ["sh", "-c", '"$0" -m cnn_trainer config schema | head -n 1', sys.executable],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == "{\n"
    assert run.stderr == "next: cnn-train config init\n"


def test_output_that_cannot_be_written_is_a_failure() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with Path("/dev/full").open("w") as full:
        run = process("config", "schema", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert run.returncode == 1
    assert run.stderr == "error: the output cannot be written: No space left on device\n"


@pytest.mark.parametrize("closing", [">&-", "2>&-", ">&- 2>&-"])
def test_streams_that_are_closed_are_no_failure(closing: str) -> None:
    command = f'exec "$0" -m cnn_trainer config show "$1" {closing}'
    run = subprocess.run(["sh", "-c", command, sys.executable, MNIST], capture_output=True, text=True, check=False)
    assert run.returncode == 0
    assert "Traceback" not in run.stderr


ASCII = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_an_ascii_terminal_is_no_failure(tmp_path: Path) -> None:
    text = "data: {source: npz, path: größe.npz}\nmodel: {builder: cnn}\n"
    (tmp_path / "ä.yaml").write_text(text, encoding="utf-8")
    for words in (["check", "ä.yaml"], ["show", "ä.yaml"], ["show", "ä.yaml", "--json"], ["schema"], ["--help"]):
        run = process("config", *words, cwd=tmp_path, env=ASCII)
        assert run.returncode == 0, run.stderr
        assert (run.stdout + run.stderr).isascii()
    run = process("config", "check", "ö.yaml", cwd=tmp_path, env=ASCII)
    assert run.returncode == 3
    assert ": there is no such file; did you mean " in run.stderr
    assert run.stderr.isascii()


@pytest.mark.parametrize("columns", ["1", "10", "0", "x", "100000"])
def test_any_width_of_terminal_will_do(columns: str) -> None:
    for words in (["--help"], ["config", "check", "--help"], ["config", "check"], ["config", "check", MNIST]):
        run = process(*words, env={"COLUMNS": columns})
        assert run.returncode in {0, 2}
        assert "Traceback" not in run.stderr


@pytest.mark.parametrize("columns", [10, 80])
def test_help_and_usage_errors_on_a_terminal_of_any_width(columns: int) -> None:
    for words, code in ((["--help"], 0), (["runs", "-h"], 0), (["train", "-h"], 0), (["nonsense"], 2)):
        terminal, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        environment = {"TERM": "xterm", "COLUMNS": ""}
        run = process(*words, capture_output=False, stdin=inner, stdout=inner, stderr=inner, env=environment)
        os.close(inner)
        parts: list[bytes] = []
        with suppress(OSError):  # which ends a terminal that nobody writes to any more
            while part := os.read(terminal, 65536):
                parts.append(part)
        shown = b"".join(parts).decode()
        os.close(terminal)
        assert run.returncode == code
        assert "Usage:" in shown
        assert "Traceback" not in shown
        assert "bool" not in shown
        assert ("╭" in shown) == (columns == 80), "frames where there is room for them"


def test_completion_offers_commands_and_options() -> None:
    def offered(line: str) -> set[str]:
        words = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" ")), "_CNN_TRAIN_COMPLETE": "complete_bash"}
        return set(process(env=words).stdout.split())

    assert "config" in offered("cnn-train ")
    assert offered("cnn-train config ") == {"check", "show", "schema", "init"}
    assert {"--set", "--json"} <= offered("cnn-train config show --")
    assert offered("cnn-train config init --model ") == {"cnn", "mlp"}
    assert offered("cnn-train train mnist --set training.ep") == {"training.epochs="}
    assert offered("cnn-train config check mnist --set training.early") == {
        "training.early_stopping.patience=",
        "training.early_stopping.min_delta=",
    }
    assert offered("cnn-train train mnist-mlp --set model.h") == {"model.hidden_units="}, "of the config's own kind"
    assert offered("cnn-train train missing.yaml --set model.f") == {"model.filters="}
    assert offered("cnn-train benchmark --set model.builder=") == {"model.builder=cnn", "model.builder=mlp"}
    assert offered("cnn-train benchmark --set runtime.tensorboard=t") == {"runtime.tensorboard=true"}
    assert offered("cnn-train benchmark --set training.class_weights=") == {
        "training.class_weights=balanced",
        "training.class_weights=null",
    }
    assert offered("cnn-train train mnist --set nonsense.x=") == set()


def test_the_completion_script_calls_this_program() -> None:
    # Typer otherwise asks which shell started this process, and in CI there may be none.
    run = process("--show-completion", "bash", env={"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"})
    assert run.returncode == 0
    assert "_CNN_TRAIN_COMPLETE=complete_bash" in run.stdout
    assert run.stdout.rstrip().endswith("cnn-train")
