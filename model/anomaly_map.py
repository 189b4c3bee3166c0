"""From patch scores to an anomaly map and an image score.

Bilinear upsampling followed by Gaussian smoothing is one separable linear map, so a whole map
is two small matrix products: map = M s M^T with M = K B, B the upsampling of one axis and K the
smoothing of one axis.

Shapes: B images, h x w patch grid, H x W pixels of the crop.
Source: SimpleNet, Liu et al. 2023 (arXiv:2303.15140), section 3.6; smoothing as in
scipy.ndimage.gaussian_filter with sigma 4, mode "reflect", truncate 4.
"""

import torch
from torch import Tensor

from model.embedding import resize

SIGMA = 4.0  # pixels
TRUNCATE = 4.0  # radius of the kernel in sigmas


def map_matrix(grid: int, pixels: int, sigma: float = SIGMA) -> Tensor:
    """Return M, (pixels, grid): upsample one axis from ``grid`` to ``pixels``, then smooth."""
    upsample = resize(torch.eye(grid, dtype=torch.float64)[:, None, :, None], (pixels, 1))
    return (_gaussian_matrix(pixels, sigma) @ upsample[:, 0, :, 0].T).float()


def anomaly_maps(scores_Bhw: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return smoothed maps (B, H, W) of patch scores, given M of each axis."""
    return rows @ scores_Bhw @ columns.T


def _gaussian_matrix(size: int, sigma: float) -> Tensor:
    """Return K, (size, size): Gaussian smoothing with mirrored borders as a matrix."""
    radius = int(TRUNCATE * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-0.5 * (offsets.double() / sigma) ** 2)
    kernel = kernel / kernel.sum()
    source = torch.arange(size)[:, None] + offsets[None, :]
    period = source % (2 * size)  # "reflect": d c b a | a b c d | d c b a
    mirrored = torch.where(period < size, period, 2 * size - 1 - period)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    return matrix.scatter_add_(1, mirrored, kernel.expand(size, -1).contiguous())
