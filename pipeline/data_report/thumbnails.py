"""Small pictures that a page holds itself."""

import base64
import io
from collections.abc import Iterable

from PIL import Image

from model.preprocessing import Preprocessing
from pipeline.images.decode import read_image
from pipeline.images.prefetch import read_ahead

SIDE = 176  # pixels at most
QUALITY = 78

Order = tuple[str, Preprocessing]  # address, and how it is read


def thumbnails(orders: Iterable[Order]) -> dict[str, str]:
    """Return pictures as data: addresses, by the images' own; none of what cannot be read."""
    wanted = list(dict.fromkeys(orders))
    made = read_ahead(_thumbnail, wanted)
    pictures = zip(wanted, made, strict=True)
    return {uri: picture for (uri, _), picture in pictures if picture}


def _thumbnail(order: Order) -> str:
    read = read_image(*order)
    if read.shown is None:
        return ""
    image = Image.fromarray(read.shown)
    image.thumbnail((SIDE, SIDE))
    return as_address(image)


def as_address(image: Image.Image) -> str:
    """Return a picture as a data: address."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def png_address(content: bytes) -> str:
    """Return a PNG file as a data: address."""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"
