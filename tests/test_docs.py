"""Everything that README.md and docs/ show works as shown: commands, programs, configs and names.

Every block of commands (bash, sh, console) and every program (python) is run, in order, page by page, in a folder that
has the files that the pages mention. The comment ``<!-- exit 3 -->`` on the line before a block says that its commands
fail with that exit code. ``<!-- not run: PATH -->`` names the test or other file that runs the commands instead.
"""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

from cnn_trainer import data
from cnn_trainer.cli import app
from cnn_trainer.config.schema import Experiment
from cnn_trainer.config.schema import data as data_sections

ROOT = Path(__file__).parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
# The run that the pages show.
RUN = "20261124-214501-mnist-cnn"

_FENCE = re.compile(
    r"(?:^<!-- (?:exit (?P<code>\d+)|not run: (?P<instead>\S+)) -->\n+)?^```(?P<kind>[a-z]*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_SPAN = re.compile(r"`([^`\n]+(?:\n[^`\n]+)?)`")
# Paths in this repository; other paths are on the reader's machine, or the commands make them.
_PATH = re.compile(
    r"(?<![\w./-])(?:(?:configs|cnn_trainer|tests|requirements|docs|\.ci)/[\w./-]*\w|[A-Z]+\.md|Dockerfile|Makefile)"
)
_KEY = re.compile(r"(?<![\w.])(data|model|training|runtime)\.(?!keras|py|yaml)([a-z][a-z_0-9]*)")
# Options of other programs that the pages name.
_FOREIGN = {"--rm", "--user", "--gpus", "--build-arg", "--target"}
_OF_TYPER = {"--help", "--install-completion", "--show-completion"}


@dataclass(frozen=True)
class Block:
    """A fenced block: its kind, its text, the exit code it expects, and the file, if any, that runs them instead."""

    kind: str
    text: str
    code: int
    instead: str | None


def blocks_of(text):
    """Every fenced block of a page."""
    return [
        Block(match["kind"], match["text"], int(match["code"] or 0), match["instead"])
        for match in _FENCE.finditer(text)
    ]


def commands_of(block):
    """The command lines of a block, without the prompt; a line that ends with \\ continues."""
    lines = block.text.replace("\\\n", " ").splitlines()
    if block.kind == "console":
        return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return [line for line in lines if line and not line.startswith("#")]


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
    """Every line of code of a page: those of its command blocks, and its code spans."""
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
    schema = Experiment.model_json_schema()
    kinds = re.findall(r"#/\$defs/(\w+)", json.dumps(schema["properties"][part]))
    return {key for kind in kinds for key in schema["$defs"][kind]["properties"]}


@pytest.fixture(scope="module")
def trained_run(cnn_train, tmp_path_factory):
    """A run of configs/mnist.yaml for one epoch, exported as ONNX; tests must not write into it."""
    folder = tmp_path_factory.mktemp("shown")
    answer = cnn_train("train", ROOT / "configs/mnist.yaml", "--set", "training.epochs=1", "--json", cwd=folder)
    assert answer.code == 0, answer.err
    assert cnn_train("export", folder / answer.run, "--format", "onnx").code == 0
    return folder / answer.run


@pytest.fixture
def folder(tmp_path, trained_run):
    """A reader's folder: the configs, the run that the pages show, mnist.npz, pictures, and a wrong config."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs", symlinks=False)
    shutil.copytree(trained_run, tmp_path / "runs" / RUN)
    train = data.load_training(data_sections.Mnist5k(source="mnist-5k"), 1, print).train
    images, labels = train.images[:, :, :, 0], train.labels
    np.savez(tmp_path / "mnist.npz", x_train=images, y_train=labels, x_test=images[::5], y_test=labels[::5])
    sevens, ones = (images[labels == digit] for digit in (7, 1))
    shown = {"7.png": sevens[0], "pictures/seven.png": sevens[1], "pictures/one.png": ones[0]}
    for number in range(12):
        shown |= {f"pets/cat/{number}.png": sevens[number], f"pets/dog/{number}.png": ones[number]}
    for place, image in shown.items():
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / place)
    wrong = "name: wrong\ndata:\n  source: mnits\n\nmodel:\n  builder: cnn\n  kernel_size: 0\ntraining:\n"
    (tmp_path / "wrong.yaml").write_text(f"{wrong}  learning_rte: 0.1\n  epochs: ten\n")
    return tmp_path


class Reader:
    """Types the commands of a page into a shell, in a folder. A server runs until the end of the page."""

    def __init__(self, folder, environment):
        self._folder, self._servers = folder, []
        programs = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
        self._environment = {**environment, "PATH": programs, "NO_PROXY": "127.0.0.1"}
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]

    def type(self, command, code):
        command = command.replace(":8501/", f":{self._port}/")
        if command.startswith("cnn-train serve "):
            self._serve(command)
            return
        form = {"cwd": self._folder, "env": self._environment, "timeout": 600, "capture_output": True, "text": True}
        done = subprocess.run(["bash", "-c", command], check=False, **form)
        assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"

    def _serve(self, command):
        words = [*shlex.split(command), "--port", str(self._port)]
        self._servers.append(
            subprocess.Popen(words, cwd=self._folder, env=self._environment, stderr=subprocess.DEVNULL)
        )
        ready = urllib.request.Request(f"http://127.0.0.1:{self._port}/v2/health/ready")
        give_up = time.monotonic() + 60
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while time.monotonic() < give_up:
            try:
                opener.open(ready, timeout=2).close()
            except OSError:
                time.sleep(0.1)
            else:
                return
        raise AssertionError(f"{command}: not ready after 60 s")

    def close(self):
        for server in self._servers:
            server.terminate()
            server.wait(timeout=60)


def runnable(text):
    """The blocks of a page that are run here."""
    kinds = ("bash", "sh", "console", "python")
    return [block for block in blocks_of(text) if block.kind in kinds and block.instead is None]


@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if runnable(text)])
def test_what_a_page_shows_is_done_as_it_stands(page, cnn_train, folder):
    reader = Reader(folder, cnn_train.environment)
    try:
        for block in runnable(PAGES[page]):
            if block.kind == "python":
                (folder / "program.py").write_text(block.text, encoding="utf-8")
                reader.type("python program.py", block.code)
                continue
            for command in commands_of(block):
                if not command.startswith("curl ") or shutil.which("curl"):
                    reader.type(command, block.code)
    finally:
        reader.close()


def test_what_is_not_run_here_is_run_elsewhere():
    for page, text in PAGES.items():
        for block in blocks_of(text):
            if block.instead is not None:
                elsewhere = (ROOT / block.instead).read_text(encoding="utf-8")
                for command in commands_of(block):
                    words = re.findall(r"\b(?:cnn-train|docker|pip|make) [a-z]+", command)
                    assert words or command.startswith("mkdir "), f"{page}: {command}"
                    assert all(word.split()[-1] in elsewhere for word in words), f"{page}: {command}: {block.instead}"


def test_the_configs_of_the_pages_are_right(cnn_train, tmp_path):
    configs = [block.text for text in PAGES.values() for block in blocks_of(text) if block.kind == "yaml"]
    assert configs
    for number, text in enumerate(configs):
        (tmp_path / f"{number}.yaml").write_text(text, encoding="utf-8")
        answer = cnn_train("config", "check", f"{number}.yaml", cwd=tmp_path)
        assert answer.code == 0, answer.err


@pytest.mark.parametrize("page", PAGES)
def test_every_path_command_option_and_key_that_a_page_names_exists(page):
    assert unknown_names(PAGES[page]) == []


@pytest.mark.parametrize("page", PAGES)
def test_every_link_between_pages_leads_somewhere(page):
    targets = re.findall(r"\]\(([^)#:]+)\)", PAGES[page])
    assert [target for target in targets if not (ROOT / page).parent.joinpath(target).exists()] == []


def test_the_readme_is_short():
    assert len(PAGES["README.md"].splitlines()) < 180


@pytest.mark.parametrize(
    "path", [*PAGES, *sorted(f"configs/{path.name}" for path in (ROOT / "configs").glob("*.yaml"))]
)
def test_nothing_is_left_to_be_filled_in(path):
    assert re.findall(r"@[A-Z_]+@", (ROOT / path).read_text(encoding="utf-8")) == []


SAMPLE = """\
Run `cnn-train train configs/mnist.yaml --set training.epochs=3`, or `runs list`; see `configs/nothing.yaml`.

<!-- exit 3 -->
```console
$ cnn-train config check wrong.yaml
cnn-train is mentioned in its output
$ cnn-train data check \\
    --sett a=1
```

<!-- not run: .ci/container -->
```sh
docker run --rm cnn-trainer train --wrong
cnn-train evaluate latest --min-acuracy 0.9
cnn-train trian configs/mnist.yaml
```

```bash
cnn-train runs list
make train
```
And `training.epoch` or `--no-such`.
"""


def test_blocks_are_found_with_their_commands():
    blocks = blocks_of(SAMPLE)
    assert [(block.kind, block.code, block.instead) for block in blocks] == [
        ("console", 3, None),
        ("sh", 0, ".ci/container"),
        ("bash", 0, None),
    ]
    assert commands_of(blocks[0]) == ["cnn-train config check wrong.yaml", "cnn-train data check      --sett a=1"]
    assert commands_of(blocks[2]) == ["cnn-train runs list", "make train"]
    assert [block.kind for block in runnable(SAMPLE)] == ["console", "bash"]


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
