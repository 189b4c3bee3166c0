"""How far an image as a whole lies from the good ones: Mahalanobis, on the means of its features.

The covariance is shrunk towards a multiple of the identity, since a category may have fewer images
than its features have channels. Its components are stored like a matrix of a head, rounded to half
precision before anything is scored.

Sources: Rippel et al. 2020 (arXiv:2005.14140) for the distance of pooled features; Ledoit and Wolf
2004 (doi:10.1016/S0047-259X(03)00096-4), equations 10 to 14, for the shrinkage.

Shapes: B images, N good images, C channels of all levels.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from model.embedding import mean_levels


class PooledDistance(nn.Module):
    """The Mahalanobis distance of an image's mean features."""

    components: Tensor
    centre: Tensor
    scale: Tensor

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        """Take components (C, C), one a row, and each one's centre and scale, both (C,).

        Raises:
            ValueError, KeyError: they are not of these names and shapes.
        """
        super().__init__()
        width = len(tensors["scale"])
        expected = {"components": (width, width), "centre": (width,), "scale": (width,)}
        if {name: tuple(value.shape) for name, value in tensors.items()} != expected:
            raise ValueError("tensors of other shapes than its levels need")
        for name, value in tensors.items():
            self.register_buffer(name, value)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Return distances (B,) of pooled levels, one (B, C, h, w) map each."""
        return self.of_means(mean_levels(levels))

    def of_means(self, means: Sequence[Tensor]) -> Tensor:
        """Return distances (B,) of levels' means, as ``mean_levels`` gives them."""
        return self.distances(torch.cat(list(means), dim=1).flatten(1))

    def distances(self, means_BC: Tensor) -> Tensor:
        """Return distances (B,) of mean features."""
        inside_BC = means_BC @ self.components.float().T - self.centre
        return (inside_BC * self.scale).square().sum(dim=1).sqrt()


def fit_pooled(means_NC: Tensor) -> PooledDistance:
    """Return the distance from good images by their mean features."""
    mean_C = means_NC.double().mean(dim=0)
    lambda_C, vectors_CC = torch.linalg.eigh(shrunken_covariance(means_NC.double()))
    components_CC = vectors_CC.T.half().float().contiguous()
    floor = lambda_C.amax().clamp_min(1e-12) * 1e-9  # where all images are the same
    return PooledDistance(
        {
            "components": components_CC,
            "centre": (components_CC.double() @ mean_C).float(),
            "scale": lambda_C.clamp_min(floor).rsqrt().float(),
        }
    )


def shrunken_covariance(rows_NC: Tensor) -> Tensor:
    """Return (1 - s) S + s mean(diagonal of S) I of the covariance S, s as Ledoit and Wolf say."""
    num_rows, width = rows_NC.shape
    centred_NC = rows_NC - rows_NC.mean(dim=0)
    covariance_CC = centred_NC.T @ centred_NC / num_rows
    average = covariance_CC.trace() / width
    identity_CC = torch.eye(width, dtype=rows_NC.dtype, device=rows_NC.device)
    away = (covariance_CC - average * identity_CC).square().sum()
    squares = covariance_CC.square().sum()
    noise = (centred_NC.square().sum(dim=1).square().mean() - squares) / num_rows
    share = (noise / away.clamp_min(1e-30)).clamp(0, 1)
    return (1 - share) * covariance_CC + share * average * identity_CC
