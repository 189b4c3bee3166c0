"""Ordinary PNGs take the fast way, with Pillow's pixels; all others take Pillow's way."""

import io
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from model.preprocessing import Preprocessing
from pipeline.images.decode import ImageStatus, read_image
from pipeline.images.plain_png import read_plain_png

RGB = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)


def png(pixels: np.ndarray, mode: str | None = None, **options: object) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(file, "PNG", **options)
    return file.getvalue()


def with_chunk(data: bytes, kind: bytes, content: bytes) -> bytes:
    """A chunk behind the header."""
    chunk = len(content).to_bytes(4) + kind + content
    return data[:33] + chunk + zlib.crc32(kind + content).to_bytes(4) + data[33:]


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    grey=st.booleans(),
    level=st.integers(0, 9),
    seed=st.integers(0, 2**32 - 1),
)
def test_pixels_are_pillows(height: int, width: int, grey: bool, level: int, seed: int) -> None:
    shape = (height, width) if grey else (height, width, 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    found = read_plain_png(png(pixels, compress_level=level))
    assert found is not None
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("kind", [b"gAMA", b"sRGB", b"pHYs"])
def test_what_says_nothing_of_pixels_changes_none(kind: bytes) -> None:
    contents = {b"gAMA": (30_000).to_bytes(4), b"sRGB": b"\x01", b"pHYs": bytes(9)}
    data = with_chunk(png(RGB), kind, contents[kind])
    found = read_plain_png(data)
    assert found is not None
    np.testing.assert_array_equal(found, np.asarray(Image.open(io.BytesIO(data))))


def text() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "line 3")
    return info


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


OTHERS = {
    "transparent": png(np.dstack([RGB, RGB[..., 0]])),
    "palette": png(RGB, "P"),
    "one bit": png(RGB, "1"),
    "sixteen bits": png(RGB[..., 0].astype(np.uint16) * 257),
    "a transparent colour": png(RGB, transparency=(1, 2, 3)),
    "turned": png(RGB, exif=turned()),
    "text": png(RGB, pnginfo=text()),
    "several frames": png(RGB, save_all=True, append_images=[Image.fromarray(255 - RGB)]),
    "cut off": png(RGB)[:-300],
    "without an end": png(RGB)[:-12],
    "more behind it": png(RGB) + b"\0",
    "a wrong checksum": png(RGB)[:60] + bytes([png(RGB)[60] ^ 1]) + png(RGB)[61:],
    "no PNG": b"GIF89a" + bytes(40),
    "nothing": b"",
}


@pytest.mark.parametrize("data", OTHERS.values(), ids=OTHERS)
def test_what_is_not_ordinary_is_left_to_pillow(data: bytes) -> None:
    assert read_plain_png(data) is None


def read(data: bytes) -> tuple[ImageStatus, str | None]:
    image = read_image("a.png", Preprocessing(resize=64, crop=64), lambda _: data)
    return image.status, image.mode


def test_a_file_says_the_same_of_itself_on_either_way() -> None:
    assert read(png(RGB)) == read(OTHERS["text"]) == (ImageStatus.OK, "RGB")
    assert read(png(RGB[..., 0])) == (ImageStatus.OK, "L")
    assert read(OTHERS["cut off"])[0] is ImageStatus.UNREADABLE


def test_a_size_beyond_the_limit_is_refused_before_anything_is_decoded() -> None:
    image = read_image("a", Preprocessing(resize=64, crop=64, max_pixels=1000), lambda _: png(RGB))
    assert image.status is ImageStatus.TOO_LARGE
