"""Images of many categories in one batch: one shared backbone, each image its own category's heads.

On a CPU every image goes the whole way alone, on one thread, and images run side by side
(``thread_pool.py``): its score has the same bits in whatever batch and on however many cores, and
it is faster, because what an image needs next stays in the cache. On a GPU, where every small
product would wait for its launch, images go through the backbone together and the heads are
stacked into batched products: there an image's bits may depend on the device and on its batch.

Shapes: B images, C channels of a level, H x W its grid, U hidden units of all members.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from model.backbone import Backbone
from model.embedding import Embedding, mean_levels, resize
from model.folding import FoldedHead, FoldedHeads, join_scores
from model.kind import Heads
from model.simplenet import LEAK
from model.thread_pool import map_threads


def score_images(
    backbone: Backbone, embedding: Embedding, heads_B: Sequence[Heads], images_BHWC: Tensor
) -> tuple[Tensor, Tensor]:
    """Return image scores (B,) and patch scores (B, H, W) on the finest grid.

    Args:
        backbone: the network that all images pass.
        embedding: how its levels are pooled.
        heads_B: the heads of each image; those of one category lie side by side.
        images_BHWC: uint8 RGB.
    """
    if backbone.is_on_cpu:
        return _score_alone(backbone, embedding, heads_B, images_BHWC)
    levels = embedding.pool(backbone(images_BHWC))
    folded_B = [heads for heads in heads_B if isinstance(heads, FoldedHeads)]
    if len(folded_B) == len(heads_B) and _stackable(folded_B):
        return _score_stacked(folded_B, levels)
    runs = _runs(heads_B, len(heads_B))
    return _join(heads_B[run.start]([level[run] for level in levels]) for run in runs)


def _score_alone(
    backbone: Backbone, embedding: Embedding, heads_B: Sequence[Heads], images_BHWC: Tensor
) -> tuple[Tensor, Tensor]:
    backbone.admit(len(images_BHWC))

    def score(run: slice) -> tuple[Tensor, Tensor]:
        heads = heads_B[run.start].in_float32()
        images = images_BHWC[run].split(1)
        return _join(heads(embedding.pool(backbone.levels(image))) for image in images)

    runs = _runs(heads_B, -(-len(heads_B) // torch.get_num_threads()))
    return _join(map_threads(score, runs))


def _join(parts: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    scores, patch_scores = zip(*parts, strict=True)
    return torch.cat(scores), torch.cat(patch_scores)


def _runs(heads_B: Sequence[Heads], most: int) -> Iterator[slice]:
    """Cut a batch into runs of at most ``most`` images, each with the same heads."""
    start = 0
    for _, same in groupby(heads_B, key=id):
        stop = start + len(list(same))
        for at in range(start, stop, most):
            yield slice(at, min(at + most, stop))
        start = stop


def _stackable(heads_B: Sequence[FoldedHeads]) -> bool:
    """Whether all heads have the same shape, and no layer between the first and the last."""
    shapes = {
        tuple((name, tuple(value.shape)) for name, value in heads.state_dict().items())
        for heads in set(heads_B)
    }
    return len(shapes) == 1 and not heads_B[0].patch.deeper


def _score_stacked(
    heads_B: Sequence[FoldedHeads], levels: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    patch_scores = _stacked([heads.patch for heads in heads_B], levels)
    scores = patch_scores.flatten(1).amax(dim=1)
    images = [heads.image for heads in heads_B if heads.image is not None]
    if images:
        scores = join_scores(scores, _stacked(images, mean_levels(levels)).flatten())
    return scores, patch_scores


def _stacked(heads_B: Sequence[FoldedHead], levels: Sequence[Tensor]) -> Tensor:
    """Return scores (B, H, W) from batched products, one per level."""
    height, width = levels[0].shape[2:]
    bias_BU, output_BU, offset_B, spread_B = (
        torch.stack([head.get_buffer(name) for head in heads_B])
        for name in ("bias", "output", "offset", "spread")
    )
    parts = []
    for index, level in enumerate(levels):
        weight_BUC = torch.stack([head.weights[index] for head in heads_B])
        rows_BKC = level.float().permute(0, 2, 3, 1).flatten(1, 2)
        part = torch.bmm(rows_BKC, weight_BUC.transpose(1, 2)).unflatten(1, level.shape[2:])
        parts.append(resize(part.permute(0, 3, 1, 2), (height, width)))
    hidden = torch.stack(parts).sum(dim=0) + bias_BU[:, :, None, None]
    hidden = F.leaky_relu_(hidden, LEAK)
    logits: Tensor = torch.bmm(output_BU[:, None], hidden.flatten(2)).squeeze(1)
    scores: Tensor = (logits - offset_B[:, None]) / spread_B[:, None]
    return scores.view(-1, height, width)
