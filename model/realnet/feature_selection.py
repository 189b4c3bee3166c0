"""Anomaly-aware feature selection: the channels of a level that show anomalies where they are.

A channel is judged by how much it changes, position by position, when a good image becomes
anomalous: best are channels whose change looks like the mask of the anomaly.

Shapes: B images, C channels, h x w grid, H x W pixels of the masks.
Source: RealNet, Zhang et al. 2024 (arXiv:2403.05897), section 3.3 (AFS), and its release.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST_RANGE = 1e-4  # of a change, so that a channel that never changes is no division by zero

Changed = tuple[Tensor, Tensor, Tensor]  # anomalous and good maps (B, C, h, w), masks (B, H, W)


def channel_scores(anomalous_BChw: Tensor, good_BChw: Tensor, masks_BHW: Tensor) -> Tensor:
    """Return the mean squared difference of each channel's change and the masks, (C,).

    A change is brought to 0 to 1 by its least and greatest value in the batch. A channel that never
    changes scores the masked share of the batch; 0 is best.

    Args:
        anomalous_BChw: features of anomalous images.
        good_BChw: of the good images that they were made of.
        masks_BHW: where they were changed; an image with an empty mask counts as well.
    """
    change_BChw = (anomalous_BChw.float() - good_BChw.float()).square()
    low_C = change_BChw.amin(dim=(0, 2, 3), keepdim=True)
    high_C = change_BChw.amax(dim=(0, 2, 3), keepdim=True)
    scaled_BChw = (change_BChw - low_C) / (high_C - low_C + LEAST_RANGE)
    grid = anomalous_BChw.shape[2:]
    marked_B1hw = F.interpolate(masks_BHW[:, None].float(), size=grid, mode="nearest")
    return (scaled_BChw - marked_B1hw).square().mean(dim=(0, 2, 3))


def select_channels(batches: Iterable[Changed], num: int) -> Tensor:
    """Return the best ``num`` channels of a level, in ascending order; all where it has fewer.

    A channel whose score is not a number is the worst.
    """
    total_C = torch.stack([channel_scores(*batch) for batch in batches]).sum(dim=0)
    ranked_C = total_C.nan_to_num(nan=torch.inf).sort(stable=True).indices
    return ranked_C[:num].sort().values


def random_channels(num_channels: int, num: int, generator: torch.Generator) -> Tensor:
    """Return ``num`` channels at random, in ascending order: what a selection is compared with."""
    order_C = torch.randperm(num_channels, generator=generator, device=generator.device)
    return order_C[:num].sort().values
