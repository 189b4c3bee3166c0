"""Images of any shape become squares; nothing of them is lost unless cropping was asked for."""

from pathlib import Path

import numpy as np
import pytest
from decoding import decode_image
from PIL import Image

from model.preprocessing import Preprocessing
from pipeline.images.fit import to_crop
from pipeline.images.masks import read_mask
from pipeline.images.placement import placement

PAD = Preprocessing(resize=64, crop=64, fit="pad")
STRETCH = Preprocessing(resize=64, crop=64, fit="stretch")
CROP = Preprocessing(resize=64, crop=64)


def marked(width: int, height: int) -> Image.Image:
    """Dark with a bright band of a tenth at the left and right ends."""
    pixels = np.zeros((height, width, 3), np.uint8)
    band = width // 10
    pixels[:, :band] = pixels[:, -band:] = 200
    return Image.fromarray(pixels)


def test_a_crop_loses_the_ends_of_a_long_image_and_the_other_fits_do_not() -> None:
    image = marked(400, 100)
    assert to_crop(image, CROP).max() == 0
    assert to_crop(image, STRETCH).max() == 200
    assert to_crop(image, PAD).max() == 200


def test_stretch_is_a_plain_resize_of_the_whole_image() -> None:
    image = marked(90, 50)
    expected = image.resize((64, 64), Image.Resampling.BILINEAR)
    assert np.array_equal(to_crop(image, STRETCH), np.asarray(expected))


@pytest.mark.parametrize("upright", [False, True])
def test_pad_keeps_proportions_and_repeats_the_border(upright: bool) -> None:
    image = marked(128, 64)
    expected = np.asarray(image.resize((64, 32), Image.Resampling.BILINEAR))
    expected = np.concatenate([expected[:1].repeat(16, 0), expected, expected[-1:].repeat(16, 0)])
    if upright:
        image, expected = image.transpose(Image.Transpose.TRANSPOSE), expected.swapaxes(0, 1)
    assert np.array_equal(to_crop(image, PAD), expected)


def test_a_strip_of_one_pixel_is_padded_too() -> None:
    assert to_crop(Image.new("RGB", (5000, 1), "red"), PAD).shape == (64, 64, 3)


def test_square_images_are_the_same_padded_or_stretched() -> None:
    image = marked(80, 80)
    assert np.array_equal(to_crop(image, PAD), to_crop(image, STRETCH))


def test_masks_follow_their_images_and_padding_is_no_defect(tmp_path: Path) -> None:
    Image.new("L", (128, 64), 255).save(tmp_path / "mask.png")
    mask = read_mask([str(tmp_path / "mask.png")], PAD)
    assert mask[16:48].all()
    assert not mask[:16].any()
    assert not mask[48:].any()
    assert read_mask([str(tmp_path / "mask.png")], STRETCH).all()


@pytest.mark.parametrize(("side", "decoded"), [(1000, 500), (600, 300), (500, 500), (2100, 263)])
def test_a_jpeg_is_decoded_no_larger_than_it_needs_to_be(
    tmp_path: Path, side: int, decoded: int
) -> None:
    ramp = np.linspace(0, 255, side).astype(np.uint8)
    Image.fromarray(np.stack([np.tile(ramp, (side, 1))] * 3, axis=2)).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    small = decode_image(data, least_side=256)
    assert small.size == (decoded, decoded)
    fit = Preprocessing(fit="stretch")
    difference = to_crop(small, fit).astype(int) - to_crop(decode_image(data), fit)
    assert np.abs(difference).max() <= 2


def test_other_formats_are_decoded_whole(tmp_path: Path) -> None:
    marked(1000, 1000).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    assert decode_image(data, least_side=256).size == (1000, 1000)


@pytest.mark.parametrize("way", [CROP, PAD, STRETCH, Preprocessing(crop=(32, 96), fit="pad")])
@pytest.mark.parametrize("size", [(80, 80), (120, 200), (300, 90)])
def test_a_spot_of_the_crop_is_found_again_in_the_image(
    way: Preprocessing, size: tuple[int, int]
) -> None:
    height, width = size
    pixels = np.zeros((height, width, 3), np.uint8)
    row, column, high, wide = height // 2 + 5, width // 2 - 7, min(size) // 5, min(size) // 4
    pixels[row : row + high, column : column + wide] = 255
    crop = to_crop(Image.fromarray(pixels), way)[..., 0]
    rows, columns = np.nonzero(crop > crop.max() / 2)
    seen = columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1
    found = placement(size, way)
    box = found.to_image(seen, way.size)
    pixel = max(found.box[2] / way.size[1], found.box[3] / way.size[0])  # of the crop, in the image
    assert np.allclose(box, (column, row, wide, high), atol=1.01 * pixel)
    shares = found.to_shares(box)
    assert np.allclose(shares, np.array(seen) / np.tile(way.size[::-1], 2))


def test_what_was_padded_is_no_part_of_the_image() -> None:
    whole = placement((50, 100), PAD).to_image((0, 0, 64, 64), (64, 64))
    assert np.allclose(whole, (0, 0, 100, 50))
    assert placement((50, 100), PAD).to_image((0, 0, 64, 8), (64, 64))[3] == 0
