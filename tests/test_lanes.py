"""Images side by side: all of them once, in order, one thread each, the same bits everywhere."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from model.backbone import Backbone, BackboneConfig
from model.embedding import Embedding
from model.folding import FoldedHead, FoldedHeads
from model.lanes import MOST_IMAGES, side_by_side
from model.mixed_batch import score_mixed

NUM_IMAGES = 8


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    torch.manual_seed(0)
    return Backbone(BackboneConfig(name="efficientnet_lite0", weights="random"))


def made_heads(backbone: Backbone, seed: int) -> FoldedHeads:
    random = torch.Generator().manual_seed(seed)
    heads = [FoldedHead(backbone.config.channels, units) for units in (256, 128)]
    for head in heads:
        for value in (*head.weights, head.bias, head.output):
            value.copy_(torch.randn(value.shape, generator=random))
    return FoldedHeads(*heads)


@pytest.mark.parametrize("num_threads", [1, 2, 3])
@pytest.mark.parametrize("num_images", [1, 2, 5, 8, 40])
def test_every_image_is_computed_once_and_in_order(num_threads: int, num_images: int) -> None:
    torch.set_num_threads(num_threads)
    images = torch.arange(num_images)
    runs = side_by_side(lambda run: images[run], num_images)
    assert torch.equal(torch.cat(runs), images)
    assert max(map(len, runs)) <= MOST_IMAGES
    assert len(runs) >= min(num_threads, num_images)


def test_whoever_computes_has_one_thread_and_the_callers_mode() -> None:
    torch.set_num_threads(3)
    with torch.inference_mode():
        seen = side_by_side(
            lambda _: (torch.get_num_threads(), torch.is_inference_mode_enabled()), 6
        )
    assert seen == [(1, True)] * 3
    assert side_by_side(lambda _: torch.is_inference_mode_enabled(), 3) == [False] * 3
    assert torch.get_num_threads() == 3


def test_an_image_has_the_same_bits_in_whatever_company_and_on_however_many_threads(
    backbone: Backbone,
) -> None:
    """With a real backbone: a small one is summed up in the same order anyway."""
    images = torch.zeros(NUM_IMAGES, 224, 224, 3, dtype=torch.uint8).random_(256)
    fleet = [made_heads(backbone, seed) for seed in range(3)]
    heads = [fleet[i] for i in (0, 0, 0, 1, 1, 1, 1, 2)]
    embedding = Embedding()

    def score(run: slice) -> tuple[Tensor, Tensor]:
        return score_mixed(heads[run], embedding.pool(backbone(images[run])))

    with torch.inference_mode():
        torch.set_num_threads(1)
        alone = [score(slice(i, i + 1)) for i in range(NUM_IMAGES)]
        for num_threads in (1, 2, 3, 8):
            torch.set_num_threads(num_threads)
            runs = side_by_side(score, NUM_IMAGES)
            for part in (0, 1):
                together = torch.cat([run[part] for run in runs])
                assert torch.equal(together, torch.cat([one[part] for one in alone]))
