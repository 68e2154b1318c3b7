import io
import os
import struct
import zipfile

import numpy as np
import pytest
from support import refusal

from cnn_trainer.data import arrays, npz
from cnn_trainer.errors import DataError


def save(path, arrays_by_name, **changes):
    np.savez_compressed(path, **{**arrays_by_name, **changes})
    return path


def zip_of(path, name, content, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(name, content)
    return path


def npy_bytes(header, content=b"", version=b"\x01\x00"):
    length = struct.pack("<H" if version == b"\x01\x00" else "<I", len(header))
    return b"\x93NUMPY" + version + length + header.encode("latin1") + content


def header(descr="|u1", order=False, shape=(2, 2, 2)):
    return f"{{'descr': {descr!r}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


def refused(path, split="train"):
    message = refusal(npz.read_npz, path, split)
    assert message.startswith(str(path))
    return message


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_arrays_come_back_with_a_channel_axis(tmp_path, small_arrays, write):
    write(tmp_path / "data.npz", **small_arrays)
    for name in "train", "test":
        split = npz.read_npz(tmp_path / "data.npz", name)
        assert (split.images == small_arrays[f"x_{name}"][..., None]).all()
        assert (split.labels == small_arrays[f"y_{name}"]).all()
        assert split.images.flags.c_contiguous
        assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int32)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_with_channels_are_kept(tmp_path, small_arrays, channels):
    images = np.arange(24 * 4 * channels, dtype=np.uint8).reshape(24, 2, 2, channels)
    split = npz.read_npz(save(tmp_path / "a.npz", small_arrays, x_train=images), "train")
    assert (split.images == images).all()


def test_fortran_order_and_big_endian_labels_are_understood(tmp_path, small_arrays):
    images, labels = small_arrays["x_train"], small_arrays["y_train"]
    path = save(tmp_path / "a.npz", small_arrays, x_train=np.asfortranarray(images), y_train=labels.astype(">i8"))
    split = npz.read_npz(path, "train")
    assert (split.images[..., 0] == images).all()
    assert (split.labels == labels).all()
    assert split.images.flags.c_contiguous


def test_header_format_2_is_read(tmp_path):
    content = npy_bytes(header(shape=(2, 2, 2)), bytes(range(8)), b"\x02\x00")
    array = npz.read_npz_array(zip_of(tmp_path / "a.npz", "x_train.npy", content), "x_train")
    assert array.ravel().tolist() == list(range(8))


def test_the_other_split_is_not_touched(tmp_path, small_arrays):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in small_arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            archive.writestr(f"{name}.npy", b"broken" if name.endswith("test") else buffer.getvalue())
    assert len(npz.read_npz(path, "train")) == 24
    refused(path, "test")


WRONG_ARRAYS = [
    ("x_train", lambda x: x.astype(np.complex128), "x_train: images are complex128; expected uint8"),
    ("x_train", lambda x: x.astype(object), r"images are Python objects.*numpy.stack\(x.tolist\(\)\)"),
    ("x_train", lambda x: x.reshape(24, -1), r"shape \(24, 784\)"),
    ("x_train", lambda x: np.stack([x] * 4, axis=-1), r"shape \(24, 28, 28, 4\)"),
    ("x_train", lambda x: np.stack([x] * 3, axis=1), r"shape \(24, 3, 28, 28\)"),
    ("x_train", lambda x: x[:0], "holds nothing"),
    ("x_train", lambda x: x[:, :0], "holds nothing"),
    ("x_train", lambda x: x[:-1], "24 labels for the 23 images"),
    ("y_train", lambda y: y.astype(np.float64), "labels are float64; expected integers.*NaN"),
    ("y_train", lambda y: np.full(24, np.nan), "labels are float64"),
    ("y_train", lambda y: y.astype(bool), "labels are bool"),
    ("y_train", lambda y: y.astype(str), r"labels are text.*numpy.searchsorted\(numpy.unique"),
    ("y_train", lambda y: y > 0, r"labels are bool.*; labels.astype\('int64'\)"),
    ("y_train", lambda y: y[None], r"the shape \(1, 24\).*labels.reshape\(-1\)"),
    ("x_train", lambda x: np.moveaxis(x, 0, -1), r"24 labels for the 28 images.*numpy.moveaxis\(x, -1, 0\)"),
    ("y_train", lambda y: np.eye(3, dtype=np.uint8)[y], r"shape \(24, 3\).*argmax"),
    ("y_train", lambda y: np.stack([y, y], axis=1), r"shape \(24, 2\)"),
    ("y_train", lambda y: y[:5], "5 labels for the 24 images"),
    ("y_train", lambda y: y.astype(np.int8) - 1, "the label -1"),
    ("y_train", lambda y: y.astype(np.int64) + 1000, "the label 1002; expected at most 999"),
    ("y_train", lambda y: y.astype(np.uint64) + np.uint64(2**63), "the label 9223372036854775810"),
]


@pytest.mark.parametrize(
    ("wrong", "remedy", "shape"),
    [
        (lambda x: x[:, None], "numpy.moveaxis(x, 1, -1)", (24, 28, 28, 1)),
        (lambda x: np.stack([x] * 3, axis=1), "numpy.moveaxis(x, 1, -1)", (24, 28, 28, 3)),
        (lambda x: np.moveaxis(np.stack([x] * 3, axis=3), 0, 3), "numpy.moveaxis(x, -1, 0)", (24, 28, 28, 3)),  # MATLAB
        (lambda x: np.stack([x] * 4, axis=3), "x[..., :3]", (24, 28, 28, 3)),
        (lambda x: x.reshape(24, 784), "x.reshape(-1, 28, 28)", (24, 28, 28)),
        (lambda x: x.reshape(24, 784)[:, :108], "x.reshape(-1, 6, 6, 3)", (24, 6, 6, 3)),
        (lambda x: x.reshape(24, 784)[:, :108], "x.reshape(-1, 3, 6, 6).transpose(0, 2, 3, 1)", (24, 6, 6, 3)),
    ],
)
def test_the_remedy_for_a_shape_gives_a_right_one(tmp_path, small_arrays, wrong, remedy, shape):
    images = wrong(small_arrays["x_train"])
    with pytest.raises(DataError) as caught:
        npz.read_npz(save(tmp_path / "a.npz", small_arrays, x_train=images), "train")
    assert remedy in caught.value.remedy
    right = eval(remedy, {"x": images, "numpy": np})  # noqa: S307 -- our own message, as a user would type it
    assert right.shape == shape
    npz.read_npz(save(tmp_path / "b.npz", small_arrays, x_train=right), "train")


@pytest.mark.parametrize("dtype", ["f4", "f8", bool, "u1"])
def test_one_hot_labels_are_told_to_take_argmax_whatever_they_are(tmp_path, small_arrays, dtype):
    rows = np.eye(3, dtype=dtype)[small_arrays["y_train"]]
    with pytest.raises(DataError, match=r"shape \(24, 3\).*argmax") as caught:
        npz.read_npz(save(tmp_path / "a.npz", small_arrays, y_train=rows), "train")
    assert "astype" not in str(caught.value)


@pytest.mark.parametrize(("name", "change", "problem"), WRONG_ARRAYS)
def test_wrong_arrays_are_refused(tmp_path, small_arrays, name, change, problem):
    path = save(tmp_path / "a.npz", small_arrays, **{name: change(small_arrays[name])})
    with pytest.raises(DataError, match=problem):
        npz.read_npz(path, "train")
    refused(path)


WRONG_FILES = {
    "empty": (b"", "is empty"),
    "html": (b"\n<!DOCTYPE html><html><body>Log in</body></html>", "looks like a web page"),
    "text": (b"not a zip file", "is not a zip file"),
    "npy": (npy_bytes(header(), bytes(8)), "is not a zip file"),
    "end record alone": (b"PK\x05\x06" + bytes(18), "no such array; the file holds nothing"),
    "huge directory": (b"PK\x05\x06" + bytes(8) + b"\xff\xff\xff\x7f" + bytes(6), "broken npz file"),
    "zip64": (b"PK\x06\x07" + bytes(16) + b"PK\x05\x06" + bytes(18), "is not a zip file"),
    "directory beyond the file": (b"PK\x05\x06" + bytes(4) + b"\x01\0\x01\0\x50\0\0\0\x60\0\0\0\0\0", "broken"),
}


@pytest.mark.parametrize("kind", WRONG_FILES)
def test_wrong_files_are_refused(tmp_path, kind):
    content, problem = WRONG_FILES[kind]
    (tmp_path / "a.npz").write_bytes(content)
    assert problem in refused(tmp_path / "a.npz")


def test_a_table_of_contents_of_more_than_a_mebibyte_is_not_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for number in range(20):
            entry = zipfile.ZipInfo(f"{number}.npy")
            entry.comment = bytes(60_000)
            archive.writestr(entry, b"")
    assert "has a table of contents of more than 1048576 bytes" in refused(tmp_path / "a.npz")


def test_missing_file_and_folder_are_refused(tmp_path):
    assert "no such file" in refused(tmp_path / "a.npz")
    assert "is a folder" in refused(tmp_path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "is not a regular file" in refused(tmp_path / "pipe")


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
def test_truncated_file_is_refused(tmp_path, small_arrays, kept):
    path = save(tmp_path / "a.npz", small_arrays)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    assert "is not a zip file" in refused(path)


def test_flipped_bit_in_the_images_is_refused(tmp_path, small_arrays):
    path = tmp_path / "a.npz"
    np.savez(path, **small_arrays)
    content = bytearray(path.read_bytes())
    content[content.index(small_arrays["x_train"].tobytes()) + 100] ^= 1
    path.write_bytes(content)
    assert "x_train: broken npz file: Bad CRC" in refused(path)


def test_missing_array_is_named_with_what_is_there(tmp_path, small_arrays):
    del small_arrays["y_train"]
    message = refused(save(tmp_path / "a.npz", small_arrays, labels=np.zeros(3)))
    assert "y_train: no such array; the file holds labels, x_test, x_train, y_test" in message


def test_encrypted_array_is_refused(tmp_path, small_arrays):
    path = tmp_path / "a.npz"
    np.savez(path, **small_arrays)
    content = bytearray(path.read_bytes())
    directory = content.index(b"PK\x01\x02")
    content[directory + 8] |= 1
    path.write_bytes(content)
    assert "x_train: is encrypted" in refused(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression_is_refused(tmp_path, method):
    path = zip_of(tmp_path / "a.npz", "x_train.npy", npy_bytes(header(), bytes(8)), method)
    assert "is not packed with deflate" in refused(path)


WRONG_HEADERS = {
    "not an array": (b"hello", "is not an array"),
    "format 3": (npy_bytes(header(), bytes(8), b"\x03\x00"), "is not an array in NumPy's format 1.0 or 2.0"),
    "no header": (b"\x93NUMPY\x01\x00", "broken"),
    "long header": (npy_bytes(" " * 20_000, b"", b"\x02\x00"), "its header takes 20000 bytes"),
    "header of 4 GiB": (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "its header takes 4294967295 bytes"),
    "header cut short": (b"\x93NUMPY\x01\x00\xff\x00{", "broken"),
    "no dictionary": (npy_bytes("42\n"), "broken"),
    "code": (npy_bytes("__import__('os').getcwd()\n"), "broken"),
    "deep nesting": (npy_bytes("(" * 5000 + "\n"), "broken"),
    "many signs": (npy_bytes("-" * 9000 + "1\n"), "broken"),
    "pickled objects": (npy_bytes(header("|O"), bytes(64)), "images are Python objects"),
    "records": (npy_bytes(header([("a", "|u1")]), bytes(8)), "images are void"),
    "negative side": (npy_bytes(header(shape=(-2, -2, 2)), bytes(8)), "holds nothing"),
    "more than there is": (npy_bytes(header(shape=(2, 2, 3)), bytes(8)), "8 bytes after its header"),
    "less than there is": (npy_bytes(header(shape=(2, 2, 1)), bytes(8)), "8 bytes after its header"),
    "64 GiB": (npy_bytes(header(shape=(2**16, 2**10, 2**10)), bytes(8)), "at most 4294967296"),
    "overflow": (npy_bytes(header(shape=(2**40, 2**40, 2**40)), bytes(8)), "at most 4294967296"),
}


@pytest.mark.parametrize("kind", WRONG_HEADERS)
def test_wrong_headers_are_refused(tmp_path, kind):
    content, problem = WRONG_HEADERS[kind]
    assert problem in refused(zip_of(tmp_path / "a.npz", "x_train.npy", content))


def test_declared_size_beyond_what_the_packed_bytes_can_hold_is_refused(tmp_path):
    path = zip_of(tmp_path / "a.npz", "x_train.npy", npy_bytes(header(), bytes(8)), zipfile.ZIP_DEFLATED)
    content = bytearray(path.read_bytes())
    directory = content.index(b"PK\x01\x02")
    content[directory + 24 : directory + 28] = (2**31).to_bytes(4, "little")
    path.write_bytes(content)
    assert f"declares {2**31} bytes" in refused(path)


def test_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "MAX_ARRAY_BYTES", 2**20)
    monkeypatch.setattr(arrays, "read_bytes", lambda *_: pytest.fail("unpacked"))
    content = npy_bytes(header(shape=(2**22, 1, 1)), bytes(2**22))
    path = zip_of(tmp_path / "a.npz", "x_train.npy", content, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10_000
    assert "would take 4194304 bytes of memory; at most 1048576" in refused(path)


# Names of the arrays.

SPELLINGS = {
    "sklearn": "X_train y_train X_test y_test",
    "words": "train_images train_labels test_images test_labels",
    "words behind": "images_train labels_train images_test labels_test",
    "letters behind": "train_x train_y test_x test_y",
    "data and target": "TrainData TrainTarget TestData TestTarget",
    "none": "arr_0 arr_1 arr_2 arr_3",
    "long": "training_images training_labels testing_images testing_labels",
}


@pytest.mark.parametrize("names", SPELLINGS.values(), ids=SPELLINGS)
def test_arrays_are_found_under_all_usual_names(tmp_path, small_arrays, names):
    np.savez(tmp_path / "a.npz", **dict(zip(names.split(), small_arrays.values(), strict=True)))
    for split in "train", "test":
        read = npz.read_npz(tmp_path / "a.npz", split)
        assert (read.images[..., 0] == small_arrays[f"x_{split}"]).all()
        assert (read.labels == small_arrays[f"y_{split}"]).all()


def test_arrays_without_names_may_stand_in_the_order_of_scikit_learn(tmp_path, small_arrays):
    x_train, y_train, x_test, y_test = small_arrays.values()
    np.savez(tmp_path / "a.npz", x_train, x_test, y_train, y_test)
    assert (npz.read_npz(tmp_path / "a.npz", "test").images[..., 0] == x_test).all()
    assert (npz.read_npz(tmp_path / "a.npz", "test").labels == y_test).all()
    np.savez(tmp_path / "b.npz", *small_arrays.values(), y_test)  # five arrays: it is unknown which is which
    assert "data.keys: {x_train: NAME}" in refused(tmp_path / "b.npz")


@pytest.mark.parametrize(
    "names", ["x_val y_val", "X_valid y_valid", "val_images val_labels", "x_validation y_validation"]
)
def test_validation_arrays_are_the_validation_split(tmp_path, small_arrays, names):
    assert npz.read_npz(save(tmp_path / "none.npz", small_arrays), "validation") is None
    own = dict(zip(names.split(), (small_arrays["x_test"][:5], small_arrays["y_test"][:5]), strict=True))
    read = npz.read_npz(save(tmp_path / "a.npz", small_arrays, **own), "validation")
    assert read.labels.tolist() == small_arrays["y_test"][:5].tolist()


def test_validation_images_without_labels_are_refused(tmp_path, small_arrays):
    assert "y_val: no such array" in refused(
        save(tmp_path / "a.npz", small_arrays, x_val=small_arrays["x_test"]), "validation"
    )


def test_the_exact_name_goes_before_other_spellings_and_two_others_are_not_chosen_from(tmp_path, small_arrays):
    other = 255 - small_arrays["x_train"]
    read = npz.read_npz(save(tmp_path / "a.npz", small_arrays, X_train=other), "train")
    assert (read.images[..., 0] == small_arrays["x_train"]).all()
    del small_arrays["x_train"]
    path = save(tmp_path / "b.npz", small_arrays, X_train=other, train_images=other)
    assert "x_train: there is more than one: X_train, train_images; say which it is: data.keys" in refused(path)


def test_keys_name_the_arrays(tmp_path, small_arrays):
    labels = small_arrays.pop("y_train")
    path = save(tmp_path / "a.npz", small_arrays, answers=labels)
    assert "y_train: no such array; the file holds answers, x_test, x_train, y_test" in refused(path)
    assert npz.read_npz(path, "train", {"y_train": "answers"}).labels.tolist() == labels.tolist()
    with pytest.raises(DataError, match=r"no array answer, which data\.keys\.y_train names; the file holds answers"):
        npz.read_npz(path, "train", {"y_train": "answer"})


def test_medmnist_is_read_as_it_is(tmp_path, small_arrays):
    """Its labels are one column, and it has a validation split."""
    arrays_of_it = {}
    for split, ours in ("train", "train"), ("val", "test"), ("test", "test"):
        arrays_of_it[f"{split}_images"] = small_arrays[f"x_{ours}"]
        arrays_of_it[f"{split}_labels"] = small_arrays[f"y_{ours}"][:, None]
    np.savez(tmp_path / "breastmnist.npz", **arrays_of_it)
    for split, ours in ("train", "train"), ("validation", "test"), ("test", "test"):
        assert npz.read_npz(tmp_path / "breastmnist.npz", split).labels.tolist() == small_arrays[f"y_{ours}"].tolist()


def test_images_of_no_split_are_named(tmp_path, small_arrays):
    extra = {"X_holdout": small_arrays["x_test"], "y_holdout": small_arrays["y_test"], "names": np.array(["a", "b"])}
    path = save(tmp_path / "a.npz", small_arrays, **extra)
    assert npz.unused_images(path) == ["X_holdout"]
    assert npz.unused_images(path, {"x_val": "X_holdout"}) == []
    assert npz.unused_images(save(tmp_path / "b.npz", small_arrays, x_dev=extra["X_holdout"])) == []


def test_errors_name_an_array_as_the_file_does(tmp_path, small_arrays):
    images = small_arrays["x_train"] - 128.0
    path = tmp_path / "a.npz"
    np.savez(path, trainX=images, train_labels=small_arrays["y_train"][:5])
    assert refused(path).startswith(f"{path}: train_labels: 5 labels for the 24 images of {path}: trainX")


def test_what_is_not_used_may_be_anything(tmp_path, small_arrays):
    path = save(tmp_path / "a.npz", small_arrays)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("notes.txt", "hello")
        archive.writestr("more.npy", b"no array")
    assert npz.unused_images(path) == []
    assert len(npz.read_npz(path, "train")) == 24
