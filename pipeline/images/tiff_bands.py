"""A page of a TIFF file from the top, a few rows of its tiles or strips at a time.

Only of pages that every decoder reads alike, so that they have the numbers of the page at once.

Source: TIFF 6.0, sections 3 (strips) and 15 (tiles).

Shapes: H x W pixels of a page, h rows of a band, C channels.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.images.deep_pixels import MIN_IS_BLACK, MIN_IS_WHITE, RGB, orientation_of

BAND = 256  # rows, or as many as the tiles of one row have
# TIFF Compression: none, LZW, deflate (two numbers), PackBits, LZMA, Zstandard
LOSSLESS = (1, 5, 8, 32946, 32773, 34925, 50000)
CHANNELS = {MIN_IS_WHITE: 1, MIN_IS_BLACK: 1, RGB: 3}


def bands_of(page: Any, data: bytes) -> Iterator[NDArray[Any]] | None:
    """Return the numbers (h, W) or (h, W, 3) of an upright page, in bands from the top.

    Args:
        page: a tifffile.TiffPage.
        data: the file's bytes.

    Returns:
        None of a page that is packed with loss, is neither grey nor RGB, is turned, has one part
        alone, or lacks some.
    """
    return _bands(page, data) if _is_plain(page) and _has_all_parts(page, data) else None


def _is_plain(page: Any) -> bool:
    return bool(
        page.dtype is not None
        and page.dtype.kind in "uif"
        and (page.dtype.itemsize > 1 or (page.dtype == np.uint8 and page.bitspersample == 8))
        and page.compression in LOSSLESS
        and page.samplesperpixel == CHANNELS.get(page.photometric)
        and page.axes in ("YX", "YXS")
        and page.fillorder == 1
        and orientation_of(page) == 1
    )


def _has_all_parts(page: Any, data: bytes) -> bool:
    parts = [*zip(page.dataoffsets, page.databytecounts, strict=False)]
    return len(parts) == int(np.prod(page.chunked)) > 1 and all(
        start > 0 < size and start + size <= len(data) for start, size in parts
    )


def _bands(page: Any, data: bytes) -> Iterator[NDArray[Any]]:
    rows_of_part = page.tilelength if page.is_tiled else page.rowsperstrip
    num_rows = max(1, BAND // rows_of_part) * rows_of_part
    across = -(-page.imagewidth // page.tilewidth) if page.is_tiled else 1
    for top in range(0, page.imagelength, num_rows):
        shape = (min(num_rows, page.imagelength - top), *page.shape[1:])
        band = np.empty(shape, page.dtype)
        first = top // rows_of_part * across
        for number in range(first, first + -(-len(band) // rows_of_part) * across):
            start, size = page.dataoffsets[number], page.databytecounts[number]
            part, (_, _, row, column, _), _ = page.decode(data[start : start + size], number)
            place = band[row - top : row - top + part.shape[1], column : column + part.shape[2]]
            place[:] = part[0, : place.shape[0], : place.shape[1]].reshape(place.shape)
        yield band
