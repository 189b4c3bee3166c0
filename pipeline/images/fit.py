"""From an image of any shape to the rectangle that a network sees."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.preprocessing import Preprocessing
from pipeline.images.picture import UnreadableImage
from pipeline.images.placement import crop_box, has_proportions, inside_of, roi_of

STRIP = 16  # times as long as wide
BAND = 256  # rows or columns that are resized at a time

Border = Literal["edge", "constant"]


def to_crop(
    image: Image.Image, preprocessing: Preprocessing, border: Border = "edge"
) -> NDArray[np.uint8]:
    """Pixels (H, W, 3), or (H, W) of a grey image, of the size that ``Preprocessing`` says.

    Fit "crop" equals torchvision's Resize (bilinear, antialiased) and CenterCrop on the same PIL
    image, but only the crop is computed, so a long strip costs no more than a square. Fit "pad"
    repeats the border, or adds zeros where it is "constant". Where there is a region of interest,
    it is the image.
    """
    box = _looked_at(image, preprocessing)
    image = image if box == (0, 0, *image.size) else image.crop(box)
    pixels = np.array(_resized(image, preprocessing))
    gaps = [size - edge for size, edge in zip(preprocessing.size, pixels.shape[:2], strict=True)]
    if gaps == [0, 0]:
        return pixels
    margins = [(gap // 2, gap - gap // 2) for gap in gaps] + [(0, 0)] * (pixels.ndim - 2)
    return np.pad(pixels, margins, mode=border)


def to_view(
    image: Image.Image, preprocessing: Preprocessing, border: Border = "edge"
) -> NDArray[np.uint8]:
    """Pixels of the size of the maps: the crop, or all that is looked at and cut into tiles."""
    if preprocessing.tiles is None:
        return to_crop(image, preprocessing, border)
    return to_size(image, preprocessing, preprocessing.view)


def to_size(
    image: Image.Image, preprocessing: Preprocessing, size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Pixels (H, W, 3), or (H, W) of a grey image, of all that is looked at, at a size."""
    left, top, right, bottom = _looked_at(image, preprocessing)
    scaled = ByRows((bottom - top, right - left), size)
    for first in range(top, bottom, BAND):
        scaled.add(image.crop((left, first, right, min(first + BAND, bottom))))
    return scaled.pixels()


class ByRows:
    """An image that is brought to another size as its rows come, which are not kept.

    Bilinear, antialiased: each row by itself, then each column. Pillow has the one or the other
    first by what is cheaper, and the last bit is not the same.
    """

    def __init__(self, size_in_file: tuple[int, int], size: tuple[int, int]) -> None:
        self.size, self._height, self._filled = size, size_in_file[0], 0
        self._rows: NDArray[np.uint8] | None = None

    def add(self, image: Image.Image) -> None:
        """Take the next rows of the image, RGB or grey."""
        rows = np.asarray(image.resize((self.size[1], image.height), Image.Resampling.BILINEAR))
        if self._rows is None:
            self._rows = np.empty((self._height, *rows.shape[1:]), np.uint8)
        self._rows[self._filled : self._filled + len(rows)] = rows
        self._filled += len(rows)

    def pixels(self) -> NDArray[np.uint8]:
        """Return the whole when all rows have come."""
        rows, (height, width) = self._rows, self.size
        assert rows is not None
        assert self._filled == self._height
        if self._height == height:
            return rows
        pixels = np.empty((height, *rows.shape[1:]), np.uint8)
        for left in range(0, width, BAND):
            columns = Image.fromarray(rows[:, left : left + BAND])
            resized = columns.resize((columns.width, height), Image.Resampling.BILINEAR)
            pixels[:, left : left + BAND] = np.asarray(resized)
        return pixels


def _looked_at(image: Image.Image, preprocessing: Preprocessing) -> tuple[int, int, int, int]:
    return roi_of((image.height, image.width), preprocessing)


def refuse_other_proportions(size: tuple[int, int], preprocessing: Preprocessing) -> None:
    """Refuse an upright image of a height and width for which the category's zones do not hold.

    Raises:
        UnreadableImage: zones were drawn on an image of other proportions.
    """
    if not has_proportions(size, preprocessing):
        assert preprocessing.drawn_on is not None
        height, width = preprocessing.drawn_on
        raise UnreadableImage(
            f"{size[1]} x {size[0]} pixels have other proportions than the {width} x "
            f"{height} on which the category's zones were drawn; give images of one camera setting "
            f"a category of their own"
        )


def _resized(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Return the image at the network's scale, not yet padded."""
    height, width = preprocessing.size
    match preprocessing.fit:
        case "crop":
            return _central_crop(image, preprocessing.resize, (width, height))
        case "stretch":
            return image.resize((width, height), Image.Resampling.BILINEAR)
        case "pad":
            inside = inside_of(image.size, (width, height))
            return image.resize(inside, Image.Resampling.BILINEAR)


def _central_crop(image: Image.Image, resize: int, size: tuple[int, int]) -> Image.Image:
    """Return the central (width, height) of an image whose shorter side has ``resize`` pixels."""
    short = min(image.size)
    box = [*crop_box(image.size, resize, size)]
    window = [0, 0, *image.size]
    for axis, side in enumerate(image.size):
        if side > STRIP * short:  # Pillow's box is float32: count from nearby, not from the end
            window[axis] = int(box[axis]) - short - 2
            window[axis + 2] = window[axis] + 3 * short + 4
            box[axis] -= window[axis]
            box[axis + 2] -= window[axis]
    if window != [0, 0, *image.size]:
        image = image.crop((window[0], window[1], window[2], window[3]))
    return image.resize(size, Image.Resampling.BILINEAR, box=(box[0], box[1], box[2], box[3]))
