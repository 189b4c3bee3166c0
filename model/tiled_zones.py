"""What counts of the inputs that an image is cut into, by what counts of the whole image.

The zones of a category with tiles are drawn on the patch grid of an image of the usual size, before
it is cut. On an image of another size they hold in shares of its sides, as its tiles do.

A least area is asked of each input alone: tiles are scored one by one. What lies across a seam is
whole in a tile where it is no larger than their overlap. The tiles of a larger image show less of
it each: of them no more is asked than the square of their overlap has, or than of the usual image,
so that an anomaly is rather flagged though it is too small than missed.

Shapes: K inputs of an image (its T tiles, then the thumbnail), h x w the patch grid of the image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from model.tiles import Size, Tiles
from model.zones import EVERYWHERE, Zones


@dataclass(frozen=True, eq=False)
class InputZones:
    """What counts of one image."""

    of_inputs: tuple[Zones, ...]  # K of them; EVERYWHERE of an input that does not count at all
    counts: Tensor  # (K,), whether an input does
    positions: Tensor | None  # (h, w), whether a position of the image does; None: all do

    def taking_part(self, group_K: Tensor) -> Tensor:
        """Return which inputs stand for their group, (K,): those that count.

        Where none of a group does they all stand for it: its heads exist, and say nothing.
        """
        return self.counts | ~torch.isin(group_K, group_K[self.counts])


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def zones_of_inputs(zones: Zones, tiles: Tiles, size: Size) -> InputZones:
    """Return what counts of the inputs of an image of a size, already scaled."""
    if zones.is_everywhere:
        number = tiles.num_inputs(size)
        return InputZones((EVERYWHERE,) * number, torch.ones(number, dtype=torch.bool), None)
    assert zones.stride, "zones of tiles know it"
    assert tiles.image, "zones of tiles know it"
    stride, usual = zones.stride, tiles.scaled(tiles.image)
    side = tiles.size // stride
    own_hw = _of_image(zones, size, usual)
    # A border that is repeated does not count: it would make a speck of it large.
    counts_hw = F.pad(own_hw, (0, side, 0, side))
    corners = [(top // stride, left // stride) for top, left in tiles.corners(size)]
    squares = [counts_hw[top : top + side, left : left + side] for top, left in corners]
    area, pixels = zones.min_area * size[0] * size[1], usual[0] * usual[1]
    shown = max(zones.min_area, ((tiles.size - tiles.step) // stride) ** 2)
    of_inputs = [_zones_of(square, min(-(-area // pixels), shown)) for square in squares]
    if tiles.thumbnail:
        # Its positions stand for many of the image, and look as far beyond them: those alone count
        # of which nothing is ignored.
        squares.append(F.adaptive_avg_pool2d(own_hw[None].float(), side)[0] == 1)
        of_inputs.append(_zones_of(squares[-1], -(-zones.min_area * tiles.size**2 // pixels)))
    counts_K = torch.stack([square.any() for square in squares])
    return InputZones(tuple(of_inputs), counts_K, own_hw if zones.ignored else None)


def _of_image(zones: Zones, size: Size, usual: Size) -> Tensor:
    """Return which positions of an image count, (h, w)."""
    assert zones.stride
    numbers = [-(-side // zones.stride) for side in size]
    every_hw = torch.ones(numbers, dtype=torch.bool)
    if not zones.ignored:
        return every_hw
    drawn = torch.tensor([[place == "0" for place in row] for row in zones.ignored])
    row_h, column_w = (
        _same_place(*sides, zones.stride).clamp_max(length - 1)
        for sides, length in zip(zip(numbers, size, usual, strict=True), drawn.shape, strict=True)
    )
    counts_hw = drawn[row_h][:, column_w]
    # Of an image so small that no position is left, all count: it is rather flagged than missed.
    return counts_hw if counts_hw.any() else every_hw


def _same_place(number: int, length: int, usual: int, stride: int) -> Tensor:
    """Return the position along a side of the usual length that lies where each of these does."""
    middle = ((torch.arange(number) + 0.5) * stride).clamp_max(length - 0.5).double()
    return (middle * usual / length / stride).long()


def _zones_of(counts: Tensor, least: int) -> Zones:
    """Return the zones of an input; of one smaller than the least area it counts as a whole."""
    if not counts.any():
        return EVERYWHERE
    least = min(max(least, 1), counts.numel())
    rows: Sequence[str] = ()
    if not counts.all():
        rows = ["".join("10"[place] for place in row) for row in counts.int().tolist()]
    return Zones(ignored=tuple(rows), min_area=least)
