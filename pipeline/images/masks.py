"""Masks: where the defect of a labelled image is.

A mask is a file of labels, not a photograph, so its numbers count as they are stored, whatever
their type:

- two numbers, one of them 0, or a few that do not end at full scale: all but 0, be they 1, 100,
  65535, or the numbers of classes;
- few colours, black among them: all but black;
- colours on white or grey: the coloured pixels;
- soft edges: what lies above the middle between the lowest and the highest number.

Shapes: H x W pixels of the file.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.preprocessing import MAX_PIXELS, Preprocessing
from pipeline.images import fit
from pipeline.images.damaged_metadata import JPEG_START
from pipeline.images.page_numbers import file_and_page
from pipeline.images.picture import ImageFile, ImageTooLarge, Picture, UnreadableImage
from pipeline.images.pixel_range import colours_of, scale
from pipeline.storage import read_bytes

MASK_LEVEL = 127  # of 255, from which on a resized mask counts
MAX_NUMBERS = 16  # of labels; a mask of more has soft edges
FULL_SCALES = (1.0, 255.0, 65535.0)
WRITE = "write defects in 255 on 0"
MASK_COLOUR = 32  # of 255: largest minus smallest channel from which a pixel counts as coloured


def read_mask(uris: Sequence[str], preprocessing: Preprocessing) -> NDArray[np.bool_] | None:
    """Where any of an image's masks marks a defect, (H, W), in the geometry of the image.

    Returns:
        None where no mask marks anything, inside of the crop or outside.

    Raises:
        StorageError: a file cannot be read.
        UnreadableImage, ImageTooLarge: a file is no usable mask.
    """
    marked = [_read_one(uri, preprocessing) for uri in uris]
    known = [mask for mask in marked if mask is not None]
    return np.logical_or.reduce(known) if known else None


def mask_levels(data: bytes, max_pixels: int = MAX_PIXELS, page: int | None = None) -> Image.Image:
    """Return a mask as an upright grey image: defect is what lies above MASK_LEVEL.

    Pages count from 1; without one the file must have a single page.

    Raises:
        UnreadableImage, ImageTooLarge: the file is no usable mask.
    """
    picture = ImageFile(data, max_pixels, as_numbers=True).page(page or 1)
    if page is None and picture.num_pages > 1:
        raise UnreadableImage(f"{picture.num_pages} pages are no mask; write one")
    numbers = np.nan_to_num(_numbers(picture), posinf=0, neginf=0)
    if numbers.ndim == 3 and (numbers == numbers[..., :1]).all():
        numbers = numbers[..., 0]
    may_be_few = not data.startswith(JPEG_START)  # which blurs numbers into others
    make = _grey_levels if numbers.ndim == 2 else _colour_levels
    levels_HW = make(numbers, may_be_few)
    return picture.upright(Image.fromarray(levels_HW))


def _read_one(uri: str, preprocessing: Preprocessing) -> NDArray[np.bool_] | None:
    try:
        file, page = file_and_page(uri, preprocessing.pages)
        levels = mask_levels(read_bytes(file), preprocessing.max_pixels, page)
    except (UnreadableImage, ImageTooLarge) as error:
        raise type(error)(f"mask {uri}: {error}") from error
    if levels.getextrema()[1] <= MASK_LEVEL:  # type: ignore[operator]
        return None
    return fit.to_view(levels, preprocessing, "constant") > MASK_LEVEL


def _numbers(picture: Picture) -> NDArray[Any]:
    """Return (H, W) or (H, W, 3) numbers; a palette's own where they are those of classes."""
    image = picture.pixels
    if isinstance(image, Image.Image) and image.mode == "P":
        index_HW, colours = np.asarray(image), image.getpalette() or [1]
        if index_HW.max() < MAX_NUMBERS and not any(colours[:3]):
            return index_HW
    return colours_of(picture)


def _grey_levels(numbers_HW: NDArray[Any], may_be_few: bool) -> NDArray[np.uint8]:
    lowest, highest = float(numbers_HW.min()), float(numbers_HW.max())
    if lowest < 0:
        raise UnreadableImage(f"numbers from {lowest:g} on are no mask; {WRITE}")
    most = 2 if highest in FULL_SCALES else MAX_NUMBERS  # between 0 and full scale lie soft edges
    if lowest == highest or (may_be_few and lowest == 0 and _are_few(numbers_HW, most)):
        return _black_and_white(numbers_HW != 0)
    return scale(numbers_HW - lowest, highest - lowest)[0]


def _colour_levels(numbers_HW3: NDArray[Any], may_be_few: bool) -> NDArray[np.uint8]:
    is_black_HW = (numbers_HW3 == 0).all(axis=2)
    wide = numbers_HW3.astype(np.float64)
    one_HW = wide[..., 0] * 2**34 + wide[..., 1] * 2**17 + wide[..., 2]  # a number for each colour
    if may_be_few and is_black_HW.any() and _are_few(one_HW, MAX_NUMBERS):
        return _black_and_white(~is_black_HW)
    levels, _ = scale(numbers_HW3, float(numbers_HW3.max()))
    coloured_HW: NDArray[np.bool_] = levels.max(axis=2) - levels.min(axis=2) >= MASK_COLOUR
    if coloured_HW.all():
        raise UnreadableImage(f"every pixel is coloured, so none is free of defects; {WRITE}")
    if not coloured_HW.any():
        brightest_HW: NDArray[np.uint8] = levels.max(axis=2)
        return brightest_HW
    return _black_and_white(coloured_HW)


def _are_few(numbers_HW: NDArray[Any], most: int) -> bool:
    """Whether there are at most so many different ones."""
    left = numbers_HW.ravel()
    for _ in range(most):
        left = left[left != left[0]]
        if not len(left):
            return True
    return False


def _black_and_white(marked_HW: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.where(marked_HW, np.uint8(255), np.uint8(0))
