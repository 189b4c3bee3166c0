"""Masks: where the defect of a labelled image is.

Grey masks mark what lies above half of full scale, masks that hold small class numbers what is not
0, and masks that hold colours their coloured pixels, whether the background is black or white.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.preprocessing import Preprocessing
from pipeline.images import fit
from pipeline.images.decode import ImageTooLarge, UnreadableImage, decode_image
from pipeline.storage import read_bytes

MASK_LEVEL = 127  # grey masks: defect above half of full scale
MAX_CLASS_NUMBER = 15  # a mask no brighter than this holds class numbers, not grey
MASK_COLOUR = 32  # largest minus smallest channel from which a pixel counts as coloured


def read_mask(uris: Sequence[str], preprocessing: Preprocessing) -> NDArray[np.bool_]:
    """Where any of an image's masks marks a defect, (crop, crop), in the geometry of the image.

    Raises:
        StorageError: a file cannot be read.
        UnreadableImage, ImageTooLarge: a file is no usable image.
    """
    marked = np.zeros((preprocessing.crop, preprocessing.crop), dtype=bool)
    for uri in uris:
        marked |= _read_one(uri, preprocessing)
    return marked


def _read_one(uri: str, preprocessing: Preprocessing) -> NDArray[np.bool_]:
    try:
        levels_HW = _levels(np.asarray(decode_image(read_bytes(uri))))
    except (UnreadableImage, ImageTooLarge) as error:
        raise type(error)(f"mask {uri}: {error}") from error
    square = fit.to_square(Image.fromarray(levels_HW), preprocessing, "constant")
    return square > MASK_LEVEL


def _levels(rgb_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    brightest_HW: NDArray[np.uint8] = rgb_HWC.max(axis=2)
    coloured_HW = brightest_HW - rgb_HWC.min(axis=2) >= MASK_COLOUR
    if coloured_HW.any():
        return np.where(coloured_HW, np.uint8(255), np.uint8(0))
    if brightest_HW.max() <= MAX_CLASS_NUMBER:
        return np.where(brightest_HW > 0, np.uint8(255), np.uint8(0))
    return brightest_HW
