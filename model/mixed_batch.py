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
from model.kind import Heads, Images, Scored, join_batches, runs_of_same
from model.thread_pool import map_threads

INPUTS_AT_A_TIME = 16  # of an image that is several


def score_images(
    backbone: Backbone, embedding: Embedding, heads_B: Sequence[Heads], images_BHWC: Images
) -> Scored:
    """Return image scores (B,) and patch scores (B, H, W) on the finest grid.

    Args:
        backbone: the network that all images pass.
        embedding: how its levels are pooled.
        heads_B: the heads of each image; those of one category lie side by side.
        images_BHWC: as they were read. Those that are cut into tiles, all of one category, may be
            of several sizes.
    """
    score = partial(score_inputs, backbone, embedding)
    return heads_B[0].score_pixels(heads_B, images_BHWC, score, INPUTS_AT_A_TIME)


def score_inputs(
    backbone: Backbone, embedding: Embedding, heads_B: Sequence[Heads], inputs_BHWC: Tensor
) -> Scored:
    """Return what ``score_images`` returns, of what the network sees."""
    if backbone.is_on_cpu:
        return _score_alone(backbone, embedding, heads_B, inputs_BHWC)
    return score_together(heads_B, embedding.pool(backbone(inputs_BHWC)))


def score_together(heads_B: Sequence[Heads], levels: Sequence[Tensor]) -> Scored:
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

    On a CPU they have the bits that ``score_images`` gives. Images that are cut into tiles pass it
    once for each of the heads.
    """
    pooled = several[0].embed(
        images_BHWC, lambda inputs: embedding.pool(backbone(inputs)), INPUTS_AT_A_TIME
    )
    alone = backbone.is_on_cpu
    return torch.stack([score_embedded(heads, pooled, alone=alone)[0] for heads in several])


def score_embedded(heads: Heads, pooled: Sequence[Any], *, alone: bool) -> Scored:
    """Return what ``score_images`` returns for one category's images, from their pooled levels.

    Args:
        heads: of the category.
        pooled: (B, C, H, W) each, or a ``TiledImage`` of each image.
        alone: input by input, as a CPU has them.
    """
    return heads.score_levels(pooled, _embedded_alone if alone else score_together)


def _embedded_alone(heads_B: Sequence[Heads], pooled: Sequence[Tensor]) -> Scored:
    in_float32 = {heads: heads.in_float32() for heads in dict.fromkeys(heads_B)}
    levels_B = zip(*(level.split(1) for level in pooled), strict=True)
    images = [(in_float32[heads], levels) for heads, levels in zip(heads_B, levels_B, strict=True)]
    return join_batches(map_threads(lambda image: image[0](image[1]), images))


def _score_alone(
    backbone: Backbone, embedding: Embedding, heads_B: Sequence[Heads], images_BHWC: Tensor
) -> Scored:
    backbone.admit(len(images_BHWC))
    levels_of = backbone.for_one_image(images_BHWC.shape[1:3])

    def score(run: slice) -> Scored:
        heads = heads_B[run.start].in_float32()
        images = images_BHWC[run].split(1)
        return join_batches(heads(embedding.pool(levels_of(image))) for image in images)

    runs = runs_of_same(heads_B, -(-len(heads_B) // torch.get_num_threads()))
    return join_batches(map_threads(score, runs))
