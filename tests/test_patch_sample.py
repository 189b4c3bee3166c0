"""A share of the patches of every image, and a few images whole."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.embedding import join_levels, mean_levels
from model.feature_bank import FeatureBank
from model.patch_sample import PatchSample
from pipeline.calibration import first_copies

SHAPES = [(3, 4, 4), (5, 2, 2)]


def images_of_number(numbers: list[int]) -> list[torch.Tensor]:
    """Images of which every value is the image's number."""
    values = torch.tensor(numbers).half().view(-1, 1, 1, 1)
    return [values.expand(-1, *shape) for shape in SHAPES]


@given(
    keys=st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=40),
    num_whole=st.integers(1, 12),
    batch=st.integers(1, 5),
)
def test_whole_are_the_smallest_keys_in_whatever_order_they_come(
    keys: list[str], num_whole: int, batch: int
) -> None:
    bank = FeatureBank(num_whole, SHAPES)
    sample = PatchSample(len(keys), 2, bank, lambda shape: torch.empty(shape).half())
    for first in range(0, len(keys), batch):
        part = keys[first : first + batch]
        sample.write(first, images_of_number(list(range(first, first + len(part)))), part)
    smallest = sorted(set(keys))[:num_whole]
    found = sample.kept_whole(torch.arange(len(keys)))
    assert [keys[index] for index in found.tolist()] == [
        key
        for key, first in zip(keys, first_copies(keys), strict=True)
        if first and key in smallest
    ]
    assert [keys.index(keys[index]) for index in found.tolist()] == found.tolist()
    for level in sample.images(found):
        assert torch.equal(level[:, 0, 0, 0], found.half())
    assert torch.equal(
        sample.image_means(torch.arange(len(keys)))[:, 7], torch.arange(len(keys)).float()
    )


def random_images(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(count, *shape, generator=generator).half() for shape in SHAPES]


def test_a_sample_of_everything_is_everything() -> None:
    maps = random_images(3)
    sample = PatchSample(3, 16, FeatureBank(1, SHAPES), lambda shape: torch.empty(shape).half())
    sample.write(0, maps, ["a", "b", "c"])
    joint = join_levels(maps).permute(0, 2, 3, 1).flatten(1, 2)
    for image in range(3):
        found = sample.whole(torch.tensor([image]))
        distance, nearest = torch.cdist(found, joint[image]).min(dim=1)
        assert sorted(nearest.tolist()) == list(range(16))
        assert distance.max() < 0.01
    means = torch.cat([m.flatten(1) for m in mean_levels(maps)], dim=1)
    torch.testing.assert_close(sample.image_means(torch.arange(3)), means)


def test_every_position_is_kept_equally_often() -> None:
    """4 of 16 positions of 4,000 images: each is kept 1,000 times, give or take 27."""
    numbers = torch.arange(16.0).view(1, 1, 4, 4).expand(4000, 1, 4, 4).half()
    bank = FeatureBank(1, [(1, 4, 4)])
    sample = PatchSample(4000, 4, bank, lambda shape: torch.empty(shape).half())
    sample.write(0, [numbers], [f"{number:04d}" for number in range(4000)])
    counts = torch.bincount(sample.whole(torch.arange(4000)).flatten().long(), minlength=16)
    assert counts.sum() == 16_000
    assert (counts - 1000).abs().max() < 4 * 27.4


def test_draws_come_from_the_images_named_only() -> None:
    sample = PatchSample(3, 2, FeatureBank(1, SHAPES), lambda shape: torch.empty(shape).half())
    sample.write(0, images_of_number([0, 1, 2]), ["a", "b", "c"])
    rows, whose = sample.draw(200, torch.tensor([2, 0]), torch.Generator().manual_seed(0))
    assert rows.shape == (200, 8)
    assert torch.equal(rows[:, 0], torch.tensor([2.0, 0.0])[whose])
    assert rows.mean().item() == pytest.approx(1, abs=0.3)  # 200 fair coins: 4 sigma is 0.28
