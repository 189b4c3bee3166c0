"""The folded head: what gets registered and what scores.

In evaluation mode standardisation, adaptor, first discriminator layer and BatchNorm are linear,
so they are one matrix; the part of it that belongs to a level acts on that level's own grid,
before anything is resized, because mixing channels and resizing positions commute. Members
stand side by side as more hidden units. What is left is exact:

    score = -w . LeakyReLU( sum over levels of resize(W_l x_l) + b )

Shapes: B images, C channels of a level, H x W its grid, U hidden units of all members.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.embedding import resize
from model.simplenet import EPS, LEAK, Head


class FoldedHead(nn.Module):
    """One 1x1 convolution per level, LeakyReLU, one dot product."""

    bias: Tensor
    output: Tensor

    def __init__(self, channels: Sequence[int], hidden: int) -> None:
        super().__init__()
        self.channels, self.hidden = tuple(channels), hidden
        for index, width in enumerate(channels):
            self.register_buffer(f"level{index}", torch.zeros(hidden, width))
        self.register_buffer("bias", torch.zeros(hidden))
        self.register_buffer("output", torch.zeros(hidden))

    @property
    def weights(self) -> list[Tensor]:
        """The (U, C) matrix of each level, finest first."""
        return [self.get_buffer(f"level{index}") for index in range(len(self.channels))]

    def forward(self, pooled: Sequence[Tensor]) -> Tensor:
        """Return patch scores (B, H, W) on the finest grid; higher is more anomalous.

        Args:
            pooled: one (B, C, H, W) map per level, as ``embedding.pool_levels`` gives them.
        """
        grid = pooled[0].shape[2:]
        hidden = None
        for weight_UC, level in zip(self.weights, pooled, strict=True):
            projected = resize(F.conv2d(level.float(), weight_UC[:, :, None, None]), grid)
            hidden = projected if hidden is None else hidden.add_(projected)
        assert hidden is not None
        hidden = F.leaky_relu_(hidden.add_(self.bias[:, None, None]), LEAK)
        return F.conv2d(hidden, self.output[None, :, None, None]).squeeze(1)


@torch.no_grad()
def fold(head: Head, mean_C: Tensor, std_C: Tensor, channels: Sequence[int]) -> FoldedHead:
    """Fold a trained head and the standardisation of its input, (x - mean) / std.

    Computed in float64, stored in float32. ``channels`` are those of each level, in order.
    """
    inner_MCU = head.inner.double()
    if head.adaptor is not None:
        inner_MCU = head.adaptor.double() @ inner_MCU
    gain_M1U = head.scale.double() / (head.running_var.double() + EPS).sqrt()
    matrix_MCU = inner_MCU * gain_M1U / std_C.double()[None, :, None]
    bias_M1U = head.shift.double() - head.running_mean.double() * gain_M1U
    bias_M1U = bias_M1U - mean_C.double() @ matrix_MCU[:, None]
    members, _, units = matrix_MCU.shape
    folded = FoldedHead(channels, members * units).to(std_C.device)
    matrix_UC = matrix_MCU.transpose(1, 2).flatten(0, 1)
    for buffer, part in zip(folded.weights, matrix_UC.split(list(channels), 1), strict=True):
        buffer.copy_(part)
    folded.bias.copy_(bias_M1U.flatten())
    folded.output.copy_(-head.outer.double().flatten() / members)
    return folded
