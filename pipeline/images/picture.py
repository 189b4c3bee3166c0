"""What an image file holds, as the file says it: pixels, how they are coded, how they are turned.

Pillow reads what has up to 8 bits a channel, and grey beyond it; ``deep_pixels.py`` the rest.
Nothing is brought to a range here, that is for ``pixel_range.py``. Damaged metadata does not hide
sound pixels.

Shapes: H x W pixels, C channels.
"""

import io
import struct
import zlib
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from model.errors import NightshiftError
from pipeline.images import deep_pixels
from pipeline.images.damaged_metadata import without_metadata
from pipeline.images.deep_pixels import DeepPixels, TiffPages, UnsupportedPixels
from pipeline.images.page_numbers import frames_of_pages

# What Pillow can decode by itself; formats that start another program (EPS, WMF) stay closed.
FORMATS = (
    *("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM", "JPEG2000"),
    *("AVIF", "QOI", "DIB", "SGI", "ICO", "DDS", "PCX", "TGA"),
)
TURNS = {  # by orientation
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


@dataclass(frozen=True, slots=True)
class Picture:
    """One page of an image file."""

    pixels: Image.Image | NDArray[Any]  # up to 8 bits an image, beyond (H, W) or (H, W, C) numbers
    mode: str  # Pillow's; of numbers "L", "LA", "RGB" or "RGBA" with their type: "RGB;uint16"
    bits: int | None = None  # significant ones of deep integers, where the file says so
    turn: Image.Transpose | None = None  # what brings it upright
    num_pages: int = 1  # of the file

    def upright(self, image: Image.Image) -> Image.Image:
        """Return an image made of the pixels as a person holds it."""
        return image if self.turn is None else image.transpose(self.turn)


def open_picture(
    data: bytes, max_pixels: int, least_side: int | None = None, page: int = 1
) -> Picture:
    """Return a page of an image file.

    Args:
        data: the file's bytes.
        max_pixels: more than these are refused.
        least_side: a JPEG may come out at 1/2, 1/4 or 1/8 of its size (its own scaled decoding),
            as long as neither side falls below this many pixels. None: at its full size.
        page: which one, from 1.

    Raises:
        ImageTooLarge: more than ``max_pixels`` by its header; nothing was decoded.
        UnreadableImage: anything else that no picture comes out of.
    """
    if not data:
        raise UnreadableImage("the file is empty (0 bytes); write it again")
    reader = _Reader(max_pixels, least_side, page)
    try:
        return reader.read(data)
    except UnreadableImage:
        bare = without_metadata(data)
        if bare is None:
            raise
        with suppress(UnreadableImage):  # then the first reason is the better one
            return reader.read(bare)
        raise


@dataclass(frozen=True, slots=True)
class _Reader:
    """What to read of a file."""

    max_pixels: int
    least_side: int | None
    page: int

    def read(self, data: bytes) -> Picture:
        """Return the page; whatever a decoder raises becomes one of two errors."""
        try:
            tiff = TiffPages.of(data)
            if tiff is not None and tiff.is_deep:
                return self._deep_tiff(tiff)
            _allow(self.max_pixels)
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                return self._by_pillow(image, data)
        except Image.DecompressionBombError as error:
            raise ImageTooLarge(f"{error}; score a smaller or cropped image") from error
        except UnidentifiedImageError as error:
            raise UnreadableImage(
                f"{len(data)} bytes that are no image (they start with {data[:8]!r}); "
                f"needed is a PNG, JPEG, TIFF, BMP, WebP, GIF or PNM file"
            ) from error
        except UnsupportedPixels as error:
            raise UnreadableImage(str(error)) from error
        except DECODER_ERRORS as error:
            reason = str(error) or type(error).__name__
            raise UnreadableImage(f"damaged image: {reason}; export or copy it again") from error

    def _deep_tiff(self, tiff: TiffPages) -> Picture:
        self._check_page(len(tiff.pages))
        self._check_size(*tiff.size(self.page))
        return _of_numbers(tiff.read(self.page))

    def _by_pillow(self, image: Image.Image, data: bytes) -> Picture:
        self._check_size(*image.size)
        frames = frames_of_pages(image)
        self._check_page(len(frames))
        if frames[self.page - 1]:
            image.seek(frames[self.page - 1])
            self._check_size(*image.size)
        deep = deep_pixels.coloured(image, data)
        if self.least_side is not None:
            image.draft(None, (self.least_side, self.least_side))  # does nothing but for JPEG
        image.load()
        turn = _turn(image)
        if deep is None and (image.mode == "F" or image.mode.startswith("I")):
            deep = DeepPixels(np.asarray(image), deep_pixels.significant_bits(data))
        if deep is None:
            return Picture(image, image.mode, None, turn, len(frames))
        return replace(_of_numbers(deep), turn=turn, num_pages=len(frames))

    def _check_page(self, num_pages: int) -> None:
        if self.page > num_pages:
            raise UnreadableImage(
                f"there is no page {self.page}, the file has {num_pages}; list the file again"
            )

    def _check_size(self, width: int, height: int) -> None:
        if width < 1 or height < 1:
            raise UnreadableImage(f"the image has no pixels ({width} x {height}); export it again")
        if width * height > self.max_pixels:
            raise ImageTooLarge(
                f"{width} x {height} = {width * height:,} pixels, the limit is "
                f"{self.max_pixels:,}; score a smaller or cropped image, or raise `max_pixels`"
            )


def _allow(max_pixels: int) -> None:
    """Raise Pillow's own limit, twice MAX_IMAGE_PIXELS, where a category asks for more."""
    own = Image.MAX_IMAGE_PIXELS
    if own is not None and max_pixels > 2 * own:
        Image.MAX_IMAGE_PIXELS = -(-max_pixels // 2)


def _of_numbers(deep: DeepPixels) -> Picture:
    channels = 1 if deep.values.ndim == 2 else deep.values.shape[2]
    mode = f"{('L', 'LA', 'RGB', 'RGBA')[channels - 1]};{deep.values.dtype}"
    return Picture(deep.values, mode, deep.bits, TURNS.get(deep.orientation), deep.num_pages)


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        return TURNS.get(image.getexif().get(ORIENTATION, 1))
    except DECODER_ERRORS:  # damaged EXIF beside a sound picture: every viewer shows the picture
        return None
