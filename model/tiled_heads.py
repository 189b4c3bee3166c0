"""Heads of a category whose images are cut into tiles: one for the tiles, one for the thumbnail.

Where objects are aligned, each position of a tile may have one of its own. All are of the
category's own kind and know nothing of tiles. Each group's score of an image, the highest of its
inputs, is expressed in the spread of good images that the group's heads have not seen,
(score - mean) / std, and an image scores as the group that says most: so one threshold of an image
holds as it does for any other heads.

Shapes: K inputs of an image (its T tiles, then the thumbnail), B images, G groups, h x w the patch
grid of an input.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from model.kind import EmbedInputs, Heads, Images, Kind, Scored, ScoreInputs, join_batches
from model.tile_pixels import cut, join
from model.tiled_bank import TiledImage
from model.tiled_zones import InputZones, zones_of_inputs
from model.tiles import Size, Tiles
from model.zones import EVERYWHERE, Zones


class TiledHeads(Heads):
    """The heads of the groups, and what makes their scores compare."""

    offset: Tensor
    spread: Tensor

    def __init__(self, groups: Sequence[Heads], tiles: Tiles) -> None:
        """Join the heads of ``tiles.group_names``."""
        super().__init__()
        self.groups, self.tiles = nn.ModuleList(groups), tiles
        self.register_buffer("offset", torch.zeros(len(groups)))
        self.register_buffer("spread", torch.ones(len(groups)))

    def with_zones(self, zones: Zones) -> Self:
        """Set what counts of a whole image: of its inputs that follows, image by image."""
        self.zones = zones
        return self

    def forward(self, levels: Sequence[Any]) -> Scored:
        """Return image scores (B,) and joined patch scores (B, h, w); higher is more anomalous.

        Args:
            levels: a ``TiledImage`` of each image.
        """
        return self.score_levels(levels, Heads.score_each)

    def score_levels(self, pooled: Sequence[TiledImage], score: ScoreInputs) -> Scored:
        """Return what these heads say of images, a few inputs of one at a time."""
        each = (self._score(image.size, image.chunks(), _num_inputs, score) for image in pooled)
        return join_batches(each)

    def score_pixels(
        self, heads_B: Sequence[Heads], images: Images, score: ScoreInputs, most: int
    ) -> Scored:
        """Return what these heads say of scaled images, of any size, a few inputs at a time."""
        assert all(heads is self for heads in heads_B), "a batch is of one category"
        return join_batches(
            self._score(_size_of(image_HWC), cut(self.tiles, image_HWC, most), len, score)
            for image_HWC in images
        )

    def embed(self, images: Images, embed: EmbedInputs, most: int) -> list[TiledImage]:
        """Return scaled images whose inputs are embedded whenever they are asked for."""
        return [
            TiledImage(_size_of(image_HWC), partial(self._embedded, image_HWC, embed, most))
            for image_HWC in images
        ]

    def group_scores(self, image: TiledImage) -> Tensor:
        """Return what each group says of an image, (G,), on the common scale.

        One none of whose inputs counts says 0, so that it has no say in the scale of others.
        """
        scores_K = self._inputs(image.size, image.chunks(), _num_inputs, Heads.score_each)[0]
        group_K = torch.tensor(self.tiles.groups(image.size))
        alike_K = self._alike(scores_K, group_K)
        counts_K = self._zones(image.size).counts
        each = (alike_K[(group_K == group) & counts_K] for group in range(len(self.groups)))
        return torch.stack([own.amax() if len(own) else own.new_zeros(()) for own in each])

    def in_float32(self) -> "TiledHeads":
        """Return the same heads with matrices in float32."""
        groups = [group.in_float32() for group in self._groups]
        heads = TiledHeads(groups, self.tiles).with_scale(self.offset, self.spread)
        return heads.with_zones(self.zones)

    def with_scale(self, offset: Tensor, spread: Tensor) -> "TiledHeads":
        """Set mean and spread of the groups' scores, (G,) each; return these heads."""
        self.offset, self.spread = offset, spread
        return self

    def _embedded(
        self, image_HWC: Tensor, embed: EmbedInputs, most: int
    ) -> Iterator[Sequence[Tensor]]:
        return map(embed, cut(self.tiles, image_HWC, most))

    @property
    def _groups(self) -> list[Heads]:
        return [group for group in self.groups if isinstance(group, Heads)]

    def _score(
        self, size: Size, chunks: Iterable[Any], count: Callable[[Any], int], score: ScoreInputs
    ) -> Scored:
        scores_K, patches_Khw = self._inputs(size, chunks, count, score)
        group_K = torch.tensor(self.tiles.groups(size))
        alike_Khw = self._alike(patches_Khw, group_K)
        stride = self.tiles.size // alike_Khw.shape[1]
        grid = (self.tiles.view[0] // stride, self.tiles.view[1] // stride)
        zones = self._zones(size)
        counts_K = zones.counts.to(alike_Khw.device)
        highest = self._alike(scores_K, group_K)[counts_K].amax()
        lowest = alike_Khw[counts_K].amin()  # of an input that does not count
        alike_Khw = torch.where(counts_K[:, None, None], alike_Khw, lowest)
        return highest[None], join(self.tiles, alike_Khw, size, grid, zones.positions)[None]

    def _inputs(
        self, size: Size, chunks: Iterable[Any], count: Callable[[Any], int], score: ScoreInputs
    ) -> Scored:
        """Return what its own heads say of every input, (K,) and (K, h, w)."""
        heads_K = self._heads(size)
        found, start = [], 0
        for chunk in chunks:
            stop = start + count(chunk)
            found.append(score(heads_K[start:stop], chunk))
            start = stop
        return join_batches(found)

    def _zones(self, size: Size) -> InputZones:
        return zones_of_inputs(self.zones, self.tiles, size)

    def _heads(self, size: Size) -> list[Heads]:
        """Return the heads of each input of an image, with what counts of it, (K,)."""
        groups, of_inputs = self._groups, self._zones(size).of_inputs
        keys = [*zip(self.tiles.groups(size), of_inputs, strict=True)]
        made = {
            (group, zones): groups[group] if zones == EVERYWHERE else groups[group].sharing(zones)
            for group, zones in dict.fromkeys(keys)
        }
        return [made[key] for key in keys]

    def _alike(self, values: Tensor, group_K: Tensor) -> Tensor:
        """Return values of inputs (K, ...) on the common scale."""
        ones = [1] * (values.dim() - 1)
        offset, spread = (
            each.to(values)[group_K.to(values.device)].view(-1, *ones)
            for each in (self.offset, self.spread)
        )
        return (values - offset) / spread


def _size_of(image_HWC: Tensor) -> Size:
    return image_HWC.shape[0], image_HWC.shape[1]


def _num_inputs(levels: Sequence[Tensor]) -> int:
    return len(levels[0])


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
    names = [str(number) for number in range(len(tiles.group_names))]
    if parts.keys() != set(names) or any(each.shape != (len(names),) for each in scale):
        raise ValueError(f"heads of {len(parts)} groups, and not of {len(names)}")
    groups = [kind.read_heads(parts[name], channels) for name in names]
    return TiledHeads(groups, tiles).with_scale(*scale)
