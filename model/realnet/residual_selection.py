"""Reconstruction residual selection: of each image, the channels that were restored worst.

Each channel's residual is measured in its own mean and spread, which serve to rank alone; what is
handed on are the residuals themselves, in the order of their rank. So the decoder's input j is the
j-th most anomalous channel, whichever that is.

Shapes: B images, C channels, h x w grid, K channels that are handed on.
Source: RealNet, Zhang et al. 2024 (arXiv:2403.05897), section 3.4 (RRS), and its release. The
release lets statistics forget all but the last batch (momentum .9); ours average about ten.
"""

import torch
from torch import Tensor, nn

MOMENTUM = 0.1  # weight of a new batch in the statistics
LEAST_VARIANCE = 1e-5


class ResidualSelection(nn.Module):
    """Ranks by batch statistics while it trains, by their running mean after."""

    mean: Tensor
    variance: Tensor

    def __init__(self, channels: int, by_max: int, by_mean: int) -> None:
        """Hand on ``by_max`` and ``by_mean`` of so many channels; all where both are 0."""
        super().__init__()
        self.by_max, self.by_mean = by_max, by_mean
        if self.ranks:
            self.register_buffer("mean", torch.zeros(channels))
            self.register_buffer("variance", torch.ones(channels))

    @property
    def ranks(self) -> bool:
        """Whether anything is left out."""
        return self.by_max + self.by_mean > 0

    def forward(self, residuals_BChw: Tensor) -> Tensor:
        """Return residuals (B, K, h, w)."""
        if not self.ranks:
            return residuals_BChw
        mean_C, variance_C = self.mean, self.variance
        if self.training:
            mean_C, variance_C = _statistics(residuals_BChw.detach())
            self.mean.lerp_(mean_C, MOMENTUM)
            self.variance.lerp_(variance_C, MOMENTUM)
        order_BK = rank(residuals_BChw, mean_C, variance_C, (self.by_max, self.by_mean))
        return take(residuals_BChw, order_BK)


@torch.no_grad()
def rank(
    residuals_BChw: Tensor, mean_C: Tensor, variance_C: Tensor, counts: tuple[int, int]
) -> Tensor:
    """Return channels (B, K), the most anomalous first: those by maximum, then those by mean.

    A channel may be in both.

    Args:
        residuals_BChw: squared differences.
        mean_C: of ordinary residuals.
        variance_C: likewise.
        counts: how many are chosen by their highest position, and how many by their mean.
    """
    scale_C = variance_C.clamp_min(LEAST_VARIANCE).rsqrt()
    flat_BCP = residuals_BChw.flatten(2)
    # Measuring is the same rising function everywhere in a channel, so it can come after.
    measures = (flat_BCP.amax(dim=2), flat_BCP.mean(dim=2))
    ranked = [
        ((measure_BC - mean_C) * scale_C).topk(count, dim=1).indices
        for measure_BC, count in zip(measures, counts, strict=True)
    ]
    return torch.cat(ranked, dim=1)


def take(residuals_BChw: Tensor, order_BK: Tensor) -> Tensor:
    """Return channels (B, K, h, w) in the order given, their values unchanged."""
    index = order_BK[:, :, None, None].expand(-1, -1, *residuals_BChw.shape[2:])
    return residuals_BChw.gather(1, index)


def _statistics(residuals_BChw: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance of each channel, (C,) both; faster than torch's own."""
    mean_C = residuals_BChw.mean(dim=(0, 2, 3))
    square_C = residuals_BChw.square().mean(dim=(0, 2, 3))
    return mean_C, (square_C - mean_C.square()).clamp_min(0)
