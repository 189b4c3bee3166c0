"""The network that takes noise away: a small U-Net, and its size for each resolution.

It works on blocks of pixels instead of single ones, which is where most of the time would go, and
gets the position of each block as two more channels: a product lies in its place in every image.

Shapes: B images, C channels, H x W grid, E numbers of the embedded time.
Source: DDPM, Ho et al. 2020 (arXiv:2006.11239), appendix B; scale and shift by the time: Dhariwal
and Nichol 2021 (arXiv:2105.05233), section 3.1. Ours: one skip per level, attention only on the
coarsest grid, pixels in blocks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.seeded import seeded

TIME_WAVES = 32  # frequencies of the time, each a sine and a cosine
GROUPS = 8  # of channels that are normalised together


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What follows from the resolution: the network's size and how it is trained."""

    block: int  # pixels along the side of a block
    width: int  # channels of the finest grid, a multiple of GROUPS
    multiples: tuple[int, ...]  # of the width, on each grid from the finest; each halves the last
    blocks: int  # residual blocks for each grid, down and up
    learning_rate: float
    steps: int  # of training, where nothing else is asked


# By side of the image in pixels. 64 takes minutes on a CPU; 128 and 256 need a GPU. 32 is too
# coarse for most products and shows whether everything works.
SHAPES = {
    32: Shape(block=2, width=16, multiples=(1, 2), blocks=1, learning_rate=2e-3, steps=800),
    64: Shape(block=2, width=32, multiples=(1, 2, 4), blocks=1, learning_rate=1.5e-3, steps=2_000),
    128: Shape(
        block=2, width=64, multiples=(1, 2, 2, 4), blocks=1, learning_rate=5e-4, steps=10_000
    ),
    256: Shape(
        block=4, width=128, multiples=(1, 2, 2, 4), blocks=2, learning_rate=2e-4, steps=30_000
    ),
}


class Denoiser(nn.Module):
    """Estimates v of noisy images."""

    def __init__(self, shape: Shape, seed: int) -> None:
        super().__init__()
        self.shape = shape
        with seeded(seed):
            self._build([shape.width * multiple for multiple in shape.multiples])

    def _build(self, widths: list[int]) -> None:
        channels, embedded = 3 * self.shape.block**2, 4 * self.shape.width
        self.time = nn.Sequential(
            *(nn.Linear(2 * TIME_WAVES, embedded), nn.SiLU()),
            *(nn.Linear(embedded, embedded), nn.SiLU()),
        )
        self.entry = nn.Conv2d(channels + 2, widths[0], 3, padding=1)
        coarser, blocks = [widths[0], *widths[:-1]], self.shape.blocks
        self.down = nn.ModuleList(
            Stage(before, width, blocks, embedded)
            for before, width in zip(coarser, widths, strict=True)
        )
        self.attention = Attention(widths[-1])
        self.middle = Stage(widths[-1], widths[-1], 1, embedded)
        self.up = nn.ModuleList(
            Stage(below + width, width, blocks, embedded)
            for below, width in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.exit = nn.Sequential(
            *(nn.GroupNorm(GROUPS, widths[0]), nn.SiLU()),
            _silent(nn.Conv2d(widths[0], channels, 3, padding=1)),
        )

    def forward(self, noisy_BCHW: Tensor, times_B: Tensor) -> Tensor:
        """Return v, of the shape of the images; ``times_B`` counts steps from 0."""
        time_BE = self.time(_waves(times_B))
        pixels = F.pixel_unshuffle(noisy_BCHW, self.shape.block)
        x_BCHW = self.entry(torch.cat([pixels, _positions(pixels)], 1))
        skips: list[Tensor] = []
        for index, stage in enumerate(self.down):
            x_BCHW = stage(x_BCHW if index == 0 else F.avg_pool2d(x_BCHW, 2), time_BE)
            skips.append(x_BCHW)
        x_BCHW = self.middle(self.attention(skips.pop()), time_BE)
        for stage in self.up:
            wider = F.interpolate(x_BCHW, scale_factor=2)
            x_BCHW = stage(torch.cat([wider, skips.pop()], 1), time_BE)
        return F.pixel_shuffle(self.exit(x_BCHW), self.shape.block)


class Stage(nn.Module):
    """The residual blocks of one grid; the first one changes the number of channels."""

    def __init__(self, before: int, width: int, num_blocks: int, embedded: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            ResidualBlock(before if index == 0 else width, width, embedded)
            for index in range(num_blocks)
        )

    def forward(self, x_BCHW: Tensor, time_BE: Tensor) -> Tensor:
        """Return the grid with ``width`` channels."""
        for block in self.blocks:
            x_BCHW = block(x_BCHW, time_BE)
        return x_BCHW


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut; the time scales and shifts what is between them."""

    def __init__(self, before: int, width: int, embedded: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            *(nn.GroupNorm(GROUPS, before), nn.SiLU(), nn.Conv2d(before, width, 3, padding=1))
        )
        self.time = nn.Linear(embedded, 2 * width)
        self.norm = nn.GroupNorm(GROUPS, width)
        self.second = nn.Sequential(nn.SiLU(), _silent(nn.Conv2d(width, width, 3, padding=1)))
        self.shortcut = nn.Identity() if before == width else nn.Conv2d(before, width, 1)

    def forward(self, x_BCHW: Tensor, time_BE: Tensor) -> Tensor:
        """Return the grid with ``width`` channels."""
        scale, shift = self.time(time_BE)[:, :, None, None].chunk(2, 1)
        changed = self.norm(self.first(x_BCHW)) * (1 + scale) + shift
        return cast(Tensor, self.shortcut(x_BCHW) + self.second(changed))


class Attention(nn.Module):
    """Every position looks at all others of its image; one head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, width)
        self.ask = nn.Conv2d(width, 3 * width, 1)
        self.answer = _silent(nn.Conv2d(width, width, 1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the grid with what the others say added."""
        query, key, value = self.ask(self.norm(x_BCHW)).flatten(2).transpose(1, 2).chunk(3, 2)
        said = F.scaled_dot_product_attention(query, key, value).transpose(1, 2)
        return x_BCHW + cast(Tensor, self.answer(said.reshape(x_BCHW.shape)))


def nearest_sizes(size: int) -> Sequence[int]:
    """Return the sizes that there are, the nearest first."""
    return sorted(SHAPES, key=lambda each: abs(math.log2(each / max(size, 1))))


def _silent(layer: nn.Conv2d) -> nn.Conv2d:
    """Let a layer begin with zeros: the network begins as simple as its shortcuts."""
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def _waves(times_B: Tensor) -> Tensor:
    """Return sines and cosines of the time, (B, 2 TIME_WAVES)."""
    rates = torch.arange(TIME_WAVES, device=times_B.device) * -(math.log(1e4) / TIME_WAVES)
    angles = times_B.float()[:, None] * rates.exp()
    return torch.cat([angles.sin(), angles.cos()], 1)


def _positions(x_BCHW: Tensor) -> Tensor:
    """Return row and column of every cell in (-1, 1), (B, 2, H, W)."""
    height, width = x_BCHW.shape[2:]
    rows = (2 * torch.arange(height, device=x_BCHW.device) + 1) / height - 1
    columns = (2 * torch.arange(width, device=x_BCHW.device) + 1) / width - 1
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).to(x_BCHW)
    return grid.expand(len(x_BCHW), -1, -1, -1)
