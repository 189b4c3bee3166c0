"""Images and masks fetched from storage: every file gets its pixels or a clear status."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from decoding import decode_image
from pictures import encoded, png_header, scene

from model.preprocessing import Preprocessing
from pipeline import storage
from pipeline.images.decode import (
    ImageStatus,
    read_image,
)
from pipeline.images.fit import to_crop
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
    assert np.array_equal(read.pixels, to_crop(decode_image(data), SMALL))


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
