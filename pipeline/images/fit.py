"""From an image of any shape to the square that a network sees."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.preprocessing import Preprocessing

STRIP = 16  # times as long as wide

Border = Literal["edge", "constant"]


def to_square(
    image: Image.Image, preprocessing: Preprocessing, border: Border = "edge"
) -> NDArray[np.uint8]:
    """Pixels (crop, crop, 3), or (crop, crop) of a grey image, as ``Preprocessing`` says.

    Fit "crop" equals torchvision's Resize (bilinear, antialiased) and CenterCrop on the same PIL
    image, but only the crop is computed, so a long strip costs no more than a square. Fit "pad"
    repeats the border, or adds zeros where it is "constant".
    """
    pixels = np.array(_resized(image, preprocessing))
    gaps = [preprocessing.crop - edge for edge in pixels.shape[:2]]
    if gaps == [0, 0]:
        return pixels
    margins = [(gap // 2, gap - gap // 2) for gap in gaps] + [(0, 0)] * (pixels.ndim - 2)
    return np.pad(pixels, margins, mode=border)


def _resized(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Return the image at the network's scale, not yet padded."""
    side = preprocessing.crop
    match preprocessing.fit:
        case "crop":
            return _central_crop(image, preprocessing)
        case "stretch":
            return image.resize((side, side), Image.Resampling.BILINEAR)
        case "pad":
            longer = max(image.size)
            width, height = (max(1, round(side * edge / longer)) for edge in image.size)
            return image.resize((width, height), Image.Resampling.BILINEAR)


def _central_crop(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    resize, crop = preprocessing.resize, preprocessing.crop
    short = min(image.size)
    box: list[float] = [0, 0, 0, 0]
    window = [0, 0, *image.size]
    for axis, side in enumerate(image.size):
        resized = resize * side // short
        start = round((resized - crop) / 2)
        box[axis], box[axis + 2] = start * side / resized, (start + crop) * side / resized
        if side > STRIP * short:  # Pillow's box is float32: count from nearby, not from the end
            window[axis] = int(box[axis]) - short - 2
            window[axis + 2] = window[axis] + 3 * short + 4
            box[axis] -= window[axis]
            box[axis + 2] -= window[axis]
    if window != [0, 0, *image.size]:
        image = image.crop((window[0], window[1], window[2], window[3]))
    size = (crop, crop)
    return image.resize(size, Image.Resampling.BILINEAR, box=(box[0], box[1], box[2], box[3]))
