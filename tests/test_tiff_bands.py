"""TIFF files that are decoded a few rows at a time have the pixels of those decoded at once."""

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from model.preprocessing import Preprocessing
from model.tiles import Tiles
from pipeline.images.decode import ImageStatus, as_scored, read_image
from pipeline.images.picture import ImageFile
from pipeline.images.pixel_range import as_rgb

MAX_PIXELS = 1_000_000
HEIGHT, WIDTH = 605, 301  # no multiple of a tile, more than two bands
TILED = {"tile": (64, 128)}


def numbers(*shape: int, dtype: str = "uint8", highest: int = 255) -> NDArray[Any]:
    random = np.random.default_rng(0)
    return random.integers(0, highest, shape, endpoint=True).astype(dtype)


def tiff(values: NDArray[Any], photometric: str, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, photometric=photometric, **options)
    return file.getvalue()


def ways(scale: float = 1.0, pixel_range: float | None = None) -> Preprocessing:
    tiles = Tiles(size=64, scale=scale, image=(HEIGHT, WIDTH))
    return Preprocessing(
        crop=64, fit="stretch", tiles=tiles, max_pixels=MAX_PIXELS, pixel_range=pixel_range
    )


COLOURS, GREY = numbers(HEIGHT, WIDTH, 3), numbers(HEIGHT, WIDTH)
DEEP = numbers(HEIGHT, WIDTH, dtype="uint16", highest=5000)
DEEP_COLOURS = numbers(HEIGHT, WIDTH, 3, dtype="float32", highest=300)


@pytest.mark.parametrize("scale", [1.0, 0.3])
@pytest.mark.parametrize(
    ("data", "pixel_range"),
    [
        (tiff(COLOURS, "rgb", **TILED), None),
        (tiff(COLOURS, "rgb", compression="zlib", predictor=True, **TILED), None),
        (tiff(COLOURS, "rgb", compression="lzw", rowsperstrip=7), None),
        (tiff(GREY, "minisblack", compression="zstd", tile=(512, 512)), None),
        (tiff(GREY, "miniswhite", rowsperstrip=300), None),
        (tiff(DEEP, "minisblack", byteorder=">", **TILED), 4095.0),
        (tiff(DEEP, "miniswhite", rowsperstrip=1), 4095.0),
        (tiff(DEEP_COLOURS, "rgb", compression="zlib", **TILED), 255.0),
    ],
)
def test_bands_have_the_bits_of_the_whole(
    data: bytes, pixel_range: float | None, scale: float
) -> None:
    file = ImageFile(data, MAX_PIXELS)
    bands = file.bands()
    assert bands is not None
    assert bands[0] == (HEIGHT, WIDTH)
    heights = [picture.size[0] for picture in bands[1]]
    assert sum(heights) == HEIGHT
    assert max(heights) <= 512
    assert len(heights) > 1
    preprocessing = ways(scale, pixel_range)
    picture = file.page()
    image, outside = as_rgb(picture, pixel_range)
    pixels, view = as_scored(image, preprocessing, picture.size)
    read = read_image("a.tif", preprocessing, lambda _: data)
    assert (read.status, read.mode, read.size) == (ImageStatus.OK, picture.mode, picture.size)
    assert read.outside == outside
    assert (pixel_range is None) == (outside == 0)
    assert read.pixels is not None
    assert read.view is not None
    np.testing.assert_array_equal(read.pixels, pixels)
    np.testing.assert_array_equal(read.view, view)


def test_bands_of_a_region_of_interest_have_its_bits() -> None:
    way = replace(ways(), roi=(40, 300, 101, 250), drawn_on=(HEIGHT, WIDTH))
    read = read_image("a.tif", way, lambda _: tiff(COLOURS, "rgb", **TILED))
    assert read.pixels is not None
    assert read.size == (HEIGHT, WIDTH)
    np.testing.assert_array_equal(read.pixels, COLOURS[300:550, 40:141])
    other = replace(way, drawn_on=(WIDTH, HEIGHT))
    refused = read_image("a.tif", other, lambda _: tiff(COLOURS, "rgb", **TILED))
    assert "301 x 605 pixels have other proportions than the 605 x 301" in str(refused.error)


@pytest.mark.parametrize(
    "data",
    [
        tiff(COLOURS, "rgb"),  # one strip
        tiff(COLOURS, "rgb", compression="jpeg", **TILED),
        tiff(numbers(HEIGHT, WIDTH, 4), "rgb", extrasamples=["unassalpha"], **TILED),
        tiff(COLOURS, "rgb", extratags=[(274, 3, 1, 6, True)], **TILED),  # turned
        tiff(numbers(3, HEIGHT, WIDTH), "rgb", planarconfig="separate", **TILED),
    ],
)
def test_what_decoders_may_read_in_several_ways_is_decoded_at_once(data: bytes) -> None:
    assert ImageFile(data, MAX_PIXELS).bands() is None
    assert read_image("a.tif", ways(), lambda _: data).status is ImageStatus.OK


def test_complex_numbers_are_refused_as_they_are_of_a_whole_page() -> None:
    data = tiff(DEEP.astype("complex64"), "minisblack", **TILED)
    assert ImageFile(data, MAX_PIXELS).bands() is None
    read = read_image("a.tif", ways(pixel_range=4095.0), lambda _: data)
    assert (read.status, read.pixels) == (ImageStatus.UNREADABLE, None)
    assert "pixels of complex64 (605, 301)" in str(read.error)


def test_rows_that_seem_to_be_of_another_range_are_judged_with_the_others() -> None:
    values = numbers(HEIGHT, WIDTH, dtype="float32")
    values[:256] = 0.5
    data = tiff(values, "minisblack", **TILED)
    read = read_image("a.tif", ways(pixel_range=255.0), lambda _: data)
    assert read.status is ImageStatus.OK
    assert read.pixels is not None
    np.testing.assert_array_equal(read.pixels[..., 0], np.rint(values))
    dark = tiff(values / 255, "minisblack", **TILED)
    refused = read_image("a.tif", ways(pixel_range=255.0), lambda _: dark)
    assert refused.status is ImageStatus.UNREADABLE
    assert "the image holds floats up to 1, in its category 255 is white" in str(refused.error)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_file_that_ends_early_is_unreadable(compression: str | None) -> None:
    data = tiff(COLOURS, "rgb", compression=compression, **TILED)
    read = read_image("a.tif", ways(), lambda _: data[: len(data) * 2 // 3])
    assert read.status is ImageStatus.UNREADABLE


def test_a_damaged_tile_is_said() -> None:
    data = bytearray(tiff(COLOURS, "rgb", compression="zlib", **TILED))
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(2000)
    read = read_image("a.tif", ways(), lambda _: bytes(data))
    assert read.status is ImageStatus.UNREADABLE


def test_pages_of_a_file_are_each_read_in_bands() -> None:
    data = tiff(numbers(2, HEIGHT, WIDTH), "minisblack", **TILED)
    assert read_image("a.tif", ways(), lambda _: data).status is ImageStatus.SEVERAL_PAGES
    second = ImageFile(data, MAX_PIXELS).bands(2)
    assert second is not None
    rows = [np.asarray(each.pixels) for each in second[1]]
    np.testing.assert_array_equal(np.concatenate(rows), numbers(2, HEIGHT, WIDTH)[1])
