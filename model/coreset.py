"""A small subset of patches that covers the normal ones, rare kinds included.

Random patches show a head what is frequent; the rare but normal is what it later mistakes for a
defect. Greedy k-centre selection takes, again and again, the patch farthest from all taken so far.

Shapes: P candidate patches, D projected dimensions.
Source: PatchCore, Roth et al. 2022 (arXiv:2106.08265), section 3.2, with several picks a round.
"""

import torch
from torch import Tensor

DIMENSIONS = 128  # distances survive a random projection (Johnson and Lindenstrauss)
PICKS_PER_ROUND = 32  # one pass over all candidates serves so many picks
POOL_PER_ROUND = 128  # the farthest candidates, among which a round's picks are made


def random_projection(channels: int, generator: torch.Generator) -> Tensor:
    """Return a (channels, D) matrix that keeps distances about as they are."""
    shape, device = (channels, DIMENSIONS), generator.device
    return torch.randn(shape, generator=generator, device=device).div_(DIMENSIONS**0.5)


def greedy_coreset(points_PD: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Return the indices of ``size`` points that cover all others."""
    num_points, device = len(points_PD), points_PD.device
    first = torch.randint(num_points, (1,), generator=generator, device=generator.device)
    squares_P = points_PD.square().sum(dim=1)
    distance_P = torch.full((num_points,), torch.inf, device=device)
    chosen, newest = [first], first
    while sum(map(len, chosen)) < size:
        _approach(distance_P, points_PD, squares_P, newest)
        newest = _farthest(points_PD, distance_P)
        chosen.append(newest)
    return torch.cat(chosen)[:size]


def _approach(distance_P: Tensor, points_PD: Tensor, squares_P: Tensor, newest: Tensor) -> None:
    """Lower every point's squared distance to the nearest pick by new picks, in place.

    With a large table for every step of the sum the memory of a long selection would break up.
    """
    sums_PK = (points_PD @ points_PD[newest].T).mul_(-2).add_(squares_P[newest])
    torch.minimum(distance_P, sums_PK.amin(dim=1).add_(squares_P), out=distance_P)
    distance_P[newest] = -1


def _farthest(points_PD: Tensor, distance_P: Tensor) -> Tensor:
    """Return the picks of one round: greedy among the farthest points, which may lie close."""
    pool = distance_P.topk(min(POOL_PER_ROUND, len(points_PD))).indices
    distance, between = distance_P[pool], torch.cdist(points_PD[pool], points_PD[pool]).square()
    picks = []
    for _ in range(min(PICKS_PER_ROUND, len(pool))):
        pick = int(distance.argmax())
        picks.append(pick)
        distance = torch.minimum(distance, between[pick])
        distance[pick] = -1
    return pool[picks]
