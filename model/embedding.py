"""Local patch features: average over a small window, per level, then one joint grid.

Pooling acts on each channel and resizing acts on each position, so the levels stay apart, on
their own grids, for as long as possible: the cache holds pooled levels, the folded head
convolves them before anything is resized. Pooled features are always rounded to half
precision, so that what a head was trained on and what it scores at night are the same numbers.

Shapes: B images, H x W positions, C channels; K patches.
Source: SimpleNet, Liu et al. 2023 (arXiv:2303.15140), section 3.1, equations 1 to 3; the
"official" embedding is what the authors' released code computes instead.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

OFFICIAL_WIDTH = 1536  # channels of the official embedding, shared out equally among the levels

EmbeddingKind = Literal["paper", "official"]


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """How a level's map becomes patch features.

    ``paper`` averages every channel over the window. ``official`` unfolds the window and averages
    runs of neighbouring values, over channel, row and column, down to a fixed width: a linear map
    of the same window that mixes adjacent channels and keeps some of the position inside it.
    """

    kind: EmbeddingKind = "paper"
    patch_size: int = 3  # side of the window, odd; zero padding counts in the average

    def __post_init__(self) -> None:
        if self.patch_size < 1 or self.patch_size % 2 == 0:
            raise ValueError(f"patch_size must be odd, got {self.patch_size}")

    def channels(self, level_channels: Sequence[int]) -> tuple[int, ...]:
        """Return the width of each level after pooling."""
        if self.kind == "paper":
            return tuple(level_channels)
        return (OFFICIAL_WIDTH // len(level_channels),) * len(level_channels)

    def pool(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Return half-precision maps (B, C', H, W), each on its level's own grid."""
        size = self.patch_size
        if self.kind == "paper":
            pooled = [F.avg_pool2d(x_BCHW, size, 1, size // 2) for x_BCHW in levels]
        else:
            pooled = [_official(x_BCHW, size, len(levels)) for x_BCHW in levels]
        return [level.half() for level in pooled]


def join_levels(pooled: Sequence[Tensor]) -> Tensor:
    """Resize every level to the first one's grid (bilinear) and concatenate the channels."""
    grid = pooled[0].shape[2:]
    resized = [pooled[0].float()] + [resize(level.float(), grid) for level in pooled[1:]]
    return torch.cat(resized, dim=1)


def resize(x_BCHW: Tensor, grid: Sequence[int]) -> Tensor:
    """Bilinear resize that does not align corners: the paper's and the reference's choice."""
    if x_BCHW.shape[2:] == torch.Size(grid):
        return x_BCHW
    return F.interpolate(x_BCHW, size=tuple(grid), mode="bilinear", align_corners=False)


def mean_levels(levels: Sequence[Tensor]) -> list[Tensor]:
    """Average each level over all its positions: one (B, C, 1, 1) "map" per level."""
    return [level.float().mean(dim=(2, 3), keepdim=True) for level in levels]


def _official(x_BCHW: Tensor, size: int, num_levels: int) -> Tensor:
    """Two successive adaptive averages over the unfolded window, as one where they divide evenly.

    With WideResNet-50 and a 3 x 3 window every output is the mean of whole rows of the window, so
    nothing needs unfolding but the rows.
    """
    batch, channels, height, width = x_BCHW.shape
    outputs = OFFICIAL_WIDTH // num_levels
    if channels * size % outputs == 0 and (channels * size * size) % OFFICIAL_WIDTH == 0:
        rows = F.avg_pool2d(x_BCHW, (1, size), 1, (0, size // 2))
        padded = F.pad(rows, (0, 0, size // 2, size // 2))
        shifted = torch.stack([padded[:, :, dy : dy + height] for dy in range(size)], dim=2)
        return shifted.reshape(batch, outputs, -1, height, width).mean(dim=2)
    unfolded = F.unfold(x_BCHW, size, padding=size // 2).transpose(1, 2)  # (B, HW, C size size)
    wide = F.adaptive_avg_pool1d(unfolded, OFFICIAL_WIDTH)
    pooled: Tensor = F.adaptive_avg_pool1d(wide, outputs)
    return pooled.transpose(1, 2).reshape(batch, outputs, height, width)
