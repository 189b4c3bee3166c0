"""Images and masks fetched from storage: every file gets its pixels or a clear status."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pictures import encoded, png_header, scene
from PIL import Image

from model.preprocessing import Preprocessing
from pipeline import storage
from pipeline.images.decode import (
    ImageStatus,
    UnreadableImage,
    decode_image,
    read_image,
)
from pipeline.images.fit import to_square
from pipeline.images.masks import read_mask
from pipeline.storage import StorageAway

SMALL = Preprocessing(resize=32, crop=32)


def test_a_good_image_comes_with_its_digest(tmp_path: Path) -> None:
    data = encoded(scene())
    path = tmp_path / "Gehäuse 7 №.png"
    path.write_bytes(data)
    read = read_image(str(path), SMALL)
    assert (read.uri, read.status, read.error) == (str(path), ImageStatus.OK, None)
    assert read.sha256 == hashlib.sha256(data).hexdigest()
    assert read.pixels is not None
    assert np.array_equal(read.pixels, to_square(decode_image(data), SMALL))


@pytest.mark.parametrize(
    ("data", "status", "message"),
    [
        (b"", "unreadable", "empty"),
        (b"not an image", "unreadable", "no image"),
        (encoded(scene(), "JPEG")[:300], "unreadable", "damaged"),
        (png_header(20_000, 9_000), "too_large", "180,000,000|180000000"),
    ],
)
def test_a_bad_image_is_a_status(tmp_path: Path, data: bytes, status: str, message: str) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(data)
    read = read_image(str(path), SMALL)
    assert read.status == status
    assert read.pixels is None
    assert read.sha256 == hashlib.sha256(data).hexdigest()
    assert any(part in (read.error or "") for part in message.split("|"))


def test_a_missing_image_is_a_status_without_digest(tmp_path: Path) -> None:
    read = read_image(str(tmp_path / "gone.png"), SMALL)
    assert (read.status, read.pixels, read.sha256) == (ImageStatus.MISSING, None, "")
    assert "gone.png does not exist" in (read.error or "")


def test_a_folder_named_like_an_image_is_missing(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    assert read_image(str(tmp_path / "folder.png"), SMALL).status == ImageStatus.MISSING


def test_an_image_on_s3_is_read(s3: str) -> None:
    uri = storage.join(s3, "images", "Teil #1 100%.png")
    storage.write_bytes(uri, encoded(scene()))
    assert read_image(uri, SMALL).status == ImageStatus.OK
    assert read_image(uri + "x", SMALL).status == ImageStatus.MISSING


def test_refused_credentials_are_a_status(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    read = read_image(f"{s3}/images/any.png", SMALL)
    assert read.status == ImageStatus.DENIED
    assert "403" in (read.error or "")


def test_a_server_that_is_away_is_not_the_images_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    with pytest.raises(StorageAway, match=r"127\.0\.0\.1:9 does not answer"):
        read_image("s3://bucket/image.png", SMALL)


def mask_of(tmp_path: Path, image: Image.Image) -> NDArray[np.bool_]:
    path = tmp_path / "mask.png"
    path.write_bytes(encoded(image))
    return read_mask([str(path)], SMALL)


def halves(left: object, right: object, mode: str) -> Image.Image:
    image = Image.new(mode, (64, 64), left)  # type: ignore[arg-type]
    image.paste(right, (32, 0, 64, 64))  # type: ignore[arg-type]
    return image


@pytest.mark.parametrize(
    ("left", "right", "mode"),
    [
        (0, 255, "L"),
        (0, 255, "1"),
        (100, 160, "L"),  # grey: half of full scale decides
        (0, 1, "L"),  # class numbers: anything but 0
        (0, 7, "L"),
        ((0, 0, 0), (128, 0, 0), "RGB"),  # colours on black
        ((255, 255, 255), (44, 160, 44), "RGB"),  # colours on white
        ((0, 0, 0, 255), (255, 255, 255, 255), "RGBA"),
    ],
)
def test_every_kind_of_mask_marks_its_right_half(
    tmp_path: Path, left: object, right: object, mode: str
) -> None:
    mask = mask_of(tmp_path, halves(left, right, mode))
    assert mask.dtype == np.bool_
    assert mask.shape == (32, 32)
    assert not mask[:, :15].any()
    assert mask[:, 17:].all()


def test_a_sixteen_bit_mask_is_cut_at_half_of_full_scale(tmp_path: Path) -> None:
    levels = np.zeros((64, 64), np.uint16)
    levels[:, :32], levels[:, 32:] = 32_000, 33_500
    mask = mask_of(tmp_path, Image.fromarray(levels))
    assert not mask[:, :15].any()
    assert mask[:, 17:].all()


def test_an_empty_mask_marks_nothing(tmp_path: Path) -> None:
    assert not mask_of(tmp_path, Image.new("L", (64, 64))).any()


def test_a_mask_follows_the_geometry_of_its_image(tmp_path: Path) -> None:
    from torchvision import transforms

    random = np.random.default_rng(1)
    blobs = Image.fromarray(random.integers(0, 2, (9, 12), dtype=np.uint8) * 255)
    mask = blobs.resize((400, 300), Image.Resampling.NEAREST)
    (tmp_path / "mask.png").write_bytes(encoded(mask))
    seen = read_mask([str(tmp_path / "mask.png")], Preprocessing())
    resized = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])(mask)
    assert (seen != (np.asarray(resized) > 127.5)).mean() < 0.001


def test_a_mask_that_is_no_image_names_itself(tmp_path: Path) -> None:
    (tmp_path / "mask.png").write_bytes(b"hello")
    with pytest.raises(UnreadableImage, match=r"mask .*mask\.png: 5 bytes that are no image"):
        read_mask([str(tmp_path / "mask.png")], SMALL)
