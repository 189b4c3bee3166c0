"""A small PatchCore on ready patch features: the memory bank that SimpleNet is measured against.

Shapes: N images, H x W patches, C channels; P = N H W patches, M of them in the bank.
Source: Roth et al. 2022 (arXiv:2106.08265): greedy coreset on a random projection, score of a
patch = Euclidean distance to its nearest neighbour in the bank, score of an image = the highest.
Without the paper's re-weighting by neighbours, like the authors' released code.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float32]

PROJECTED_CHANNELS = 128
NUM_STARTS = 10
CHUNK_VALUES = 2**25  # distances held at once: 128 MB


def fit(features: Array, share: float, seed: int, device: str = "cpu") -> Array:
    """Bank of floor(share x P) patches, at least one: (M, C) from (N, H, W, C) of good images."""
    patches = features.reshape(-1, features.shape[-1])
    chosen = greedy_coreset(patches, max(int(share * len(patches)), 1), seed, device)
    return patches[chosen]


def greedy_coreset(patches: Array, size: int, seed: int, device: str = "cpu") -> NDArray[np.int64]:
    """Indices of ``size`` patches, each the farthest from those before it (k-center greedy).

    Patches (P, C) are first projected to 128 dimensions; the first is the farthest on average from
    ten random ones.
    """
    generator = torch.Generator().manual_seed(seed)
    points = project(torch.from_numpy(patches), generator).to(device)
    squared_norms = points.square().sum(1)

    def distances_to(index: Tensor) -> Tensor:
        away = squared_norms + squared_norms[index] - 2 * (points @ points[index])
        return away.clamp_(min=0).sqrt_()

    starts = torch.randperm(len(points), generator=generator)[:NUM_STARTS].to(device)
    nearest = torch.stack([distances_to(start) for start in starts]).mean(0)
    chosen = []
    for _ in range(min(size, len(points))):
        farthest = nearest.argmax()
        chosen.append(farthest)
        nearest = torch.minimum(nearest, distances_to(farthest))
        nearest[farthest] = -1  # rounding must not choose it twice
    return torch.stack(chosen).cpu().numpy()


def project(patches: Tensor, generator: torch.Generator) -> Tensor:
    """Gaussian random projection that keeps distances on average; identity when C is small."""
    channels = patches.shape[1]
    if channels <= PROJECTED_CHANNELS:
        return patches
    matrix = torch.randn(channels, PROJECTED_CHANNELS, generator=generator)
    return patches @ (matrix / PROJECTED_CHANNELS**0.5)


def score(bank: Array, features: Array, device: str = "cpu") -> Array:
    """Distance of each patch to its nearest one in the bank, (N, H, W), from (N, H, W, C)."""
    memory = torch.from_numpy(bank).to(device)
    patches = torch.from_numpy(features.reshape(-1, features.shape[-1]))
    half_norms = memory.square().sum(1) / 2
    found = []
    for chunk in patches.split(max(CHUNK_VALUES // len(memory), 1)):
        rows = chunk.to(device)
        nearest = torch.addmm(half_norms, rows, memory.T, alpha=-1).argmin(1)
        found.append((rows - memory[nearest]).norm(dim=1))  # exact, without cancellation
    return torch.cat(found).cpu().numpy().reshape(features.shape[:-1])


def image_scores(distances: Array) -> Array:
    """Highest patch distance of each image, (N,), from (N, H, W)."""
    return distances.max(axis=(1, 2))
