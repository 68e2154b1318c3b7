import io
import json
import sys

import numpy as np
import pytest
from PIL import Image
from support import refusal

from cnn_trainer import data
from cnn_trainer.config.schema.data import Parquet
from cnn_trainer.data import arrays, parquet
from cnn_trainer.errors import DataError
from cnn_trainer.machine import facts

pyarrow = pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
pq = pytest.importorskip("pyarrow.parquet")


STRUCT = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def pictures(images):
    """A column of pictures in the format of the hub."""
    return pyarrow.array([{"bytes": png(image), "path": None} for image in images], STRUCT)


def write(path, columns, names=None, **keys):
    table = pyarrow.table(columns)
    if names:
        features = {"label": {"names": names, "_type": "ClassLabel"}, "image": {"_type": "Image"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(exist_ok=True, parents=True)
    pq.write_table(table, path, **keys)
    return path


@pytest.fixture
def hub(tmp_path, small_arrays):
    """A folder with the files of a data set from the hub."""
    for split in "train", "test":
        columns = {"image": pictures(small_arrays[f"x_{split}"]), "label": small_arrays[f"y_{split}"].astype(np.int64)}
        write(tmp_path / "mnist" / f"{split}-00000-of-00001.parquet", columns)
    return tmp_path


def load(path, split="train", **keys):
    return data.load_split(Parquet(source="parquet", path=str(path), **keys), 1, split)


def refused(path, **keys):
    return refusal(load, path, **keys)


@pytest.mark.parametrize("below", ["", "mnist"])
def test_a_data_set_of_the_hub_is_read(hub, small_arrays, below):
    for split in "train", "test":
        read = load(hub / below, split)
        assert (read.images[..., 0] == small_arrays[f"x_{split}"]).all()
        assert read.images.shape[3] == 1
        assert read.labels.tolist() == small_arrays[f"y_{split}"].tolist()


def test_a_single_file_is_split(hub):
    path = hub / "mnist" / "train-00000-of-00001.parquet"
    assert (len(load(path)), len(load(path, "test"))) == (19, 5)
    test_path = str(hub / "mnist" / "test-00000-of-00001.parquet")
    assert (len(load(path, test_path=test_path)), len(load(path, "test", test_path=test_path))) == (24, 9)


def test_the_parts_of_a_table_are_put_together(tmp_path, small_arrays):
    for part in range(3):
        rows = slice(8 * part, 8 * part + 8)
        columns = {"image": pictures(small_arrays["x_train"][rows]), "label": small_arrays["y_train"][rows]}
        write(tmp_path / f"train-0000{part}-of-00003.parquet", columns, row_group_size=3)
        write(tmp_path / "test-00000-of-00001.parquet", columns)
    assert (load(tmp_path).images[..., 0] == small_arrays["x_train"]).all()


@pytest.mark.parametrize(
    "change",
    [
        lambda x: pyarrow.array([png(image) for image in x], pyarrow.binary()),
        lambda x: pyarrow.array([image.tolist() for image in x], pyarrow.list_(pyarrow.list_(pyarrow.uint8()))),
        lambda x: pyarrow.array([image.ravel().tolist() for image in x], pyarrow.list_(pyarrow.int64())),
        lambda x: pyarrow.FixedSizeListArray.from_arrays(x.ravel(), 784),
        lambda x: pyarrow.array([image[..., None].tolist() for image in x]),
    ],
    ids=["binary", "lists of lists", "a list", "fixed size", "with a channel"],
)
@pytest.mark.parametrize("names", [("image", "label"), ("img", "labels"), ("pixels", "fine_label"), ("Image", "class")])
def test_other_columns_of_images_are_read(tmp_path, small_arrays, change, names):
    columns = dict(zip(names, (change(small_arrays["x_train"]), small_arrays["y_train"]), strict=True))
    read = parquet.read_parquet([write(tmp_path / "a.parquet", columns)], None, None, None)
    assert (read.images[..., 0] == small_arrays["x_train"]).all()
    assert read.labels.tolist() == small_arrays["y_train"].tolist()


def test_colour_is_kept_or_made_grey_and_sizes_are_made_alike(tmp_path):
    images = [np.full((side, side, 3), (200, 0, 0), np.uint8) for side in (8, 8, 8, 10)]
    path = write(tmp_path / "a.parquet", {"img": pictures(images[:3]), "label": [0, 1, 0]})
    assert parquet.read_parquet([path], None, None, None).images.shape == (3, 8, 8, 3)
    assert parquet.read_parquet([path], None, 12, "grey").images.shape == (3, 12, 12, 1)
    path = write(tmp_path / "b.parquet", {"img": pictures(images), "label": [0, 1, 0, 1]})
    assert "row 4: is 10x10 pixels, but those before are 8x8; set data.image_size" in refused(path)
    assert parquet.read_parquet([path], None, 8, None).images.shape == (4, 8, 8, 3)


def test_classes_have_the_names_that_the_file_gives(tmp_path, small_arrays):
    columns = {"image": pictures(small_arrays["x_train"]), "label": small_arrays["y_train"].astype(np.int64)}
    path = write(tmp_path / "a.parquet", columns, names=["zebra", "ant", "bee"])
    section = Parquet(source="parquet", path=str(path))
    assert data.load_training(section, 1, pytest.fail).record.class_names == ["zebra", "ant", "bee"]
    path = write(tmp_path / "a.parquet", {**columns, "label": ["b", "a", "c"] * 8})
    assert data.load_training(section, 1, pytest.fail).record.class_names == ["a", "b", "c"]


def test_lists_of_floats_are_scaled_and_a_validation_file_is_used(tmp_path, small_arrays):
    for name in "train", "validation", "test":
        images = small_arrays["x_train" if name == "train" else "x_test"]
        columns = {"image": (images / 255).tolist(), "label": small_arrays["y_train"][: len(images)]}
        write(tmp_path / f"{name}-00000-of-00001.parquet", columns)
    training = data.load_training(Parquet(source="parquet", path=str(tmp_path)), 1, pytest.fail)
    assert (training.train.images[..., 0] == small_arrays["x_train"]).all()
    assert (training.validation.images[..., 0] == small_arrays["x_test"]).all()
    assert (training.record.validation_from, training.record.white) == ("own", 1)


def test_a_label_without_a_name_is_refused(tmp_path, small_arrays):
    columns = {"image": pictures(small_arrays["x_train"]), "label": small_arrays["y_train"].astype(np.int64)}
    assert "holds the label 2, but names 2 classes" in refused(write(tmp_path / "a.parquet", columns, names=["x", "y"]))


WRONG = {
    "no labels": (lambda x: {"image": pictures(x)}, "has no column of labels; it has image; name it in data.label"),
    "no images": (
        lambda x: {"label": [0] * 24, "a": [0] * 24},
        "has no column of images, such as image; it has label, a",
    ),
    "no label": (lambda x: {"image": pictures(x), "label": [None, *[0] * 23]}, "row 1: label holds nothing"),
    "fraction": (lambda x: {"image": pictures(x), "label": [0.5] * 24}, "row 1: label holds 0.5"),
    "no picture": (
        lambda x: {"image": pyarrow.array([b"x"] * 24), "label": [0, 1] * 12},
        "24 pictures cannot be read: ",
    ),
    "path only": (
        lambda x: {"image": pyarrow.array([{"bytes": None}] * 24, STRUCT), "label": [0] * 24},
        "in a separate file",
    ),
    "texts": (lambda x: {"image": ["a"] * 24, "label": [0] * 24}, "its images are string"),
    "lengths": (
        lambda x: {"image": [[0] * 4, *[[0] * 9] * 23], "label": [0] * 24},
        "row 2: holds 9 values in a list of pixels, but those before hold 4",
    ),
    "values": (lambda x: {"image": [[300] * 9] * 24, "label": [0, 1] * 12}, "the pixels are int64 from 300 to 300"),
    "colours": (lambda x: {"image": [list(range(192))] * 24, "label": [0] * 24}, "the order of 192 values in three"),
    "no rows": (lambda x: {"image": pictures(x[:0]), "label": pyarrow.array([], pyarrow.int64())}, "holds no rows"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_tables_are_refused(tmp_path, small_arrays, kind):
    columns, problem = WRONG[kind]
    assert problem in refused(write(tmp_path / "a.parquet", columns(small_arrays["x_train"])))


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_broken_files_are_refused(hub, kept):
    path = hub / "mnist" / "train-00000-of-00001.parquet"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    assert f"{path}: broken Parquet file" in refused(hub)
    path.write_bytes(content[:1000] + bytes(1000) + content[2000:])
    assert str(path) in refused(hub)
    path.write_bytes(b"hello")
    assert "broken Parquet file" in refused(hub)


def test_more_than_memory_allows_is_refused(hub, small_arrays, monkeypatch):
    monkeypatch.setattr(arrays, "MAX_ARRAY_BYTES", 15_000)
    assert "bytes of memory; at most 15000; write it in smaller row groups" in refused(hub)
    blank = pictures(np.zeros((24, 28, 28), np.uint8))
    path = write(hub / "b.parquet", {"image": blank, "label": small_arrays["y_train"]})
    assert "24 images of 28x28x1 would take 18816 bytes of memory; at most 15000" in refused(path)


def test_without_the_package_the_command_that_installs_it_is_named(hub, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert f"need the package pyarrow; run: {facts.install_command('pyarrow')}" in refused(hub)


def test_all_pictures_of_a_table_that_are_broken_are_named(hub, small_arrays, monkeypatch):
    monkeypatch.setattr(parquet, "_BATCH_ROWS", 5)
    contents = [png(image) for image in small_arrays["x_train"]]
    for row in 0, 1, 11:
        contents[row] = contents[row][:-100]
    (path,) = hub.glob("mnist/train-*")
    column = pyarrow.array([{"bytes": content, "path": None} for content in contents], STRUCT)
    write(path, {"image": column, "label": small_arrays["y_train"].astype(np.int64)})
    with pytest.raises(DataError) as caught:
        load(hub / "mnist")
    lines = caught.value.lines()
    assert [line.split(": broken picture")[0] for line in lines] == [f"{path}: row {row}" for row in (1, 2, 12)]


@pytest.mark.parametrize("white", [1, 255])
def test_the_scale_of_a_table_is_decided_over_all_of_its_rows(tmp_path, small_arrays, monkeypatch, white):
    monkeypatch.setattr(parquet, "_BATCH_ROWS", 5)
    images = small_arrays["x_train"]
    images[:5] = 0  # the first rows fit every scale
    column = pyarrow.array([(image * (white / 255)).reshape(-1).tolist() for image in images])
    path = write(tmp_path / "a.parquet", {"image": column, "label": small_arrays["y_train"].astype(np.int64)})
    table = data.load_training(Parquet(source="parquet", path=str(path)), 1, pytest.fail)
    assert table.record.white == white
    assert int(table.train.images.max()) == 255


def test_a_column_for_each_pixel_is_an_image(tmp_path, small_arrays):
    flat = small_arrays["x_train"].reshape(24, -1)
    columns = {"id": range(24), "label": small_arrays["y_train"].astype(float)}
    columns |= {f"pixel{number}": flat[:, number] for number in range(flat.shape[1])}
    read = parquet.read_parquet([write(tmp_path / "a.parquet", columns)], None, None, None)
    assert (read.images[..., 0] == small_arrays["x_train"]).all()
    assert read.images.dtype == np.uint8
    assert read.labels.tolist() == small_arrays["y_train"].tolist()


def test_tables_as_the_hub_converts_them_are_found(tmp_path, small_arrays):
    for name, part in ("train/0000", slice(0, 10)), ("train/0001", slice(10, 24)), ("test/0000", slice(0, 10)):
        columns = {"image": pictures(small_arrays["x_train"][part]), "label": small_arrays["y_train"][part].astype(int)}
        write(tmp_path / "default" / f"{name}.parquet", columns)
    assert (load(tmp_path).images[..., 0] == small_arrays["x_train"]).all()
    assert (load(tmp_path, "test").images[..., 0] == small_arrays["x_train"][:10]).all()


def test_broken_pictures_and_missing_ones_are_named_with_their_rows(tmp_path, small_arrays):
    contents = [png(image) for image in small_arrays["x_train"]]
    labels = small_arrays["y_train"].astype(int)
    for row in 3, 20:
        contents[row - 1] = contents[row - 1][:50]
    message = refused(write(tmp_path / "a.parquet", {"image": contents, "label": labels}))
    assert message.endswith(f"a.parquet: row 3, {tmp_path}/a.parquet: row 20")
    contents[7] = None
    assert "row 8: holds nothing instead of an image" in refused(
        write(tmp_path / "b.parquet", {"image": contents, "label": labels})
    )


def test_a_test_table_without_labels_is_none(hub, small_arrays):
    write(hub / "mnist" / "test-00000-of-00001.parquet", {"image": pictures(small_arrays["x_test"])})
    assert len(load(hub)) + len(load(hub, "test")) == 24
