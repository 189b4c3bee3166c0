"""Pictures of a night as files: what the kept images looked like, and where they were unusual.

Each kept image has two, under a name that is a function of its address alone:

    <out>/maps/night=<N>/<category>/<hash>.png         grey levels, one scale per model
    <out>/thumbnails/night=<N>/<category>/<hash>.jpg   the pixels that the network saw

Both show the same square, so that one can be laid over the other.
"""

import hashlib
import io
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline import storage

Kind = Literal["maps", "thumbnails"]

SUFFIXES: dict[Kind, str] = {"maps": ".png", "thumbnails": ".jpg"}
JPEG_QUALITY = 85
MAX_SIDE = 448  # pixels of a thumbnail; larger ones only make a page heavy


class Subject(NamedTuple):
    """The image that pictures are of, and the night that keeps them."""

    out: str
    night: str
    category: str
    image_uri: str


def picture_uri(out: str, night: str, category: str, image_uri: str, kind: Kind) -> str:
    """Where a picture of an image is stored, whether or not it is there."""
    name = picture_name(image_uri) + SUFFIXES[kind]
    return storage.join(out, kind, f"night={night}", category, name)


def picture_name(image_uri: str) -> str:
    """Name of an image's pictures, without a suffix: any address becomes 32 hex digits."""
    return hashlib.sha256(image_uri.encode(errors="surrogatepass")).hexdigest()[:32]


def write_pictures(
    subject: Subject, levels: NDArray[np.uint8], pixels: NDArray[np.uint8] | None
) -> None:
    """Store the pictures of an image.

    Args:
        subject: the image.
        levels: grey levels of its anomaly map, shape (H, W).
        pixels: RGB of the square that was scored, shape (H, W, 3); None leaves out the thumbnail.
    """
    storage.write_bytes(picture_uri(*subject, "maps"), encode_map(levels))
    if pixels is not None:
        storage.write_bytes(picture_uri(*subject, "thumbnails"), encode_thumbnail(pixels))


def encode_map(levels: NDArray[np.uint8]) -> bytes:
    """A PNG file that keeps every grey level."""
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def encode_thumbnail(pixels: NDArray[np.uint8]) -> bytes:
    """A JPEG file, at most MAX_SIDE pixels a side."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()
