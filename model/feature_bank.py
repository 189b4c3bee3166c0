"""Pooled features of one category's good images, kept so that the backbone runs once per image.

Every level stays on its own grid in half precision; a patch is put together only when it is
drawn. That is exact, since resizing is linear, and takes half the memory of the joint grid.
Patches that do not count are never drawn, so that nothing is trained on them or measured by them.

Shapes: N images, H x W positions of a level, C channels; K drawn patches.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from model.embedding import resize
from model.zones import EVERYWHERE, Zones

Shape = tuple[int, int, int]
Allocate = Callable[[Shape], Tensor]  # gives a half-precision tensor of a shape

BLOCK = 4_096  # patches put together at a time: each takes four positions of every coarser level


@dataclass(frozen=True)
class Counting:
    """Which positions of each image count: one of a few lists of them."""

    lists: Tensor  # (L, P), positions in order, those that count before the others
    lengths: Tensor  # (L,), how many of a list count
    of_image: Tensor  # (N,), which one each image has


class FeatureBank:
    """Patch features of N images; filled image by image, then read at random."""

    def __init__(
        self,
        num_images: int,
        shapes: Sequence[Shape],
        device: torch.device | str = "cpu",
        allocate: Allocate | None = None,
    ) -> None:
        """Reserve room for ``num_images`` maps of each (C, H, W) in ``shapes``.

        What is read comes on ``device``; ``allocate`` may keep it elsewhere, by default it is there
        as well.
        """
        self.num_images, self.device = num_images, torch.device(device)
        self.grid = shapes[0][1:]  # the finest level's grid is the joint one
        self._allocate = allocate or partial(torch.empty, dtype=torch.float16, device=device)
        self.levels = [
            self._allocate((num_images, height * width, channels))
            for channels, height, width in shapes
        ]
        self.zones = EVERYWHERE  # what of an image counts
        self.zones_at: dict[int, Zones] = {}  # of single images, where it is something else
        self._counting: tuple[tuple[Zones, int, int], Counting | None] | None = None
        self._shapes = list(shapes)
        self._taps = [
            tuple(taps.to(device) for taps in _bilinear_taps(shape[1:], self.grid))
            for shape in shapes
        ]

    @property
    def level_channels(self) -> list[int]:
        """Width of each level, finest first."""
        return [shape[0] for shape in self._shapes]

    @property
    def channels(self) -> int:
        """Width C of a joint patch feature."""
        return sum(self.level_channels)

    @property
    def num_positions(self) -> int:
        """Patches of an image."""
        return math.prod(self.grid)

    def first(self, num_images: int) -> "FeatureBank":
        """Return a bank of the first images, which shares their memory."""
        levels = iter(self.levels)
        return FeatureBank(
            num_images, self._shapes, self.device, lambda _: next(levels)[:num_images]
        )

    def write(self, first: int, pooled: Sequence[Tensor]) -> None:
        """Store a batch of pooled (B, C, H, W) levels as images ``first`` and following."""
        for store, level_BCHW in zip(self.levels, pooled, strict=True):
            store[first : first + len(level_BCHW)] = level_BCHW.flatten(2).transpose(1, 2)

    def grow(self, num_images: int, allocate: Allocate | None = None) -> None:
        """Have room for so many images, more than now; what is written stays.

        One level after the other is copied, so that one of them is there twice meanwhile.
        """
        self.num_images, self._allocate = num_images, allocate or self._allocate
        for place, store in enumerate(self.levels):
            self.levels[place] = self._allocate((self.num_images, *store.shape[1:]))
            self.levels[place][: len(store)] = store

    def images(self, index: Tensor) -> list[Tensor]:
        """Return the pooled levels (B, C, H, W) of some images, as the backbone gave them."""
        return [
            self._take(store, index).transpose(1, 2).unflatten(2, shape[1:])
            for store, shape in zip(self.levels, self._shapes, strict=True)
        ]

    def image_means(self, index: Tensor) -> Tensor:
        """Return the mean feature (N, C) of what counts of some images, level beside level."""
        means_NC = torch.empty(len(index), self.channels, device=self.device)
        for zones, places in self.by_zones(index):
            means_NC[places] = self._means(index[places], zones)
        return means_NC

    def by_zones(self, index: Tensor) -> Iterator[tuple[Zones, Tensor]]:
        """Yield what counts of some images, with the places among these where it does."""
        places: dict[Zones, list[int]] = {}
        for place, number in enumerate(index.tolist()):
            places.setdefault(self.zones_at.get(number, self.zones), []).append(place)
        for zones, own in places.items():
            yield zones, torch.tensor(own, device=index.device)

    def patches(self, image_K: Tensor, position_K: Tensor) -> Tensor:
        """Return joint features (K, C) of single positions of the finest grid, in float32."""
        found_KC = torch.empty(len(image_K), self.channels, device=self.device)
        blocks = zip(*(each.split(BLOCK) for each in (found_KC, image_K, position_K)), strict=True)
        for part_KC, image_k, position_k in blocks:
            self._put_together(part_KC, image_k, position_k)
        return found_KC

    def num_patches(self, images: Tensor) -> int:
        """Return how many patches of some images count."""
        counting = self._counted()
        if counting is None:
            return len(images) * self.num_positions
        return int(counting.lengths[counting.of_image[images]].sum())

    def whole(self, image_B: Tensor) -> Tensor:
        """Return the joint features (K, C) of all patches of some images that count, in order."""
        counting = self._counted()
        position_P = torch.arange(self.num_positions, device=self.device)
        if counting is None:
            every = image_B.repeat_interleave(len(position_P))
            return self.patches(every, position_P.repeat(len(image_B)))
        image_B = image_B.to(self.device)
        own_B = counting.of_image[image_B]
        counts_BP = position_P < counting.lengths[own_B, None]
        position_K = counting.lists[own_B][counts_BP]
        return self.patches(image_B.repeat_interleave(counts_BP.sum(dim=1)), position_K)

    def draw(
        self, num_patches: int, images: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return random patches (K, C) of images (N,), and whose among these they are (K,).

        Each position that counts is equally likely.
        """
        randint = partial(
            torch.randint, size=(num_patches,), generator=generator, device=self.device
        )
        counting = self._counted()
        if counting is None:
            pick_K = randint(high=len(images))
            position_K = randint(high=self.num_positions)
            return self.patches(images[pick_K], position_K), pick_K
        own_N = counting.of_image[images]
        end_N = counting.lengths[own_N].cumsum(dim=0)
        number_K = randint(high=int(end_N[-1]))  # among those of all images, one after the other
        pick_K = torch.searchsorted(end_N, number_K, right=True)
        from_end_K = end_N[pick_K] - number_K
        own_K = own_N[pick_K]
        position_K = counting.lists[own_K, counting.lengths[own_K] - from_end_K]
        return self.patches(images[pick_K], position_K), pick_K

    def _counted(self) -> Counting | None:
        """Return what counts of all images, made anew only where it has changed; None: all."""
        known_by = (self.zones, len(self.zones_at), self.num_images)
        if self._counting is None or self._counting[0] != known_by:
            self._counting = (known_by, self._count())
        return self._counting[1]

    def _count(self) -> Counting | None:
        everyone = torch.arange(self.num_images)
        if not any(zones.ignored for zones in (self.zones, *self.zones_at.values())):
            return None
        of_image = torch.empty_like(everyone)
        counts: list[Tensor] = []
        for zones, places in self.by_zones(everyone):
            of_image[places] = len(counts)
            counts.append(zones.counts_on(self.grid).flatten())
        counts_LP = torch.stack(counts)
        lists = counts_LP.int().argsort(dim=1, descending=True, stable=True)
        each = (lists, counts_LP.sum(dim=1), of_image)
        return Counting(*(part.to(self.device) for part in each))

    def _means(self, index: Tensor, zones: Zones) -> Tensor:
        if not zones.ignored:
            means = [
                torch.cat([self._take(store, part).float().mean(dim=1) for part in index.split(64)])
                for store in self.levels
            ]
            return torch.cat(means, dim=1)
        parts = (zones.means(self.images(part)) for part in index.split(64))
        return torch.cat([torch.cat(means, dim=1).flatten(1) for means in parts])

    def _put_together(self, out_KC: Tensor, image_K: Tensor, position_K: Tensor) -> None:
        """Write the joint features of some positions, level beside level."""
        parts = out_KC.split(self.level_channels, dim=1)
        for part_KC, store, (tap_P4, weight_P4) in zip(parts, self.levels, self._taps, strict=True):
            if tap_P4.shape[1] == 1:
                part_KC.copy_(self._take(store, image_K, position_K))
                continue
            values_K4C = self._take(store, image_K[:, None], tap_P4[position_K]).float()
            part_KC.copy_(torch.einsum("ktc,kt->kc", values_K4C, weight_P4[position_K]))

    def _take(self, store: Tensor, *index: Tensor) -> Tensor:
        """Index a tensor that may lie elsewhere than its indices and readers do."""
        return store[tuple(part.to(store.device) for part in index)].to(self.device)


def image_bytes(shapes: Sequence[Shape]) -> int:
    """Return what a bank needs for one image of levels (C, H, W)."""
    return torch.float16.itemsize * sum(math.prod(shape) for shape in shapes)


def _bilinear_taps(coarse: tuple[int, int], fine: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return, for each fine position, its source positions and weights: (P, 4) or (P, 1).

    Read off the resize of unit maps, so that it is the very same interpolation.
    """
    num_coarse = coarse[0] * coarse[1]
    if coarse == fine:
        return torch.arange(num_coarse)[:, None], torch.ones(num_coarse, 1)
    units = torch.eye(num_coarse).view(num_coarse, 1, *coarse)
    weight_PQ = resize(units, fine).flatten(1).T
    weights, taps = weight_PQ.topk(4, dim=1)
    return taps, weights
