"""Pooled features of one category's good images, kept so that the backbone runs once per image.

Every level stays on its own grid in half precision; a patch is put together only when it is
drawn. That is exact, since resizing is linear, and takes half the memory of the joint grid.

Shapes: N images, H x W positions of a level, C channels; K drawn patches.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from model.embedding import resize


class FeatureBank:
    """Patch features of N images; filled image by image, then read at random."""

    def __init__(
        self,
        num_images: int,
        shapes: Sequence[tuple[int, int, int]],
        device: torch.device | str = "cpu",
    ) -> None:
        """Reserve memory for ``num_images`` maps of each (C, H, W) in ``shapes``."""
        self.num_images, self.device = num_images, torch.device(device)
        self.grid = shapes[0][1:]  # the finest level's grid is the joint one
        self.levels = [
            torch.empty(num_images, height * width, channels, dtype=torch.float16, device=device)
            for channels, height, width in shapes
        ]
        self._shapes = list(shapes)
        self._taps = [
            tuple(taps.to(device) for taps in _bilinear_taps(shape[1:], self.grid))
            for shape in shapes
        ]

    @property
    def channels(self) -> int:
        """Width C of a joint patch feature."""
        return sum(shape[0] for shape in self._shapes)

    @property
    def size_bytes(self) -> int:
        """Memory taken by all levels."""
        return sum(level.numel() * level.element_size() for level in self.levels)

    def write(self, first: int, pooled: Sequence[Tensor]) -> None:
        """Store a batch of pooled (B, C, H, W) levels as images ``first`` and following."""
        for store, level_BCHW in zip(self.levels, pooled, strict=True):
            store[first : first + len(level_BCHW)] = level_BCHW.flatten(2).transpose(1, 2)

    def images(self, index: Tensor) -> list[Tensor]:
        """Return the pooled levels (B, C, H, W) of some images, as the backbone gave them."""
        return [
            store[index].transpose(1, 2).unflatten(2, shape[1:])
            for store, shape in zip(self.levels, self._shapes, strict=True)
        ]

    def image_means(self, index: Tensor) -> Tensor:
        """Return the mean feature (N, C) of some images, level beside level, in float32."""
        means = [
            torch.cat([store[part].float().mean(dim=1) for part in index.split(64)])
            for store in self.levels
        ]
        return torch.cat(means, dim=1)

    def patches(self, image_K: Tensor, position_K: Tensor) -> Tensor:
        """Return joint features (K, C) of single positions of the finest grid, in float32."""
        parts = []
        for store, (tap_P4, weight_P4) in zip(self.levels, self._taps, strict=True):
            if tap_P4.shape[1] == 1:
                parts.append(store[image_K, position_K].float())
                continue
            values_K4C = store[image_K[:, None], tap_P4[position_K]].float()
            parts.append(torch.einsum("ktc,kt->kc", values_K4C, weight_P4[position_K]))
        return torch.cat(parts, dim=1)

    def whole(self, image_B: Tensor) -> Tensor:
        """Return the joint features (B H W, C) of all positions of some images, in order."""
        position_P = torch.arange(self.grid[0] * self.grid[1], device=self.device)
        return self.patches(
            image_B.repeat_interleave(len(position_P)), position_P.repeat(len(image_B))
        )

    def draw(self, num_patches: int, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return random patches (K, C) of the images named, each position equally likely."""
        randint = partial(
            torch.randint, size=(num_patches,), generator=generator, device=self.device
        )
        pick_K = randint(high=len(images))
        position_K = randint(high=self.grid[0] * self.grid[1])
        return self.patches(images[pick_K], position_K)


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
