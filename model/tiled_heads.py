"""Heads of a category whose images are cut into tiles: one for the tiles, one for the thumbnail.

Both are of the category's own kind and know nothing of tiles. Each group's score of an image, the
highest of its inputs, is expressed in the spread of good images that the group's heads have not
seen, (score - mean) / std, and an image scores as the group that says more: so one threshold of
an image holds as it does for any other heads.

Shapes: K inputs of an image (its T tiles, then the thumbnail), B images, G groups, h x w the patch
grid of an input.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from model.kind import Heads, Kind, join_batches
from model.tile_pixels import cut, join
from model.tiled_bank import TiledImage
from model.tiles import Size, Tiles

Scored = tuple[Tensor, Tensor]  # scores, patch scores
ScoreInputs = Callable[[Sequence[Heads], Any], Scored]  # of inputs, each by its own heads


class TiledHeads(Heads):
    """The heads of the groups, and what makes their scores compare."""

    offset: Tensor
    spread: Tensor

    def __init__(self, groups: Sequence[Heads], tiles: Tiles) -> None:
        """Join the heads of the tiles and, where there is one, of the thumbnail."""
        super().__init__()
        self.groups, self.tiles = nn.ModuleList(groups), tiles
        self.register_buffer("offset", torch.zeros(len(groups)))
        self.register_buffer("spread", torch.ones(len(groups)))

    def forward(self, levels: Sequence[Any]) -> Scored:
        """Return image scores (B,) and joined patch scores (B, h, w); higher is more anomalous.

        Args:
            levels: a ``TiledImage`` of each image.
        """
        return join_batches(self.score_levels(image) for image in levels)

    def score_levels(self, image: TiledImage, score: ScoreInputs | None = None) -> Scored:
        """Return what is said of one image, (1,) and (1, h, w).

        Args:
            image: its pooled levels.
            score: of inputs, from the heads of each and their levels; by default all at once.
        """
        own: ScoreInputs = score or Heads.score_each
        return self._score(image.size, image.chunks(), lambda levels: len(levels[0]), own)

    def score_pixels(self, image_HWC: Tensor, score: ScoreInputs, most: int) -> Scored:
        """Return what is said of one image, (1,) and (1, h, w), from its scaled pixels.

        Args:
            image_HWC: uint8 RGB.
            score: of inputs, from the heads of each and their pixels (k, S, S, 3).
            most: inputs at a time: nothing but their features is in memory.
        """
        size = (image_HWC.shape[0], image_HWC.shape[1])
        return self._score(size, cut(self.tiles, image_HWC, most), len, score)

    def group_scores(self, image: TiledImage) -> Tensor:
        """Return what each group says of an image, (G,), on the common scale."""
        chunks, count = image.chunks(), lambda levels: len(levels[0])
        return self._of_groups(self._inputs(image.size, chunks, count, Heads.score_each)[0])

    def in_float32(self) -> "TiledHeads":
        """Return the same heads with matrices in float32."""
        groups = [group.in_float32() for group in self._groups]
        return TiledHeads(groups, self.tiles).with_scale(self.offset, self.spread)

    def with_scale(self, offset: Tensor, spread: Tensor) -> "TiledHeads":
        """Set mean and spread of the groups' scores, (G,) each; return these heads."""
        self.offset, self.spread = offset, spread
        return self

    @property
    def _groups(self) -> list[Heads]:
        return [group for group in self.groups if isinstance(group, Heads)]

    def _score(
        self, size: Size, chunks: Iterable[Any], count: Callable[[Any], int], score: ScoreInputs
    ) -> Scored:
        scores_K, patches_Khw = self._inputs(size, chunks, count, score)
        group_K = torch.zeros(len(scores_K), dtype=torch.long, device=scores_K.device)
        if self.tiles.thumbnail:
            group_K[-1] = 1
        offset_K, spread_K = (each.to(scores_K)[group_K] for each in (self.offset, self.spread))
        alike_Khw = (patches_Khw - offset_K[:, None, None]) / spread_K[:, None, None]
        stride = self.tiles.size // alike_Khw.shape[1]
        grid = (self.tiles.view[0] // stride, self.tiles.view[1] // stride)
        return self._of_groups(scores_K).amax()[None], join(self.tiles, alike_Khw, size, grid)[None]

    def _inputs(
        self, size: Size, chunks: Iterable[Any], count: Callable[[Any], int], score: ScoreInputs
    ) -> Scored:
        """Return what its own heads say of every input, (K,) and (K, h, w)."""
        num_tiles = self.tiles.num_tiles(size)
        heads_K = [self._groups[0]] * num_tiles + self._groups[1:]
        found, start = [], 0
        for chunk in chunks:
            stop = start + count(chunk)
            found.append(score(heads_K[start:stop], chunk))
            start = stop
        return join_batches(found)

    def _of_groups(self, scores_K: Tensor) -> Tensor:
        highest = (
            [scores_K[:-1].amax(), scores_K[-1]] if self.tiles.thumbnail else [scores_K.amax()]
        )
        apart: Tensor = torch.stack(highest) - self.offset.to(scores_K)
        return apart / self.spread.to(scores_K)


def read_tiled(
    kind: Kind, tiles: Tiles, tensors: Mapping[str, Tensor], channels: Sequence[int]
) -> TiledHeads:
    """Return the heads of a file's tensors.

    Raises:
        ValueError, KeyError: they are not what these levels need.
    """
    parts: dict[str, dict[str, Tensor]] = {}
    own = dict(tensors)
    scale = own.pop("offset"), own.pop("spread")
    for name, value in own.items():
        _, number, rest = name.split(".", 2)
        parts.setdefault(number, {})[rest] = value
    names = [str(number) for number in range(1 + tiles.thumbnail)]
    if sorted(parts) != names or any(each.shape != (len(names),) for each in scale):
        raise ValueError(f"heads of {len(parts)} groups, and not of {len(names)}")
    groups = [kind.read_heads(parts[name], channels) for name in names]
    return TiledHeads(groups, tiles).with_scale(*scale)
