"""Picture files, in every format and size that users have."""

import io
import re
import struct
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from cnn_trainer.data.pictures import MAX_PICTURE_PIXELS, TooManyPixelsError, decode_picture
from cnn_trainer.errors import DataError


def saved(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def half_and_half(mode="L", size=(40, 30), left=200, right=40):
    """A picture with a light left half and a dark right half."""
    image = Image.new("L", size, left)
    image.paste(right, (size[0] // 2, 0, *size))
    return image.convert(mode)


def check_halves(found, left=200, right=40, away=3):
    width = found.shape[1]
    assert abs(found[:, : width // 2 - 4].astype(int) - left).max() <= away
    assert abs(found[:, width // 2 + 4 :].astype(int) - right).max() <= away


@pytest.mark.parametrize("color", ["grey", "rgb"])
@pytest.mark.parametrize(
    ("form", "mode", "options"),
    [
        ("PNG", "L", {}),
        ("BMP", "RGB", {}),
        ("JPEG", "L", {"quality": 95}),
        ("JPEG", "CMYK", {"quality": 95}),
        ("MPO", "RGB", {"quality": 95}),
        ("WEBP", "RGB", {"lossless": True}),
        ("WEBP", "RGB", {"quality": 90}),
        ("WEBP", "RGBA", {"lossless": True}),
        ("GIF", "L", {}),
        ("TIFF", "L", {}),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("TIFF", "RGB", {"compression": "jpeg", "quality": 95}),
        ("TIFF", "RGBA", {"compression": "tiff_deflate"}),
        ("TIFF", "CMYK", {}),
        ("TIFF", "P", {}),
    ],
)
def test_every_format_is_read(form, mode, options, color):
    found = decode_picture(saved(half_and_half(mode), form, **options), "a", color)
    assert found.shape == ((30, 40) if color == "grey" else (30, 40, 3))
    check_halves(found)


@pytest.mark.parametrize("form", ["TIFF", "PNG"])
def test_of_16_bits_the_upper_8_are_kept(form):
    values = np.full((30, 40), 200 << 8 | 17, np.uint16)
    values[:, 20:] = 40 << 8 | 255
    found = decode_picture(saved(Image.fromarray(values), form), "a", "grey")
    assert (found == np.where(np.arange(40) < 20, 200, 40)).all()


def test_one_bit_is_black_and_white():
    found = decode_picture(saved(half_and_half().convert("1", dither=0), "TIFF", compression="group4"), "a", "grey")
    check_halves(found, 255, 0, 0)


@pytest.mark.parametrize("values", [np.full((9, 9), 0.5, np.float32), np.full((9, 9), 70_000, np.int32)])
def test_32_bits_are_refused_because_their_scale_is_unknown(values):
    with pytest.raises(DataError, match=r"a\.tif: has 32 bits in the value of a pixel; save it with 8 or 16 bits"):
        decode_picture(saved(Image.fromarray(values), "TIFF"), "a.tif", "grey")


@pytest.mark.parametrize("form", ["GIF", "TIFF", "WEBP"])
def test_of_several_pictures_the_first_is_read(form):
    other = Image.new("RGB", (40, 30), "black")
    options = {"lossless": True} if form == "WEBP" else {}
    content = saved(half_and_half("RGB"), form, save_all=True, append_images=[other, other], **options)
    with Image.open(io.BytesIO(content)) as written:
        assert written.n_frames >= 2
    check_halves(decode_picture(content, "a", "grey"))


@pytest.mark.parametrize("form", ["GIF", "WEBP", "TIFF", "PNG"])
def test_what_is_transparent_is_white(form):
    image = Image.new("RGBA", (40, 30), (0, 0, 0, 0))
    image.paste((40, 40, 40, 255), (20, 0, 40, 30))
    content = saved(image, form, **({"lossless": True} if form == "WEBP" else {}))
    check_halves(decode_picture(content, "a", "grey"), 255, 40)


@pytest.mark.parametrize("form", ["WEBP", "TIFF", "JPEG"])
def test_pictures_are_turned_upright(form):
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    check_halves(decode_picture(saved(half_and_half("RGB"), form, exif=exif), "a", "grey"), 40, 200, 5)


@pytest.mark.parametrize(
    ("max_pixels", "size"), [(4800, (60, 80)), (4799, (30, 40)), (1200, (30, 40)), (1199, (15, 20)), (600, (15, 20))]
)
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_jpeg_with_too_many_pixels_is_read_smaller(mode, max_pixels, size):
    content = saved(half_and_half(mode, (80, 60)), "JPEG", quality=95)
    found = decode_picture(content, "a", "grey", max_pixels=max_pixels)
    assert found.shape == size
    check_halves(found)


def test_a_large_picture_is_read_upright_in_colour():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was rotated
    content = saved(half_and_half("RGB", (80, 60)), "JPEG", quality=95, exif=exif)
    found = decode_picture(content, "a", "rgb", max_pixels=1300)
    assert found.shape == (40, 30, 3)
    check_halves(found.transpose(1, 0, 2))


def test_a_jpeg_that_is_read_smaller_has_to_fit_what_is_left():
    content = saved(half_and_half(size=(80, 60)), "JPEG")
    assert decode_picture(content, "a", "grey", 1200, 1200).shape == (30, 40)
    with pytest.raises(TooManyPixelsError, match="a: has 80x60 pixels, 40x30 when read smaller; at most 1199"):
        decode_picture(content, "a", "grey", 1200, 1199)


def test_a_jpeg_is_refused_beyond_what_can_be_made_smaller():
    content = saved(half_and_half(size=(100, 100)), "JPEG")
    with pytest.raises(TooManyPixelsError, match="a: has 100x100 pixels; at most 8000; make it smaller"):
        decode_picture(content, "a", "grey", max_pixels=1000)


@pytest.mark.parametrize(
    ("form", "options"),
    [("PNG", {}), ("WEBP", {}), ("TIFF", {}), ("GIF", {}), ("BMP", {}), ("JPEG", {"progressive": True})],
)
def test_what_cannot_be_read_smaller_is_refused_with_a_remedy(form, options):
    content = saved(half_and_half(size=(80, 60)), form, **options)
    remedy = "make it smaller, or save it as a JPEG that is not progressive"
    with pytest.raises(TooManyPixelsError, match=f"a: has 80x60 pixels; at most 4799; {remedy}"):
        decode_picture(content, "a", "grey", max_pixels=4799)
    assert decode_picture(content, "a", "grey", max_pixels=4800).shape == (60, 80)


def header_of(form, width, height):
    """A small file whose header claims a large picture."""
    content = bytearray(saved(Image.new("L", (8, 8)), form))
    if form == "PNG":
        content[16:24] = struct.pack(">II", width, height)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    elif form == "GIF":
        content[6:10] = struct.pack("<HH", width, height)
    elif form == "BMP":
        content[18:26] = struct.pack("<II", width, height)
    else:
        for number, side in ((256, width), (257, height)):  # ImageWidth and ImageLength, one number each
            [start] = [found.start() for found in re.finditer(struct.pack("<H", number), content)][:1]
            content[start : start + 12] = struct.pack("<HHII", number, 4, 1, side)
    return bytes(content)


@pytest.mark.parametrize("side", [9_500, 14_000])  # Pillow warns about the first, and refuses the second
@pytest.mark.parametrize("form", ["PNG", "TIFF", "GIF", "BMP"])
def test_bombs_are_refused_without_a_warning(form, side):
    content = header_of(form, side, side)
    assert len(content) < 2000
    problem = rf"a: .*pixels.*at most {MAX_PICTURE_PIXELS}"
    with warnings.catch_warnings(action="error"), pytest.raises(TooManyPixelsError, match=problem):
        decode_picture(content, "a", "grey")


def test_a_photograph_of_108_megapixels_takes_little_memory():
    """In a process of its own. The 324 MB of colours are never in memory, neither as a whole nor in parts."""
    code = """
import io, resource, sys
from PIL import Image
from cnn_trainer.data.pictures import decode_picture
content = sys.stdin.buffer.read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = decode_picture(content, "a", "grey")
print(*found.shape, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    content = saved(half_and_half(size=(12_000, 9_000)), "JPEG")
    done = subprocess.run([sys.executable, "-c", code], input=content, capture_output=True, check=True)
    height, width, megabytes = map(int, done.stdout.split())
    assert (height, width) == (4500, 6000)
    assert megabytes < 120
    assert done.stderr == b""
