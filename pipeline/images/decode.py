"""From the bytes of a file to the pixels a network sees; a bad file is a status, never a crash.

An image becomes RGB as a person would see it: the first frame, turned as EXIF says, transparent
parts over black, CMYK and palettes as their colours. Damaged metadata does not hide sound pixels.

Images with more than 8 bits are scaled by a fixed range, never stretched one by one, so that the
same scene always gives the same grey: 0..65535 for 16 bits. Only when no pixel reaches 4096 is the
range 0..4095: that is what cameras with up to 12 bits write into 16-bit files, and a person would
see nothing but black otherwise. 32-bit integers above 65535 have the range 0..2^31-1; floats have
0..1, 0..255 or 0..65535, the first that holds the brightest pixel.
"""

import hashlib
import io
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from model.errors import NightshiftError
from model.preprocessing import Preprocessing
from pipeline.images import fit
from pipeline.images.damaged_metadata import without_metadata
from pipeline.storage import (
    AccessDenied,
    ObjectChanged,
    ObjectMissing,
    StorageError,
    read_bytes,
)

MAX_PIXELS = 100_000_000
# What Pillow can decode by itself; formats that start another program (EPS, WMF) stay closed.
FORMATS = (
    *("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM", "JPEG2000"),
    *("AVIF", "QOI", "DIB", "SGI", "ICO", "DDS", "PCX", "TGA"),
)
INTEGER_RANGES = (4095.0, 65535.0, 2147483647.0)
FLOAT_RANGES = (1.0, 255.0, 65535.0)
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ORIENTATION = 0x0112  # EXIF tag
# Everything a decoder of untrusted bytes was seen to raise; Pillow promises no common base.
DECODER_ERRORS = (
    *(OSError, SyntaxError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError),
    *(RuntimeError, AssertionError, EOFError, MemoryError, struct.error, zlib.error),
)


class UnreadableImage(NightshiftError):
    """The bytes are not an image, or only a part of one."""


class ImageTooLarge(NightshiftError):
    """The image announces more pixels than the limit."""


class ImageStatus(StrEnum):
    """What became of one image."""

    OK = "ok"
    UNREADABLE = "unreadable"
    MISSING = "missing"
    TOO_LARGE = "too_large"
    UNROUTED = "unrouted"
    DENIED = "denied"
    CHANGED = "changed"
    UNREACHABLE = "unreachable"
    BROKEN_MODEL = "broken_model"


@dataclass(frozen=True, slots=True)
class ImageRead:
    """One image as it came from storage."""

    uri: str
    status: ImageStatus
    error: str | None = None
    pixels: NDArray[np.uint8] | None = None  # (crop, crop, 3), RGB
    sha256: str = ""  # hex digest of the file's bytes, "" when they were not read

    def without_pixels(self) -> "ImageRead":
        """Return all that is known of the image but its pixels, which need the memory."""
        return replace(self, pixels=None)


def read_image(
    uri: str, preprocessing: Preprocessing, fetch: Callable[[str], bytes] = read_bytes
) -> ImageRead:
    """Fetch, decode and resize one image; whatever is wrong with it becomes a status.

    Raises:
        ServiceAway: the server is the problem, not the image.
    """
    try:
        data = fetch(uri)
    except StorageError as error:
        return ImageRead(uri, _status_of(error), str(error))
    digest = hashlib.sha256(data).hexdigest()
    try:
        image = decode_image(data, least_side=preprocessing.least_side)
        pixels = fit.to_square(image, preprocessing)
    except ImageTooLarge as error:
        return ImageRead(uri, ImageStatus.TOO_LARGE, str(error), None, digest)
    except UnreadableImage as error:
        return ImageRead(uri, ImageStatus.UNREADABLE, str(error), None, digest)
    return ImageRead(uri, ImageStatus.OK, None, pixels, digest)


def _status_of(error: StorageError) -> ImageStatus:
    match error:
        case ObjectMissing():
            return ImageStatus.MISSING
        case AccessDenied():
            return ImageStatus.DENIED
        case ObjectChanged():
            return ImageStatus.CHANGED
    return ImageStatus.UNREACHABLE


def decode_image(
    data: bytes, max_pixels: int = MAX_PIXELS, least_side: int | None = None
) -> Image.Image:
    """The RGB image a person would see; the module's docstring says how.

    Args:
        data: the file's bytes.
        max_pixels: more than these are refused.
        least_side: a JPEG may come out at 1/2, 1/4 or 1/8 of its size (its own scaled decoding),
            as long as neither side falls below this many pixels. None: at its full size.

    Raises:
        ImageTooLarge: more than ``max_pixels`` by its header; nothing was decoded. Pillow's own
            limit (Image.MAX_IMAGE_PIXELS, twice) holds too.
        UnreadableImage: anything else that no picture comes out of.
    """
    if not data:
        raise UnreadableImage("the file is empty (0 bytes); write it again")
    try:
        return _decode(data, max_pixels, least_side)
    except UnreadableImage:
        bare = without_metadata(data)
        if bare is None:
            raise
        with suppress(UnreadableImage):  # then the first reason is the better one
            return _decode(bare, max_pixels, least_side)
        raise


def _decode(data: bytes, max_pixels: int, least_side: int | None) -> Image.Image:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(image.size, max_pixels)
            if least_side is not None:
                image.draft(None, (least_side, least_side))  # does nothing but for JPEG
            image.load()
            return _upright(_as_rgb(image), image)
    except Image.DecompressionBombError as error:
        raise ImageTooLarge(f"{error}; score a smaller or cropped image") from error
    except UnidentifiedImageError as error:
        raise UnreadableImage(
            f"{len(data)} bytes that are no image (they start with {data[:8]!r}); "
            f"needed is a PNG, JPEG, TIFF, BMP, WebP, GIF or PNM file"
        ) from error
    except DECODER_ERRORS as error:
        reason = str(error) or type(error).__name__
        raise UnreadableImage(f"damaged image: {reason}; export or copy it again") from error


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise UnreadableImage(f"the image has no pixels ({width} x {height}); export it again")
    if width * height > max_pixels:
        raise ImageTooLarge(
            f"{width} x {height} = {width * height:,} pixels, the limit is {max_pixels:,}; "
            f"score a smaller or cropped image"
        )


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        return _scaled(image, FLOAT_RANGES)
    if image.mode.startswith("I"):
        return _scaled(image, INTEGER_RANGES)
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        black = Image.new("RGB", image.size)
        black.paste(colours, mask=colours)
        return black
    return image.convert("RGB")


def _scaled(image: Image.Image, ranges: tuple[float, ...]) -> Image.Image:
    """8 bits from more, by the first range that holds the brightest pixel."""
    values_HW = np.asarray(image)
    peak = values_HW.max(initial=0, where=np.isfinite(values_HW))
    full_scale = next((limit for limit in ranges if peak <= limit), ranges[-1])
    grey_HW = np.nan_to_num(values_HW * np.float32(255 / full_scale), posinf=255, neginf=0)
    return Image.fromarray(np.rint(grey_HW.clip(0, 255)).astype(np.uint8)).convert("RGB")


def _upright(rgb: Image.Image, source: Image.Image) -> Image.Image:
    try:
        turn = TURNS.get(source.getexif().get(ORIENTATION, 1))
    except DECODER_ERRORS:  # damaged EXIF beside a sound picture: every viewer shows the picture
        return rgb
    return rgb if turn is None else rgb.transpose(turn)
