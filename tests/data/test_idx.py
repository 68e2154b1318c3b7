import gzip

import numpy as np
import pytest

from cnn_trainer.data import arrays, idx
from cnn_trainer.errors import DataError

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def refused(folder):
    with pytest.raises(DataError) as caught:
        idx.read_idx(folder, "train")
    message = str(caught.value)
    assert message.startswith(str(folder))
    assert "\n" not in message
    return message


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("split", ["train", "test"])
def test_arrays_come_back(tmp_path, small_arrays, write_idx, packed, split):
    read = idx.read_idx(write_idx(tmp_path, small_arrays, packed=packed), split)
    assert (read.images == small_arrays[f"x_{split}"][..., None]).all()
    assert (read.labels == small_arrays[f"y_{split}"]).all()
    assert (read.images.dtype, read.labels.dtype) == (np.uint8, np.int32)


def test_a_file_that_was_unpacked_under_its_old_name_is_read(tmp_path, small_arrays, write_idx):
    write_idx(tmp_path, small_arrays)
    (tmp_path / IMAGES).rename(tmp_path / f"{IMAGES}.gz")
    assert len(idx.read_idx(tmp_path, "train")) == 24


def test_the_other_split_is_not_touched(tmp_path, small_arrays, write_idx):
    write_idx(tmp_path, small_arrays)
    for path in tmp_path.glob("t10k*"):
        path.write_bytes(b"broken")
    assert len(idx.read_idx(tmp_path, "train")) == 24


def sized(magic, *sides):
    return bytes(magic) + b"".join(side.to_bytes(4, "big") for side in sides)


WRONG = {
    "missing": (None, "no such file"),
    "empty": (b"", "is empty"),
    "html": (b"<html>404</html>", "looks like a web page"),
    "text": (b"hello world, this is text", "opens with the bytes 68 65 6c 6c; expected 00 00 08 03"),
    "labels": (sized([0, 0, 8, 1], 24) + bytes(24), "opens with the bytes 00 00 08 01"),
    "floats": (sized([0, 0, 13, 3], 24, 28, 28), "opens with the bytes 00 00 0d 03"),
    "header cut short": (sized([0, 0, 8, 3], 24), "ends inside its header"),
    "cut short": (sized([0, 0, 8, 3], 24, 28, 28) + bytes(100), "holds 100 bytes behind its header"),
    "too long": (sized([0, 0, 8, 3], 2, 2, 2) + bytes(9), "holds 9 bytes behind its header"),
    "nothing": (sized([0, 0, 8, 3], 0, 28, 28), "holds nothing"),
    "64 GiB": (sized([0, 0, 8, 3], 2**16, 2**10, 2**10), "at most 4294967296"),
    "overflow": (sized([0, 0, 8, 3], 2**31, 2**31, 2**31), "at most 4294967296"),
    "fewer images": (sized([0, 0, 8, 3], 2, 2, 2) + bytes(8), "24 labels for the 2 images"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_files_are_refused(tmp_path, small_arrays, write_idx, kind):
    write_idx(tmp_path, small_arrays)
    content, problem = WRONG[kind]
    if content is None:
        (tmp_path / IMAGES).unlink()
    else:
        (tmp_path / IMAGES).write_bytes(content)
    assert problem in refused(tmp_path)


@pytest.mark.parametrize("kind", [kind for kind, (content, _) in WRONG.items() if content])
def test_wrong_files_are_refused_when_packed(tmp_path, small_arrays, write_idx, kind):
    write_idx(tmp_path, small_arrays, packed=True)
    (tmp_path / f"{IMAGES}.gz").write_bytes(gzip.compress(WRONG[kind][0]))
    refused(tmp_path)


@pytest.mark.parametrize("change", [lambda data: data[:-20], lambda data: data[:200] + b"x" + data[201:]])
def test_broken_gzip_is_refused(tmp_path, small_arrays, write_idx, change):
    write_idx(tmp_path, small_arrays, packed=True)
    path = tmp_path / f"{IMAGES}.gz"
    path.write_bytes(change(path.read_bytes()))
    assert "broken gzip file" in refused(tmp_path)


def test_size_beyond_what_the_packed_bytes_can_hold_is_refused(tmp_path, small_arrays, write_idx, monkeypatch):
    write_idx(tmp_path, small_arrays, packed=True)
    (tmp_path / f"{IMAGES}.gz").write_bytes(gzip.compress(sized([0, 0, 8, 3], 2**10, 2**10, 2**10)))
    monkeypatch.setattr(arrays, "read_bytes", lambda *_: pytest.fail("memory was taken"))
    assert f"declares {2**30} bytes" in refused(tmp_path)


def test_more_than_declared_is_refused_without_unpacking_it(tmp_path, small_arrays, write_idx):
    write_idx(tmp_path, small_arrays, packed=True)
    content = sized([0, 0, 8, 3], 24, 28, 28) + bytes(2**24)
    (tmp_path / f"{IMAGES}.gz").write_bytes(gzip.compress(content))
    assert "holds more than the 18816 bytes" in refused(tmp_path)
