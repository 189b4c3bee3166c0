"""Images of many categories in one batch: one shared backbone, each image its own category's heads.

On a CPU every image goes the whole way alone, on one thread, and images run side by side
(``thread_pool.py``): its score has the same bits in whatever batch and on however many cores, and
it is faster, because what an image needs next stays in the cache. On a GPU, where every small
product would wait for its launch, images go through the backbone together and each kind scores
its images at once: there an image's bits may depend on the device and on its batch.

Shapes: B images, C channels of a level, H x W its grid.
"""

from collections.abc import Sequence
from functools import partial
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from model.backbone import Backbone
from model.embedding import Embedding
from model.kind import Heads, join_batches, runs_of_same
from model.thread_pool import map_threads
from model.tiled_heads import ScoreInputs, TiledHeads

INPUTS_AT_A_TIME = 16  # of an image that is cut into tiles

Images = Tensor | list[Tensor]  # (B, H, W, 3), or (H, W, 3) each


def score_images(
    backbone: Backbone, embedding: Embedding, heads_B: Sequence[Heads], images_BHWC: Images
) -> tuple[Tensor, Tensor]:
    """Return image scores (B,) and patch scores (B, H, W) on the finest grid.

    Args:
        backbone: the network that all images pass.
        embedding: how its levels are pooled.
        heads_B: the heads of each image; those of one category lie side by side.
        images_BHWC: uint8 RGB. Those of ``TiledHeads``, all of one category, are cut into the
            network's inputs, a few at a time.
    """
    if isinstance(heads_B[0], TiledHeads):
        score = partial(score_images, backbone, embedding)
        return score_tiled(heads_B[0], images_BHWC, score)
    images_BHWC = as_batch(images_BHWC)
    if backbone.is_on_cpu:
        return _score_alone(backbone, embedding, heads_B, images_BHWC)
    return score_together(heads_B, embedding.pool(backbone(images_BHWC)))


def score_tiled(
    heads: TiledHeads, images: Images, score: ScoreInputs, most: int = INPUTS_AT_A_TIME
) -> tuple[Tensor, Tensor]:
    """Return what ``score_images`` returns, of images that are cut into tiles.

    Args:
        heads: of the images' category.
        images: uint8 RGB, of any size.
        score: of inputs, from the heads of each and their pixels (k, S, S, 3).
        most: inputs at a time.
    """
    return join_batches(heads.score_pixels(image, score, most) for image in images)


def as_batch(images: Images) -> Tensor:
    """Return images of one size as one tensor (B, H, W, 3)."""
    return images if isinstance(images, Tensor) else torch.stack(images)


def score_together(heads_B: Sequence[Heads], levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return what ``score_images`` returns on a GPU, from levels that are pooled already."""
    scored, start = [], 0
    for _, same in groupby(heads_B, key=type):
        run = slice(start, start + len(list(same)))
        score_each = heads_B[start].score_each  # of the kind
        scored.append(score_each(heads_B[run], [level[run] for level in levels]))
        start = run.stop
    return join_batches(scored)


def score_by_several(
    backbone: Backbone, embedding: Embedding, several: Sequence[Heads], images_BHWC: Images
) -> Tensor:
    """Return the scores (K, B) of all images by each of K heads, in one pass of the backbone.

    On a CPU they have the bits that ``score_images`` gives. Images that are cut into tiles, which
    may be of several sizes, pass it once for each of the heads.
    """
    if isinstance(several[0], TiledHeads):
        each = (score_images(backbone, embedding, [heads], images_BHWC)[0] for heads in several)
        return torch.stack(list(each))
    images_BHWC = as_batch(images_BHWC)
    if not backbone.is_on_cpu:
        levels = embedding.pool(backbone(images_BHWC))
        return torch.stack([score_embedded(heads, levels, alone=False)[0] for heads in several])
    backbone.admit(len(images_BHWC))
    levels_of = backbone.for_one_image(images_BHWC.shape[1:3])
    in_float32 = [heads.in_float32() for heads in several]

    def score(image_1HWC: Tensor) -> Tensor:
        pooled = embedding.pool(levels_of(image_1HWC))
        return torch.stack([heads(pooled)[0] for heads in in_float32])

    return torch.cat(map_threads(score, images_BHWC.split(1)), dim=1)


def score_embedded(heads: Heads, pooled: Sequence[Any], *, alone: bool) -> tuple[Tensor, Tensor]:
    """Return what ``score_images`` returns for one category's images, from their pooled levels.

    Args:
        heads: of the category.
        pooled: (B, C, H, W) each, or a ``TiledImage`` of each image.
        alone: input by input, as a CPU has them.
    """
    if isinstance(heads, TiledHeads):
        score: ScoreInputs = _embedded_alone if alone else Heads.score_each
        return join_batches(heads.score_levels(image, score) for image in pooled)
    heads_B = [heads] * len(pooled[0])
    return _embedded_alone(heads_B, pooled) if alone else heads.score_each(heads_B, pooled)


def _embedded_alone(heads_B: Sequence[Heads], pooled: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    in_float32 = {heads: heads.in_float32() for heads in dict.fromkeys(heads_B)}
    levels_B = zip(*(level.split(1) for level in pooled), strict=True)
    images = [(in_float32[heads], levels) for heads, levels in zip(heads_B, levels_B, strict=True)]
    return join_batches(map_threads(lambda image: image[0](image[1]), images))


def _score_alone(
    backbone: Backbone, embedding: Embedding, heads_B: Sequence[Heads], images_BHWC: Tensor
) -> tuple[Tensor, Tensor]:
    backbone.admit(len(images_BHWC))
    levels_of = backbone.for_one_image(images_BHWC.shape[1:3])

    def score(run: slice) -> tuple[Tensor, Tensor]:
        heads = heads_B[run.start].in_float32()
        images = images_BHWC[run].split(1)
        return join_batches(heads(embedding.pool(levels_of(image))) for image in images)

    runs = runs_of_same(heads_B, -(-len(heads_B) // torch.get_num_threads()))
    return join_batches(map_threads(score, runs))
