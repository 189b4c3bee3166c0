"""The SimpleNet head: feature adaptor, discriminator and the loss between them.

A head has M members, trained side by side from different random starts, each on rows of its own;
their logits are averaged. Several members each leave out their share of the images: what one says
of those is what a head says of good images that it has not seen. Members share no weight and fold
into one network, so that an ensemble costs no more than one head of the same total width.

Shapes: M members, K rows (patches or images), C channels, U hidden units.
Source: SimpleNet, Liu et al. 2023 (arXiv:2303.15140), sections 3.2 to 3.5.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAK = 0.2  # slope of LeakyReLU below zero
EPS = 1e-5  # of BatchNorm

Adaptor = Literal["none", "linear", "two_layer"]
Loss = Literal["truncated_l1", "cross_entropy"]


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """Shape of a head."""

    hidden: int = 256  # units U of each member's discriminator
    members: int = 4  # heads averaged
    adaptor: Adaptor = "none"  # two_layer has a LeakyReLU between its layers
    momentum: float = 0.02  # of BatchNorm's running statistics

    def __post_init__(self) -> None:
        if min(self.hidden, self.members) < 1:
            raise ValueError("head.hidden and members must be at least 1")


class Head(nn.Module):
    """Adaptor and discriminator of one category, for standardised features.

    Biases before BatchNorm are left out: it removes any constant.
    """

    running_mean: Tensor
    running_var: Tensor
    num_updates: Tensor

    def __init__(self, channels: int, config: HeadConfig, generator: torch.Generator) -> None:
        super().__init__()
        members, hidden = config.members, config.hidden
        self.config = config
        num_layers = {"none": 0, "linear": 1, "two_layer": 2}[config.adaptor]
        square = (members, channels, channels)
        self.adaptor = nn.ParameterList(_xavier(square, generator) for _ in range(num_layers))
        self.inner_MCU = _xavier((members, channels, hidden), generator)
        self.outer_MU1 = _xavier((members, hidden, 1), generator)
        ones = torch.ones(members * hidden, device=generator.device)
        self.scale = nn.Parameter(ones.clone())  # BatchNorm's, over all members' units
        self.shift = nn.Parameter(torch.zeros_like(ones))
        self.register_buffer("running_mean", torch.zeros_like(ones))
        self.register_buffer("running_var", ones.clone())
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.long))

    def adapt(self, features_MKC: Tensor) -> Tensor:
        """Return adapted features (M, K, C) of each member's own rows."""
        adapted_MKC = features_MKC
        for index, weight_MCC in enumerate(self.adaptor):
            adapted_MKC = F.leaky_relu(adapted_MKC, LEAK) if index else adapted_MKC
            adapted_MKC = adapted_MKC @ weight_MCC
        return adapted_MKC

    def discriminate(self, adapted_MKC: Tensor) -> Tensor:
        """Return logits, (M, K), of adapted features; positive means normal."""
        hidden_KMU = (adapted_MKC @ self.inner_MCU).transpose(0, 1)
        normalised = self._batch_norm(hidden_KMU.flatten(1)).view(hidden_KMU.shape)
        return (F.leaky_relu(normalised, LEAK) * self.outer_MU1[..., 0]).sum(dim=-1).T

    def forward(self, features_MKC: Tensor) -> Tensor:
        """Return the logits, (M, K), of each member's own rows."""
        return self.discriminate(self.adapt(features_MKC))

    def _batch_norm(self, hidden_KX: Tensor) -> Tensor:
        if self.training:
            self.num_updates += 1
        # A plain average at first, so that a short training counts in full.
        momentum = max(self.config.momentum, 1.0 / max(int(self.num_updates), 1))
        statistics = (self.running_mean, self.running_var, self.scale, self.shift)
        return F.batch_norm(hidden_KX, *statistics, self.training, momentum, EPS)


def truncated_l1(normal: Tensor, noisy: Tensor, margins: tuple[float, float]) -> Tensor:
    """Push normal logits above th+ and noisy ones below -th- (section 3.5); any shape.

    Rows already on their side add nothing, so easy ones stop driving the weights.
    """
    positive, negative = margins
    return torch.relu(positive - normal) + torch.relu(negative + noisy)


def cross_entropy(normal: Tensor, noisy: Tensor, margins: tuple[float, float]) -> Tensor:
    """Tell normal from noisy by logistic loss (the paper's ablation, table 3); has no margins."""
    return F.softplus(-normal) + F.softplus(noisy)


LOSSES = {"truncated_l1": truncated_l1, "cross_entropy": cross_entropy}


def _xavier(shape: tuple[int, ...], generator: torch.Generator) -> nn.Parameter:
    """Xavier-normal start of (members, fan_in, fan_out) weights."""
    std = math.sqrt(2.0 / (shape[1] + shape[2]))
    return nn.Parameter(torch.randn(shape, generator=generator, device=generator.device) * std)
