"""The trained part of a RealNet, from selected features to logits.

Shapes: B images, C channels of a level, h x w its grid; g x g the finest grid.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.realnet.decoder import Decoder
from model.realnet.reconstruction import Reconstruction
from model.realnet.residual_selection import ResidualSelection
from model.realnet.structure import Structure


class RealNet(nn.Module):
    """A reconstruction per level, the selection of residuals, and the decoder."""

    def __init__(
        self, channels: Sequence[int], structure: Structure, *, folded: bool = False
    ) -> None:
        """Build for selected levels of so many channels each, finest first."""
        super().__init__()
        self.structure = structure
        num_residuals = sum(channels)
        self.reconstructions = nn.ModuleList(Reconstruction(each, structure) for each in channels)
        self.selection = ResidualSelection(num_residuals, structure.by_max, structure.by_mean)
        num_read = structure.by_max + structure.by_mean if self.selection.ranks else num_residuals
        self.decoder = Decoder(num_read, structure.decoder_width, folded=folded)

    def forward(self, levels: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Return the restored levels, (B, C, h, w) each, and logits (B, 2g, 2g)."""
        restored = [net(level) for net, level in zip(self.reconstructions, levels, strict=True)]
        grid = levels[0].shape[2:]
        residuals = [
            _resized((level - good).square(), grid)
            for level, good in zip(levels, restored, strict=True)
        ]
        return restored, self.decoder(self.selection(torch.cat(residuals, dim=1)))


def _resized(x_BChw: Tensor, grid: Sequence[int]) -> Tensor:
    """Bilinear resize that aligns corners, as the release's does."""
    if x_BChw.shape[2:] == torch.Size(grid):
        return x_BChw
    return F.interpolate(x_BChw, size=tuple(grid), mode="bilinear", align_corners=True)
