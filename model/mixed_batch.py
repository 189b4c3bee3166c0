"""Images of many categories in one batch: each scored by its own category's heads.

The backbone has seen them together. What is left are small products with another matrix for
every category. On a CPU they are computed image by image, several at a time (``lanes.py``):
stacked into one batched product the same work takes two to three times as long, because nothing
stays in the cache, and an image would have other bits in other company. On a GPU it is the other
way round: there every small product would wait for its launch.

Shapes: B images, C channels of a level, H x W its grid, U hidden units of all members.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from model.embedding import mean_levels, resize
from model.folding import FoldedHead, FoldedHeads, join_scores
from model.lanes import side_by_side
from model.simplenet import LEAK


def score_mixed(heads_B: Sequence[FoldedHeads], levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return image scores (B,) and patch scores (B, H, W), as ``FoldedHeads.forward`` does.

    Args:
        heads_B: the heads of each image; those of one category lie side by side.
        levels: pooled levels of all images, one (B, C, H, W) map each.
    """
    if levels[0].is_cuda and _stackable(heads_B):
        return _score_stacked(heads_B, levels)
    return _score_side_by_side(heads_B, levels)


def _score_side_by_side(
    heads_B: Sequence[FoldedHeads], levels: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    floats = [level.float() for level in levels]  # once for all

    def score(run: slice) -> tuple[Tensor, Tensor]:
        heads: FoldedHeads = heads_B[run.start]
        return heads.one_by_one([level[run] for level in floats])

    runs = list(_runs(heads_B, -(-len(heads_B) // torch.get_num_threads())))
    scores, patch_scores = zip(*side_by_side(score, runs), strict=True)
    return torch.cat(scores), torch.cat(patch_scores)


def _runs(heads_B: Sequence[FoldedHeads], most: int) -> Iterator[slice]:
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
    return len(shapes) == 1 and not any("middle" in name for name, _ in next(iter(shapes)))


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
