"""Pixels of an image as inputs of the network, and the scores of those inputs as one map.

Shapes: K inputs of an image (its T tiles, then the thumbnail), H x W pixels of it, S a tile's side,
h x w the patch grid of an input.
"""

from collections.abc import Iterator
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor

from model.embedding import resize
from model.tiles import Size, Tiles
from model.zones import fill

BAND = 256  # rows of an image that are resized at a time


def cut(tiles: Tiles, image_HWC: Tensor, most: int) -> Iterator[Tensor]:
    """Yield the inputs of a scaled image in order, (k, S, S, 3), at most so many at a time."""
    inputs = _inputs(tiles, image_HWC)
    while some := list(islice(inputs, most)):
        yield torch.stack(some)


def thumbnail_of(tiles: Tiles, image_HWC: Tensor) -> Tensor:
    """Return the whole image as one input, (1, S, S, 3)."""
    # Row by row, then column by column, as at once, which would copy all pixels.
    rows = [_shrunk(rows, (len(rows), tiles.size)) for rows in image_HWC.split(BAND)]
    return _shrunk(torch.cat(rows), (tiles.size, tiles.size))[None]


def join(
    tiles: Tiles, patches_Khw: Tensor, size: Size, grid: Size, counts_hw: Tensor | None = None
) -> Tensor:
    """Return the patch scores of an image's inputs as those of its whole, on another grid.

    Where tiles overlap each counts less towards its edge, so that no seam shows; of tiles and
    thumbnail the higher one counts. A coarser grid has the highest score of what it covers, so
    that a small defect does not vanish in it.

    Args:
        tiles: how the image was cut.
        patches_Khw: of all inputs, in order.
        size: of the image that was cut.
        grid: of the map, (h, w).
        counts_hw: which positions of the image count; the others have the lowest score. None: all.
    """
    side = patches_Khw.shape[1]
    stride = tiles.size // side
    corners = [(top // stride, left // stride) for top, left in tiles.corners(size)]
    window_hw = _window(side).to(patches_Khw)
    last_top, last_left = corners[-1]
    total = patches_Khw.new_zeros(2, last_top + side, last_left + side)
    for patches_hw, (top, left) in zip(patches_Khw, corners, strict=False):
        part = total[:, top : top + side, left : left + side]
        part += torch.stack([patches_hw * window_hw, window_hw])
    joined = (total[0] / total[1])[: -(-size[0] // stride), : -(-size[1] // stride)]
    if counts_hw is not None:
        joined = fill(joined[None], counts_hw.to(joined.device))[0]
    joined = _on_grid(joined, grid)
    if tiles.thumbnail:
        joined = torch.maximum(joined, _on_grid(patches_Khw[-1], grid))
        if counts_hw is not None:  # the thumbnail's coarser positions reach into what does not
            on_grid = _on_grid(counts_hw.to(joined), grid) >= 0.5
            joined = fill(joined[None], on_grid)[0]
    return joined


def _inputs(tiles: Tiles, image_HWC: Tensor) -> Iterator[Tensor]:
    height, width = image_HWC.shape[:2]
    for top, left in tiles.corners((height, width)):
        yield tile_at(tiles, image_HWC, top, left)
    if tiles.thumbnail:
        yield thumbnail_of(tiles, image_HWC)[0]


def tile_at(tiles: Tiles, image_HWC: Tensor, top: int, left: int) -> Tensor:
    """Return the tile with this corner, (S, S, 3), the border repeated where the image ends."""
    part = image_HWC[top : top + tiles.size, left : left + tiles.size]
    for axis in (0, 1):
        missing = tiles.size - part.shape[axis]
        if missing:
            border = part.narrow(axis, part.shape[axis] - 1, 1)
            repeats = [1, 1, 1]
            repeats[axis] = missing
            part = torch.cat([part, border.repeat(repeats)], dim=axis)
    return part


def _shrunk(image_HWC: Tensor, size: Size) -> Tensor:
    """Return uint8 pixels at another size: bilinear, antialiased."""
    pixels = image_HWC.permute(2, 0, 1)[None]
    resized = F.interpolate(pixels, size=size, mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0).contiguous()


def _window(side: int) -> Tensor:
    """Return how much each patch of a tile counts, (h, w): most in its middle."""
    at = torch.arange(side, dtype=torch.float32)
    slope = torch.minimum(at + 0.5, side - 0.5 - at) / side
    return slope[:, None] * slope


def _on_grid(patches_hw: Tensor, grid: Size) -> Tensor:
    """Return patch scores on another grid: the highest of each cell, or what lies between two."""
    height, width = patches_hw.shape
    coarser = (min(height, grid[0]), min(width, grid[1]))
    return resize(F.adaptive_max_pool2d(patches_hw[None, None], coarser), grid)[0, 0]
