"""Which number is white belongs to the category and never to the image."""

import io
import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from decoding import decode_image
from numpy.typing import NDArray
from pictures import encoded
from PIL import Image

from model.preprocessing import Preprocessing
from pipeline.images.decode import ImageStatus, UnreadableImage, read_image
from pipeline.images.picture import Picture, open_picture
from pipeline.images.pixel_range import PixelRangeError, levels_of, smallest_range

RAMP = np.linspace(0, 1, 64).reshape(8, 8)
COLOURS = np.stack([RAMP, RAMP.T, 1 - RAMP], axis=2)  # (8, 8, 3)
MAX_PIXELS = 10_000


def tiff(values: NDArray[np.generic], **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


def png(values: NDArray[np.uint16], significant: int | None = None) -> bytes:
    data: bytes = imagecodecs.png_encode(values)
    if significant is None:
        return data
    content = b"sBIT" + bytes([significant] * (1 if values.ndim == 2 else values.shape[2]))
    chunk = struct.pack(">I", len(content) - 4) + content
    return data[:33] + chunk + struct.pack(">I", zlib.crc32(content)) + data[33:]


def ppm(values: NDArray[np.uint16], white: int) -> bytes:
    kind = "P5" if values.ndim == 2 else "P6"
    return f"{kind} 8 8 {white}\n".encode() + values.astype(">u2").tobytes()


def shades(data: bytes, pixel_range: float | None) -> NDArray[np.uint8]:
    return np.asarray(decode_image(data, MAX_PIXELS, pixel_range=pixel_range))


def of_bits(shape: NDArray[np.float64], bits: int) -> NDArray[np.uint16]:
    return np.rint(shape * (2**bits - 1)).astype(np.uint16)


def range_of(*files: bytes) -> float:
    levels = [levels_of(open_picture(data, MAX_PIXELS)) for data in files]
    assert None not in levels
    return smallest_range("steel", [each for each in levels if each is not None])


@pytest.mark.parametrize(
    ("values", "pixel_range", "expected"),
    [
        (np.array([[0, 257, 32896, 65535]], np.uint16), 65535, [0, 1, 128, 255]),
        (np.array([[0, 2048, 4095]], np.uint16), 4095, [0, 128, 255]),
        (np.array([[0, 512, 1023]], np.uint16), 1023, [0, 128, 255]),
        (np.array([[-5, 257, 65535]], np.int32), 65535, [0, 1, 255]),
        (np.array([[-300, 0, 30000]], np.int16), 30000, [0, 0, 255]),
        (np.array([[0.0, 0.5, 1.0]], np.float32), 1, [0, 128, 255]),
        (np.array([[0.0, 0.5, 1.0]], np.float16), 1, [0, 128, 255]),
        (np.array([[0.0, 100.0, 255.0]], np.float64), 255, [0, 100, 255]),
        (np.array([[-1, np.nan, np.inf, 1]], np.float32), 1, [0, 0, 255, 255]),
        (np.array([[0, 4095, 4200]], np.uint16), 4095, [0, 255, 255]),
    ],
)
def test_numbers_are_divided_by_the_range_and_clipped(
    values: NDArray[np.generic], pixel_range: float, expected: list[int]
) -> None:
    assert shades(tiff(values), pixel_range)[0, :, 0].tolist() == expected


def test_one_bright_pixel_does_not_darken_the_rest() -> None:
    plain = of_bits(RAMP, 12)
    bright = plain.copy()
    bright[0, 0] = 4200
    ordinary, other = shades(png(plain), 4095), shades(png(bright), 4095)
    assert np.array_equal(ordinary[1:], other[1:])


def test_a_sixteenth_of_the_light_is_a_sixteenth_of_the_brightness() -> None:
    full, dim = of_bits(RAMP, 16), of_bits(RAMP / 16, 16)
    brightness = [shades(png(values), 65535).mean() for values in (full, dim)]
    assert brightness[1] == pytest.approx(brightness[0] / 16, abs=0.1)


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize(
    "write",
    [
        png,
        lambda values: tiff(values, photometric="rgb"),
        lambda values: tiff(np.moveaxis(values, 2, 0), photometric="rgb", planarconfig="separate"),
        lambda values: tiff(values, photometric="rgb", compression="lzw", predictor=True),
        lambda values: tiff(values, photometric="rgb", compression="zlib"),
        lambda values: ppm(values, 65535),
        lambda values: imagecodecs.jpeg2k_encode(
            values, level=0, reversible=True, codecformat="jp2"
        ),
    ],
    ids=["png", "tiff", "planar", "lzw", "zlib", "ppm", "jpeg2000"],
)
def test_colours_beyond_eight_bits_keep_all_of_them(bits: int, write: object) -> None:
    data = write(of_bits(COLOURS, bits))  # type: ignore[operator]
    assert np.abs(shades(data, 2**bits - 1) - 255 * COLOURS).max() <= 0.75


def test_grey_with_alpha_beyond_eight_bits_lies_over_black() -> None:
    grey = np.full((8, 8), 60_000, np.uint16)
    alpha = np.full((8, 8), 65_535, np.uint16)
    alpha[:, 4:] = 0
    seen = shades(png(np.stack([grey, alpha], axis=2)), 65535)
    assert (seen[:, :4] == 233).all()  # 255 * 60,000 / 65,535
    assert (seen[:, 4:] == 0).all()


@pytest.mark.parametrize("opaque", [4095, 65_535])
@pytest.mark.parametrize("channels", [1, 3])
def test_alpha_is_opaque_at_its_own_full_value(opaque: int, channels: int) -> None:
    colours = of_bits(COLOURS[..., :channels], 12)
    alpha = np.full((8, 8, 1), opaque, np.uint16)
    alpha[:, 6:] = 0
    data = png(np.concatenate([colours, alpha], axis=2))
    assert range_of(data) == 4095
    seen = shades(data, 4095)
    plain = shades(png(colours.squeeze()), 4095)
    assert np.array_equal(seen[:, :6], plain[:, :6])
    assert (seen[:, 6:] == 0).all()


def test_alpha_that_is_alike_everywhere_says_nothing_unless_all_is_transparent() -> None:
    grey = of_bits(RAMP, 12)
    for alpha, expected in ((4095, shades(png(grey), 4095)), (0, np.zeros((8, 8, 3)))):
        both = np.stack([grey, np.full((8, 8), alpha, np.uint16)], axis=2)
        assert np.array_equal(shades(png(both), 4095), expected)


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_where_white_is_zero_the_range_of_the_category_is_black(bits: int) -> None:
    values = of_bits(RAMP, bits)
    white = 2**bits - 1
    inverted = tiff(white - values, photometric="miniswhite")
    assert range_of(inverted) == white
    assert np.array_equal(shades(inverted, white), shades(tiff(values), white))


def test_floats_may_have_a_white_of_zero_too() -> None:
    inverted = tiff((1 - RAMP).astype(np.float32), photometric="miniswhite")
    assert np.abs(shades(inverted, 1.0)[..., 0] - 255 * RAMP).max() <= 0.75


@pytest.mark.parametrize(
    ("data", "pixel_range", "message"),
    [
        (tiff(RAMP.astype(np.float32)), 4095, "floats up to 1, in its category 4095 is white"),
        (tiff(of_bits(RAMP, 12)), 1.0, "integers up to 4095, in its category 1 is white"),
    ],
)
def test_numbers_of_another_kind_than_the_categorys_are_refused(
    data: bytes, pixel_range: float, message: str
) -> None:
    with pytest.raises(UnreadableImage, match=message):
        shades(data, pixel_range)


@pytest.mark.parametrize("compression", ["jpeg2000", "lerc", "png", "webp"])
def test_a_compression_that_pillow_does_not_know_is_read(compression: str) -> None:
    colours = np.rint(255 * COLOURS).astype(np.uint8)
    options = {"compressionargs": {"lossless": True}} if compression == "webp" else {}
    data = tiff(colours, photometric="rgb", compression=compression, **options)
    assert np.abs(shades(data, None).astype(int) - colours).max() <= 2


@pytest.mark.parametrize("kind", ["P2", "P3"])
def test_deep_numbers_in_digits_are_refused(kind: str) -> None:
    data = f"{kind}\n1 1\n4095\n0 1 2\n".encode()
    with pytest.raises(UnreadableImage, match="write a binary PGM or PPM file"):
        shades(data, 4095)


def test_a_mode_names_the_bits_that_a_file_names() -> None:
    modes = [
        open_picture(ppm(of_bits(RAMP, bits), 2**bits - 1), MAX_PIXELS).mode for bits in (10, 12)
    ]
    assert modes == ["L;uint16;10", "L;uint16;12"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (tiff(np.zeros((8, 8, 4), np.uint16), photometric="separated"), "CMYK"),
        (
            tiff(np.zeros((8, 8, 5), np.uint16), photometric="minisblack", planarconfig="contig"),
            "5 channels",
        ),
        (tiff(np.zeros((8, 8), np.complex64)), "complex64"),
    ],
)
def test_what_is_neither_grey_nor_colour_is_refused_with_its_reason(
    data: bytes, reason: str
) -> None:
    with pytest.raises(UnreadableImage, match=reason):
        decode_image(data, MAX_PIXELS, pixel_range=65535)


@pytest.mark.parametrize(
    "data",
    [
        png(of_bits(RAMP, 12)),
        png(of_bits(COLOURS, 12)),
        tiff(of_bits(RAMP, 16)),
        tiff(RAMP.astype(np.float32)),
        ppm(of_bits(RAMP, 10), 1023),
    ],
)
def test_a_category_of_eight_bits_refuses_deeper_images(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "deep").write_bytes(data)
    read = read_image(str(tmp_path / "deep"), Preprocessing(resize=32, crop=32))
    assert read.status is ImageStatus.UNREADABLE
    assert "more than 8 bits" in (read.error or "")
    assert "set `pixel_range`" in (read.error or "")


def test_an_image_says_its_mode_and_what_its_range_does_not_hold(tmp_path: Path) -> None:
    values = np.full((10, 10), 4000, np.uint16)
    values[0, :3] = 4200
    (tmp_path / "deep.png").write_bytes(png(values))
    (tmp_path / "plain.png").write_bytes(encoded(Image.new("RGB", (10, 10))))
    reading = Preprocessing(resize=32, crop=32, pixel_range=4095)
    deep = read_image(str(tmp_path / "deep.png"), reading)
    plain = read_image(str(tmp_path / "plain.png"), reading)
    assert (deep.mode, deep.outside) == ("L;uint16", pytest.approx(0.03))
    assert (plain.mode, plain.outside) == ("RGB", 0.0)


@pytest.mark.parametrize(
    ("highest", "expected"),
    [(200, 255), (256, 1023), (1023, 1023), (1024, 4095), (4096, 16383), (20_000, 65535)],
)
def test_the_range_is_the_smallest_bit_depth_that_holds_the_brightest_pixel(
    highest: int, expected: float
) -> None:
    dim, bright = np.full((2, 4, 4), 5, np.uint16)
    bright[1, 1] = highest
    assert range_of(png(dim), tiff(bright)) == expected


@pytest.mark.parametrize(("highest", "expected"), [(0.2, 1), (1.0, 1), (2.0, 255), (256, 65535)])
def test_floats_take_the_smallest_range_that_holds_them(highest: float, expected: float) -> None:
    assert range_of(tiff(np.full((4, 4), highest, np.float32))) == expected


@pytest.mark.parametrize(
    "data", [png(of_bits(RAMP / 8, 12), 12), png(of_bits(COLOURS / 8, 12), 12)]
)
def test_significant_bits_that_a_file_names_come_first(data: bytes) -> None:
    assert range_of(data) == 4095  # the brightest pixel, 511, would be 10 bits


def test_twelve_bits_that_were_scaled_up_have_sixteen() -> None:
    assert range_of(png(of_bits(RAMP, 12) * 16, 12)) == 65535


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_a_netpbm_file_names_its_range(bits: int) -> None:
    dim = of_bits(RAMP / 8, bits)
    assert range_of(ppm(dim, 2**bits - 1)) == 2**bits - 1
    assert range_of(ppm(dim, 1000)) == 65535  # scaled to it: 1000 is white


def test_a_range_that_no_bit_depth_holds_must_be_set() -> None:
    with pytest.raises(PixelRangeError, match="brightest pixel is 70000, beyond 65535; set `pix"):
        range_of(tiff(np.full((4, 4), 70_000, np.int32)))


def test_floats_and_integers_share_no_range() -> None:
    deep = tiff(of_bits(RAMP, 12))
    with pytest.raises(PixelRangeError, match="1 of 3 deep images hold floats"):
        range_of(deep, deep, tiff(RAMP.astype(np.float32)))


def test_negative_good_images_are_refused() -> None:
    with pytest.raises(PixelRangeError, match=r"50\.0% of the pixels are negative"):
        range_of(tiff(np.array([[-1, 1]] * 4, np.int16)))


def test_eight_bits_have_no_levels_to_find() -> None:
    assert levels_of(Picture(Image.new("L", (4, 4)), "L")) is None
