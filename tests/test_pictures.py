"""Pictures of a night as files."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.night.folder import NightFolder, picture_name
from pipeline.night.scoring import pictures
from pipeline.night.scoring.pictures import write_pictures

NIGHT = "2026-03-12"


def test_both_pictures_have_names_that_follow_from_the_address_alone() -> None:
    digest = hashlib.sha256(b"s3://dump/bottle/a b.png").hexdigest()[:32]
    folder, image = NightFolder("s3://night/out/", NIGHT), "s3://dump/bottle/a b.png"
    expected = f"s3://night/out/maps/night={NIGHT}/bottle/{digest}.png"
    assert folder.picture("bottle", image, "maps") == expected
    expected = f"s3://night/out/thumbnails/night={NIGHT}/bottle/{digest}.jpg"
    assert folder.picture("bottle", image, "thumbnails") == expected


@pytest.mark.parametrize("name", ["../../etc/passwd", "<b>.png", "\u202egnp.exe", "\udcff.png", ""])
def test_no_address_can_choose_the_name_of_its_picture(name: str) -> None:
    stem = picture_name(name)
    assert len(stem) == 32
    assert set(stem) <= set("0123456789abcdef")


def test_stored_pictures_decode_to_what_they_show(tmp_path: Path) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    gradient = np.repeat(np.arange(224, dtype=np.uint8)[:, None], 224, axis=1)
    pixels = np.repeat(gradient[..., None], 3, axis=2)
    folder, image = NightFolder(str(tmp_path), NIGHT), "a.png"
    write_pictures(folder, "bottle", image, levels, pixels)
    stored_map = Image.open(folder.picture("bottle", image, "maps"))
    assert (stored_map.format, stored_map.mode) == ("PNG", "L")
    assert np.array_equal(np.asarray(stored_map), levels)
    thumbnail = Image.open(folder.picture("bottle", image, "thumbnails"))
    assert (thumbnail.format, thumbnail.mode) == ("JPEG", "RGB")
    assert np.abs(np.asarray(thumbnail).astype(int) - pixels).max() <= 4


def test_an_image_without_pixels_leaves_its_map_alone(tmp_path: Path) -> None:
    folder, image = NightFolder(str(tmp_path), NIGHT), "a.png"
    write_pictures(folder, "bottle", image, np.zeros((4, 4), np.uint8), None)
    assert Path(folder.picture("bottle", image, "maps")).is_file()
    assert not Path(folder.picture("bottle", image, "thumbnails")).exists()


def test_large_thumbnails_are_made_smaller() -> None:
    data = pictures.encode_thumbnail(np.zeros((1024, 512, 3), np.uint8))
    largest = pictures.MAX_SIDE
    assert Image.open(io.BytesIO(data)).size == (largest // 2, largest)
