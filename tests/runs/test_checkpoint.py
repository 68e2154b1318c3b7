import errno
import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_trainer.errors import RunDirectoryError, StorageError
from cnn_trainer.runs import checkpoint
from cnn_trainer.runs.checkpoint import Checkpoint, checkpoint_paths, decode, encode, read_newest, write_checkpoint

ARRAYS = {
    "conv/kernel": np.arange(6, dtype=np.float32).reshape(2, 3) / 7,
    "iterations": np.array(469, np.int64),
    "dropout/seed": np.array([2**63 + 5, 1], np.uint64),
    "empty": np.zeros((0, 4), np.float64),
}
STATE = {"epoch": 1, "step": 469, "history": [{"train_loss": 0.1}], "note": 'é 😀 "sha256":"' + "0" * 64 + '"\n'}
EXPECTED = {name: (array.dtype, array.shape) for name, array in ARRAYS.items()}


def make(**state) -> Checkpoint:
    return Checkpoint(ARRAYS, {**STATE, **state})


def compact(header: object) -> bytes:
    return json.dumps(header, separators=(",", ":")).encode()


def crafted(header: object, data: bytes = b"", header_bytes: int | None = None) -> bytes:
    """A file with this header and the right digest, which a stranger can write."""
    text = header if isinstance(header, bytes) else compact(header)
    file = (len(text) if header_bytes is None else header_bytes).to_bytes(8, "little") + text + data
    return file.replace(b"0" * 64, hashlib.sha256(file).hexdigest().encode(), 1)


def header_with(state: str = "{}", **arrays: object) -> dict[str, object]:
    return {"__metadata__": {"checkpoint": f'{{"sha256":"{"0" * 64}","state":{state}}}'}, **arrays}


def test_a_checkpoint_is_read_back_bit_for_bit():
    names = ["bool", "uint8", "int32", "int64", "uint32", "uint64", "float32", "float64"]
    arrays = {name: np.frombuffer(bytes(range(48)), name) for name in names[1:]}
    arrays["bool"] = np.array([True, False])
    arrays["nan"] = np.array([np.nan, -0.0, np.inf], np.float32)
    arrays["transposed"] = np.arange(6.0).reshape(2, 3).T
    arrays["strided"] = np.arange(10)[::3]
    arrays["scalar"] = np.array(3, np.int32)
    expected = {name: (array.dtype, array.shape) for name, array in arrays.items()}
    read = decode(encode(Checkpoint(arrays, STATE)), expected)
    assert read.state == STATE
    assert list(read.arrays) == list(arrays)
    for name, array in arrays.items():
        assert read.arrays[name].dtype == array.dtype
        assert read.arrays[name].shape == array.shape
        assert read.arrays[name].tobytes() == array.tobytes(), name


def test_equal_checkpoints_give_equal_bytes_in_every_process():
    script = (
        "import hashlib, numpy as np; from cnn_trainer.runs.checkpoint import Checkpoint, encode;"
        "arrays = {'b': np.zeros(3, np.float32), 'a': np.ones(2)};"
        "print(hashlib.sha256(encode(Checkpoint(arrays, {'epoch': 1}))).hexdigest())"
    )
    command = [sys.executable, "-c", script]
    assert subprocess.check_output(command) == subprocess.check_output(command)


def test_any_reader_of_safetensors_reads_the_arrays():
    arrays = safetensors.numpy.load(encode(make()))
    assert arrays.keys() == ARRAYS.keys()
    np.testing.assert_array_equal(arrays["conv/kernel"], ARRAYS["conv/kernel"])


def test_the_digest_is_that_of_the_file_with_its_own_characters_set_to_zero():
    data = encode(make())
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    digest = json.loads(header["__metadata__"]["checkpoint"])["sha256"]
    assert hashlib.sha256(data.replace(digest.encode(), b"0" * 64, 1)).hexdigest() == digest


def test_every_flipped_bit_is_detected():
    data = encode(make())
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(StorageError):
            decode(bytes(flipped), EXPECTED)


def test_every_truncation_and_extension_is_detected():
    data = encode(make())
    for length in range(len(data)):
        with pytest.raises(StorageError):
            decode(data[:length], EXPECTED)
    for tail in (b"\0", b" ", data):
        with pytest.raises(StorageError, match="does not match its digest"):
            decode(data + tail, EXPECTED)


FLOATS = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
NEXT = {**FLOATS, "data_offsets": [8, 16]}
TWO = {"a": (np.dtype("float32"), (2,)), "b": (np.dtype("float32"), (2,))}


def test_a_correct_crafted_file_is_accepted():
    assert decode(crafted(header_with(a=FLOATS, b=NEXT), bytes(16)), TWO).state == {}


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        (b"", "no digest"),
        (crafted(header_with(), header_bytes=2**63), "header takes"),
        (crafted(header_with(), header_bytes=2**64 - 1), "header takes"),
        (crafted(header_with(), header_bytes=0), "no digest"),
        (crafted(b"x" + compact(header_with())), "not valid JSON"),
        (crafted(compact(header_with())[:-1] + b',"a":1,"a":2}'), "'a' occurs twice"),
        (crafted(header_with() | {"x": header_with()["__metadata__"]}), "no digest"),
        (crafted([header_with()]), "its header is not"),
        (crafted({"x": header_with()}), "its metadata is not"),
        (crafted({"__metadata__": {"checkpoint": 5}, "x": header_with()}), "arrays are not those"),
        (crafted({"__metadata__": {**header_with()["__metadata__"], "more": "text"}}), "its metadata is not"),
        (crafted(header_with("[]", a=FLOATS, b=NEXT), bytes(16)), "its state is not"),
        (crafted(header_with("{},\"x\":1", a=FLOATS, b=NEXT), bytes(16)), "its content is not"),
        (crafted(header_with('{"a":NaN}', a=FLOATS, b=NEXT), bytes(16)), "NaN"),
        (crafted(header_with("[" * 100_000, a=FLOATS, b=NEXT), bytes(16)), "nested too deeply"),
        (crafted(header_with(a=FLOATS)), "lacks b"),
        (crafted(header_with(a=FLOATS, b=FLOATS, c=FLOATS)), "has c"),
        (crafted(header_with(a=FLOATS, **{"../../b\n": FLOATS})), "lacks b and has ../../b\\n"),
        (crafted(header_with(a=FLOATS, b=None)), "array b is not what"),
        (crafted(header_with(a=FLOATS, b={**FLOATS, "dtype": "I32"})), "array b is I32"),
        (crafted(header_with(a=FLOATS, b={**FLOATS, "dtype": ["F32"]})), "array b is"),
        (crafted(header_with(a=FLOATS, b={**FLOATS, "shape": [2**40, 2**40]})), "array b is"),
        (crafted(header_with(a=FLOATS, b={**FLOATS, "shape": [-2]})), "array b is"),
        (crafted(header_with(a=FLOATS, b={**FLOATS, "shape": [2.0]})), "floating point"),
        (crafted(header_with(a=FLOATS, b={**FLOATS, "shape": "2"})), "array b is"),
        (crafted(header_with(a=FLOATS, b={**FLOATS, "data_offsets": [0, 8.0]})), "floating point"),
        (crafted(header_with(a=FLOATS, b={**FLOATS, "data_offsets": 8})), "integer `8`"),
        (crafted(header_with(a=FLOATS, b={**FLOATS, "data_offsets": [8, 24]}), bytes(24)), "not a safetensors file"),
        (crafted(header_with(a=FLOATS, b=FLOATS), bytes(8)), "not a safetensors file"),
        (crafted(header_with(a=FLOATS, b={**FLOATS, "data_offsets": [12, 20]}), bytes(20)), "not a safetensors file"),
        (crafted(header_with(a=FLOATS, b={**FLOATS, "data_offsets": [-8, 0]}), bytes(8)), "not a safetensors file"),
        (crafted(header_with(a=FLOATS, b=NEXT), bytes(12)), "not a safetensors file"),
        (crafted(header_with(a=FLOATS, b=NEXT), bytes(17)), "not a safetensors file"),
    ],
)  # fmt: skip
def test_a_crafted_file_is_refused_for_what_is_wrong_with_it(file, problem):
    with pytest.raises(StorageError, match=problem):
        decode(file, TWO)


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-9, 99) | st.floats() | st.text(max_size=4),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["dtype", "a", "b"]), inner),
        max_leaves=6,
    ),
    st.binary(max_size=20),
)
def test_no_header_breaks_the_reader(entry, data):
    for header in (header_with(a=FLOATS, b=entry), header_with(json.dumps(entry)), [entry, header_with()]):
        with pytest.raises(StorageError):
            decode(crafted(header, data), TWO)


def test_a_header_beyond_the_bound_is_neither_read_nor_written(monkeypatch):
    data = encode(make())
    monkeypatch.setattr(checkpoint, "MAX_HEADER_BYTES", 100)
    with pytest.raises(StorageError, match=r"header takes .* bytes; at most 100 are allowed"):
        decode(data, EXPECTED)
    with pytest.raises(StorageError, match="train fewer epochs"):
        encode(make())


def test_what_a_checkpoint_cannot_hold_is_a_defect_of_the_caller():
    for array in (np.zeros(2, np.float16), np.zeros(2, ">f4"), np.array([None])):
        with pytest.raises(ValueError, match="dtype"):
            encode(Checkpoint({"a": array}, {}))
    with pytest.raises(ValueError, match="JSON"):
        encode(make(loss=float("nan")))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_last_two_checkpoints_are_kept(tmp_path):
    for step in (5, 10, 15, 1_000_000_000):
        path = write_checkpoint(tmp_path, step, make(step=step))
    assert path == tmp_path / "step-1000000000.safetensors"
    assert names(tmp_path) == ["step-000000015.safetensors", "step-1000000000.safetensors"]
    assert checkpoint_paths(tmp_path)[0] == path
    assert read_newest(tmp_path, EXPECTED, pytest.fail).state["step"] == 1_000_000_000


def test_broken_newer_checkpoints_are_removed_after_training_continued_from_an_older_one(tmp_path):
    write_checkpoint(tmp_path, 10, make(step=10))
    (tmp_path / "step-000000020.safetensors").write_bytes(b"broken")
    (tmp_path / "notes.txt").write_bytes(b"mine")
    write_checkpoint(tmp_path, 15, make(step=15))
    assert names(tmp_path) == ["notes.txt", "step-000000010.safetensors", "step-000000015.safetensors"]


@pytest.mark.parametrize(("call", "wanted"), [("open", 2), ("write", 1), ("fsync", 1), ("rename", 1), ("fsync", 2)])
def test_no_checkpoint_is_removed_before_the_new_one_is_safe(tmp_path, monkeypatch, call, wanted):
    write_checkpoint(tmp_path, 1, make(step=1))
    write_checkpoint(tmp_path, 2, make(step=2))
    real, made = getattr(os, call), [0]

    def failing(*arguments, **options):
        made[0] += 1
        if made[0] == wanted:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing)
        with pytest.raises(RunDirectoryError, match=r"step-000000003\.safetensors: cannot be .*No space left"):
            write_checkpoint(tmp_path, 3, make(step=3))
    assert names(tmp_path)[:2] == ["step-000000001.safetensors", "step-000000002.safetensors"]
    renamed = (call, wanted) == ("fsync", 2)
    assert read_newest(tmp_path, EXPECTED, pytest.fail).state["step"] == (3 if renamed else 2)


def test_a_damaged_checkpoint_is_skipped_with_a_warning(tmp_path):
    write_checkpoint(tmp_path, 1, make(step=1))
    newest = write_checkpoint(tmp_path, 2, make(step=2))
    good = newest.read_bytes()
    generator = random.Random(1)  # noqa: S311
    for _ in range(20):
        damaged = bytearray(good)
        damaged[generator.randrange(len(good))] ^= 1 << generator.randrange(8)
        for content in (bytes(damaged), good[: generator.randrange(len(good))]):
            newest.write_bytes(content)
            warnings: list[str] = []
            assert read_newest(tmp_path, EXPECTED, warnings.append).state["step"] == 1
            assert len(warnings) == 1
            assert warnings[0].startswith(f"{newest}: ")
            assert warnings[0].endswith("using the previous checkpoint")


def test_without_a_valid_checkpoint_the_error_says_so(tmp_path):
    with pytest.raises(RunDirectoryError, match=r"there is no checkpoint; .*cnn-train train RUN/config\.yaml"):
        read_newest(tmp_path / "missing", EXPECTED, pytest.fail)
    (tmp_path / "step-000000001.safetensors").mkdir()
    (tmp_path / "step-000000002.safetensors").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "step-000000003.safetensors")
    with (tmp_path / "step-000000004.safetensors").open("wb") as file:
        file.truncate(10 * 2**30)
    warnings: list[str] = []
    with pytest.raises(RunDirectoryError, match="its 4 checkpoints cannot be read"):
        read_newest(tmp_path, EXPECTED, warnings.append)
    for warning, problem in zip(warnings, ["is too large", "a pipe", "symbolic link", "a folder"], strict=True):
        assert problem in warning
    write_checkpoint(tmp_path, 5, make(step=5))
    assert read_newest(tmp_path, EXPECTED, pytest.fail).state["step"] == 5


def test_a_folder_of_checkpoints_that_is_a_link_is_neither_read_nor_written(tmp_path):
    outside, link = tmp_path / "outside", tmp_path / "checkpoints"
    outside.mkdir()
    for step in (1, 2):
        write_checkpoint(outside, step, make())
    link.symlink_to(outside)
    for action in (lambda: write_checkpoint(link, 3, make()), lambda: read_newest(link, EXPECTED, pytest.fail)):
        with pytest.raises(RunDirectoryError, match="symbolic link"):
            action()
    assert names(outside) == ["step-000000001.safetensors", "step-000000002.safetensors"]


def test_a_vanished_folder_is_reported(tmp_path):
    with pytest.raises(RunDirectoryError, match="gone: cannot be read: No such file"):
        write_checkpoint(tmp_path / "gone", 1, make())


def test_weights_are_written_and_read_bit_for_bit_and_checked(tmp_path):
    path = tmp_path / "weights.safetensors"
    checkpoint.write_weights(path, ARRAYS)
    read = checkpoint.read_weights(path, EXPECTED)
    assert list(read) == list(ARRAYS)
    assert checkpoint.weights_digest(read.values()) == checkpoint.weights_digest(ARRAYS.values())
    with pytest.raises(RunDirectoryError, match=r"weights\.safetensors: its arrays are not those"):
        checkpoint.read_weights(path, TWO)


def test_the_weights_digest_is_what_its_description_says():
    kernel = np.arange(6, dtype=np.float32).reshape(2, 3)
    scalar = np.array(7, np.int64)
    content = b"float32 3,2\n" + b"".join(np.float32(v).tobytes() for v in (0, 3, 1, 4, 2, 5))
    content += b"int64 \n" + (7).to_bytes(8, "little")
    digest = hashlib.sha256(content).hexdigest()
    assert checkpoint.weights_digest([kernel.T, scalar]) == digest
    assert checkpoint.weights_digest([kernel.T.astype(">f4"), scalar]) == digest
    assert checkpoint.weights_digest([scalar, kernel.T]) != digest
    assert checkpoint.weights_digest([kernel.reshape(3, 2), scalar]) != digest
