"""Side by side: all of it once and in order; and an image has the same bits everywhere."""

from itertools import pairwise

import pytest
import torch
from folded_heads import empty_head
from torch import Tensor

from model.backbone import Backbone, BackboneConfig
from model.embedding import Embedding
from model.folding import FoldedHeads
from model.mixed_batch import score_images
from model.precision import has_bfloat16
from model.thread_pool import map_threads

NUM_IMAGES = 8


def made_heads(backbone: Backbone, seed: int) -> FoldedHeads:
    random = torch.Generator().manual_seed(seed)
    heads = [empty_head(backbone.config.channels, units) for units in (256, 128)]
    for head in heads:
        for value in (*head.weights, head.bias, head.output):
            value.copy_(torch.randn(value.shape, generator=random))
    return FoldedHeads(*heads)


@pytest.mark.parametrize("num_threads", [1, 2, 3])
def test_every_item_is_computed_once_and_in_order(num_threads: int) -> None:
    torch.set_num_threads(num_threads)
    assert map_threads(lambda item: item * item, range(20)) == [item**2 for item in range(20)]


@pytest.mark.parametrize("num_threads", [1, 3])
def test_an_item_has_one_thread_and_the_callers_mode_and_changes_nothing_for_others(
    num_threads: int,
) -> None:
    torch.set_num_threads(num_threads)

    def look(_: int) -> tuple[int, bool]:
        return torch.get_num_threads(), torch.is_inference_mode_enabled()

    with torch.inference_mode():
        assert map_threads(look, range(6)) == [(1, True)] * 6
    assert map_threads(look, range(6)) == [(1, False)] * 6
    assert torch.get_num_threads() == num_threads


def test_items_may_be_mapped_inside_an_item() -> None:
    torch.set_num_threads(2)
    sums = map_threads(lambda n: sum(map_threads(lambda m: n * m, range(4))), range(5))
    assert sums == [0, 6, 12, 18, 24]


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
        return score_images(backbone, Embedding(), heads[part], images[part])

    with torch.inference_mode():
        torch.set_num_threads(2)
        whole = score(slice(0, NUM_IMAGES))
        for num_threads, cuts in ((1, (1, 4)), (2, (2, 6)), (3, (3, 5)), (4, (1,))):
            torch.set_num_threads(num_threads)
            edges = [0, *cuts, NUM_IMAGES]
            parts = [score(slice(*pair)) for pair in pairwise(edges)]
            for one, others in zip(whole, zip(*parts, strict=True), strict=True):
                assert torch.equal(one, torch.cat(others))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_features_have_the_same_bits_in_whatever_batch(precision: str) -> None:
    torch.manual_seed(0)
    backbone = Backbone(BackboneConfig(name="resnet18", weights="random"))
    if precision == "bfloat16":
        if not has_bfloat16(torch.device("cpu")):
            pytest.skip("this processor has no bfloat16")
        backbone = backbone.in_precision("bfloat16")
    images = torch.zeros(5, 64, 64, 3, dtype=torch.uint8).random_(256)
    torch.set_num_threads(2)
    together = backbone(images)
    torch.set_num_threads(3)
    alone = [backbone(image[None]) for image in images]
    for level, own in zip(together, zip(*alone, strict=True), strict=True):
        assert torch.equal(level, torch.cat(own))
