"""Made defects of so many pixels of the image itself, on good images that are read whole.

They say what a category's resolution costs, and stand for no real defect: a spot or a scratch of
what the image shows elsewhere, in another colour, blended in with an opacity from barely visible
to obvious. The same defect is made in every size at the same place.

Shapes: H x W pixels of an image at its own scale, RGB.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.preprocessing import Preprocessing
from model.tiles import MOST_SIZE, STEP, Tiles
from pipeline.catalogue.catalogue import Category
from pipeline.images.decode import read_image
from pipeline.images.masks import MASK_LEVEL
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
from pipeline.onboarding.zones import marked_image

SIZES = (4, 8, 16, 32)  # pixels of the image, longer side of a defect
SPOT, SCRATCH = (0.5, 1.0), (0.1, 0.25)  # width of each by its length
VISIBLE_SHARE = 0.5  # of a defect's pixels, which differ by ``synthetic.MIN_CHANGE``

Bounds = tuple[int, int, int, int]  # left, top, right, bottom


@dataclass(frozen=True, kw_only=True)
class SmallDefect:
    """A good image with a defect of one size."""

    size: int  # pixels
    pixels: Pixels  # (H, W, 3)


def read_whole(uri: str, preprocessing: Preprocessing) -> Pixels | None:
    """Return a whole image at its own scale; None where it cannot be read any more."""
    tiles = Tiles(size=MOST_SIZE, overlap=0, image=(STEP, STEP))  # of few tiles and a small view
    ways = replace(preprocessing, crop=MOST_SIZE, fit="stretch", tiles=tiles)
    return read_image(uri, replace(ways, roi=None, drawn_on=None)).pixels


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


def where_ignored(category: Category, size: tuple[int, int]) -> Mask | None:
    """Return what of an image of a size does not count, (H, W); None: nothing is drawn."""
    marked = marked_image(category)
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
            whole = image.copy()
            whole[place] = pixels
            return SmallDefect(size=size, pixels=whole)
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
