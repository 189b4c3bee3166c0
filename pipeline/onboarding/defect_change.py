"""What a made defect changes of the pixels that go through the network.

The change is the difference that it makes in an image brought to the size of what was really read,
and is added to that: how a JPEG was decoded is no defect. Only what lies around the defect is
brought to that size, so that an image of 100 megapixels costs no more than a small one.

Shapes: H x W pixels of an image, S a side of what the network sees.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from model.preprocessing import Preprocessing
from model.tile_pixels import thumbnail_of, tile_at
from model.tiles import Size, Tiles
from pipeline.images.decode import read_image
from pipeline.images.placement import Box, placement
from pipeline.onboarding.small_defects import SmallDefect, read_whole
from pipeline.onboarding.synthetic import Pixels

NEARLY = 1e-6  # pixels

Inputs = dict[int, Pixels]  # those that changed of an image, by their number, (S, S, 3)


@dataclass(frozen=True, kw_only=True)
class GoodImage:
    """A good image whole, at its own scale, and as it is read."""

    whole: Pixels  # (H, W, 3)
    read: Pixels  # as ``ImageRead.pixels``
    preprocessing: Preprocessing

    @cached_property
    def thumbnail(self) -> Pixels:
        """Return the thumbnail of an image that is cut into tiles, (S, S, 3)."""
        assert self.preprocessing.tiles is not None
        pixels: Pixels = thumbnail_of(self.preprocessing.tiles, torch.from_numpy(self.read))[
            0
        ].numpy()
        return pixels

    def changed_inputs(self, defect: SmallDefect) -> Inputs:
        """Return the inputs of the network that a defect on this image changes."""
        rows, columns = defect.place
        place = placement(_size_of(self.whole), self.preprocessing)
        left, top, right, bottom = place.bounds  # what lies outside is not read
        other = defect.pixels.astype(np.int16) - self.whole[defect.place]
        on_seen = _Change(top=rows.start - top, left=columns.start - left, values=other)
        box = place.box[0] - left, place.box[1] - top, *place.box[2:]
        change = _brought(on_seen, self.whole[top:bottom, left:right], box, _size_of(self.read))
        if self.preprocessing.tiles is None:
            made = {0: change.added_to(self.read)}
        else:
            made = self._changed_tiles(change, self.preprocessing.tiles)
        return {number: pixels for number, pixels in made.items() if pixels is not None}

    def _changed_tiles(self, change: "_Change", tiles: Tiles) -> dict[int, Pixels | None]:
        size, side = _size_of(self.read), tiles.size
        made: dict[int, Pixels | None] = {}
        for number, (top, left) in enumerate(tiles.corners(size)):
            part = change.added_to(self.read[top : top + side, left : left + side], top, left)
            if part is not None:
                made[number] = tile_at(tiles, torch.from_numpy(part), 0, 0).numpy()
        if tiles.thumbnail:
            box = 0.0, 0.0, float(size[1]), float(size[0])
            small = _brought(change, self.read, box, (side, side))
            made[tiles.num_tiles(size)] = small.added_to(self.thumbnail)
        return made


def good_image(uri: str, preprocessing: Preprocessing) -> GoodImage | None:
    """Return an image that is read again; None where it cannot be any more."""
    read = read_image(uri, preprocessing)
    if read.pixels is None:
        return None
    is_whole = preprocessing.tiles is not None and read.size == _size_of(read.pixels)
    whole = read.pixels if is_whole else read_whole(uri, preprocessing)
    if whole is None:
        return None
    return GoodImage(whole=whole, read=read.pixels, preprocessing=preprocessing)


@dataclass(frozen=True, kw_only=True)
class _Side:
    """One side of what is looked at: so many pixels over a part of the image."""

    start: float  # pixel of the image
    step: float  # pixels of the image for one
    num: int
    whole: int  # pixels of the image

    @property
    def reach(self) -> float:
        """How far the filter looks from the middle of a pixel, in pixels of the image."""
        return max(self.step, 1.0)

    def seeing(self, start: int, stop: int) -> tuple[int, int]:
        """Return which pixels see a change: the first, and the one behind the last."""
        first = math.floor((start - self.reach - self.start) / self.step)
        last = math.ceil((stop + self.reach - self.start) / self.step)
        inside = math.ceil(-self.start / self.step - NEARLY)  # what lies outside is padded
        beyond = math.floor((self.whole - self.start) / self.step + NEARLY)
        first = max(first, inside, 0)
        return first, max(first, min(last, beyond, self.num))

    def seen(self, start: int, stop: int) -> tuple[slice, float, float]:
        """Return what of the image some pixels are made of, and from where to where they lie."""
        first, last = (min(max(self.start + n * self.step, 0), self.whole) for n in (start, stop))
        low = max(math.floor(first - self.reach) - 1, 0)
        high = min(math.ceil(last + self.reach) + 1, self.whole)
        return slice(low, high), first - low, last - low


@dataclass(frozen=True, kw_only=True)
class _Change:
    """What is added to some pixels of a picture."""

    top: int
    left: int
    values: NDArray[np.int16]  # (h, w, 3)

    def added_to(self, part: Pixels, top: int = 0, left: int = 0) -> Pixels | None:
        """Return a part of the picture, whose corner is given, with it; None: nothing changes."""
        corner = np.array([self.top - top, self.left - left])
        first = np.maximum(corner, 0)
        last = np.minimum(corner + self.values.shape[:2], part.shape[:2])
        if (first >= last).any():
            return None
        (y, x), (end_y, end_x) = first, last
        values = self.values[y - corner[0] : end_y - corner[0], x - corner[1] : end_x - corner[1]]
        if not values.any():
            return None
        made = part.copy()
        made[y:end_y, x:end_x] = np.clip(made[y:end_y, x:end_x] + values, 0, 255)
        return made


def _brought(change: _Change, image: Pixels, box: Box, size: Size) -> _Change:
    """Return what a change of an image becomes where a box of the image is brought to a size."""
    left, top, width, height = box
    rows = _Side(start=top, step=height / size[0], num=size[0], whole=image.shape[0])
    columns = _Side(start=left, step=width / size[1], num=size[1], whole=image.shape[1])
    high, wide = change.values.shape[:2]
    y, end_y = rows.seeing(change.top, change.top + high)
    x, end_x = columns.seeing(change.left, change.left + wide)
    nothing = np.zeros((0, 0, 3), np.int16)
    if y == end_y or x == end_x:
        return _Change(top=y, left=x, values=nothing)
    (down, first_y, last_y), (across, first_x, last_x) = rows.seen(y, end_y), columns.seen(x, end_x)
    good = image[down, across]
    made = change.added_to(good, down.start, across.start)
    if made is None:
        return _Change(top=y, left=x, values=nothing)
    one, other = (
        np.asarray(
            Image.fromarray(each).resize(
                (end_x - x, end_y - y),
                Image.Resampling.BILINEAR,
                box=(first_x, first_y, last_x, last_y),
            ),
            np.int16,
        )
        for each in (good, made)
    )
    return _Change(top=y, left=x, values=other - one)


def _size_of(pixels: Pixels) -> Size:
    return pixels.shape[0], pixels.shape[1]
