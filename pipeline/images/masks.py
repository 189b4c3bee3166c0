"""Masks: where the defect of a labelled image is.

A mask is a file of labels, not a photograph, so its numbers count as they are, whatever their type:

- two values, one of them 0 or black: the other one is defect, be it 1, 100, 255 or 65535;
- numbers up to MAX_CLASS_NUMBER: classes of defects, all but 0;
- colours on black, white or grey: the coloured pixels;
- other grey, a mask with soft edges: what lies above half of the smallest range that holds it.

Shapes: H x W pixels of the file.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.preprocessing import MAX_PIXELS, Preprocessing
from pipeline.images import fit
from pipeline.images.page_numbers import split_page
from pipeline.images.picture import ImageTooLarge, UnreadableImage, open_picture
from pipeline.images.pixel_range import FLOAT_RANGES, INTEGER_RANGES, colours_of, scale
from pipeline.storage import read_bytes

MASK_LEVEL = 127  # of 255: defect is what lies above, in the file and after resizing
MAX_CLASS_NUMBER = 15
WRITE = "write defects in 255 on 0"
MASK_COLOUR = 32  # of 255: largest minus smallest channel from which a pixel counts as coloured


def read_mask(uris: Sequence[str], preprocessing: Preprocessing) -> NDArray[np.bool_] | None:
    """Where any of an image's masks marks a defect, (crop, crop), in the geometry of the image.

    Returns:
        None where no mask marks anything, inside of the crop or outside.

    Raises:
        StorageError: a file cannot be read.
        UnreadableImage, ImageTooLarge: a file is no usable mask.
    """
    marked = [_read_one(uri, preprocessing) for uri in uris]
    squares = [square for square in marked if square is not None]
    return np.logical_or.reduce(squares) if squares else None


def mask_levels(data: bytes, max_pixels: int = MAX_PIXELS, page: int | None = None) -> Image.Image:
    """Return a mask as an upright grey image: defect is what lies above MASK_LEVEL.

    Args:
        data: the mask's file.
        max_pixels: more are refused.
        page: from 1; None: the file must have one only.

    Raises:
        UnreadableImage, ImageTooLarge: the file is no usable mask.
    """
    picture = open_picture(data, max_pixels, page=page or 1)
    if page is None and picture.num_pages > 1:
        raise UnreadableImage(f"{picture.num_pages} pages are no mask; write one")
    values = np.nan_to_num(colours_of(picture), posinf=0, neginf=0)
    if values.ndim == 3 and (values == values[..., :1]).all():
        values = values[..., 0]
    levels_HW = _grey_levels(values) if values.ndim == 2 else _colour_levels(values)
    return picture.upright(Image.fromarray(levels_HW))


def _read_one(uri: str, preprocessing: Preprocessing) -> NDArray[np.bool_] | None:
    try:
        file, page = split_page(uri) if preprocessing.pages == "each" else (uri, None)
        levels = mask_levels(read_bytes(file), preprocessing.max_pixels, page)
    except (UnreadableImage, ImageTooLarge) as error:
        raise type(error)(f"mask {uri}: {error}") from error
    if levels.getextrema()[1] <= MASK_LEVEL:  # type: ignore[operator]
        return None
    return fit.to_square(levels, preprocessing, "constant") > MASK_LEVEL


def _grey_levels(values_HW: NDArray[Any]) -> NDArray[np.uint8]:
    lowest, highest = values_HW.min(), values_HW.max()
    if lowest < 0:
        raise UnreadableImage(f"numbers from {lowest} on are no mask; {WRITE}")
    has_two = bool(((values_HW == lowest) | (values_HW == highest)).all())
    is_float = values_HW.dtype.kind == "f"
    if (has_two and lowest == 0) or (not is_float and highest <= MAX_CLASS_NUMBER):
        return _black_and_white(values_HW != 0)
    return scale(values_HW, _range_of(float(highest), is_float))[0]


def _colour_levels(values_HW3: NDArray[Any]) -> NDArray[np.uint8]:
    """Mark the coloured pixels, or what is not black where that is one colour."""
    not_black_HW = (values_HW3 != 0).any(axis=2)
    one_colour = values_HW3[not_black_HW][0]
    if (values_HW3[not_black_HW] == one_colour).all() and not not_black_HW.all():
        return _black_and_white(not_black_HW)
    full = _range_of(float(values_HW3.max()), values_HW3.dtype.kind == "f")
    levels, _ = scale(values_HW3, full)
    coloured_HW: NDArray[np.bool_] = levels.max(axis=2) - levels.min(axis=2) >= MASK_COLOUR
    if coloured_HW.all():
        raise UnreadableImage(f"every pixel is coloured, so none is free of defects; {WRITE}")
    if not coloured_HW.any():
        brightest_HW: NDArray[np.uint8] = levels.max(axis=2)
        return brightest_HW
    return _black_and_white(coloured_HW)


def _black_and_white(marked_HW: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.where(marked_HW, np.uint8(255), np.uint8(0))


def _range_of(highest: float, is_float: bool) -> float:
    """Return the smallest usual range that holds a mask.

    Raises:
        UnreadableImage: there is none.
    """
    for full in FLOAT_RANGES if is_float else INTEGER_RANGES:
        if highest <= full:
            return full
    raise UnreadableImage(f"numbers up to {highest:.6g} are no mask; {WRITE}")
