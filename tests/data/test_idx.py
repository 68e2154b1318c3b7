import gzip

import numpy as np
import pytest
from support import refusal

from cnn_trainer.data import arrays, idx

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def refused(folder):
    message = refusal(idx.read_idx, folder, "train")
    assert message.startswith(str(folder))
    return message


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("split", ["train", "test"])
def test_arrays_come_back(tmp_path, small_arrays, write_idx, packed, split):
    read = idx.read_idx(write_idx(tmp_path, small_arrays, packed=packed), split)
    assert (read.images == small_arrays[f"x_{split}"][..., None]).all()
    assert (read.labels == small_arrays[f"y_{split}"]).all()
    assert (read.images.dtype, read.labels.dtype) == (np.uint8, np.int32)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("code", "dtype", "white"), [(11, ">i2", 255), (12, ">i4", 255), (13, ">f4", 1), (14, ">f8", 1), (14, ">f8", 255)]
)
def test_images_of_every_type_come_back(tmp_path, small_arrays, write_idx, packed, code, dtype, white):
    write_idx(tmp_path, small_arrays)
    images = small_arrays["x_train"]
    content = sized([0, 0, code, 3], *images.shape) + (images * (white / 255)).astype(dtype).tobytes()
    (tmp_path / IMAGES).write_bytes(gzip.compress(content) if packed else content)
    read = idx.read_idx(tmp_path, "train")
    assert (read.images[..., 0] == images).all()
    assert (read.source_dtype, read.source_white) == (np.dtype(dtype).name, white)


def test_labels_that_are_floats_are_refused(tmp_path, small_arrays, write_idx):
    write_idx(tmp_path, small_arrays)
    (tmp_path / LABELS).write_bytes(sized([0, 0, 13, 1], 24) + small_arrays["y_train"].astype(">f4").tobytes())
    assert "labels are float32; expected integers from 0" in refused(tmp_path)


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
    "text": (b"hello world, this is text", "begins with the bytes 68 65 6c 6c; expected 00 00 08 03"),
    "labels": (sized([0, 0, 8, 1], 24) + bytes(24), "begins with the bytes 00 00 08 01"),
    "type without a meaning": (sized([0, 0, 10, 3], 24, 28, 28), "begins with the bytes 00 00 0a 03"),
    "floats cut short": (
        sized([0, 0, 13, 3], 2, 2, 2) + bytes(8),
        "holds 8 bytes after its header, which declares 32",
    ),
    "header cut short": (sized([0, 0, 8, 3], 24), "ends inside its header"),
    "cut short": (sized([0, 0, 8, 3], 24, 28, 28) + bytes(100), "holds 100 bytes after its header"),
    "too long": (sized([0, 0, 8, 3], 2, 2, 2) + bytes(9), "holds 9 bytes after its header"),
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
    assert "holds more than the 18,816 bytes" in refused(tmp_path)


# Places and names of the files.

SPELLINGS = {
    "dots": "{split}-images.idx3-ubyte {split}-labels.idx1-ubyte",
    "EMNIST": "emnist-letters-{split}-images-idx3-ubyte emnist-letters-{split}-labels-idx1-ubyte",
    "capitals": "Train-Images-IDX3-UBYTE Train-Labels-IDX1-UBYTE",
    "underscores": "{split}_images_idx3_ubyte {split}_labels_idx1_ubyte",
    "no dimensions": "my_set-{split}-images-ubyte my_set-{split}-labels-ubyte",
    "idx at the end": "{split}-images-ubyte.idx {split}-labels-ubyte.idx",
}


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("names", SPELLINGS.values(), ids=SPELLINGS)
def test_files_are_found_under_all_usual_names(tmp_path, small_arrays, write_idx, names, ending):
    write_idx(tmp_path, small_arrays, packed=bool(ending))
    for split in "train", "t10k":
        for old, new in zip(("images-idx3", "labels-idx1"), names.split(), strict=True):
            name = new.format(split="train" if split == "train" else "test")
            name = name if split == "train" else name.replace("Train", "Test")
            (tmp_path / f"{split}-{old}-ubyte{ending}").rename(tmp_path / f"{name}{ending}")
    for split in "train", "test":
        read = idx.read_idx(tmp_path, split)
        assert (read.images[..., 0] == small_arrays[f"x_{split}"]).all()
        assert (read.labels == small_arrays[f"y_{split}"]).all()


@pytest.mark.parametrize("below", ["raw", "MNIST/raw", "gzip", "train"])
def test_files_are_found_in_sub_folders(tmp_path, small_arrays, write_idx, below):
    write_idx(tmp_path / below, small_arrays)
    assert len(idx.read_idx(tmp_path, "test")) == 9


def test_each_file_may_be_in_a_folder_of_its_own_name(tmp_path, small_arrays, write_idx):
    for path in write_idx(tmp_path / "flat", small_arrays).iterdir():
        folder = tmp_path / "own" / path.name
        folder.mkdir(parents=True)
        path.rename(folder / path.name)
    assert len(idx.read_idx(tmp_path / "own", "train")) == 24


def test_two_data_sets_in_one_place_are_not_chosen_from(tmp_path, small_arrays, write_idx):
    for name in "MNIST", "KMNIST":
        write_idx(tmp_path / name / "raw", small_arrays)
    message = refused(tmp_path)
    assert "holds the train images more than once: KMNIST/raw/train-images-idx3-ubyte, MNIST/raw/" in message


def test_of_a_file_that_is_there_plain_and_gzipped_the_plain_one_is_read(tmp_path, small_arrays, write_idx):
    write_idx(tmp_path, small_arrays)
    write_idx(tmp_path, {**small_arrays, "x_train": 255 - small_arrays["x_train"]}, packed=True)
    assert (idx.read_idx(tmp_path, "train").images[..., 0] == small_arrays["x_train"]).all()


def test_validation_files_are_the_validation_split(tmp_path, small_arrays, write_idx):
    write_idx(tmp_path, small_arrays)
    assert idx.read_idx(tmp_path, "validation") is None
    for path in list(tmp_path.glob("t10k-*")):
        path.rename(path.with_name(path.name.replace("t10k", "val")))
    assert (idx.read_idx(tmp_path, "validation").labels == small_arrays["y_test"]).all()


def test_labels_of_qmnist_are_their_first_column(tmp_path, small_arrays, write_idx):
    write_idx(tmp_path, small_arrays)
    columns = np.arange(24 * 8, dtype=">i4").reshape(24, 8)
    columns[:, 0] = small_arrays["y_train"]
    (tmp_path / LABELS).unlink()
    path = tmp_path / "train-labels-idx2-int.gz"
    path.write_bytes(gzip.compress(sized([0, 0, 12, 2], 24, 8) + columns.tobytes()))
    assert idx.read_idx(tmp_path, "train").labels.tolist() == small_arrays["y_train"].tolist()
    path.write_bytes(gzip.compress(sized([0, 0, 12, 2], 24, 7) + columns[:, :7].tobytes()))
    assert "labels have the shape (24, 7)" in refused(tmp_path)


def test_for_emnist_letters_the_source_that_puts_them_right_is_named(tmp_path, small_arrays, write_idx):
    write_idx(tmp_path, {**small_arrays, "y_train": small_arrays["y_train"] + 1})
    for path in list(tmp_path.iterdir()):
        path.rename(tmp_path / f"emnist-letters-{path.name}")
    assert "numbers its classes from 1; use data.source: emnist-letters" in refused(tmp_path)
