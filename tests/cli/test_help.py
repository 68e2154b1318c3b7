"""What every command's help shows, at any width, and what a wrong word on the command line is told."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import typer.main
from typer.core import TyperGroup

from cnn_trainer.cli import app

# Runs many command lines in one process, for starting one takes a quarter of a second.
PROGRAM = """
import sys
from cnn_trainer.cli import app
for line in sys.argv[1:]:
    try:
        app(line.split(), prog_name="cnn-train")
    except SystemExit as end:
        assert end.code == 0, line
    print("\\0", end="")
"""


def commands(group: TyperGroup, *before: str) -> Iterator[tuple[str, ...]]:
    """The words of every command and every group of commands."""
    yield before
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands(command, *before, name)
        else:
            yield (*before, name)


ROOT = typer.main.get_command(app)
assert isinstance(ROOT, TyperGroup)
ALL = list(commands(ROOT))


def shown(option: str, columns: int) -> list[str]:
    lines = [" ".join((*words, option)) for words in ALL]
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, *lines],
        env={**os.environ, "COLUMNS": str(columns)},
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.split("\0")[:-1]


def test_short_and_long_help_are_the_same_on_every_command() -> None:
    assert len(ALL) > 15
    long = shown("--help", 80)
    assert shown("-h", 80) == long
    assert all("-h, --help" in text for text in long)


@pytest.mark.parametrize("columns", [50, 80, 120])
def test_help_names_no_type_of_python_and_cuts_nothing_off(columns: int) -> None:
    for words, text in zip(ALL, shown("-h", columns), strict=True):
        usage, _, rest = text.partition("\n\n")
        assert " ".join(usage.split()).startswith(" ".join(("Usage: cnn-train", *words)))
        assert "{" not in usage
        for word in ("<str>", "<int", "<float", "<path>", "<list", "TEXT", "INTEGER", "FLOAT"):
            assert word not in text, (words, word)
        assert max(map(len, text.splitlines())) <= max(columns, 65), words
        command = ROOT
        for word in words:
            assert isinstance(command, TyperGroup)
            command = command.commands[word]
        if isinstance(command, TyperGroup):
            joined = " ".join(rest.split())
            for name, inner in command.commands.items():
                summary = " ".join((inner.help or "").partition("\n\n")[0].split())
                assert f"{name} {summary}" in joined, (words, name)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["trian"], "Did you mean 'train'?"),
        (["runs", "lst"], "Did you mean 'list'?"),
        (["train", "mnist", "--devce", "cpu"], "--device"),
        (["export", "x", "--format", "onxx"], "'litert-micro', 'keras'; did you mean onnx?"),
        (["export", "x", "--format", "SavedModel"], "did you mean saved-model?"),
        (["export", "x", "--format", "tflite"], "did you mean litert?"),
        (["train", "mnist", "--device", "GPU"], "did you mean gpu?"),
        (["runs", "list", "--status", "finish"], "did you mean finished?"),
        (["data", "fetch", "fashion_mnist"], "did you mean fashion-mnist?"),
        (["evaluate", "x", "--split", "validate"], "did you mean validation?"),
    ],
)
def test_a_wrong_word_is_told_what_it_may_mean(words: list[str], hint: str) -> None:
    run = subprocess.run([sys.executable, "-m", "cnn_trainer", *words], capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert hint in run.stderr
    assert "Value error" not in run.stderr
