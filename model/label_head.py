"""A head that learned from labels, beside the heads of any kind: their score, and a little more.

What it adds is linear in what an image shows: of every channel the mean, the standard deviation
and the highest value over all positions, and the mean over the positions that the kind's heads
find most anomalous. The kind's own score has no part in that. People label what was flagged, so
that among labelled images a high score tells defects from good ones as if nothing were to learn.

Shapes: B images, C channels of all levels, F = 4 C features, h x w the finest grid.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from model.embedding import join_levels
from model.kind import Heads
from model.zones import EVERYWHERE, Zones

TOP_SHARE = 1 / 49  # of the positions; 16 of a grid of 28 x 28
KIND, OWN = "kind.", "labels."  # how the names of tensors begin


def describe(
    levels: Sequence[Tensor], patch_scores_Bhw: Tensor, zones: Zones = EVERYWHERE
) -> Tensor:
    """Return features (B, F) of images from levels (B, C, h, w) and their heads' patch scores."""
    joint_BCP = zones.positions(join_levels(levels))
    flat_BP = zones.positions(patch_scores_Bhw)
    num_top = max(math.ceil(TOP_SHARE * flat_BP.shape[1]), 1)
    top_B1K = flat_BP.topk(num_top, dim=1).indices[:, None]
    top_BC = joint_BCP.gather(2, top_B1K.expand(-1, joint_BCP.shape[1], -1)).mean(dim=2)
    std_BC, mean_BC = torch.std_mean(joint_BCP, dim=2, correction=0)
    return torch.cat([mean_BC, std_BC, joint_BCP.amax(dim=2), top_BC], dim=1)


class LabelHead(nn.Module):
    """What is added to a score, in its unit; about 0 for an ordinary good image."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight_F: Tensor, bias: Tensor) -> None:
        """Take the weights (F,) and the bias, a scalar."""
        super().__init__()
        self.register_buffer("weight", weight_F)
        self.register_buffer("bias", bias)

    def forward(self, features_BF: Tensor) -> Tensor:
        """Return what is added, (B,)."""
        return (features_BF * self.weight).sum(dim=1) + self.bias


class LabelledHeads(Heads):
    """Heads of a kind and the head that learned from labels."""

    def __init__(self, kind: Heads, labels: LabelHead) -> None:
        """Join the two."""
        super().__init__()
        self.kind, self.labels, self.zones = kind, labels, kind.zones

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return image scores (B,) and the kind's patch scores (B, h, w)."""
        scores, patch_scores = self.kind(levels)
        return scores + self.labels(describe(levels, patch_scores, self.zones)), patch_scores

    def in_float32(self) -> "LabelledHeads":
        """Return the same heads with matrices in float32."""
        return LabelledHeads(self.kind.in_float32(), self.labels)


def is_labelled(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a file's tensors are of such heads."""
    return any(name.startswith(OWN) for name in tensors)


def of_kind(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of the kind's heads among a file's."""
    return {n.removeprefix(KIND): v for n, v in tensors.items() if n.startswith(KIND)}


def read_label_head(tensors: Mapping[str, Tensor], channels: Sequence[int]) -> LabelHead:
    """Return the head among a file's tensors.

    Raises:
        ValueError, KeyError: it is not what these levels need.
    """
    weight_F, bias = tensors[f"{OWN}weight"], tensors[f"{OWN}bias"]
    if weight_F.shape != (4 * sum(channels),) or bias.shape != ():
        raise ValueError("tensors of another shape than its levels need")
    return LabelHead(weight_F, bias)
