"""A small U-Net that gives an anomalous image's features as the good image's would be.

Shapes: B images, C channels, h x w grid.
Source: RealNet, Zhang et al. 2024 (arXiv:2403.05897), section 3.3, and its release, whose units
have one convolution. Ours is lighter on its way up: as many units of a scale as on the way down,
which see its last map, and one transposed convolution; the release has one unit more, a map for
each of them, and two transposed convolutions.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.realnet.structure import Structure

MOST_GROUPS, GROUP_CHANNELS = 32, 4  # of a normalisation: at most so many, of at least so many
HEAD_CHANNELS = 64  # of an attention head
LEAST_WIDTH = 16


class Reconstruction(nn.Module):
    """Features in, the good image's features out, (B, C, h, w) both."""

    def __init__(self, channels: int, structure: Structure) -> None:
        super().__init__()
        width = max(channels // 2, LEAST_WIDTH)
        widths = [width << scale for scale in range(structure.scales)]
        self.enter = nn.Conv2d(channels, width, 3, padding=1)
        self.down = nn.ModuleList(
            _stage(widths[max(scale - 1, 0)], widths[scale], structure, attends=scale > 0)
            for scale in range(structure.scales)
        )
        deepest = widths[-1]
        self.middle = nn.Sequential(Unit(deepest, deepest), Attention(deepest))
        self.middle.append(Unit(deepest, deepest))
        steps = range(structure.scales - 1)
        self.widen = nn.ModuleList(
            nn.ConvTranspose2d(widths[scale + 1], widths[scale], 4, stride=2, padding=1)
            for scale in steps
        )
        self.up = nn.ModuleList(
            _stage(2 * widths[scale], widths[scale], structure, attends=scale > 0)
            for scale in steps
        )
        last = nn.Conv2d(width, channels, 3, padding=1)
        nn.init.zeros_(last.weight)  # an untrained network says the mean feature
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.leave = nn.Sequential(_norm(width), nn.SiLU(), last)

    def forward(self, x_BChw: Tensor) -> Tensor:
        """Return the features as a good image's."""
        x, kept = self.enter(x_BChw), []
        for scale, stage in enumerate(self.down):
            x = stage(_halved(x) if scale else x)
            kept.append(x)
        x = self.middle(x)
        kept.pop()
        ways_up: Iterator[tuple[nn.Module, nn.Module]] = zip(self.widen, self.up, strict=True)
        for widen, stage in reversed(list(ways_up)):
            beside = kept.pop()
            height, width = beside.shape[2:]
            x = stage(torch.cat([widen(x)[:, :, :height, :width], beside], dim=1))
        restored: Tensor = self.leave(x)
        return restored


class Unit(nn.Module):
    """Residual unit: normalisation, SiLU, 3 x 3 convolution."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.conv = nn.Conv2d(channels, out, 3, padding=1)
        self.beside = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)

    def forward(self, x_BChw: Tensor) -> Tensor:
        """Return (B, out, h, w)."""
        added: Tensor = self.beside(x_BChw) + self.conv(F.silu(self.norm(x_BChw)))
        return added


class Attention(nn.Module):
    """Every position looks at all others; starts as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        most = range(1, max(channels // HEAD_CHANNELS, 1) + 1)
        self.num_heads = max(heads for heads in most if channels % heads == 0)
        self.norm = _norm(channels)
        self.look = nn.Conv2d(channels, 3 * channels, 1)
        self.leave = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def forward(self, x_BChw: Tensor) -> Tensor:
        """Return (B, C, h, w)."""
        grid = x_BChw.shape[2:]
        looks = self.look(self.norm(x_BChw)).flatten(2).transpose(1, 2)  # (B, h w, 3 C)
        heads = (
            part.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for part in looks.chunk(3, 2)
        )
        seen = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        back = seen.transpose(1, 2).unflatten(2, grid)
        added: Tensor = x_BChw + self.leave(back)
        return added


def _stage(channels: int, out: int, structure: Structure, *, attends: bool) -> nn.Sequential:
    """Return the units of one scale; those of coarser grids may attend."""
    stage = nn.Sequential()
    for number in range(structure.units):
        stage.append(Unit(out if number else channels, out))
        if attends and structure.attends:
            stage.append(Attention(out))
    return stage


def _halved(x_BChw: Tensor) -> Tensor:
    """Average 2 x 2 positions; where a side is odd its last row is one of its own."""
    height, width = x_BChw.shape[2:]
    return F.avg_pool2d(x_BChw, 2, ceil_mode=bool(height % 2 or width % 2))


def _norm(channels: int) -> nn.GroupNorm:
    groups = math.gcd(MOST_GROUPS, channels, max(channels // GROUP_CHANNELS, 1))
    return nn.GroupNorm(groups, channels)
