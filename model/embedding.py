"""Local patch features: average over a small window, per level, then one joint grid.

Pooling acts on each channel and resizing acts on each position, so the levels stay apart, on
their own grids, for as long as possible: the cache holds pooled levels, the folded head
convolves them before anything is resized. Pooled features are always rounded to half
precision, so that what a head was trained on and what it scores at night are the same numbers.

Shapes: B images, H x W positions, C channels; K patches.
Source: SimpleNet, Liu et al. 2023 (arXiv:2303.15140), section 3.1, equations 1 to 3.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def pool_levels(levels: Sequence[Tensor], patch_size: int) -> list[Tensor]:
    """Average each level over a ``patch_size`` window; zero padding counts, as in the paper.

    Returns:
        Half-precision maps of the shapes given, (B, C, H, W) each.
    """
    return [
        F.avg_pool2d(level, patch_size, stride=1, padding=patch_size // 2).half()
        for level in levels
    ]


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
