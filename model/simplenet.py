"""The SimpleNet head: feature adaptor, discriminator and the loss between them.

A head has M members, trained side by side on the same patches from different random starts;
their logits are averaged. Members share nothing but the data, and fold into one network, so
that an ensemble costs no more than one head of the same total width.

Shapes: M members, K patches, C channels, U hidden units.
Source: SimpleNet, Liu et al. 2023 (arXiv:2303.15140), sections 3.2 to 3.5.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAK = 0.2  # slope of LeakyReLU below zero
MOMENTUM = 0.1  # of BatchNorm's running statistics
EPS = 1e-5


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """Shape of a head."""

    hidden: int = 256  # units U of each member's discriminator
    members: int = 4  # heads averaged
    adaptor: bool = True  # one linear layer before the discriminator

    def __post_init__(self) -> None:
        if self.hidden < 1 or self.members < 1:
            raise ValueError("head.hidden and head.members must be at least 1")


class Head(nn.Module):
    """Adaptor and discriminator of one category, for standardised patch features."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, config: HeadConfig, generator: torch.Generator) -> None:
        super().__init__()
        members, hidden = config.members, config.hidden
        self.config = config
        self.adaptor = (
            nn.Parameter(_xavier((members, channels, channels), generator))
            if config.adaptor
            else None
        )
        self.inner = nn.Parameter(_xavier((members, channels, hidden), generator))
        self.scale = nn.Parameter(torch.ones(members, 1, hidden, device=generator.device))
        self.shift = nn.Parameter(torch.zeros(members, 1, hidden, device=generator.device))
        self.outer = nn.Parameter(_xavier((members, hidden, 1), generator))
        self.register_buffer("running_mean", torch.zeros_like(self.shift.data))
        self.register_buffer("running_var", torch.ones_like(self.scale.data))

    def adapt(self, patches_KC: Tensor) -> Tensor:
        """Return adapted features, (M, K, C); biases are left out, BatchNorm would undo them."""
        if self.adaptor is None:
            return patches_KC.expand(self.config.members, -1, -1)
        return patches_KC @ self.adaptor

    def discriminate(self, adapted_MKC: Tensor) -> Tensor:
        """Return logits, (M, K); positive means normal."""
        hidden_MKU = self._normalise(adapted_MKC @ self.inner)
        activated = F.leaky_relu(hidden_MKU * self.scale + self.shift, LEAK)
        return (activated @ self.outer).squeeze(-1)

    def forward(self, patches_KC: Tensor) -> Tensor:
        """Return each member's logits, (M, K)."""
        return self.discriminate(self.adapt(patches_KC))

    def _normalise(self, hidden_MKU: Tensor) -> Tensor:
        """BatchNorm without its affine part, separately for every member."""
        if not self.training:
            return (hidden_MKU - self.running_mean) * (self.running_var + EPS).rsqrt()
        variance, mean = torch.var_mean(hidden_MKU, dim=1, keepdim=True, correction=0)
        with torch.no_grad():
            num_rows = hidden_MKU.shape[1]
            unbiased = variance * (num_rows / max(num_rows - 1, 1))
            self.running_mean.lerp_(mean, MOMENTUM)
            self.running_var.lerp_(unbiased, MOMENTUM)
        return (hidden_MKU - mean) * (variance + EPS).rsqrt()


def truncated_l1(normal: Tensor, noisy: Tensor, margins: tuple[float, float]) -> Tensor:
    """Push normal logits above th+ and noisy ones below -th- (section 3.5, equation 8).

    Patches already on their side add nothing, so easy ones stop driving the weights.
    """
    positive, negative = margins
    return torch.relu(positive - normal).mean(-1) + torch.relu(negative + noisy).mean(-1)


def _xavier(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Xavier-normal start of (members, fan_in, fan_out) weights."""
    return torch.randn(shape, generator=generator, device=generator.device) * math.sqrt(
        2.0 / (shape[1] + shape[2])
    )
