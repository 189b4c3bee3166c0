"""Embeddings and the feature bank against the plain reference and by hand."""

import pytest
import torch
from reference_simplenet import official_embedding, paper_embedding

from model.embedding import Embedding, join_levels, mean_levels
from model.feature_bank import FeatureBank
from model.zones import Zones


def levels(*shapes: tuple[int, int, int], count: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(count, *shape, generator=generator) for shape in shapes]


WIDE = [(512, 12, 12), (1024, 6, 6)]


def test_the_paper_embedding_equals_the_reference() -> None:
    maps = levels(*WIDE)
    joined = join_levels(Embedding().pool(maps)).permute(0, 2, 3, 1)
    torch.testing.assert_close(joined, paper_embedding(maps), atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize(
    "shapes",
    [WIDE, [(128, 12, 12), (256, 6, 6)], [(512, 8, 8)], [(256, 8, 8), (512, 4, 4), (1024, 2, 2)]],
)
def test_the_official_embedding_equals_the_reference(shapes: list[tuple[int, int, int]]) -> None:
    maps = levels(*shapes)
    embedding = Embedding(kind="official")
    pooled = embedding.pool(maps)
    assert tuple(p.shape[1] for p in pooled) == embedding.channels([s[0] for s in shapes])
    joined = join_levels(pooled).permute(0, 2, 3, 1)
    torch.testing.assert_close(joined, official_embedding(maps), atol=2e-3, rtol=2e-3)


def test_zero_padding_counts_in_a_border_patch() -> None:
    (pooled,) = Embedding().pool([torch.ones(1, 1, 3, 3)])
    expected = torch.tensor([[4.0, 6.0, 4.0], [6.0, 9.0, 6.0], [4.0, 6.0, 4.0]]) / 9
    torch.testing.assert_close(pooled[0, 0].float(), expected, atol=1e-3, rtol=0)


def test_pooling_then_resizing_is_not_resizing_then_pooling() -> None:
    maps = levels((1, 4, 4), (1, 2, 2))
    ours = join_levels(Embedding().pool(maps))
    swapped = Embedding().pool([join_levels(maps)])[0]
    assert (ours - swapped).abs().max() > 0.1


def test_an_even_patch_size_is_refused() -> None:
    with pytest.raises(ValueError, match="patch_size must be odd"):
        Embedding(patch_size=2)


def filled_bank(maps: list[torch.Tensor]) -> FeatureBank:
    bank = FeatureBank(len(maps[0]), [tuple(m.shape[1:]) for m in maps])
    bank.write(0, [m[:1] for m in maps])
    bank.write(1, [m[1:] for m in maps])
    return bank


def test_a_bank_gives_back_what_was_written() -> None:
    maps = [m.half() for m in levels((3, 4, 4), (5, 2, 2), count=3)]
    bank = filled_bank(maps)
    for found, written in zip(bank.images(torch.tensor([2, 0])), maps, strict=True):
        assert torch.equal(found, written[[2, 0]])


def test_patches_of_a_bank_are_those_of_the_joint_grid() -> None:
    maps = [m.half() for m in levels((3, 6, 6), (5, 3, 3), count=3)]
    bank = filled_bank(maps)
    joint = join_levels(maps).permute(0, 2, 3, 1).flatten(0, 2)
    torch.testing.assert_close(bank.whole(torch.arange(3)), joint, atol=1e-6, rtol=1e-6)


def test_image_means_are_the_levels_means() -> None:
    maps = [m.half() for m in levels((3, 6, 6), (5, 3, 3), count=3)]
    expected = torch.cat([m.flatten(1) for m in mean_levels(maps)], dim=1)
    torch.testing.assert_close(filled_bank(maps).image_means(torch.arange(3)), expected)


def test_draws_come_from_the_images_named_only() -> None:
    maps = [torch.zeros(3, 1, 2, 2).half()]
    maps[0][1] = 1
    bank = filled_bank(maps)
    generator = torch.Generator().manual_seed(0)
    assert bank.draw(200, torch.tensor([1]), generator)[0].unique().tolist() == [1.0]
    rows, whose = bank.draw(200, torch.tensor([0, 2, 1]), generator)
    assert rows.mean().item() == pytest.approx(1 / 3, abs=0.12)
    assert torch.equal(rows[:, 0] == 1, whose == 2)


def test_what_does_not_count_of_an_image_is_never_drawn() -> None:
    """Of the first one two of four positions count, of the second one, of the third all."""
    bank = filled_bank([torch.arange(12.0).view(3, 1, 2, 2).half()])
    bank.zones_at = {0: Zones(ignored=("01", "10")), 1: Zones(ignored=("11", "10"))}
    assert bank.whole(torch.tensor([2, 0])).flatten().tolist() == [8, 9, 10, 11, 0, 3]
    assert bank.num_patches(torch.tensor([1, 0, 1])) == 4
    drawn, whose = bank.draw(4000, torch.tensor([1, 2, 0]), torch.Generator().manual_seed(0))
    assert torch.equal(whose, torch.tensor([1, 2, 0]).argsort()[drawn[:, 0].long() // 4])
    found, counts = drawn.unique(return_counts=True)
    assert found.tolist() == [0, 3, 7, 8, 9, 10, 11]
    mean, variance = 4000 / 7, 4000 / 7 * 6 / 7
    assert (counts - mean).abs().max() < 4 * variance**0.5
    bank.zones = Zones(ignored=("00", "01"))  # of the third
    assert bank.whole(torch.tensor([2])).flatten().tolist() == [8, 9, 10]
