"""Pixels with more than 8 bits a channel, as the numbers that the file holds.

Pillow keeps the high byte of colours beyond 8 bits, and knows few kinds of deep TIFF. These are
read by tifffile and imagecodecs; what has no plain meaning as grey or colour is refused with its
real reason.

Sources: PNG, ISO/IEC 15948:2004, 11.2.2 (IHDR) and 11.3.3.4 (sBIT); TIFF 6.0, sections 6, 8 and 18;
JPEG 2000, ITU-T T.800, A.5.1 (SIZ).

Shapes: H x W pixels, C channels.
"""

import io
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PpmImagePlugin

from model.errors import NightshiftError

PNG_START, TIFF_STARTS = b"\x89PNG\r\n\x1a\n", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PNG_COLOURED = (2, 4, 6)  # colour types: RGB, grey with alpha, RGB with alpha
SIZ = b"\xff\x4f\xff\x51"  # start of a JPEG 2000 code stream; 42 bytes on, the first depth
MIN_IS_WHITE, MIN_IS_BLACK, RGB, LINEAR_RAW = 0, 1, 2, 34892  # TIFF PhotometricInterpretation
PHOTOMETRIC_NAMES = {
    3: "a palette",
    5: "CMYK",
    6: "YCbCr",
    8: "CIE L*a*b*",
    32803: "the mosaic of a sensor",
}
ALPHAS = (1, 2)  # TIFF ExtraSamples: premultiplied or not
ORIENTATION = 274  # TIFF tag
WEBP = 50001  # TIFF Compression
NETPBM_CHANNELS = {"I": 1, "RGB": 3}  # by Pillow's mode: deep grey, and colours of any depth
WHOLE_DEPTHS = (1, 8, 16, 32, 64)  # a number fills its bytes: which bits are in use is not said
EXPORT = "export it as grey or RGB"


class UnsupportedPixels(NightshiftError):
    """The pixels are sound, and neither grey nor colours that have one plain meaning."""


@dataclass(frozen=True, slots=True)
class DeepPixels:
    """What is known of one page with more than 8 bits a channel."""

    values: NDArray[Any]  # (H, W), or (H, W, C) of 2 to 4 channels
    bits: int | None = None  # significant ones, where the file says so
    orientation: int = 1  # as in EXIF
    white_is_zero: bool = False


@dataclass(frozen=True, slots=True)
class TiffPages:
    """The pages of a TIFF file, thumbnails and masks left out."""

    pages: tuple[Any, ...]  # tifffile.TiffPage
    frames: list[int]  # number of each in the file

    @classmethod
    def of(cls, data: bytes) -> "TiffPages | None":
        """Return the pages; None where the file is no TIFF, or one that tifffile cannot read."""
        if not data.startswith(TIFF_STARTS):
            return None
        import tifffile  # noqa: PLC0415  only TIFF files need it

        logging.getLogger("tifffile").disabled = True  # each damaged tag would be a line
        every: list[Any] = []
        with suppress(Exception):  # after the last page, or where the rest is damaged
            file = tifffile.TiffFile(io.BytesIO(data))
            while True:
                every.append(file.pages[len(every)])
        whole = [n for n, page in enumerate(every) if not (page.is_reduced or page.is_mask)]
        frames = whole or list(range(len(every)))[:1]
        return cls(tuple(every[n] for n in frames), frames) if every else None

    def is_beyond_pillow(self, number: int) -> bool:
        """Whether a page, from 1, has more than 8 bits a channel, or is packed as WebP."""
        page = self.pages[number - 1]
        is_deep = page.dtype is not None and page.dtype.itemsize > 1
        return bool(is_deep or page.compression == WEBP)

    def size(self, number: int) -> tuple[int, int]:
        """Return width and height of a page."""
        page = self.pages[number - 1]
        return page.imagewidth, page.imagelength

    def read(self, number: int) -> DeepPixels:
        """Return the numbers of a page as they are stored.

        Raises:
            UnsupportedPixels: neither grey nor RGB, with or without alpha.
        """
        page = self.pages[number - 1]
        return of_page(page, _channels_last(page))


def of_page(page: Any, values: NDArray[Any]) -> DeepPixels:
    """Return the numbers of a TIFF page, or of some of its rows, with what its tags say."""
    depth = int(page.bitspersample)
    return DeepPixels(
        values=values.astype(np.uint8) if values.dtype == bool else values,
        bits=None if depth in WHOLE_DEPTHS else depth,
        orientation=orientation_of(page),
        white_is_zero=page.photometric == MIN_IS_WHITE,
    )


def orientation_of(page: Any) -> int:
    """Return how a TIFF page is turned, as in EXIF; 1 is upright."""
    tag = page.tags.get(ORIENTATION)
    return int(tag.value) if tag else 1


def coloured(image: Image.Image, data: bytes) -> DeepPixels | None:
    """Return deep colours, or deep grey with alpha, that Pillow would cut to 8 bits.

    The image is as Pillow opened it, not loaded.

    Returns:
        None where Pillow reads the file without loss.
    """
    match image.format:
        case "PNG" if data[24] == 16 and data[25] in PNG_COLOURED:
            return DeepPixels(_decode("png", data), significant_bits(data))
        case "JPEG2000" if (depth := _jpeg2000_depth(data)) > 8:
            return DeepPixels(_decode("jpeg2k", data), depth)
        case "PPM" if image.mode in NETPBM_CHANNELS:  # in binary or in digits
            return _netpbm(image, data)
        case "SGI" if data[3] == 2:
            raise UnsupportedPixels(f"an SGI file of 16 bits; {EXPORT} in a PNG or TIFF file")
    return None


def significant_bits(data: bytes) -> int | None:
    """Return how many bits of a PNG file's channels are in use, by its chunk sBIT."""
    if not data.startswith(PNG_START):
        return None
    place = len(PNG_START)
    while place + 12 <= len(data):
        length, kind = int.from_bytes(data[place : place + 4]), data[place + 4 : place + 8]
        if kind == b"sBIT":
            channels = data[place + 8 : place + 8 + length]
            return max(channels[: 1 if length < 3 else 3], default=0) or None
        if kind == b"IDAT":
            return None
        place += 12 + length
    return None


def _decode(codec: str, data: bytes) -> NDArray[Any]:
    import imagecodecs  # noqa: PLC0415  only deep colours need it

    values: NDArray[Any] = getattr(imagecodecs, f"{codec}_decode")(data)
    return _plain(values)


def _jpeg2000_depth(data: bytes) -> int:
    place = data.find(SIZ)
    return (data[place + 42] & 0x7F) + 1 if 0 <= place < len(data) - 42 else 8


def _netpbm(image: Image.Image, data: bytes) -> DeepPixels | None:
    """Return the numbers of a PGM or PPM file, whose header says which one is white."""
    assert isinstance(image, PpmImagePlugin.PpmImageFile)
    tile = image.tile[0]
    white = int(tile.args[1]) if isinstance(tile.args, tuple) else 255
    if white <= 255:
        return None
    if tile.codec_name != "ppm":
        raise UnsupportedPixels(
            "more than 8 bits written in digits; write a binary PGM or PPM file"
        )
    shape = (image.height, image.width, NETPBM_CHANNELS[image.mode])
    values = np.frombuffer(data, ">u2", int(np.prod(shape)), tile.offset).reshape(shape)
    if white == 65535:  # also written of less than 16 bits
        return DeepPixels(_plain(values.astype(np.uint16)))
    if white.bit_count() == white.bit_length():
        return DeepPixels(_plain(values.astype(np.uint16)), white.bit_length())
    return DeepPixels(_plain(np.rint(values * (65535 / white)).astype(np.uint16)), 16)


def _channels_last(page: Any) -> NDArray[Any]:
    """Return a TIFF page's grey or coloured pixels without channels that are neither."""
    photometric = int(page.photometric if page.photometric is not None else MIN_IS_BLACK)
    if photometric not in (MIN_IS_WHITE, MIN_IS_BLACK, RGB, LINEAR_RAW):
        name = PHOTOMETRIC_NAMES.get(photometric, f"photometric interpretation {photometric}")
        raise UnsupportedPixels(f"a TIFF file of {page.bitspersample} bits with {name}; {EXPORT}")
    values = page.asarray()
    if page.axes == "SYX":
        values = np.moveaxis(values, 0, -1)
    elif page.axes not in ("YX", "YXS"):
        raise UnsupportedPixels(f"a TIFF file with axes {page.axes}, not a flat image; {EXPORT}")
    if values.ndim == 3:
        values = _without_unknown(values, [int(kind) for kind in page.extrasamples])
    return _plain(values)


def _without_unknown(values: NDArray[Any], extra: list[int]) -> NDArray[Any]:
    """Return grey or RGB (H, W, C), with alpha where the first channel beyond them is that."""
    colours = values.shape[2] - len(extra)
    has_alpha = bool(extra) and extra[0] in ALPHAS
    num_unknown = len(extra) - has_alpha
    if colours not in (1, 3) or num_unknown > (colours == 3):  # RGB and padding is well known
        raise UnsupportedPixels(f"a TIFF file of {values.shape[2]} channels; {EXPORT}")
    return values[..., : colours + has_alpha]


def _plain(values: NDArray[Any]) -> NDArray[Any]:
    """Return (H, W) or (H, W, 2 to 4) numbers of a kind that can be scaled."""
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.dtype.kind not in "buif" or not 2 <= values.ndim <= 3:
        raise UnsupportedPixels(f"pixels of {values.dtype} {values.shape}; {EXPORT}")
    return values
