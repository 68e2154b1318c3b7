"""What the README says is done as it stands there: its commands, its configs, its names.

A block of commands (```console or ```bash) is run where the line before it says ``<!-- tested -->``, or
``<!-- tested: exit 3 -->`` for commands that are shown to fail.
"""

import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer

from cnn_trainer.cli import app
from cnn_trainer.config.schema import Experiment

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

_FENCE = re.compile(
    r"(?:^<!-- tested(?:: exit (?P<code>\d+))? -->\n+)?^```(?P<kind>[a-z]*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_SPAN = re.compile(r"`([^`\n]+(?:\n[^`\n]+)?)`")
_SHELL = {"|", "||", "&&", "&", ";", ">", ">>", "<"}
# Folders of this repository; other paths are of the reader's own machine, or are made by the commands.
_PATH = re.compile(
    r"(?<![\w./-])(?:(?:configs|cnn_trainer|tests|requirements|docs|\.ci)/[\w./-]*\w|[A-Z]+\.md|Dockerfile|Makefile)"
)
_KEY = re.compile(r"(?<![\w.])(data|model|training|runtime)\.(?!keras|py|yaml)([a-z][a-z_0-9]*)")
# Options of other programs that the README names.
_FOREIGN = {"--rm", "--user", "--gpus", "--build-arg", "--target"}
_OF_TYPER = {"--help", "--install-completion", "--show-completion"}


@dataclass(frozen=True)
class Block:
    """A fenced block: its kind, its text, and the exit code that its commands are to have; None where not tested."""

    kind: str
    text: str
    code: int | None


def blocks_of(text):
    """Every fenced block of a page."""
    found = []
    for match in _FENCE.finditer(text):
        tested = match[0].startswith("<!--")
        found.append(Block(match["kind"], match["text"], int(match["code"] or 0) if tested else None))
    return found


def command_lines(block):
    """The words of each cnn-train line of a block, without the program's name; a line ended by \\ goes on."""
    lines = block.text.replace("\\\n", " ").splitlines()
    found = []
    for line in lines:
        words = shlex.split(line.removeprefix("$ "), comments=True) if "cnn-train" in line else []
        if words[:1] == ["cnn-train"] and (block.kind != "console" or line.startswith("$ ")):
            found.append(words[1:])
    return found


def options_by_command():
    """The options of every command, by its name: ``runs list`` and so on."""
    found = {"": _OF_TYPER | {"--version"}}

    def collect(command, name):
        if hasattr(command, "commands"):
            for word, inner in command.commands.items():
                collect(inner, f"{name} {word}".strip())
        else:
            found[name] = {option for parameter in command.params for option in parameter.opts} | {"--help"}

    collect(typer.main.get_command(app), "")
    return found


def code_of(text):
    """Every line of code of a page: of its blocks of commands, and of its spans."""
    rest, lines = text, []
    for match in _FENCE.finditer(text):
        rest = rest.replace(match[0], "")
        if match["kind"] in ("sh", "bash", "console"):
            shown = match["text"].replace("\\\n", " ").splitlines()
            lines += [line for line in shown if match["kind"] != "console" or line.startswith("$ ")]
    return lines + [" ".join(span.split()) for span in _SPAN.findall(rest)]


def unknown_names(text):
    """Paths, commands, options and config keys that a page names and that do not exist."""
    options, unknown = options_by_command(), []
    everywhere = set().union(*options.values()) | _FOREIGN
    for line in code_of(text):
        unknown += [path for path in _PATH.findall(line) if not (ROOT / path).exists()]
        unknown += [f"{part}.{key}" for part, key in _KEY.findall(line) if key not in _keys_of(part)]
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", line))
        words = re.search(r"\bcnn-train ([a-z]+)(?: ([a-z]+))?", line)
        if words and "docker" not in line:
            name = next((name for name in (f"{words[1]} {words[2]}", words[1]) if name in options), None)
            if name is None and not any(known.startswith(f"{words[1]} ") for known in options):
                unknown.append(f"cnn-train {words[1]}")
            named_here = options[name] if name else everywhere
            unknown += sorted(named - named_here)
        else:
            unknown += sorted(named - everywhere)
    return unknown


def _keys_of(part):
    """The keys of a section, whatever kind of data or network it is."""
    definitions = Experiment.model_json_schema()["$defs"]
    kinds = {
        "data": ("Mnist", "MnistLike", "Mnist5k", "Npz", "Idx", "Folder", "Csv", "Parquet"),
        "model": ("Cnn", "Mlp"),
        "training": ("Training",),
        "runtime": ("Runtime",),
    }
    return {key for kind in kinds[part] for key in definitions[kind]["properties"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A reader's folder: a copy of configs/, where the commands leave their runs."""
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(ROOT / "configs", folder / "configs")
    return folder


def test_the_commands_of_the_readme_do_what_they_are_shown_to_do(cnn_train, folder):
    tested = [block for block in blocks_of(README) if block.code is not None]
    assert tested, "no block of the README is marked <!-- tested -->"
    for block in tested:
        assert block.kind in ("console", "bash"), block
        lines = command_lines(block)
        assert lines, f"no line for cnn-train in {block.text}"
        for words in lines:
            assert not _SHELL & set(words), f"{words}: a tested line is run without a shell"
            answer = cnn_train(*words, cwd=folder)
            assert answer.code == block.code, f"cnn-train {shlex.join(words)}\n{answer.err}"


def test_the_configs_of_the_readme_are_right(cnn_train, tmp_path):
    configs = [block.text for block in blocks_of(README) if block.kind == "yaml"]
    assert configs
    for number, text in enumerate(configs):
        (tmp_path / f"{number}.yaml").write_text(text, encoding="utf-8")
        answer = cnn_train("config", "check", f"{number}.yaml", cwd=tmp_path)
        assert answer.code == 0, answer.err


def test_every_path_command_option_and_key_in_the_readme_exists():
    assert unknown_names(README) == []


@pytest.mark.parametrize("path", [Path("README.md"), *sorted(Path("configs").glob("*.yaml"))], ids=str)
def test_nothing_is_left_to_be_filled_in(path):
    assert re.findall(r"@[A-Z_]+@", (ROOT / path).read_text(encoding="utf-8")) == []


SAMPLE = """\
Run `cnn-train train configs/mnist.yaml --set training.epochs=3`, or `runs list`; see `configs/nothing.yaml`.

<!-- tested: exit 3 -->
```console
$ cnn-train config check wrong.yaml
cnn-train is mentioned in its output
$ cnn-train data check \\
    --sett a=1  # a comment
```

```sh
docker run --rm cnn-trainer train --wrong
cnn-train evaluate latest --min-acuracy 0.9
cnn-train trian configs/mnist.yaml
```

<!-- tested -->

```bash
cnn-train runs list
make train
```
And `training.epoch` or `--no-such`.
"""


def test_marked_blocks_are_found_with_their_commands():
    blocks = blocks_of(SAMPLE)
    assert [(block.kind, block.code) for block in blocks] == [("console", 3), ("sh", None), ("bash", 0)]
    assert command_lines(blocks[0]) == [["config", "check", "wrong.yaml"], ["data", "check", "--sett", "a=1"]]
    assert command_lines(blocks[2]) == [["runs", "list"]]


def test_names_that_do_not_exist_are_found():
    assert sorted(unknown_names(SAMPLE)) == [
        "--min-acuracy",
        "--no-such",
        "--sett",
        "--wrong",
        "cnn-train trian",
        "configs/nothing.yaml",
        "training.epoch",
    ]
