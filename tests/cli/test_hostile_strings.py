"""No control character of a record, a name or a config reaches a terminal, no matter which command reads it.

Otherwise a stranger's run directory could move the cursor, set the window's title, or write lines of its own.
"""

import contextlib
import json
import shutil

import pytest
from support import read_json

from cnn_trainer.__main__ import _exit_code

HOSTILE = "\x1b[31m\x1b]0;title\x07\r\n# 100%\u202eevil\x9b2J\udcff"
IN_JSON = HOSTILE.replace("\udcff", "")  # a record is Unicode text
READERS = {
    "run.json": (("runs", "list"), ("runs", "show", "latest")),
    "evaluation.json": (("runs", "show", "latest"),),
    "export/manifest.json": (("serve", "latest", "--host", "256.0.0.1"),),
}
# These decide whether a command gets to its output at all, so each is changed on its own, not with the others.
KEYS_TO_KEEP = {"format", "path", "schema_version", "source", "split", "status", "weights_sha256", "train_sha256"}


def strings(value, path=()):
    """The path of every string in a JSON value, and of one key of each mapping, since all are shown alike."""
    if isinstance(value, dict):
        for key in list(value)[:1]:
            yield (*path, "key", key)
        for key, inner in value.items():
            yield from strings(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value[:1]):  # the rest of a list is shown like its first item
            yield from strings(inner, (*path, index))
    elif isinstance(value, str):
        yield path


def with_hostile(value, path):
    """A copy of ``value`` with the string at ``path`` hostile."""
    copy = json.loads(json.dumps(value))
    if path[-2:-1] == ("key",):
        place = copy
        for word in path[:-2]:
            place = place[word]
        place[IN_JSON] = place.pop(path[-1])
        return copy
    place = copy
    for word in path[:-1]:
        place = place[word]
    place[path[-1]] = IN_JSON
    return copy


def all_hostile(value, key=""):
    """``value`` with every string hostile except those that a command needs to get to its output."""
    if isinstance(value, dict):
        return {name: all_hostile(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [all_hostile(inner, key) for inner in value]
    return IN_JSON if isinstance(value, str) and key not in KEYS_TO_KEEP else value


def check(answer):
    for text in (answer.out, answer.err):
        bad = sorted({letter for letter in text if not letter.isprintable() and letter != "\n"})
        assert not bad, (bad, text)
        assert not any(line.startswith("# 100%") for line in text.splitlines()), text


@pytest.fixture(scope="module")
def exported_run(cnn_train, finished_run, tmp_path_factory):
    """A run with its own export; tests must not write into it."""
    run = shutil.copytree(finished_run, tmp_path_factory.mktemp("hostile") / finished_run.name)
    answer = cnn_train("export", run, "--format", "onnx")
    assert answer.code == 0, answer.err
    return run


@pytest.fixture
def copy(exported_run, tmp_path):
    """A copy that a test may change, the only run in its runs directory."""
    return shutil.copytree(exported_run, tmp_path / "runs" / exported_run.name)


@pytest.mark.parametrize("name", READERS)
def test_each_string_of_a_record_is_escaped(copy, name, monkeypatch, capfd):
    """In this process, through the program's own output."""
    monkeypatch.chdir(copy.parent.parent)
    good = read_json(copy / name)
    for path in strings(good):
        (copy / name).write_text(json.dumps(with_hostile(good, path)), encoding="utf-8")
        for words in READERS[name]:
            monkeypatch.setattr("sys.argv", ["cnn-train", *words])
            with contextlib.suppress(SystemExit):
                _exit_code()
            check(capfd.readouterr())


COMMANDS = {
    "runs list": ("runs", "list"),
    "runs show": ("runs", "show", "RUN"),
    "evaluate": ("evaluate", "RUN"),
    "predict": ("predict", "RUN", "PICTURE"),
    "export": ("export", "RUN", "--format", "onnx"),
    "resume": ("resume", "RUN"),
    "resume on": ("resume", "RUN", "--epochs", "3"),
    "serve": ("serve", "RUN", "--host", "256.0.0.1"),
    "train": ("train", "RUN/config.yaml"),
    "config check": ("config", "check", "RUN/config.yaml"),
    "data check": ("data", "check", "RUN/config.yaml"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_escapes_what_it_prints_of_a_hostile_run_in_a_hostile_place(cnn_train, copy, tmp_path, name):
    place = tmp_path / f"place {HOSTILE.replace('/', '')}"
    place.mkdir()
    run = copy.rename(place / f"20260101-000000-{HOSTILE}")
    for record in READERS:
        (run / record).write_text(json.dumps(all_hostile(read_json(run / record))), encoding="utf-8")
    (run / f"file {HOSTILE}").touch()
    picture = place / f"picture {HOSTILE}.png"
    picture.write_bytes(b"no picture")
    replaced = {"RUN": run, "PICTURE": picture, "RUN/config.yaml": run / "config.yaml"}
    words = [replaced.get(word, word) for word in COMMANDS[name]]
    where = () if name in ("config check", "data check", "serve") else ("--runs-dir", place)
    check(cnn_train(*words, *([] if name == "serve" else where), cwd=tmp_path))


def test_faults_of_a_hostile_config_are_escaped(cnn_train, tmp_path):
    config = tmp_path / f"config {HOSTILE}.yaml"
    key = json.dumps(IN_JSON)
    config.write_text(f"name: {key}\n{key}: 1\ndata: {{source: {key}}}\nmodel: {{builder: cnn, {key}: {key}}}\n")
    for words in (("config", "check"), ("config", "show"), ("train",), ("data", "check")):
        check(cnn_train(*words, config, "--set", f"training.{IN_JSON}=1", cwd=tmp_path))
    config.write_text(f"name: x\ndata: {{source: npz, path: {key}}}\nmodel: {{builder: cnn}}\n")
    for words in (("config", "check"), ("config", "show"), ("train",), ("data", "check")):
        check(cnn_train(*words, config, cwd=tmp_path))
