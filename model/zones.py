"""Zones that do not count: which patches of an image have a say, and how many must agree.

Ignored positions of the finest grid leave the highest patch score and the means of the features.
With a least area an image scores the highest level at which that many positions that touch, be it
at a corner, reach it together: an area opening, so that a speck counts for nothing.

A position sees what lies around it: something large right beside an ignored position, or in it,
still reaches its neighbours.

Shapes: B images, h x w the finest grid, C channels of a level.
Source: area openings, Vincent 1993 (Morphological area openings and closings for greyscale images).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from model.embedding import mean_levels


@dataclass(frozen=True, kw_only=True)
class Zones:
    """What does not count, on the finest grid of one category."""

    ignored: tuple[str, ...] = ()  # a row of the grid each: "1" where a position does not count
    min_area: int = 1  # positions
    # Pixels from one position to the next, where an image is cut into tiles: the grid is then that
    # of the whole image at the scale at which it is cut.
    stride: int | None = None

    def __post_init__(self) -> None:
        widths = {len(row) for row in self.ignored}
        if len(widths) > 1 or not set("".join(self.ignored)) <= set("01"):
            raise ValueError("ignored positions are rows of 0 and 1, all equally long")
        if self.ignored and "0" not in "".join(self.ignored):
            raise ValueError("every position is ignored, so none is left to score")
        if self.min_area < 1:
            raise ValueError(f"min_area must be at least 1 position, got {self.min_area}")

    @property
    def is_everywhere(self) -> bool:
        """Whether every position counts, and alone."""
        return not self.ignored and self.min_area == 1

    def counts_on(self, grid: tuple[int, int], device: torch.device | str = "cpu") -> Tensor:
        """Return which positions of such a grid, the finest one, count, (h, w)."""
        if not self.ignored:
            return torch.ones(grid, dtype=torch.bool, device=device)
        return _counts(self.ignored, torch.device(device))

    def highest(self, scores_Bhw: Tensor) -> Tensor:
        """Return the highest score (B,) that counts."""
        if self.is_everywhere:
            return scores_Bhw.flatten(1).amax(dim=1)
        counting_Bhw = self._counting(scores_Bhw)
        if self.min_area == 1:
            return counting_Bhw.flatten(1).amax(dim=1)
        levels = [_area_level(each.tolist(), self.min_area) for each in counting_Bhw.cpu()]
        return torch.tensor(levels, dtype=scores_Bhw.dtype, device=scores_Bhw.device)

    def worst(self, scores_Bhw: Tensor) -> Tensor:
        """Return the index (B,), row by row, of a position that has the highest score."""
        if self.is_everywhere:
            return scores_Bhw.flatten(1).argmax(dim=1)
        is_highest_Bhw = self._counting(scores_Bhw) == self.highest(scores_Bhw)[:, None, None]
        return is_highest_Bhw.flatten(1).float().argmax(dim=1)

    def filled(self, scores_Bhw: Tensor) -> Tensor:
        """Return patch scores with the image's lowest one where positions do not count."""
        if not self.ignored:
            return scores_Bhw
        return fill(scores_Bhw, _counts(self.ignored, scores_Bhw.device))

    def positions(self, values: Tensor) -> Tensor:
        """Return what counts of values (..., h, w) on the finest grid, (..., P)."""
        flat = values.flatten(-2)
        return flat[..., _counts(self.ignored, values.device).flatten()] if self.ignored else flat

    def means(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Return each level's mean over what counts of it: one (B, C, 1, 1) "map" per level."""
        if not self.ignored:
            return mean_levels(levels)
        return [
            (level.float() * (weight := self._weights(level))).sum(dim=(2, 3), keepdim=True)
            / weight.sum()
            for level in levels
        ]

    def mean_squares(self, scores_Bhw: Tensor, side: int) -> Tensor:
        """Return the mean of what counts of each square of ``side`` x ``side``, one apart."""
        if not self.ignored:
            return F.avg_pool2d(scores_Bhw[:, None], side, stride=1)[:, 0]
        counts_hw = _counts(self.ignored, scores_Bhw.device).float()
        sums = F.avg_pool2d((scores_Bhw * counts_hw)[:, None], side, stride=1)[:, 0]
        share = F.avg_pool2d(counts_hw[None], side, stride=1)[0]
        return sums / share.clamp_min(1e-9)

    def of_squares(self, side: int) -> "Zones":
        """Return the zones of such means, where each square stands for a position.

        A square counts where any of its positions does.
        """
        if side == 1 or not self.ignored:
            return self
        counts_hw = _counts(self.ignored, torch.device("cpu")).float()
        counts = F.max_pool2d(counts_hw[None], side, stride=1)[0].tolist()
        rows = ("".join("0" if place else "1" for place in row) for row in counts)
        return Zones(ignored=tuple(rows), min_area=self.min_area)

    def _counting(self, scores_Bhw: Tensor) -> Tensor:
        if not self.ignored:
            return scores_Bhw
        return scores_Bhw.masked_fill(~_counts(self.ignored, scores_Bhw.device), -torch.inf)

    def _weights(self, level: Tensor) -> Tensor:
        """Return which share of each position of a level counts, (H, W)."""
        counts_hw = _counts(self.ignored, level.device).float()
        return F.adaptive_avg_pool2d(counts_hw[None], (level.shape[2], level.shape[3]))[0]


EVERYWHERE = Zones()


def fill(scores_Bhw: Tensor, counts_hw: Tensor) -> Tensor:
    """Return scores with each image's lowest one that counts where positions do not."""
    lowest_B = scores_Bhw.masked_fill(~counts_hw, torch.inf).flatten(1).amin(dim=1)
    return torch.where(counts_hw, scores_Bhw, lowest_B[:, None, None])


def read_zones(values: Mapping[str, Any]) -> Zones:
    """Return zones of plain values, as ``dataclasses.asdict`` gives them.

    Raises:
        TypeError, ValueError: they are none.
    """
    return Zones(**{**values, "ignored": tuple(values.get("ignored", ()))})


def _counts(ignored: tuple[str, ...], device: torch.device) -> Tensor:
    """Return which positions count, (h, w); made once, but for a graph's own constant."""
    make = _made.__wrapped__ if torch.compiler.is_exporting() else _made
    return make(ignored, device)


@lru_cache(maxsize=1024)
def _made(ignored: tuple[str, ...], device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        rows = [[place == "0" for place in row] for row in ignored]
        return torch.tensor(rows, dtype=torch.bool, device=device)


def _area_level(scores_hw: list[list[float]], area: int) -> float:
    """Return the highest level that ``area`` positions which touch reach together.

    From the highest position down each joins its neighbours that are there already; the first
    group that is large enough ends it, after few positions on most images. Where none ever is, the
    lowest score that counts. A score that is no number is the answer.
    """
    height, width = len(scores_hw), len(scores_hw[0])
    flat = [score for row in scores_hw for score in row]
    if any(map(math.isnan, flat)):
        return math.nan
    group: dict[int, int] = {}  # of the positions so far: the next one on the way to the first
    sizes: dict[int, int] = {}
    level = max(flat)
    for position in sorted(range(len(flat)), key=flat.__getitem__, reverse=True):
        if flat[position] == -math.inf:
            break
        level = flat[position]
        group[position], sizes[position] = position, 1
        row, column = divmod(position, width)
        for y in range(max(row - 1, 0), min(row + 2, height)):
            for x in range(max(column - 1, 0), min(column + 2, width)):
                _join(group, sizes, position, y * width + x)
        if sizes[_first(group, position)] >= area:
            break
    return level


def _join(group: dict[int, int], sizes: dict[int, int], one: int, other: int) -> None:
    if other not in group:
        return
    first, second = _first(group, one), _first(group, other)
    if first != second:
        group[second] = first
        sizes[first] += sizes.pop(second)


def _first(group: dict[int, int], position: int) -> int:
    while group[position] != position:
        group[position] = group[group[position]]
        position = group[position]
    return position
