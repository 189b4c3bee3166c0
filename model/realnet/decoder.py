"""The decoder: from residuals to how much more likely anomalous than good each position is.

Two classes enter a score by the difference of their logits alone, so there is one output. The
normalisation behind the first convolution is folded into it once training is over.

Shapes: B images, K channels of residuals, g x g their grid.
Source: RealNet, Zhang et al. 2024 (arXiv:2403.05897), section 3.4, and its release.
"""

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

PRIOR = -4.0  # the logit to start from: anomalous positions are few


class Decoder(nn.Module):
    """Residuals (B, K, g, g) in, logits (B, 2g, 2g) out; higher is more anomalous."""

    def __init__(self, channels: int, width: int, *, folded: bool = False) -> None:
        super().__init__()
        self.units = nn.Sequential(Unit(channels), Unit(channels))
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.norm = nn.Identity() if folded else nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, 32, 3, padding=1)
        self.third = nn.Conv2d(32, 8, 3, padding=1)
        self.fourth = nn.Conv2d(8, 4, 3, padding=1)
        self.last = nn.Conv2d(4, 1, 3, padding=1)
        nn.init.constant_(self.last.bias, PRIOR)  # type: ignore[arg-type]

    def forward(self, residuals_BKgg: Tensor) -> Tensor:
        """Return logits."""
        x = F.relu(self.norm(self.first(F.relu(self.units(residuals_BKgg)))))
        x = F.relu(self.third(F.relu(self.second(x))))
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        logits: Tensor = self.last(F.relu(self.fourth(x))).squeeze(1)
        return logits

    def fold(self) -> None:
        """Fold the normalisation, whose statistics must stand, into its convolution."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.first, self.norm = fuse_conv_bn_eval(self.first, self.norm), nn.Identity()


class Unit(nn.Module):
    """Residual unit without biases."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.wide = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.narrow = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x_BKgg: Tensor) -> Tensor:
        """Return (B, K, g, g)."""
        added: Tensor = x_BKgg + self.narrow(F.relu(self.wide(F.relu(x_BKgg))))
        return added
