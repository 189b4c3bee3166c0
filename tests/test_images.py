"""What the bytes of an image file become before a network sees them."""

import io
import struct
import zlib

import numpy as np
import pytest
from decoding import decode_image
from hypothesis import given
from hypothesis import strategies as st
from pictures import encoded, png_header, scene
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from model.preprocessing import Preprocessing
from model.tiles import Tiles
from pipeline.images.decode import (
    ImageStatus,
    ImageTooLarge,
    UnreadableImage,
    announced_pixels,
    count_pages,
    read_image,
)
from pipeline.images.fit import to_crop

SMALL = Preprocessing(resize=32, crop=32)


def greys(data: bytes) -> list[int]:
    pixels = np.asarray(decode_image(data))
    assert np.array_equal(pixels[..., 0], pixels[..., 1])
    assert np.array_equal(pixels[..., 0], pixels[..., 2])
    return [int(value) for value in pixels[0, :, 0]]


def row(values: list[float], dtype: type) -> Image.Image:
    return Image.fromarray(np.array([values], dtype=dtype))


def test_one_bit_is_black_and_white() -> None:
    assert greys(encoded(row([0, 255], np.uint8).convert("1"))) == [0, 255]


def test_grey_has_three_equal_channels() -> None:
    assert greys(encoded(row([0, 7, 255], np.uint8))) == [0, 7, 255]


def test_a_palette_becomes_its_colours() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    assert np.asarray(decode_image(encoded(image))).tolist() == [[[10, 20, 30], [200, 100, 50]]]


def test_the_transparent_colour_of_a_palette_is_black() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    data = encoded(image, transparency=1)
    assert np.asarray(decode_image(data)).tolist() == [[[10, 20, 30], [0, 0, 0]]]


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
def test_transparency_lies_over_black(form: str) -> None:
    pixels = np.array([[[200, 100, 50, 255], [200, 100, 50, 128], [200, 100, 50, 0]]], np.uint8)
    options = {"lossless": True} if form == "WEBP" else {}
    seen = np.asarray(decode_image(encoded(Image.fromarray(pixels), form, **options)))
    half = [200 * 128 / 255, 100 * 128 / 255, 50 * 128 / 255]
    assert np.abs(seen[0] - [[200, 100, 50], half, [0, 0, 0]]).max() <= 1


def test_grey_with_transparency_lies_over_black() -> None:
    image = Image.fromarray(np.array([[[200, 255], [200, 0]]], np.uint8), "LA")
    assert greys(encoded(image)) == [200, 0]


def test_cmyk_becomes_the_printed_colours() -> None:
    inks = np.zeros((16, 64, 4), np.uint8)  # white, red, black: whole JPEG blocks each
    inks[:, 16:32, 1:3] = 255
    inks[:, 32:, 3] = 255
    seen = np.asarray(decode_image(encoded(Image.fromarray(inks, "CMYK"), "JPEG", quality=100)))
    expected = [[255, 255, 255], [255, 0, 0], [0, 0, 0]]
    assert np.abs(seen[8, [8, 24, 48]].astype(int) - expected).max() <= 3


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(scene(), form, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    seen = decode_image(data)
    assert seen.size == ((60, 40) if orientation < 5 else (40, 60))
    assert np.array_equal(np.asarray(seen), np.asarray(expected))


def test_orientation_six_turns_the_left_edge_up() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_image(encoded(row([9, 1], np.uint8), exif=exif)).getpixel((0, 0)) == (9, 9, 9)


def test_damaged_exif_does_not_hide_a_sound_picture() -> None:
    data = encoded(scene(), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\x12\x01" * 9)
    assert np.array_equal(np.asarray(decode_image(data)), np.asarray(scene()))


def chunk(kind: bytes, content: bytes, checksum: int | None = None) -> bytes:
    right = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum or right)


@pytest.mark.parametrize(
    "damaged",
    [
        chunk(b"tEXt", b"camera\0left", checksum=1),
        chunk(b"zTXt", b"log\0\0" + zlib.compress(bytes(80_000_000))),
        chunk(b"pHYs", b"12"),
        chunk(b"gAMA", b"1"),
        chunk(b"iCCP", b"x\0\1zz"),
    ],
)
def test_damaged_metadata_does_not_hide_a_sound_png(damaged: bytes) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    data = encoded(scene(), "PNG", exif=exif)
    hidden = data[:33] + damaged + data[33:]
    with pytest.raises(Exception, match=r"."), Image.open(io.BytesIO(hidden)) as image:
        image.load()  # Pillow alone gives up
    assert decode_image(hidden).tobytes() == decode_image(data).tobytes()


@pytest.mark.parametrize(
    "damaged",
    [b"\xff\xe0\x00\x08JFIF\0\1", b"\xff\xe2\x00\x0eICC_PROFILE\0", b"\xff\xee\x00\x08Adobe\0"],
)
def test_damaged_metadata_does_not_hide_a_sound_jpeg(damaged: bytes) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(scene(30, 20), "JPEG", exif=exif)
    hidden = data[:2] + damaged + data[2:]
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(hidden))
    assert decode_image(hidden).tobytes() == decode_image(data).tobytes()


def test_damaged_metadata_hide_no_image_that_is_cut_into_tiles() -> None:
    ways = Preprocessing(crop=64, fit="stretch", tiles=Tiles(size=64))
    data = encoded(scene(100, 80), "PNG")
    hidden = data[:33] + chunk(b"pHYs", b"12") + data[33:]
    read, sound = (read_image("a.png", ways, lambda _, d=each: d) for each in (hidden, data))
    assert (read.status, read.size) == (ImageStatus.OK, sound.size)
    assert np.array_equal(read.pixels, sound.pixels)
    assert read.sha256 != sound.sha256  # of the file as it is
    assert announced_pixels(lambda _: hidden, ways) == announced_pixels(lambda _: data, ways) > 0
    assert count_pages(hidden, ways) == 1
    empty = read_image("a.png", ways, lambda _: b"")
    assert "the file is empty (0 bytes)" in str(empty.error)


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_damaged_pixels_behind_damaged_metadata_stay_unreadable(form: str) -> None:
    data = encoded(scene(200, 200), form)
    damaged = chunk(b"pHYs", b"12") if form == "PNG" else b"\xff\xe2\x00\x0eICC_PROFILE\0"
    start = 33 if form == "PNG" else 2
    with pytest.raises(UnreadableImage):
        decode_image(data[:start] + damaged + data[start : len(data) // 2])


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM", "GIF", "WEBP", "JPEG", "AVIF"])
def test_common_formats_show_the_same_picture(form: str) -> None:
    options = {"quality": 95} if form in ("JPEG", "WEBP", "AVIF") else {}
    lossless = form in ("PNG", "BMP", "TIFF", "PPM")
    seen = np.asarray(decode_image(encoded(scene(), form, **options))).astype(float)
    error = np.abs(seen - np.asarray(scene()))
    assert error.max() == 0 if lossless else error.mean() < 8  # GIF has 256 colours


@pytest.mark.parametrize("form", ["GIF", "TIFF", "WEBP", "PNG"])
def test_the_first_of_several_frames_is_taken(form: str) -> None:
    frames = [Image.new("RGB", (8, 8), (colour, 0, 0)) for colour in (250, 10)]
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
    assert decode_image(data).getpixel((4, 4)) == (250, 0, 0)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "BMP", "WEBP"])
def test_a_truncated_file_is_unreadable(form: str) -> None:
    data = encoded(scene(200, 200), form)
    with pytest.raises(UnreadableImage, match=r"damaged image: .+; export or copy it again"):
        decode_image(data[: len(data) // 2])


def test_an_empty_file_is_unreadable() -> None:
    with pytest.raises(UnreadableImage, match=r"empty \(0 bytes\)"):
        decode_image(b"")


def test_text_is_unreadable_and_the_message_shows_how_it_starts() -> None:
    with pytest.raises(UnreadableImage, match=r"13 bytes that are no image .*b'Dear Sir'"):
        decode_image(b"Dear Sirs,\n\n.")


@pytest.mark.parametrize("data", [png_header(0, 5), b"P6 0 5 255\n"])
def test_an_image_without_pixels_is_unreadable(data: bytes) -> None:
    with pytest.raises(UnreadableImage, match="image"):
        decode_image(data)


@pytest.mark.parametrize(
    ("width", "height", "message"),
    [
        (10_001, 10_000, "10001 x 10000 = 100,010,000 pixels, the limit is 100,000,000"),
        (60_000, 60_000, "3600000000 pixels"),  # Pillow's own limit speaks first
    ],
)
def test_a_decompression_bomb_is_refused_by_its_header(
    width: int, height: int, message: str
) -> None:
    with pytest.raises(ImageTooLarge, match=message):
        decode_image(png_header(width, height))


def test_the_pixel_limit_itself_is_allowed() -> None:
    assert decode_image(encoded(scene(10, 10)), max_pixels=100).size == (10, 10)
    with pytest.raises(ImageTooLarge, match="limit is 99"):
        decode_image(encoded(scene(10, 10)), max_pixels=99)


def test_pillow_is_left_as_it_was() -> None:
    limit, truncated = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    decode_image(encoded(scene()), max_pixels=10_000)
    assert limit == Image.MAX_IMAGE_PIXELS
    assert truncated == ImageFile.LOAD_TRUNCATED_IMAGES


def decodes_or_says_why(data: bytes) -> None:
    try:
        image = decode_image(data, max_pixels=1_000_000)
    except (UnreadableImage, ImageTooLarge):
        return
    assert to_crop(image, SMALL).shape == (32, 32, 3)


@given(data=st.binary(max_size=400))
def test_random_bytes_never_raise_anything_else(data: bytes) -> None:
    decodes_or_says_why(data)


SEEDS = [
    encoded(scene(), "PNG"),
    encoded(scene(), "JPEG"),
    encoded(scene(), "JPEG", progressive=True),
    encoded(scene().convert("P"), "GIF"),
    encoded(scene(), "WEBP"),
    encoded(scene(), "BMP"),
    encoded(scene().convert("RGBA"), "TIFF"),
    encoded(scene(), "PPM"),
    encoded(scene(), "JPEG2000"),
    encoded(Image.fromarray(np.arange(2400, dtype=np.uint16).reshape(40, 60)), "PNG"),
]


@given(
    seed=st.sampled_from(SEEDS),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=4)), max_size=8),
    kept=st.floats(0.2, 1),
)
def test_damaged_files_never_raise_anything_else(
    seed: bytes, edits: list[tuple[float, bytes]], kept: float
) -> None:
    data = bytearray(seed)
    for place, content in edits:
        start = int(place**2 * len(data))  # headers more often than pixels
        data[start : start + len(content)] = content
    decodes_or_says_why(bytes(data[: int(kept * len(data))]))


@pytest.mark.parametrize(
    "size", [(300, 300), (1200, 900), (33, 500), (500, 33), (10, 2000), (17, 17), (1, 50), (224, 9)]
)
@pytest.mark.parametrize("noise", [False, True])
def test_geometry_is_torchvisions(size: tuple[int, int], noise: bool) -> None:
    from torchvision import transforms

    random = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(random) if noise else scene(*size)
    for resize, crop in [(256, 224), (256, 256), (329, 288)]:
        expected = transforms.Compose([transforms.Resize(resize), transforms.CenterCrop(crop)])
        pixels = to_crop(image, Preprocessing(resize=resize, crop=crop))
        assert pixels.dtype == np.uint8
        assert np.abs(pixels.astype(int) - np.asarray(expected(image))).max() <= 1


def test_the_centre_of_a_strip_a_million_times_longer_than_wide_is_exact() -> None:
    strip = Image.new("RGB", (2_000_001, 2), (10, 10, 10))
    strip.paste((255, 255, 255), (1_000_000, 0, 1_000_001, 2))
    pixels = to_crop(strip, Preprocessing(resize=256, crop=224))
    distance = np.abs(np.arange(224) + 0.5 - 112) / 128  # 128 output pixels per source pixel
    expected = 10 + 245 * (1 - distance)  # linear interpolation beside one bright column
    assert np.abs(pixels[:, :, 0] - expected).max() <= 1
