"""The strict reader: what it accepts, what it refuses (and with which line), and that no text breaks it."""

import math
import os
import random
import time
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from cnn_trainer.config import strict_yaml, template
from cnn_trainer.config.load import dump_config, load_config
from cnn_trainer.config.strict_yaml import MAX_BYTES, MAX_DEPTH, MAX_VALUES, Value, read_document, read_file, read_text
from cnn_trainer.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"
LETTERS = "abcdefghijklmnop"


def fault_of(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read_text(text, "f.yaml")
    [fault] = caught.value.lines()
    return fault


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1.", 1.0),
        (".5", 0.5),
        ("-3", -3),
        ("+3", 3),
        ("007", 7),
        ("1_000", "1_000"),
        ("0x10", "0x10"),
        ("0o17", "0o17"),
        ("12:30", "12:30"),
        ("2026-01-01", "2026-01-01"),
        ("no", "no"),
        ("on", "on"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("tRuE", "tRuE"),
        ("null", None),
        ("~", None),
        ("", None),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("'1'", "1"),
        ('"true"', "true"),
        ("1e", "1e"),
        ("999999999999999999", 999_999_999_999_999_999),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: Value) -> None:
    read = read_text(f"key: {text}", "f.yaml").value
    assert read == {"key": value}
    assert isinstance(read, dict)
    assert type(read["key"]) is type(value)


def test_nan_is_a_number() -> None:
    value = read_text("key: .nan", "f.yaml").value
    assert isinstance(value, dict)
    assert isinstance(value["key"], float)
    assert math.isnan(value["key"])


def test_every_key_and_item_has_its_line() -> None:
    document = read_text("# comment\na:\n  b: 1\n  c:\n    - 2\n    - 3\nd: {e: 4}\n", "f.yaml")
    assert document.value == {"a": {"b": 1, "c": [2, 3]}, "d": {"e": 4}}
    assert document.lines == {
        (): 2,
        ("a",): 2,
        ("a", "b"): 3,
        ("a", "c"): 4,
        ("a", "c", 0): 5,
        ("a", "c", 1): 6,
        ("d",): 7,
        ("d", "e"): 7,
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: &x 3\nb: *x\nc: [*x, *x]\n", {"a": 3, "b": 3, "c": [3, 3]}),
        ("a: &x {b: &y [1]}\nc: *x\nd: *y\n", {"a": {"b": [1]}, "c": {"b": [1]}, "d": [1]}),
        ("a: &x\nb: *x\n", {"a": None, "b": None}),
        ("a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}\n", {"a": {"b": 1, "c": 2}, "d": {"c": 3, "b": 1}}),
        ("a: &x {b: 1}\nd:\n  c: 3\n  <<: *x\n", {"a": {"b": 1}, "d": {"c": 3, "b": 1}}),
        ("a: &x {b: 1}\nc: &y {b: 2, d: 2}\ne: {<<: [*x, *y]}\n",
         {"a": {"b": 1}, "c": {"b": 2, "d": 2}, "e": {"b": 1, "d": 2}}),
        ("a: &x {b: 1}\nc: &y {<<: *x, d: 2}\ne: {<<: *y}\n",
         {"a": {"b": 1}, "c": {"d": 2, "b": 1}, "e": {"d": 2, "b": 1}}),
        ("a: &x {b: {c: 1, d: 2}}\ne: {<<: *x, b: {c: 3}}\n", {"a": {"b": {"c": 1, "d": 2}}, "e": {"b": {"c": 3}}}),
        ("a: {<<: {b: 1}, c: 2}\n", {"a": {"c": 2, "b": 1}}),
        ("a: {'<<': 1}\n", {"a": {"<<": 1}}),
    ],
)  # fmt: skip
def test_aliases_and_merge_keys_are_written_out(text: str, value: Value) -> None:
    assert read_text(text, "f.yaml").value == value
    assert yaml.safe_load(text) == value or "'<<'" in text, "PyYAML reads it the same way"


def test_what_an_alias_brings_in_has_the_line_where_it_is_written() -> None:
    text = "x: &x\n  a: 1\n  b:\n    - 2\nc: *x\nd:\n  <<: *x\n  a: 3\n"
    document = read_text(text, "f.yaml")
    assert document.value == {"x": {"a": 1, "b": [2]}, "c": {"a": 1, "b": [2]}, "d": {"a": 3, "b": [2]}}
    lines = {".".join(map(str, path)): line for path, line in document.lines.items()}
    assert lines == {"": 1, "x": 1, "x.a": 2, "x.b": 3, "x.b.0": 4, "c": 5, "c.a": 2, "c.b": 3, "c.b.0": 4} | {
        "d": 6, "d.a": 8, "d.b": 3, "d.b.0": 4,
    }  # fmt: skip
    assert document.reused == {"x"}
    assert read_text("x: &x 1\ny:\n  - *x\n", "f.yaml").lines[("y", 0)] == 3, "an item that is an alias"


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [1, 1]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in pairwise(LETTERS)),
        "a: &a {x: [1, 2]}\n" + "".join(f"{b}: {{<<: [{', '.join(['*a'] * 90)}]}}\n" for b in LETTERS[1:]),
        "a: &a {x: 1}\n" + "".join(f"{b}: &{b} {{y: {{<<: *{a}}}, z: *{a}}}\n" for a, b in pairwise(LETTERS)),
        "a: &a [1]\n" + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 1000)}]\n" for a, b in pairwise(LETTERS)),
    ],
)
def test_a_bomb_of_aliases_is_refused_in_a_moment(text: str) -> None:
    start = time.perf_counter()
    assert f"more than {MAX_VALUES} values, aliases written out" in fault_of(text)
    assert time.perf_counter() - start < 5, "bounded by the values that are read, not by what they stand for"


def test_aliases_are_counted_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "a: &x [1, 2]\nb: *x\nc: *x\n"  # 10 values
    monkeypatch.setattr(strict_yaml, "MAX_VALUES", 10)
    assert read_text(text, "f.yaml").value == {"a": [1, 2], "b": [1, 2], "c": [1, 2]}
    monkeypatch.setattr(strict_yaml, "MAX_VALUES", 9)
    assert "more than 9 values, aliases written out" in fault_of(text)


@pytest.mark.parametrize(
    ("text", "line", "fragment"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "duplicate key a; it is already in line 1"),
        ("a:\n  b: 1\n  b: 1\n", 3, "duplicate key b"),
        ('a: 1\n"a": 2\n', 2, "duplicate key a"),
        (
            "a: 1\nb: *x\n",
            2,
            "alias *x has no anchor before it; mark an earlier value with &x, or put the text in quotes",
        ),
        ("a: &x [1, *x]\n", 1, "alias *x has no anchor before it"),
        ("a: &x {b: *x}\n", 1, "alias *x has no anchor before it"),
        ("a: &x 1\nb: *x\nc: &x 2\n", 3, "duplicate anchor &x; it is already in line 1"),
        ("a: &x 1\nb:\n  <<: *x\n", 1, "<< takes a mapping or a list of mappings; such as <<: *name"),
        ("a:\n  <<: [1]\n", 2, "<< takes a mapping or a list of mappings"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n  <<: *x\n", 4, "duplicate key <<; it is already in line 3"),
        ("a: 1\n*x : 2\n", 2, "alias or anchor x is not allowed"),
        ("&x a: 1\n", 1, "anchor"),
        ("a: !!python/object/apply:os.system [ls]\n", 1, "tag"),
        ("a: 1\nb: !!int '3'\n", 2, "tag"),
        ("!!str a: 1\n", 1, "a key must be a plain word"),
        ("a: 1\n\tb: 2\n", 2, "tab character"),
        ("a: 1\nb: 'x\ty'\n", 2, "tab character"),
        ("a: 1\n[b]: 2\n", 2, "a key must be a plain word"),
        ("a: 1\n---\nb: 2\n", 2, "a second document begins here"),
        ("a: 1\nb: [1, 2\nc: 3\n", 3, "not valid YAML"),
        ("a: 1\nb: c: 2\n", 2, "not valid YAML"),
        ("a: 'x\n", 2, "not valid YAML"),
        ("a: @x\n", 1, "not valid YAML"),
        ("%YAML 9.9\n---\na: 1\n", 1, "not valid YAML"),
        ("a: 1\nb: \x00\n", 2, "character 0x0000 is not allowed"),
        ("a: 1\nb: \x1b[2J\n", 2, "character 0x001b is not allowed"),
        ("a: 1\nb: \udcff\n", 2, "character 0xdcff is not allowed"),
        ("a: 1234567890123456789\n", 1, "more than 18 digits"),
        ("[" * (MAX_DEPTH + 1), 1, f"more than {MAX_DEPTH} levels"),
        ("[" * 50_000, 1, f"more than {MAX_DEPTH} levels"),
        ("{a: " * (MAX_DEPTH + 1), 1, f"more than {MAX_DEPTH} levels"),
        ("- 1\n" * MAX_VALUES, MAX_VALUES, f"more than {MAX_VALUES} values"),
    ],
)
def test_what_is_not_plain_data_is_refused_with_its_line(text: str, line: int, fragment: str) -> None:
    fault = fault_of(text)
    assert fault.startswith(f"f.yaml:{line}: ")
    assert fragment in fault
    assert len(fault) < 300


def test_the_deepest_and_the_longest_allowed_are_read() -> None:
    assert read_text("[" * MAX_DEPTH + "]" * MAX_DEPTH, "f.yaml").value is not None
    items = read_text("- 1\n" * (MAX_VALUES - 1), "f.yaml").value
    assert items == [1] * (MAX_VALUES - 1)


def test_a_file_of_64_kib_is_read_and_a_larger_one_is_not(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_bytes(b"a: 1\n" + b"#" * (MAX_BYTES - 6) + b"\n")
    assert read_file(file).value == {"a": 1}
    file.write_bytes(b"a: 1\n" + b"#" * (MAX_BYTES - 5) + b"\n")
    with pytest.raises(ConfigError, match=r"f\.yaml:\d+: the file is larger than 64 KiB"):
        read_file(file)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"a: 1\nb: \xff\n", "f.yaml:2: not UTF-8 text (byte 0xff)"),
        (b"\x89PNG\r\n\x1a\n", "f.yaml:1: not UTF-8 text (byte 0x89)"),
        ("a: 1\n".encode("utf-16"), "f.yaml:1: not UTF-8 text (byte 0xff)"),
    ],
)
def test_what_is_not_utf8_is_refused_with_its_line(data: bytes, fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_document(data, "f.yaml")
    assert caught.value.lines() == [fault]


def test_a_byte_order_mark_is_passed_over() -> None:
    assert read_document(b"\xef\xbb\xbfa: 1\n", "f.yaml").value == {"a": 1}


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "~"])
def test_an_empty_text_is_null(text: str) -> None:
    assert read_text(text, "f.yaml").value is None


PIECES = [
    *(
        b"&a ",
        b"*a",
        b"!!python/object ",
        b"[",
        b"{",
        b"]",
        b"}",
        b": ",
        b"- ",
        b"\n",
        b"\t",
        b'"',
        b"'",
        b"|\n",
        b">\n",
    ),
    *(b"---\n", b"...\n", b"%YAML 9.9\n", b"? ", b"#", b"\x00", b"\xff", b"\xc2\x85", b"\xe2\x80\xa8", b"\xef\xbb\xbf"),
    *(b"1e999", b"-1", b".nan", b"null", b"99999999999999999999", b"true", b"0.5", b"[" * 30, b"\r", b"<<: *x\n", b","),
]


def mutated(data: bytes, chance: random.Random) -> bytes:
    """``data`` with up to eight random changes to bytes, pieces of YAML and lines."""
    for _ in range(chance.choice([1, 1, 2, 3, 8])):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(6):
            case 0:
                data = data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
            case 1:
                data = data[:at] + chance.choice(PIECES) + data[at:]
            case 2:
                data = data[:at] + data[at + chance.randrange(1, 20) :]
            case 3:
                lines = data.split(b"\n")
                lines.insert(chance.randrange(len(lines)), chance.choice(lines))
                data = b"\n".join(lines)
            case 4:
                lines = data.split(b"\n")
                lines.pop(chance.randrange(len(lines)))
                data = b"\n".join(lines)
            case 5:
                data = data[:at] + chance.choice(PIECES) + data[at + chance.randrange(1, 8) :]
    return data


# A thousand in every test run, a million in the full form.
NUM_MUTATED = 1_000_000 if "CNN_TRAIN_SOAK" in os.environ else 1000


def test_mutated_configs_are_each_refused_with_a_line_or_are_valid(tmp_path: Path) -> None:
    originals = [path.read_bytes() for path in sorted(CONFIGS.glob("*.yaml"))]
    originals.append(template.template("cnn").encode())
    chance = random.Random(20261123)  # noqa: S311 -- the same cases every time
    file = tmp_path / "f.yaml"
    num_valid = 0
    for _ in range(NUM_MUTATED):
        data = mutated(chance.choice(originals), chance)
        file.write_bytes(data)
        try:
            experiment = load_config(file).experiment
        except ConfigError as error:
            for fault in error.lines():
                line, _, problem = fault.removeprefix(f"{file}:").partition(": ")
                assert line.isdigit() or "more faults" in fault, (fault, data)
                assert int(line or 1) <= len(data.splitlines()) + 1, (fault, data)
                assert problem, (fault, data)
        else:
            num_valid += 1
            file.write_text(dump_config(experiment), encoding="utf-8")
            assert load_config(file).experiment == experiment
    assert 0.05 < num_valid / NUM_MUTATED < 0.95, "the mutations are to hit and to miss"


def test_libyaml_and_pyyaml_read_simple_text_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(1)  # noqa: S311 -- the same cases every time
    words = ["", " 1", " 1e-3", " .5", " -2.", " a.b/c-d", " true", " null", " no", " 0x1F", " 1_000", " 12:30", " '1'"]
    starts = ["", "  ", "    ", "- ", "  - ", "    - ", " "]

    def line() -> str:
        key = rng.choice(["a:", "b:", "c_2:", "-", "#"])
        return rng.choice(starts) + key + rng.choice(words)

    def outcome(text: str) -> object:
        try:
            return read_text(text, "f.yaml")
        except ConfigError as error:
            return error.lines()

    texts = ["".join(f"{line()}\n" for _ in range(rng.randint(1, 7))) for _ in range(4000)]
    texts += [dump_config(load_config(path).experiment) for path in sorted(CONFIGS.glob("*.yaml"))]
    simple = [text for text in texts if strict_yaml._SIMPLE.fullmatch(text)]
    assert len(simple) > 300
    assert dump_config(load_config(CONFIGS / "mnist.yaml").experiment) in simple
    fast = list(map(outcome, simple))
    monkeypatch.setattr(yaml, "__with_libyaml__", False)
    assert list(map(outcome, simple)) == fast
    assert sum(isinstance(found, strict_yaml.Document) for found in fast) > 100
