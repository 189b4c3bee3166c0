"""Many categories' heads on one batch: each image as by its own category's heads alone."""

import pytest
import torch
from folded_heads import empty_head
from torch import Tensor

from model.backbone import Backbone, BackboneConfig
from model.embedding import Embedding
from model.folding import FoldedHeads
from model.mixed_batch import score_images

CHANNELS = (6, 10)
GRID = 8


def made_heads(
    seed: int, *, image: bool = True, hidden: int = 12, channels: tuple[int, int] = CHANNELS
) -> FoldedHeads:
    random = torch.Generator().manual_seed(seed)
    heads = [empty_head(channels, units) for units in (hidden, 4)]
    for head in heads:
        for name, value in head.named_buffers():
            value.copy_(torch.randn(value.shape, generator=random))
            if name == "spread":
                value.abs_()
    return FoldedHeads(heads[0], heads[1] if image else None)


def pooled(count: int, seed: int = 0) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    sides = (GRID, GRID // 2)
    return [
        torch.randn(count, channels, side, side, generator=random).half()
        for channels, side in zip(CHANNELS, sides, strict=True)
    ]


def alone(heads_B: list[FoldedHeads], levels: list[Tensor]) -> tuple[Tensor, Tensor]:
    parts = [heads([level[i : i + 1] for level in levels]) for i, heads in enumerate(heads_B)]
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone(BackboneConfig(name="resnet18", layers=(1, 2), weights="random"))


def check_scores(backbone: Backbone, heads_B: list[FoldedHeads]) -> None:
    """Compare with the heads' own scores of features of the whole batch."""
    random = torch.Generator().manual_seed(0)
    size = (len(heads_B), 64, 64, 3)
    images = torch.randint(0, 256, size, generator=random, dtype=torch.uint8)
    mixed = score_images(backbone, Embedding(), heads_B, images)
    expected = alone(heads_B, Embedding().pool(backbone(images)))
    for values, own in zip(mixed, expected, strict=True):
        torch.testing.assert_close(values, own, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("order", [[0] * 6, [0, 0, 1, 1, 1, 2], [0, 1, 2, 3, 4, 5]])
@pytest.mark.parametrize("image", [True, False])
def test_each_image_is_scored_by_its_own_heads(
    backbone: Backbone, order: list[int], image: bool
) -> None:
    fleet = [made_heads(seed, image=image, channels=(64, 128)) for seed in range(6)]
    check_scores(backbone, [fleet[i] for i in order])


@pytest.mark.parametrize("image", [True, False])
def test_stacked_products_agree_with_convolutions(image: bool) -> None:
    heads_B = [made_heads(seed, image=image) for seed in (3, 1, 1, 4)]
    levels = pooled(4)
    for mixed, own in zip(
        FoldedHeads.score_each(heads_B, levels), alone(heads_B, levels), strict=True
    ):
        torch.testing.assert_close(mixed, own, atol=1e-4, rtol=1e-5)


def test_heads_of_different_shapes_share_a_batch_too(backbone: Backbone) -> None:
    fleet = [{}, {"image": False}, {"hidden": 20}]
    heads = [made_heads(i, channels=(64, 128), **own) for i, own in enumerate(fleet)]
    check_scores(backbone, heads)


def test_heads_held_in_half_precision_say_the_same_to_the_bit() -> None:
    heads = made_heads(0)
    heads.round_to_half()
    levels = pooled(2)
    before = heads(levels)
    size = sum(value.nbytes for value in heads.state_dict().values())
    heads.halve()
    for half in (heads, heads.in_float32()):
        for now, then in zip(half(levels), before, strict=True):
            assert torch.equal(now, then)
    assert sum(value.nbytes for value in heads.state_dict().values()) < 0.7 * size
