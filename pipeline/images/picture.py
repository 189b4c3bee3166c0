"""What an image file holds, as the file says it: pixels, how they are coded, how they are turned.

Pillow reads what has up to 8 bits a channel, and grey beyond it; ``deep_pixels.py`` the rest.
Nothing is brought to a range here, that is for ``pixel_range.py``. Damaged metadata does not hide
sound pixels.

Shapes: H x W pixels, C channels.
"""

import hashlib
import io
import math
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from model.errors import NightshiftError
from pipeline.images import deep_pixels
from pipeline.images.damaged_metadata import without_metadata
from pipeline.images.deep_pixels import DeepPixels, TiffPages, UnsupportedPixels
from pipeline.images.page_numbers import frames_of_pages
from pipeline.images.plain_png import read_plain_png
from pipeline.images.tiff_bands import bands_of

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
SIDEWAYS = frozenset(TURNS[orientation] for orientation in (5, 6, 7, 8))
ORIENTATION = 0x0112  # EXIF tag
# Everything a decoder of untrusted bytes was seen to raise; Pillow promises no common base.
DECODER_ERRORS = (
    *(OSError, SyntaxError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError),
    *(RuntimeError, AssertionError, EOFError, MemoryError, struct.error, zlib.error),
)


T = TypeVar("T")


class UnreadableImage(NightshiftError):
    """The bytes are not an image, or only a part of one."""


class ImageTooLarge(NightshiftError):
    """The image announces more pixels than the limit."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One page of an image file."""

    pixels: Image.Image | NDArray[Any]  # up to 8 bits an image, beyond (H, W) or (H, W, C) numbers
    # Pillow's; of numbers "L", "LA", "RGB" or "RGBA" with their type and, where they are known,
    # their significant bits: "RGB;uint16;12".
    mode: str
    bits: int | None = None  # significant ones of deep integers, where the file says so
    turn: Image.Transpose | None = None  # what brings it upright
    num_pages: int = 1  # of the file
    white_is_zero: bool = False  # of numbers: the largest one is black
    shrunk_from: tuple[int, int] | None = (
        None  # height and width in a file decoded at a smaller one
    )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, as a person holds it."""
        pixels = self.pixels
        if isinstance(pixels, Image.Image):
            width, height = pixels.size
        else:
            height, width = pixels.shape[:2]
        return self._as_held(height, width)

    @property
    def size_in_file(self) -> tuple[int, int]:
        """Height and width of all the pixels that the file has, as a person holds it."""
        return self._as_held(*self.shrunk_from) if self.shrunk_from else self.size

    def _as_held(self, height: int, width: int) -> tuple[int, int]:
        return (width, height) if self.turn in SIDEWAYS else (height, width)

    def upright(self, image: Image.Image) -> Image.Image:
        """Return an image made of the pixels as a person holds it."""
        return image if self.turn is None else image.transpose(self.turn)


def open_picture(
    data: bytes, max_pixels: int, least_side: int | None = None, page: int = 1
) -> Picture:
    """Return a page of an image file; the arguments are those of ``ImageFile`` and its ``page``.

    Raises:
        ImageTooLarge: more than ``max_pixels`` by its header; nothing was decoded.
        UnreadableImage: anything else that no picture comes out of.
    """
    return ImageFile(data, max_pixels, least_side).page(page)


class ImageFile:
    """The bytes of an image file, opened once for all of its pages."""

    def __init__(
        self,
        data: bytes,
        max_pixels: int,
        least_side: int | None = None,
        *,
        least_scale: float | None = None,
        as_numbers: bool = False,
    ) -> None:
        """Open nothing yet.

        Args:
            data: the file's bytes.
            max_pixels: more than these are refused.
            least_side: a JPEG may come out at 1/2, 1/4 or 1/8 of its size (its own scaled
                decoding), as long as neither side falls below this many pixels. None: at its full
                size.
            least_scale: the same, as long as no less than this share of its sides is left.
            as_numbers: TIFF files come as the numbers that are stored, not as a person sees them.
        """
        self.data, self.max_pixels, self.least_side = data, max_pixels, least_side
        self.least_scale = least_scale
        self._decoded = data  # without its metadata where these are damaged
        self.as_numbers, self.tiff = as_numbers, TiffPages.of(data)
        self._image: Image.Image | None = None
        self._frames: list[int] = []

    @cached_property
    def _sha256(self) -> Any:
        return hashlib.sha256(self.data)

    def sha256(self, page: int | None = None) -> str:
        """Return the digest of the file, or one of a page that no other page has."""
        total = self._sha256.copy()
        if page is not None:
            total.update(f"#page={page}".encode())
        digest: str = total.hexdigest()
        return digest

    @property
    def num_pages(self) -> int:
        """Pages of the file; raises as ``page`` does."""
        return self._read(lambda: len(self.tiff.pages if self.tiff else self._open()[1]))

    @property
    def announced_size(self) -> tuple[int, int]:
        """Height and width of the first page by its header; raises as ``page`` does."""
        width, height = self._read(lambda: self.tiff.size(1) if self.tiff else self._open()[0].size)
        return height, width

    def page(self, number: int = 1) -> Picture:
        """Return a page, the first of which is 1.

        Raises:
            ImageTooLarge, UnreadableImage: see ``open_picture``.
        """
        return self._read(lambda: self._page(number))

    def _read(self, read: Callable[[], T]) -> T:
        """Return what is read, of a file whose metadata alone are damaged without them."""
        if not self.data:
            raise UnreadableImage("the file is empty (0 bytes); write it again")
        try:
            with _decoder_errors(self.data):
                return read()
        except UnreadableImage:
            self._image, self._decoded = None, without_metadata(self.data) or self.data
            if self._decoded is self.data:
                raise
            with suppress(UnreadableImage), _decoder_errors(self._decoded):
                return read()
            self._image, self._decoded = None, self.data
            raise  # the first reason is the better one

    def _page(self, number: int) -> Picture:
        if self.tiff is None:
            return self._by_pillow(number)
        self._check_page(number, len(self.tiff.pages))
        if self.tiff.is_beyond_pillow(number):
            return self._by_tifffile(self.tiff, number)
        if self.as_numbers:
            with suppress(UnsupportedPixels):  # a palette
                return self._by_tifffile(self.tiff, number)
        try:
            return self._by_pillow(number)
        except UnidentifiedImageError:  # a compression that Pillow does not know
            return self._by_tifffile(self.tiff, number)

    def _by_tifffile(self, tiff: TiffPages, number: int) -> Picture:
        self._check_size(*tiff.size(number))
        picture = replace(_of_numbers(tiff.read(number)), num_pages=len(tiff.pages))
        return picture if self.as_numbers else _as_image(picture)

    def bands(self, number: int = 1) -> tuple[tuple[int, int], Iterator[Picture]] | None:
        """Return some rows after others of a page, each as ``page`` would give them.

        Raises:
            ImageTooLarge, UnreadableImage: see ``open_picture``, also as they come.

        Returns:
            None where it can only be decoded at once.
        """
        if self.tiff is None or number > len(self.tiff.pages):
            return None
        with _decoder_errors(self.data):
            self._check_size(*self.tiff.size(number))
            page = self.tiff.pages[number - 1]
            bands = bands_of(page, self.data)
        size = page.imagelength, page.imagewidth
        return None if bands is None else (size, self._pictures(page, bands))

    def _pictures(self, page: Any, bands: Iterator[NDArray[Any]]) -> Iterator[Picture]:
        with _decoder_errors(self.data):
            for values in bands:
                yield _as_image(_of_numbers(deep_pixels.of_page(page, values)))

    def _by_pillow(self, number: int) -> Picture:
        image, frames = self._open()
        self._check_page(number, len(frames))
        plain = read_plain_png(self._decoded)
        if plain is not None:
            return Picture(Image.fromarray(plain), image.mode, None, None, 1)
        if len(frames) > 1 or frames[0]:
            image.seek(frames[number - 1])
            self._check_size(*image.size)
        deep = deep_pixels.coloured(image, self._decoded)
        width, height = image.size
        if self.least_side is not None:
            image.draft(None, (self.least_side, self.least_side))  # does nothing but for JPEG
        if self.least_scale is not None:
            least = (math.ceil(self.least_scale * width), math.ceil(self.least_scale * height))
            image.draft(None, least)
        image.load()
        turn, num_pages = _turn(image), len(frames)
        if deep is None and (image.mode == "F" or image.mode.startswith("I")):
            deep = DeepPixels(np.asarray(image), deep_pixels.significant_bits(self._decoded))
        if deep is None:
            pixels = image.copy() if num_pages > 1 else image  # the next page takes its place
            shrunk_from = None if image.size == (width, height) else (height, width)
            return Picture(
                pixels, image.mode, turn=turn, num_pages=num_pages, shrunk_from=shrunk_from
            )
        return replace(_of_numbers(deep), turn=turn, num_pages=num_pages)

    def _open(self) -> tuple[Image.Image, list[int]]:
        if self._image is None:
            _allow(self.max_pixels)
            image = Image.open(io.BytesIO(self._decoded), formats=FORMATS)
            self._check_size(*image.size)
            self._frames = self.tiff.frames if self.tiff else frames_of_pages(image)
            self._image = image
        return self._image, self._frames

    def _check_page(self, number: int, num_pages: int) -> None:
        if number > num_pages:
            raise UnreadableImage(
                f"there is no page {number}, the file has {num_pages}; list the file again"
            )

    def _check_size(self, width: int, height: int) -> None:
        if width < 1 or height < 1:
            raise UnreadableImage(f"the image has no pixels ({width} x {height}); export it again")
        if width * height > self.max_pixels:
            raise ImageTooLarge(
                f"{width} x {height} = {width * height:,} pixels, the limit is "
                f"{self.max_pixels:,}; score a smaller or cropped image, or raise `max_pixels`"
            )


@contextmanager
def _decoder_errors(data: bytes) -> Iterator[None]:
    """Turn whatever a decoder raises into one of two errors."""
    try:
        yield
    except (UnreadableImage, ImageTooLarge):
        raise
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


def _allow(max_pixels: int) -> None:
    """Raise Pillow's own limit, twice MAX_IMAGE_PIXELS, where a category asks for more."""
    own = Image.MAX_IMAGE_PIXELS
    if own is not None and max_pixels > 2 * own:
        Image.MAX_IMAGE_PIXELS = -(-max_pixels // 2)


def _of_numbers(deep: DeepPixels) -> Picture:
    channels = 1 if deep.values.ndim == 2 else deep.values.shape[2]
    mode = f"{('L', 'LA', 'RGB', 'RGBA')[channels - 1]};{deep.values.dtype}"
    return Picture(
        pixels=deep.values,
        mode=f"{mode};{deep.bits}" if deep.bits else mode,
        bits=deep.bits,
        turn=TURNS.get(deep.orientation),
        white_is_zero=deep.white_is_zero,
    )


def _as_image(picture: Picture) -> Picture:
    """Return a picture whose numbers are an image where they have 8 bits, as Pillow reads it."""
    values = picture.pixels
    if isinstance(values, Image.Image) or values.dtype != np.uint8:
        return picture
    image = Image.fromarray(255 - values if picture.white_is_zero else values)
    return replace(picture, pixels=image, mode=image.mode, white_is_zero=False)


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        return TURNS.get(image.getexif().get(ORIENTATION, 1))
    except DECODER_ERRORS:  # damaged EXIF beside a sound picture: every viewer shows the picture
        return None
