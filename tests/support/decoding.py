"""Images decoded from bytes, without a file and a network's square."""

from PIL import Image

from model.preprocessing import MAX_PIXELS
from pipeline.images.picture import open_picture
from pipeline.images.pixel_range import as_rgb


def decode_image(
    data: bytes,
    max_pixels: int = MAX_PIXELS,
    least_side: int | None = None,
    pixel_range: float | None = None,
) -> Image.Image:
    """The RGB image a person would see: the first page of the file."""
    return as_rgb(open_picture(data, max_pixels, least_side), pixel_range)[0]
