"""The coreset: covers what random choice misses."""

import pytest
import torch

from model.coreset import greedy_coreset, random_projection


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("seed", range(5))
def test_rare_kinds_are_covered_before_frequent_ones_are_repeated(seed: int) -> None:
    kinds = torch.eye(6) * 10
    frequent = kinds[0] + 0.01 * torch.randn(500, 6, generator=generator(seed))
    points = torch.cat([frequent, kinds[1:]])
    chosen = greedy_coreset(points, 6, generator(seed)).tolist()
    assert set(range(500, 505)) <= set(chosen)


@pytest.mark.parametrize("size", [1, 31, 32, 33, 100])
def test_points_are_distinct_and_as_many_as_asked(size: int) -> None:
    points = torch.randn(400, 8, generator=generator())
    chosen = greedy_coreset(points, size, generator())
    assert len(chosen) == len(set(chosen.tolist())) == size


def test_it_covers_nearly_as_well_as_picking_one_by_one() -> None:
    points = torch.randn(600, 4, generator=generator())
    chosen = greedy_coreset(points, 64, generator(1))
    radius = torch.cdist(points, points[chosen]).amin(1).max()
    picks = [int(chosen[0])]
    distance = torch.cdist(points, points[picks]).amin(1)
    for _ in range(63):
        picks.append(int(distance.argmax()))
        distance = torch.minimum(distance, torch.cdist(points, points[picks[-1:]])[:, 0])
    assert radius <= 1.25 * distance.max()


def test_the_projection_keeps_distances() -> None:
    points = torch.randn(50, 1000, generator=generator())
    projected = points @ random_projection(1000, generator(1))
    ratio = torch.pdist(projected) / torch.pdist(points)
    assert ratio.mean().item() == pytest.approx(1, abs=0.02)
    assert ratio.std().item() < 0.1  # 1 / sqrt(2 x 128) is 0.06
