"""Files of several pages: which of their frames are images of their own."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from pictures import encoded
from PIL import Image

from model.preprocessing import Preprocessing
from pipeline.images.decode import ImageStatus, read_image
from pipeline.images.picture import open_picture

ONE = Preprocessing(resize=32, crop=32)
FIRST = Preprocessing(resize=32, crop=32, pages="first", pixel_range=65535)
FRAMES = [Image.new("RGB", (40, 40), (colour, 0, 0)) for colour in (250, 10)]


@pytest.mark.parametrize("form", ["GIF", "TIFF", "WEBP", "PNG"])
def test_a_file_of_several_pages_is_not_scored_unless_that_is_wanted(
    form: str, tmp_path: Path
) -> None:
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(FRAMES[0], form, save_all=True, append_images=FRAMES[1:], **options)
    (tmp_path / "image").write_bytes(data)
    read = read_image(str(tmp_path / "image"), ONE)
    assert (read.status, read.pixels) == (ImageStatus.SEVERAL_PAGES, None)
    assert "the file has 2 pages" in (read.error or "")
    first = read_image(str(tmp_path / "image"), FIRST)
    assert first.pixels is not None
    assert first.pixels[16, 16].tolist() == [250, 0, 0]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("first", [True, False])
def test_thumbnails_are_no_pages(dtype: type, first: bool, tmp_path: Path) -> None:
    whole, small = np.full((40, 40), 200, dtype), np.full((8, 8), 50, dtype)
    with tifffile.TiffWriter(tmp_path / "image.tif") as file:
        for values in (small, whole) if first else (whole, small):
            file.write(values, subfiletype=1 if values is small else 0)
    picture = open_picture((tmp_path / "image.tif").read_bytes(), 10_000)
    assert picture.num_pages == 1
    assert np.asarray(picture.pixels).shape == (40, 40)
    assert read_image(str(tmp_path / "image.tif"), FIRST).status is ImageStatus.OK


def test_the_preview_behind_a_jpeg_is_no_page(tmp_path: Path) -> None:
    data = encoded(FRAMES[0], "MPO", save_all=True, append_images=[FRAMES[1].resize((8, 8))])
    (tmp_path / "image.jpg").write_bytes(data)
    assert read_image(str(tmp_path / "image.jpg"), ONE).status is ImageStatus.OK


@pytest.mark.parametrize(("page", "red"), [(1, 250), (2, 10)])
def test_a_page_is_read_by_its_number(page: int, red: int) -> None:
    data = encoded(FRAMES[0], "TIFF", save_all=True, append_images=FRAMES[1:])
    image = open_picture(data, 10_000, page=page).pixels
    assert isinstance(image, Image.Image)
    assert image.getpixel((0, 0)) == (red, 0, 0)


def test_a_limit_above_pillows_own_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    data = encoded(Image.new("L", (40, 40)))
    assert open_picture(data, 1600).num_pages == 1
