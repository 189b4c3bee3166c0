"""Tiles: an image at its own scale as overlapping squares, each an input of the network.

A thumbnail, the whole image stretched into such a square, may come behind them: tiles alone miss
what is large, or missing. Corners lie on multiples of what backbones divide by, so that the patch
grids of overlapping tiles coincide. The joined map of an image has a size that belongs to the
category, whatever the image's own.

Shapes: K inputs of an image (its T tiles, then the thumbnail), H x W pixels of it, S a tile's side,
h x w the patch grid of an input.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from model.embedding import resize

STEP = 32  # pixels; a multiple of every backbone's stride
LEAST_SIZE, MOST_SIZE = 64, 4096
BAND = 256  # rows of an image that are resized at a time
MOST_OVERLAP = 0.75
MOST_TILES = 1024  # of an image
LONGEST_VIEW = 1024  # pixels of a joined map's longer side

Size = tuple[int, int]  # height and width
Share = Literal["all"]


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """How an image is cut."""

    size: int = 256  # pixels, side of a tile; a multiple of 32
    overlap: float = 0.25  # share of a tile's side that the next one covers as well, at least
    scale: float = 1.0  # of the image before it is cut
    thumbnail: bool = True
    share: Share = "all"  # which tiles have one head together
    image: Size | None = None  # the good images' size in pixels, found in them

    def __post_init__(self) -> None:
        if not LEAST_SIZE <= self.size <= MOST_SIZE or self.size % STEP:
            raise ValueError(
                f"tiles.size must be a multiple of {STEP} in [{LEAST_SIZE}, {MOST_SIZE}], "
                f"got {self.size}"
            )
        if not 0 <= self.overlap <= MOST_OVERLAP:
            raise ValueError(f"tiles.overlap must lie in [0, {MOST_OVERLAP}], got {self.overlap}")
        if not 0 < self.scale <= 1:
            raise ValueError(f"tiles.scale must lie in (0, 1], got {self.scale}")
        if self.share != "all":
            raise ValueError(f"tiles.share must be all, got {self.share}")

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Tiles":
        """Return what plain values of every field say.

        Raises:
            TypeError, ValueError: they do not.
        """
        image = values.get("image")
        return cls(**{**values, "image": image and (int(image[0]), int(image[1]))})

    @property
    def view(self) -> Size:
        """Height and width of the category's maps and pictures, multiples of 32."""
        if self.image is None:
            return self.size, self.size
        height, width = self.scaled(self.image)
        shrunk = min(1.0, LONGEST_VIEW / max(height, width))
        return _rounded(height * shrunk), _rounded(width * shrunk)

    def scaled(self, size: Size) -> Size:
        """Return the size in which an image is cut."""
        return max(1, round(size[0] * self.scale)), max(1, round(size[1] * self.scale))

    def num_tiles(self, size: Size) -> int:
        """Return how many tiles an image of a size, already scaled, has."""
        return len(self._starts(size[0])) * len(self._starts(size[1]))

    def num_inputs(self, size: Size) -> int:
        """Return how often such an image goes through the network, K."""
        return self.num_tiles(size) + self.thumbnail

    def corners(self, size: Size) -> list[tuple[int, int]]:
        """Return top and left of every tile of such an image, row by row.

        The last tiles of a row or column are shifted inwards; an image that ends between two
        multiples of 32, or is smaller than a tile, has its border repeated.
        """
        return [(y, x) for y in self._starts(size[0]) for x in self._starts(size[1])]

    def cut(self, image_HWC: Tensor, most: int) -> Iterator[Tensor]:
        """Yield the inputs of a scaled image in order, (k, S, S, 3), at most so many at a time."""
        inputs = self._inputs(image_HWC)
        while some := list(islice(inputs, most)):
            yield torch.stack(some)

    def thumbnail_of(self, image_HWC: Tensor) -> Tensor:
        """Return the whole image as one input, (1, S, S, 3)."""
        # Row by row, then column by column, as at once, which would copy all pixels.
        rows = [_shrunk(rows, (len(rows), self.size)) for rows in image_HWC.split(BAND)]
        return _shrunk(torch.cat(rows), (self.size, self.size))[None]

    def join(self, patches_Khw: Tensor, size: Size, grid: Size) -> Tensor:
        """Return the patch scores of an image's inputs as those of its whole, on another grid.

        Where tiles overlap each counts less towards its edge, so that no seam shows; of tiles and
        thumbnail the higher one counts. A coarser grid has the highest score of what it covers, so
        that a small defect does not vanish in it.

        Args:
            patches_Khw: of all inputs, in order.
            size: of the image that was cut.
            grid: of the map, (h, w).
        """
        side = patches_Khw.shape[1]
        stride = self.size // side
        corners = [(top // stride, left // stride) for top, left in self.corners(size)]
        window_hw = _window(side).to(patches_Khw)
        last_top, last_left = corners[-1]
        total = patches_Khw.new_zeros(2, last_top + side, last_left + side)
        for patches_hw, (top, left) in zip(patches_Khw, corners, strict=False):
            part = total[:, top : top + side, left : left + side]
            part += torch.stack([patches_hw * window_hw, window_hw])
        joined = (total[0] / total[1])[: -(-size[0] // stride), : -(-size[1] // stride)]
        joined = _on_grid(joined, grid)
        if self.thumbnail:
            joined = torch.maximum(joined, _on_grid(patches_Khw[-1], grid))
        return joined

    def _inputs(self, image_HWC: Tensor) -> Iterator[Tensor]:
        height, width = image_HWC.shape[:2]
        for top, left in self.corners((height, width)):
            yield self._tile(image_HWC, top, left)
        if self.thumbnail:
            yield self.thumbnail_of(image_HWC)[0]

    def _starts(self, length: int) -> list[int]:
        last = max(self.size, -(-length // STEP) * STEP) - self.size
        step = max(STEP, int(self.size * (1 - self.overlap)) // STEP * STEP)
        return [*range(0, last, step), last]

    def _tile(self, image_HWC: Tensor, top: int, left: int) -> Tensor:
        part = image_HWC[top : top + self.size, left : left + self.size]
        for axis in (0, 1):
            missing = self.size - part.shape[axis]
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


def _rounded(length: float) -> int:
    return max(STEP, round(length / STEP) * STEP)
