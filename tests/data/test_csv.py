import gzip
import zipfile

import numpy as np
import pytest
from support import refusal

from cnn_trainer import data
from cnn_trainer.config.schema.data import Csv
from cnn_trainer.data import arrays, rows
from cnn_trainer.errors import DataError


def text_of(images, labels=None, *, header=True, label="label", last=False, delimiter=","):
    """A CSV file of images, as users have them."""
    lines = []
    flat = images.reshape(len(images), -1).tolist()
    if header:
        names = [f"pixel{number}" for number in range(len(flat[0]))]
        lines.append(names if labels is None else [*names, label] if last else [label, *names])
    for number, row in enumerate(flat):
        cells = [] if labels is None else [labels[number]]
        lines.append([*row, *cells] if last else [*cells, *row])
    return "".join(delimiter.join(map(str, line)) + "\n" for line in lines)


@pytest.fixture
def write(tmp_path, small_arrays):
    """A function that writes the training images in a given way, and returns the path."""

    def write(name="train.csv", split="train", **way):
        way.setdefault("labels", small_arrays[f"y_{split}"].tolist())
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text_of(small_arrays[f"x_{split}"], **way))
        return path

    return write


def section(path, **keys):
    return Csv(source="csv", path=str(path), **keys)


def load(path, split="train", **keys):
    return data.load_split(section(path, **keys), 1, split)


def refused(path, **keys):
    return refusal(load, path, **keys)


WAYS = {
    "Kaggle": {},
    "no header": {"header": False},
    "label last": {"last": True},
    "label last, no header": {"last": True, "header": False},
    "class": {"label": "class"},
    "Target": {"label": "Target"},
    "y": {"label": "y"},
    "semicolons": {"delimiter": ";"},
    "tabs": {"delimiter": "\t"},
    "bars": {"delimiter": "|"},
    "spaces, as of numpy.savetxt": {"delimiter": " ", "header": False},
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_images_and_labels_come_back(write, small_arrays, way):
    if not way.get("header", True):
        small_arrays["x_train"][:, 0, 0] = small_arrays["x_train"][:, -1, -1] = 0  # as in every image of MNIST
    table = rows.read_csv(write(**way), None, None)
    assert (table.images[..., 0] == small_arrays["x_train"]).all()
    assert table.images.dtype == np.uint8
    assert table.labels.tolist() == small_arrays["y_train"].tolist()


@pytest.mark.parametrize(
    "packing", ["gz", "zip", "zip of a Mac", "utf-16", "bom", "crlf", "quoted", "blank lines", "no last line feed"]
)
def test_packings_and_line_ends_do_not_matter(write, small_arrays, packing):
    path = write()
    text = path.read_text()
    if packing.startswith("zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("train.csv", text)
            if packing == "zip of a Mac":
                archive.writestr("__MACOSX/._train.csv", "x")
    else:
        quoted = "\n".join(",".join(f'"{cell}"' for cell in line.split(",")) for line in text.splitlines())
        path.write_bytes(
            {
                "gz": gzip.compress(text.encode()),
                "bom": b"\xef\xbb\xbf" + text.encode(),
                "utf-16": text.encode("utf-16"),
                "crlf": text.replace("\n", "\r\n").encode(),
                "quoted": quoted.encode(),
                "blank lines": text.replace("\n", "\n\n").encode(),
                "no last line feed": text.rstrip().encode(),
            }[packing]
        )
    table = rows.read_csv(path, None, None)
    assert (table.images[..., 0] == small_arrays["x_train"]).all()
    assert table.labels.tolist() == small_arrays["y_train"].tolist()


@pytest.mark.parametrize(
    ("num_values", "shape"), [(784, (28, 28, 1)), (3072, (32, 32, 3)), (12288, (64, 64, 3)), (64, (8, 8, 1))]
)
def test_size_and_channels_follow_from_the_number_of_columns(tmp_path, num_values, shape):
    values = np.arange(2 * num_values, dtype=np.uint8).reshape(2, num_values)
    path = tmp_path / "a.csv"
    path.write_text(text_of(values, [0, 1]))
    images = rows.read_csv(path, None, None).images
    assert images.shape == (2, *shape)
    assert (images.reshape(2, -1) == values).all()


def test_shape_can_be_given_and_planes_are_put_together(tmp_path):
    values = np.arange(2 * 8 * 5 * 3, dtype=np.uint8).reshape(2, 8, 5, 3)
    path = tmp_path / "a.csv"
    path.write_text(text_of(values, [0, 1]))
    assert (rows.read_csv(path, None, [8, 5, 3]).images == values).all()
    path.write_text(text_of(values.transpose(0, 3, 1, 2), [0, 1]))
    assert (rows.read_csv(path, None, [3, 8, 5]).images == values).all()
    assert "a.csv: has 120 values per row, which make no square image" in refused(path)
    assert "set data.image_shape: [height, width, 1 or 3]" in refused(path)
    assert "has 120 values per row, but data.image_shape 8x8x1 takes 64" in refused(path, image_shape=[8, 8, 1])


def test_the_order_of_colours_that_is_taken_is_said(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(text_of(np.random.default_rng(1).integers(0, 256, (20, 8, 8, 3)), [0, 1] * 10))
    said = []
    data.load_training(section(path), 1, said.append)
    assert said == [
        f"{path}: 192 values per row are read as 8x8 pixels of 3 values side by side; "
        "if each colour is a plane, set data.image_shape: [3, 8, 8]"
    ]
    data.load_training(section(path, image_shape=[8, 8, 3]), 1, pytest.fail)


def test_columns_that_number_the_rows_are_no_pixels(write, small_arrays):
    path = write()
    lines = path.read_text().splitlines()
    path.write_text("\n".join(f"{number or 'id'},{line}" for number, line in enumerate(lines)))
    assert (rows.read_csv(path, None, None).images[..., 0] == small_arrays["x_train"]).all()


def test_a_header_of_numbers_is_a_header(write, small_arrays):
    path = write()
    lines = path.read_text().splitlines()
    path.write_text("\n".join([",".join(map(str, range(785))), *lines[1:]]))
    assert len(rows.read_csv(path, None, None).images) == 24
    path.write_text("\n".join([",".join(["label", *map(str, range(784))]), *lines[1:]]))
    assert len(rows.read_csv(path, None, None).images) == 24


def test_whole_numbers_may_be_written_as_floats(write, small_arrays):
    path = write()
    head, *lines = path.read_text().splitlines()
    path.write_text("\n".join([head, *(line.replace(",", ".0,") + ".0" for line in lines)]))
    table = rows.read_csv(path, None, None)
    assert (table.images[..., 0] == small_arrays["x_train"]).all()
    assert table.labels.tolist() == small_arrays["y_train"].tolist()


WRONG_CELLS = {
    "word": ("x", "train.csv:4: column 3 (pixel1) holds 'x'; expected a number"),
    "nothing": ("", "train.csv:4: column 3 (pixel1) holds nothing; expected a number"),
    "nan": ("nan", "train.csv:4: column 3 (pixel1) holds 'nan'; expected a number"),
    "boolean": ("True", "train.csv:4: column 3 (pixel1) holds 'True'; write 255 for True and 0 for False"),
    "one more": ("1,2", "train.csv:4: has 786 cells; expected 785, as in the first row"),
}


@pytest.mark.parametrize("kind", WRONG_CELLS)
def test_a_wrong_cell_is_named_with_line_and_column(write, kind):
    cell, problem = WRONG_CELLS[kind]
    path = write()
    lines = path.read_text().splitlines()
    cells = lines[3].split(",")
    cells[2] = cell
    lines[3] = ",".join(cells)
    path.write_text("\n".join(lines))
    assert problem in refused(path)


def test_other_wrong_files_are_refused(tmp_path, write, small_arrays):
    path = tmp_path / "a.csv"
    assert "no such file" in refused(path)
    for content, problem in (
        (b"", "is empty"),
        (b"\n\n", "holds no images"),
        (b"label,pixel0\n", "has 1 value per row|holds no images"),
        (b"<html>", "looks like a web page"),
        (bytes(range(256)) * 100, "a.csv"),
        (gzip.compress(b"1,2\n" * 100)[:-10], "broken file"),
        (b"PK\x03\x04 no zip", "broken file"),
        (b"label," + b"1" * 200_000 + b"\n1,2\n", "has only the label 1"),
    ):
        path.write_bytes(content)
        message = refused(path)
        assert any(part in message for part in problem.split("|")), message
    assert "has no column of labels" in refused(write(labels=None))
    assert "has no column kind, which data.label names; it has label, pixel0" in refused(write(), label="kind")


def test_the_scale_of_the_pixels_is_decided_as_for_arrays(tmp_path, small_arrays):
    path = tmp_path / "a.csv"
    images, labels = small_arrays["x_train"], small_arrays["y_train"].tolist()
    path.write_text(text_of(images / 255, labels))
    training = data.load_training(section(path, test_fraction=0.25), 1, pytest.fail)
    assert {image.tobytes() for image in training.train.images} < {image.tobytes() for image in images}
    assert (training.record.pixel_dtype, training.record.white) == ("float64", 1)
    for line, image in rows.iterate_images(path, (28, 28, 1), 1):
        assert (image[..., 0] == images[line - 2]).all()
    path.write_text(text_of(images, labels))
    with pytest.raises(DataError, match=r"a\.csv:2: has pixels from 0 to 255 in the rows that start here"):
        next(rows.iterate_images(path, (28, 28, 1), 1))
    path.write_text(text_of(images.astype(int) * 2, labels))
    assert "the pixels are int64 from 0 to 510; expected 0 to 255" in refused(path)
    path.write_text(text_of(images // 16, labels))
    with pytest.raises(DataError, match=r"brightest pixel of the .* is 15 of 255, so the scale is wrong"):
        data.load_training(section(path), 1, pytest.fail)


def test_validation_files_are_the_validation_split(write):
    path = write()
    own = write("valid.csv", "test")
    for keys in {"path": str(path.parent)}, {"path": str(path), "validation_path": str(own)}:
        training = data.load_training(Csv(source="csv", **keys), 1, pytest.fail)
        assert len(training.validation) == 9
        assert training.record.validation_from == "own"


def test_a_line_without_end_and_too_many_rows_take_no_memory(tmp_path, write, monkeypatch):
    monkeypatch.setattr(rows, "_MAX_LINE_CHARACTERS", 1000)
    assert "train.csv:1: has a line without an end" in refused(write())
    monkeypatch.undo()
    monkeypatch.setattr(arrays, "MAX_ARRAY_BYTES", 10_000)
    assert "would take more than 10000 bytes of memory" in refused(write())


# Labels and classes.


def test_classes_are_the_labels_that_there_are(write):
    """As in Sign Language MNIST, which has no J. Labels from 1 and names work too."""
    for labels, names in (
        ([0, 2, 10] * 8, ["0", "2", "10"]),
        ([1, 2, 3] * 8, ["1", "2", "3"]),
        (["cat", "dog", "a 10"] * 8, ["a 10", "cat", "dog"]),
        (["c10", "c9", "c1"] * 8, ["c1", "c9", "c10"]),
    ):
        path = write(labels=labels)
        record = data.load_training(section(path), 1, pytest.fail).record
        assert record.class_names == names
        read = load(path, "test")
        assert sorted(set(read.labels)) == [0, 1, 2]


def test_one_label_for_all_is_refused(write):
    assert "has only the label 7" in refused(write(labels=[7] * 24))


def test_labels_that_are_fractions_are_refused(write):
    assert "train.csv:2: column 1 (label) holds 0.5" in refused(write(labels=[0.5] * 24))


# Splits.


def test_without_a_test_file_a_share_of_each_class_is_the_test_split(write, small_arrays):
    path = write()
    record = data.load_training(section(path, test_fraction=0.25), 1, pytest.fail).record
    test = load(path, "test", test_fraction=0.25)
    assert (record.num_train, len(test)) == (18, 6)
    assert np.bincount(test.labels).tolist() == [2, 2, 2]
    train = load(path, "train", test_fraction=0.25)
    seen = {image.tobytes() for image in train.images} | {image.tobytes() for image in test.images}
    assert seen == {image.tobytes() for image in small_arrays["x_train"]}


@pytest.mark.parametrize(
    "names",
    [("train.csv", "test.csv"), ("mnist_train.csv", "mnist_test.csv"), ("Fashion-Train.csv.gz", "Fashion-Test.csv")],
)
def test_files_in_a_folder_are_told_by_their_names(write, small_arrays, names):
    train, test = write(names[0]), write(names[1], "test")
    train.with_name("sample_submission.csv").write_text("ImageId,Label\n1,0\n")
    assert len(load(train.parent)) == 24
    assert (load(train.parent, "test").images[..., 0] == small_arrays["x_test"]).all()
    assert len(load(train, "test", test_path=str(test))) == 9


def test_a_test_file_without_labels_is_none(write):
    """Such as Kaggle's test.csv, whose labels are not published."""
    path = write()
    write("test.csv", "test", labels=None)
    assert len(load(path.parent, "test")) == round(24 * 0.2)
    assert "test.csv: has no column of labels" in refused(path, split="test", test_path=str(path.with_name("test.csv")))


def test_two_tables_that_it_could_be_are_not_chosen_from(write):
    path = write("a_train.csv")
    write("b_train.csv")
    assert "more than one table for this split: a_train.csv, b_train.csv; name the file" in refused(path.parent)
    path.unlink()
    path.with_name("b_train.csv").unlink()
    assert "holds no file train.csv; name the file" in refused(path.parent)


def test_a_test_file_without_the_named_column_of_labels_is_none_either(write):
    path = write(label="kind")
    write("test.csv", "test", labels=None)
    assert len(load(path.parent, "test", label="kind")) == 5


def test_the_parts_of_a_table_are_put_together_if_they_fit(write, small_arrays):
    first, second = write("train-00000-of-00002.csv"), write("train-00001-of-00002.csv")
    assert len(load(first.parent, test_path=str(first))) == 48
    second.write_text(text_of(small_arrays["x_train"][:, :8, :8], small_arrays["y_train"].tolist()))
    assert "images of different sizes" in refused(first.parent)


def test_files_that_were_moved_are_found_in_another_folder(write):
    path, test_path = write("old/train.csv"), write("old/test.csv", "test")
    moved = section(path, test_path=str(test_path))
    path.parent.rename(path.parent.with_name("new"))
    assert len(data.load_split(moved, 1, "test", path.parent.with_name("new"))) == 9


@pytest.mark.parametrize(
    ("train", "test"),
    [("first.csv", "second.csv"), ("a/digits.csv", "b/digits.csv"), ("digits.csv", "held/out.csv")],
)
def test_files_of_any_name_that_were_moved_together_stay_what_they_are(write, tmp_path, train, test):
    (tmp_path / "old").mkdir()
    path, test_path = write(f"old/{train}"), write(f"old/{test}", "test")
    moved = section(path, test_path=str(test_path))
    (tmp_path / "old").rename(tmp_path / "new")
    found = data.at_path(moved, tmp_path / "new")
    assert (found.path, found.test_path) == (str(tmp_path / "new" / train), str(tmp_path / "new" / test))
    assert found.validation_path is None
    assert (len(data.load_split(found, 1, "train")), len(data.load_split(found, 1, "test"))) == (24, 9)


def test_one_file_that_was_moved_into_a_folder_is_split_as_before(write, tmp_path):
    """Even if the folder holds a file that would be its test split."""
    path = write("digits.csv")
    (tmp_path / "new").mkdir()
    path.rename(tmp_path / "new" / "digits.csv")
    write("new/test.csv", "test")
    for elsewhere in tmp_path / "new", tmp_path / "new" / "digits.csv":
        assert len(data.load_split(section(path), 1, "test", elsewhere)) == round(24 * 0.2)


def test_a_test_label_that_training_does_not_know_is_refused(write):
    path = write()
    write("test.csv", "test", labels=[5] * 9)
    assert "test.csv: holds the label 5; the training labels are 0, 1, 2" in refused(path.parent, split="test")


# Predicting.


def test_images_come_one_after_the_other(tmp_path, small_arrays, monkeypatch):
    monkeypatch.setattr(rows, "_CHUNK_CELLS", 784 * 5)
    path = tmp_path / "test.csv"
    for labels, header in ((None, True), (None, False), (small_arrays["y_train"].tolist(), True)):
        path.write_text(text_of(small_arrays["x_train"], labels, header=header))
        found = list(rows.iterate_images(path, (28, 28, 1), 255))
        assert [line for line, _ in found] == list(range(1 + header, 25 + header))
        assert (np.stack([image[..., 0] for _, image in found]) == small_arrays["x_train"]).all()
    with pytest.raises(DataError, match=r"has 784 values per row; an image of 8x8x1 takes 64"):
        next(rows.iterate_images(path, (8, 8, 1), 255))
    path.write_text(text_of(small_arrays["x_train"][:, :, :20], header=False))  # 560 values: not a square
    assert len(list(rows.iterate_images(path, (28, 20, 1), 255))) == 24


@pytest.mark.parametrize("header", [True, False])
def test_a_first_column_that_counts_is_no_pixel_whatever_it_is_called(write, small_arrays, header):
    lines = write(header=header).read_text().splitlines()
    numbered = [f"{number},{line}" for number, line in enumerate(lines[header:], 7)]
    path = write("numbered.csv")
    path.write_text("\n".join([f"Nr.,{lines[0]}"] * header + numbered))
    table = rows.read_csv(path, None, None)
    assert (table.images[..., 0] == small_arrays["x_train"]).all()
    assert table.labels.tolist() == small_arrays["y_train"].tolist()


def test_rows_may_end_in_a_delimiter(write, small_arrays):
    path = write(header=False)
    path.write_text(path.read_text().replace("\n", ",\n"))
    assert (rows.read_csv(path, None, None).images[..., 0] == small_arrays["x_train"]).all()


def test_labels_may_be_digits_and_letters(write):
    assert rows.read_csv(write(labels=["0", "A", "1"] * 8), None, None).class_names("") == ["0", "1", "A"]
    assert "train.csv:9: column 1 (label) holds '5x'" in refused(write(labels=[*"0120120", "5x", *"0120120120120120"]))


@pytest.mark.parametrize(
    ("name", "shown"), [("", "nothing"), ("NaN", "NaN"), ("\x1b[31m", "the label"), ("\ufffd", "the la")]
)
def test_what_names_no_class_is_refused(write, name, shown):
    message = refused(write(labels=["ant", "bee", name] * 8))
    assert f"train.csv:4: holds {shown}" in message


@pytest.mark.parametrize("text", ['{"a": 1}', "hello world\nthis is text\n", "# made by me\nlabel,a,b\n"])
def test_what_is_no_table_is_said_to_be_none(tmp_path, text):
    (tmp_path / "a.csv").write_text(text)
    assert "a.csv:1: begins with " in refused(tmp_path / "a.csv")


def test_what_is_no_text_is_said_to_be_none(tmp_path):
    (tmp_path / "a.csv").write_bytes(bytes(range(256)))
    assert "is not text; expected a CSV file" in refused(tmp_path / "a.csv")


def test_folders_may_be_named_after_the_splits(write, small_arrays):
    write("train/a.csv")
    path = write("test/a.csv", "test").parent.parent
    assert (load(path, "test").images[..., 0] == small_arrays["x_test"]).all()


def test_a_table_that_lacks_a_part_is_refused(write):
    path = write("train-00001-of-00003.csv")
    assert "holds 1 of 3 parts of a table: train-00001-of-00003.csv; get the missing parts" in refused(path.parent)
