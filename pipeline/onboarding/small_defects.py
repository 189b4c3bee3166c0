"""Made defects of so many pixels of the image itself, on good images that are read whole.

They say what a category's resolution costs, and stand for no real defect: a spot or a scratch of
what the image shows elsewhere, in another colour, blended in with an opacity from barely visible
to obvious. The same defect is made in every size at the same place.

Shapes: H x W pixels of an image at its own scale, RGB.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.preprocessing import Preprocessing
from pipeline.images.masks import MASK_LEVEL
from pipeline.images.page_numbers import file_and_page
from pipeline.images.picture import ImageFile, ImageTooLarge, UnreadableImage
from pipeline.images.pixel_range import as_rgb
from pipeline.images.placement import placement
from pipeline.onboarding.synthetic import (
    MAX_DRAWS,
    OPACITY,
    TEXTURE_JITTER,
    Mask,
    Pixels,
    blend,
    jitter,
    turned_grid,
)
from pipeline.storage import StorageError, read_bytes

SIZES = (4, 8, 16, 32)  # pixels of the image, longer side of a defect
SPOT, SCRATCH = (0.5, 1.0), (0.1, 0.25)  # width of each by its length
VISIBLE_SHARE = 0.5  # of a defect's pixels, which differ by ``synthetic.MIN_CHANGE``

Bounds = tuple[int, int, int, int]  # left, top, right, bottom


@dataclass(frozen=True, kw_only=True)
class SmallDefect:
    """A defect of one size on a good image: what of it is other."""

    size: int  # pixels
    place: tuple[slice, slice]  # rows and columns of the image
    pixels: Pixels  # (size, size, 3)


def read_whole(uri: str, preprocessing: Preprocessing) -> Pixels | None:
    """Return a whole image at its own scale; None where it cannot be read any more."""
    address, page = file_and_page(uri, preprocessing.pages)
    try:
        picture = ImageFile(read_bytes(address), preprocessing.max_pixels).page(page or 1)
        return np.asarray(as_rgb(picture, preprocessing.pixel_range)[0])
    except (StorageError, UnreadableImage, ImageTooLarge):
        return None


def common_bounds(size: tuple[int, int], ways: Sequence[Preprocessing]) -> Bounds:
    """Return what of an image all of these ways of reading it look at."""
    boxes = []
    for each in ways:
        place = placement(size, each)
        left, top, width, height = place.box
        seen = left, top, left + width, top + height
        boxes.append([*map(max, seen[:2], place.bounds[:2]), *map(min, seen[2:], place.bounds[2:])])
    low = np.ceil(np.max(boxes, axis=0)[:2]).astype(int).tolist()
    high = np.floor(np.min(boxes, axis=0)[2:]).astype(int).tolist()
    return low[0], low[1], high[0], high[1]


def where_ignored(marked: Image.Image | None, size: tuple[int, int]) -> Mask | None:
    """Return what of an image of a size does not count, (H, W); None: nothing is drawn.

    Args:
        marked: what ``zones.marked_image`` returns.
        size: height and width.
    """
    if marked is None:
        return None
    levels = marked.resize(size[::-1], Image.Resampling.NEAREST)
    ignored: Mask = np.asarray(levels) > MASK_LEVEL
    return ignored


def small_defects(
    image: Pixels,
    within: Bounds,
    ignored: Mask | None,
    seed: int,
    sizes: Sequence[int] = SIZES,
) -> Iterator[SmallDefect]:
    """Yield one defect of each size, from the smallest on.

    A size is left out where there is no room for it, or nothing that would be seen.

    Args:
        image: a good one, (H, W, 3).
        within: where defects may lie.
        ignored: what does not count, (H, W): no defect touches it. None: all counts.
        seed: the same one gives the same defects.
        sizes: pixels, at least 2.
    """
    for size in sizes:
        made = _make(image, within, ignored, np.random.default_rng(seed), size)
        if made is not None:
            yield made


def _make(
    image: Pixels, within: Bounds, ignored: Mask | None, random: np.random.Generator, size: int
) -> SmallDefect | None:
    """Draw place, shape, content and opacity until it is seen, where it counts."""
    left, top, right, bottom = within
    room = np.array([bottom - top, right - left]) - size
    if room.min() < 0:
        return None
    shape = (SPOT, SCRATCH)[random.integers(2)]
    for _ in range(MAX_DRAWS):
        to, source = random.uniform(size=(2, 2))
        region = _stroke(size, random.uniform(*shape), random.uniform(0, math.pi))
        colours, opacity = random.integers(2**32), random.uniform(*OPACITY)
        place = _square(np.rint(to * room + [top, left]), size)
        other = image[_square(np.floor(source * (np.array(image.shape[:2]) - size + 1)), size)]
        content = jitter(other, TEXTURE_JITTER, np.random.default_rng(colours))
        pixels, mask = blend(image[place], content, region, opacity)
        counts = ignored is None or not ignored[place][region].any()
        if counts and mask.sum() >= VISIBLE_SHARE * region.sum():
            return SmallDefect(size=size, place=place, pixels=pixels)
    return None


def _square(corner: NDArray[np.float64], size: int) -> tuple[slice, slice]:
    top, left = map(int, corner)
    return slice(top, top + size), slice(left, left + size)


def _stroke(size: int, width: float, angle: float) -> Mask:
    """Return an ellipse as long as the square, (size, size), turned; two pixels wide at least."""
    middle = np.full(2, (size - 1) / 2)
    down, across = turned_grid((size, size), middle, angle)
    region: Mask = np.hypot(down / max(width * size, 2.0), across / size) <= 0.5
    return region
