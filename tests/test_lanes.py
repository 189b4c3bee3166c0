"""Side by side: all of it once and in order; and an image has the same bits everywhere."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from model.backbone import Backbone, BackboneConfig
from model.embedding import Embedding
from model.folding import FoldedHead, FoldedHeads
from model.lanes import enough_threads, side_by_side
from model.mixed_batch import score_mixed

NUM_IMAGES = 8


def made_heads(backbone: Backbone, seed: int) -> FoldedHeads:
    random = torch.Generator().manual_seed(seed)
    heads = [FoldedHead(backbone.config.channels, units) for units in (256, 128)]
    for head in heads:
        for value in (*head.weights, head.bias, head.output):
            value.copy_(torch.randn(value.shape, generator=random))
    return FoldedHeads(*heads)


@pytest.mark.parametrize("num_threads", [1, 2, 3])
def test_every_run_is_computed_once_and_in_order(num_threads: int) -> None:
    torch.set_num_threads(num_threads)
    images = torch.arange(20)
    runs = [slice(0, 7), slice(7, 8), slice(8, 20)]
    assert torch.equal(torch.cat(side_by_side(lambda run: images[run], runs)), images)


def test_a_lane_has_two_threads_and_the_callers_mode_and_changes_nothing_for_others() -> None:
    torch.set_num_threads(3)
    runs = [slice(i, i + 1) for i in range(6)]

    def look(_: slice) -> tuple[int, bool]:
        return torch.get_num_threads(), torch.is_inference_mode_enabled()

    with torch.inference_mode():
        assert side_by_side(look, runs) == [(2, True)] * 6
    assert side_by_side(look, runs) == [(2, False)] * 6
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 2), (5, 5)])
def test_one_thread_is_too_few(before: int, after: int) -> None:
    torch.set_num_threads(before)
    with enough_threads():
        assert torch.get_num_threads() == after
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("crop", [64, 128, 224])
@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18", "wide_resnet50_2"])
def test_an_image_has_the_same_bits_in_whatever_company_and_on_however_many_threads(
    name: str, crop: int
) -> None:
    torch.manual_seed(0)
    backbone = Backbone(BackboneConfig(name=name, weights="random"))
    images = torch.zeros(NUM_IMAGES, crop, crop, 3, dtype=torch.uint8).random_(256)
    fleet = [made_heads(backbone, seed) for seed in range(3)]
    heads = [fleet[i] for i in (0, 0, 0, 1, 1, 1, 1, 2)]

    def score(part: slice) -> tuple[Tensor, Tensor]:
        return score_mixed(heads[part], Embedding().pool(backbone(images[part])))

    with torch.inference_mode():
        torch.set_num_threads(2)
        whole = score(slice(0, NUM_IMAGES))
        for num_threads, cuts in ((2, (2, 6)), (3, (3, 5)), (4, (4,))):
            torch.set_num_threads(num_threads)
            edges = [0, *cuts, NUM_IMAGES]
            parts = [score(slice(*pair)) for pair in pairwise(edges)]
            for one, others in zip(whole, zip(*parts, strict=True), strict=True):
                assert torch.equal(one, torch.cat(others))
