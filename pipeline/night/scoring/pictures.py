"""Pictures of a night as files: what the kept images looked like, and where they were unusual.

Each kept image has two, under a name that is a function of its address alone: a PNG of grey levels,
one scale per model, and a JPEG of the pixels that the network saw
(``pipeline/night/folder.py``).
Both show the same square, so that one can be laid over the other.
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline import storage
from pipeline.night.folder import NightFolder

JPEG_QUALITY = 85
MAX_SIDE = 448  # pixels of a thumbnail; larger ones only make a page heavy


def write_pictures(
    folder: NightFolder,
    category: str,
    image_uri: str,
    levels: NDArray[np.uint8],
    pixels: NDArray[np.uint8] | None,
) -> None:
    """Store the grey levels of an image's anomaly map, (H, W), and what was scored, (H, W, 3), RGB.

    Without pixels there is no thumbnail.
    """
    storage.write_bytes(folder.picture(category, image_uri, "maps"), encode_map(levels))
    if pixels is not None:
        thumbnail = folder.picture(category, image_uri, "thumbnails")
        storage.write_bytes(thumbnail, encode_thumbnail(pixels))


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
