import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from support import refusal

from cnn_trainer.data import arrays, folder, pictures
from cnn_trainer.errors import DataError


def picture(path, value=100, mode="L", size=(8, 8), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path, **options)
    return path


def make_classes(root, names=("ant", "bee"), num_each=5):
    for label, name in enumerate(names):
        for number in range(num_each):
            picture(root / name / f"{number}.png", 10 * label + number)
    return root


def listed(root, split, seed=1):
    return [str(path.relative_to(root)) for path in folder.list_pictures(root, split, 0.2, seed).paths]


def refused(path, size=8, color="grey"):
    message = refusal(folder.read_picture, path, size, color)
    assert message.startswith(str(path))
    return message


def test_classes_and_pictures_are_sorted_by_name(tmp_path):
    for name in "b/2.png", "b/10.png", "B/x.png", "a/1.png", "B/y.png", "a/0.png":
        picture(tmp_path / "train" / name)
        picture(tmp_path / "test" / name)
    listing = folder.list_pictures(tmp_path, "train", 0.2, 1)
    assert listing.class_names == ["B", "a", "b"]
    assert [path.name for path in listing.paths] == ["x.png", "y.png", "0.png", "1.png", "10.png", "2.png"]
    assert listing.labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_sub_folders_train_and_test_are_the_splits(tmp_path):
    make_classes(tmp_path / "train", num_each=3)
    make_classes(tmp_path / "test", num_each=2)
    assert len(listed(tmp_path, "train")) == 6
    assert listed(tmp_path, "test") == ["test/ant/0.png", "test/ant/1.png", "test/bee/0.png", "test/bee/1.png"]


SPELLINGS = [
    ("train", "val", "test"),
    ("train", "valid", "test"),
    ("Train", "Validation", "Test"),
    ("TRAIN", "DEV", "TEST"),
    ("training", "validation", "testing"),
    ("training_set", "val-set", "test_set"),
    ("train", "eval", "test"),
    ("01_train", "02_valid", "03_test"),
    ("seg_train", "seg_dev", "seg_test"),
    ("train-images", "images_val", "Test 2"),
]


@pytest.mark.parametrize("names", SPELLINGS)
def test_usual_names_of_the_splits_are_known_in_any_case(tmp_path, names):
    for name, num_each in zip(names, (3, 2, 1), strict=True):
        make_classes(tmp_path / name, num_each=num_each)
    (tmp_path / "notes.txt").write_text("not a folder")
    for split, name, num_each in zip(("train", "validation", "test"), names, (3, 2, 1), strict=True):
        found = listed(tmp_path, split)
        assert len(found) == 2 * num_each
        assert all(path.startswith(f"{name}/") for path in found)


def test_without_a_folder_for_validation_there_is_no_such_split(tmp_path):
    make_classes(tmp_path / "split" / "train")
    make_classes(tmp_path / "split" / "test")
    make_classes(tmp_path / "whole")
    for root in "split", "whole":
        assert folder.list_pictures(tmp_path / root, "validation", 0.2, 1) is None


EXPECTED = "expected train or training, test or testing, and for validation val, valid, validation, dev or eval"


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (("train", "val"), f"has train and val, but no folder for the test split; {EXPECTED}"),
        (("Training", "Dev"), f"has Dev and Training, but no folder for the test split; {EXPECTED}"),
        (("test",), f"has test, but no folder for the train split; {EXPECTED}"),
        (("val", "test"), f"has test and val, but no folder for the train split; {EXPECTED}"),
        (("train", "test", "val", "valid"), "has val and valid for the validation split; keep one of them"),
        (("train", "test", "testing"), "has test and testing for the test split; keep one of them"),
    ],
)
def test_a_split_that_is_missing_or_there_twice_is_refused(tmp_path, names, problem):
    for name in names:
        make_classes(tmp_path / name)
    with pytest.raises(DataError) as caught:
        folder.list_pictures(tmp_path, "train", 0.2, 1)
    assert str(caught.value) == f"{tmp_path}: {problem}"


def test_a_training_split_without_others_can_be_divided(tmp_path):
    make_classes(tmp_path / "train")
    with pytest.raises(DataError) as caught:
        folder.list_pictures(tmp_path, "train", 0.2, 1)
    place = tmp_path / "train"
    assert caught.value.problem == "has train, but no folder for the test split"
    assert caught.value.remedy == f"{EXPECTED}; or set data.path to {place}, to set aside data.test_fraction of it"
    assert len(folder.list_pictures(place, "train", 0.2, 1).paths) == 8


@pytest.mark.parametrize("inside", [("train", "test"), ("",)])
@pytest.mark.parametrize("around", ["dataset", "a/b/c"])
def test_folders_around_that_hold_no_more_than_one_are_passed_through(tmp_path, around, inside):
    for name in inside:
        make_classes(tmp_path / around / name)
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "read me.txt").write_text("hello")
    found = folder.list_pictures(tmp_path, "train", 0.2, 1)
    assert found.class_names == ["ant", "bee"]
    assert all(str(path).startswith(str(tmp_path / around / inside[0])) for path in found.paths)


def test_a_folder_of_a_split_may_hold_a_folder_of_the_same_name(tmp_path):
    for name, num_each in ("seg_train", 3), ("seg_test", 2):
        make_classes(tmp_path / name / name, num_each=num_each)
    assert (len(listed(tmp_path, "train")), len(listed(tmp_path, "test"))) == (6, 4)
    assert folder.unused_pictures(tmp_path) == []


@pytest.mark.parametrize("names", [("tr", "te"), ("part 1", "part 2"), ("images", "labels")])
def test_folders_of_folders_that_are_no_splits_are_refused_with_the_names_of_splits(tmp_path, names):
    for name in names:
        make_classes(tmp_path / name)
    with pytest.raises(
        DataError, match=r"holds folders, such as ant, and no pictures; .*if they are splits: expected tra"
    ):
        folder.list_pictures(tmp_path, "train", 0.2, 1)


def test_classes_may_have_the_name_of_a_split_in_theirs(tmp_path):
    make_classes(tmp_path, ("test tube", "train station"))
    assert folder.list_pictures(tmp_path, "train", 0.2, 1).class_names == ["test tube", "train station"]


def test_pictures_of_no_split_are_named(tmp_path):
    for name in "train", "test", "holdout":
        make_classes(tmp_path / "inner" / name)
    (tmp_path / "inner" / "docs").mkdir()
    (tmp_path / "inner" / "docs" / "notes.txt").write_text("hello")
    assert folder.unused_pictures(tmp_path) == ["inner/holdout"]
    picture(tmp_path / "inner" / "test" / "loose.png")
    assert folder.unused_pictures(tmp_path) == ["inner/holdout", "inner/test/loose.png"]
    assert folder.unused_pictures(tmp_path / "inner" / "train") == []


def test_to_be_scored_on_a_test_split_takes_no_other(tmp_path):
    make_classes(tmp_path / "test")
    assert len(listed(tmp_path, "test")) == 10


def test_digits_in_the_names_of_classes_are_sorted_as_numbers(tmp_path):
    names = ["0", "1", "2", "10", "11", "a2b1", "a2b10", "a10b1", "class 2", "class 10", "class 10b"]
    make_classes(tmp_path, names[::-1], num_each=5)
    assert folder.list_pictures(tmp_path, "train", 0.2, 1).class_names == names
    before = sorted(names)
    listing = folder.list_pictures(tmp_path, "train", 0.2, 1, before)
    assert listing.class_names == before
    assert [path.parent.name for path in listing.paths] == [before[label] for label in listing.labels]


def test_natural_order_takes_numbers_of_any_length():
    names = ["", "0", "1", "01", "9" * 4999, "9" * 5000, "1" + "0" * 5000, "A", "a", "a-1", "a-2", "a٣", "b"]
    assert sorted(set(names), key=arrays.natural_order) == ["", "0", "01", "1", *names[4:]]


def test_what_systems_leave_in_folders_is_skipped(tmp_path):
    make_classes(tmp_path / "train")
    make_classes(tmp_path / "test")
    for place in tmp_path, tmp_path / "train", tmp_path / "train" / "ant":
        for name in (
            "Thumbs.db",
            "desktop.ini",
            "Desktop.ini",
            "._0.png",
            ".DS_Store",
            "a.png:Zone.Identifier",
            "Picasa.ini",
            "~$a.png",
        ):
            (place / name).write_bytes(b"x")
        for name in "@eaDir", "lost+found", ".ipynb_checkpoints":
            (place / name).mkdir()
        (place / "__MACOSX" / "train" / "ant").mkdir(parents=True)
        (place / "__MACOSX" / "train" / "ant" / "._0.png").write_bytes(b"x")
    listing = folder.list_pictures(tmp_path, "train", 0.2, 1)
    assert listing.class_names == ["ant", "bee"]
    assert len(folder.read_pictures(listing, 8, "grey")) == 10


def test_broken_pictures_are_named_together_the_first_20_of_many(tmp_path):
    make_classes(tmp_path, num_each=15)
    listing = folder.list_pictures(tmp_path, "train", 0.2, 1)
    for path in listing.paths[:3]:
        path.write_bytes(b"broken")
    with pytest.raises(pictures.BrokenPicturesError) as caught:
        folder.read_pictures(listing, 8, "grey")
    names = sorted(map(str, listing.paths[:3]))
    assert caught.value.lines() == [f"{name}: is not a {pictures.FORMATS} file; remove or convert it" for name in names]
    assert caught.value.problem == f"3 pictures cannot be read: {', '.join(names)}"
    for path in listing.paths:
        path.write_bytes(b"broken")
    with pytest.raises(pictures.BrokenPicturesError) as caught:
        folder.read_pictures(listing, 8, "grey")
    assert len(caught.value.lines()) == 21
    assert caught.value.lines()[-1] == "24 pictures cannot be read, of which 4 are not named"
    assert caught.value.problem.endswith(" and 4 more")


def test_a_class_may_be_called_train(tmp_path):
    make_classes(tmp_path, ("bus", "train"))
    assert folder.list_pictures(tmp_path, "train", 0.2, 1).class_names == ["bus", "train"]


def test_the_seed_chooses_a_stratified_test_split(tmp_path):
    make_classes(tmp_path, num_each=10)
    train, test = listed(tmp_path, "train"), listed(tmp_path, "test")
    assert not set(train) & set(test)
    assert len(train) == 16
    assert sorted(name[:3] for name in test) == ["ant", "ant", "bee", "bee"]
    assert test == listed(tmp_path, "test")
    assert any(test != listed(tmp_path, "test", seed) for seed in (2, 3))


def test_hidden_names_and_what_is_no_folder_of_a_class_are_skipped(tmp_path):
    make_classes(tmp_path)
    (tmp_path / ".cache").mkdir()
    (tmp_path / "loop").symlink_to("loop")  # not a folder, and so not a class
    (tmp_path / "ant" / ".DS_Store").write_bytes(b"x")
    assert len(listed(tmp_path, "train")) == 8


def test_reading_gives_labels_in_the_order_of_the_pictures(tmp_path):
    listing = folder.list_pictures(make_classes(tmp_path), "train", 0.2, 1)
    split = folder.read_pictures(listing, image_size=8, color="grey")
    assert split.images.shape == (8, 8, 8, 1)
    assert split.labels.tolist() == [0] * 4 + [1] * 4
    assert (split.images[:, 0, 0, 0] // 10 == split.labels).all()


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        listed(tmp_path / "none", "train")


@pytest.mark.parametrize("names", [(), ("ant",)])
def test_fewer_than_two_classes_are_refused(tmp_path, names):
    make_classes(tmp_path, names)
    with pytest.raises(DataError, match="expected one subfolder per class"):
        listed(tmp_path, "train")


def test_empty_class_is_refused_by_name(tmp_path):
    make_classes(tmp_path)
    (tmp_path / "cow").mkdir()
    with pytest.raises(DataError, match="cow: holds no picture"):
        listed(tmp_path, "train")


def test_class_name_that_is_no_unicode_text_is_refused(tmp_path):
    make_classes(tmp_path)
    picture(tmp_path / "\udcff" / "0.png")
    with pytest.raises(DataError, match="rename the class"):
        listed(tmp_path, "train")


def test_all_pictures_together_are_bounded_before_one_is_read(tmp_path, monkeypatch):
    listing = folder.list_pictures(make_classes(tmp_path), "train", 0.2, 1)
    monkeypatch.setattr(arrays, "MAX_ARRAY_BYTES", 8 * 8 * 8 - 1)
    monkeypatch.setattr(folder, "read_picture", lambda *_: pytest.fail("read"))
    with pytest.raises(DataError, match="8 pictures of 8x8x1 would take 512 bytes"):
        folder.read_pictures(listing, 8, "grey")


@pytest.mark.parametrize("ending", ["png", "bmp", "jpg"])
def test_formats_are_read_and_told_by_content(tmp_path, ending):
    path = picture(tmp_path / f"a.{ending}", 77)
    (tmp_path / "b.png").write_bytes(path.read_bytes())
    assert abs(folder.read_picture(tmp_path / "b.png", 8, "grey").astype(int) - 77).max() <= 1


def test_picture_of_the_right_size_is_not_changed(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (9, 9, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert (folder.read_picture(tmp_path / "a.png", 9, "rgb") == pixels).all()


def test_shrinking_averages(tmp_path):
    board = np.indices((64, 64)).sum(axis=0) % 2 * 255
    Image.fromarray(board.astype(np.uint8)).save(tmp_path / "a.png")
    inner = folder.read_picture(tmp_path / "a.png", 8, "grey")[1:-1, 1:-1].astype(int)
    assert abs(inner - 127).max() <= 3


def test_grey_is_luma_and_rgb_repeats_grey(tmp_path):
    red = picture(tmp_path / "red.png", (255, 0, 0), "RGB")
    assert (folder.read_picture(red, 8, "grey") == 76).all()
    grey = picture(tmp_path / "grey.png", 50)
    assert folder.read_picture(grey, 8, "rgb")[0, 0].tolist() == [50, 50, 50]


@pytest.mark.parametrize(("mode", "value"), [("RGBA", (0, 0, 0, 0)), ("LA", (0, 0))])
def test_transparent_is_white(tmp_path, mode, value):
    path = picture(tmp_path / "a.png", value, mode)
    assert (folder.read_picture(path, 8, "grey") == 255).all()


def test_half_transparent_is_mixed_with_white(tmp_path):
    path = picture(tmp_path / "a.png", (0, 0, 0, 128), "RGBA")
    assert abs(folder.read_picture(path, 8, "rgb").astype(int) - 127).max() <= 1


def test_sixteen_bit_grey_keeps_its_upper_bits(tmp_path):
    Image.fromarray(np.full((8, 8), 0x7FFF, np.uint16)).save(tmp_path / "a.png")
    assert (folder.read_picture(tmp_path / "a.png", 8, "grey") == 0x7F).all()


@pytest.mark.parametrize(("mode", "value"), [("1", 1), ("P", 0), ("CMYK", (0, 0, 0, 0))])
def test_other_modes_are_converted(tmp_path, mode, value):
    path = picture(tmp_path / ("a.jpg" if mode == "CMYK" else "a.png"), value, mode)
    assert folder.read_picture(path, 8, "rgb").shape == (8, 8, 3)


def test_orientation_of_exif_is_applied(tmp_path):
    pixels = np.zeros((8, 8), np.uint8)
    pixels[:, 4:] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    read = folder.read_picture(tmp_path / "a.png", 8, "grey")[..., 0]
    assert (read == pixels[::-1, ::-1]).all()


def png_of(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    start = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + start + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("side", "problem"),
    [(7_100, "has 7100x7100 pixels; at most 50000000"), (10_000, "10000x10000"), (60_000, "has too many pixels")],
)
def test_picture_bomb_is_refused_by_its_header(tmp_path, side, problem):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_of(side, side))
    listing = folder.Listing(["ant", "bee"], [path], np.zeros(1, np.int32))
    with pytest.raises(DataError, match=f"bomb.png: .*{problem}"):
        folder.read_pictures(listing, 8, "grey")


def test_large_file_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_PICTURE_BYTES", 50)
    path = picture(tmp_path / "a.png", size=(64, 64))
    assert "at most 50" in refused(path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b"hello", "is not a PNG, JPEG, WebP, TIFF, GIF or BMP"),
        (b"GIF89a" + bytes(20), "broken picture|is not a PNG"),
        (b"<html></html>", "looks like a web page"),
        (b"\x89PNG\r\n\x1a\n", "broken picture|is not a PNG"),
        (png_of(64, 64), "broken picture"),
        (b"\xff\xd8\xff\xe0" + bytes(50), "broken picture|is not a PNG"),
        (b"BM" + bytes(60), "broken picture|is not a PNG"),
    ],
)
def test_broken_pictures_are_refused_by_name(tmp_path, content, problem):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    assert re.search(problem, refused(path))


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_truncated_picture_is_refused(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64), np.uint8)
    Image.fromarray(pixels).save(path)
    path.write_bytes(path.read_bytes()[:-500])
    assert "broken picture" in refused(path)


def test_a_folder_among_the_pictures_is_refused(tmp_path):
    make_classes(tmp_path)
    (tmp_path / "ant" / "more").mkdir()
    assert "expected a picture" in refused(tmp_path / "ant" / "more")
