"""Features of images that are cut into tiles, and how heads are given them.

Shapes: K inputs of an image (its tiles, then the thumbnail), C channels, h x w a level's grid.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from model.feature_bank import FeatureBank
from model.tiled_zones import zones_of_inputs
from model.tiles import Size, Tiles
from model.zones import EVERYWHERE

CHUNK = 16  # inputs whose features are in memory at a time

Grow = Callable[[FeatureBank, int], None]  # makes room in a bank for so many inputs


@dataclass(frozen=True)
class TiledImage:
    """The pooled levels of one image's inputs, read as they are asked for."""

    size: Size  # of the image that was cut, pixels
    chunks: Callable[[], Iterator[Sequence[Tensor]]]  # (k, C, h, w) of each level, in order


def of_levels(size: Size, levels: Sequence[Tensor]) -> TiledImage:
    """Return an image whose levels (K, C, h, w) are all in memory."""
    parts = [level.split(CHUNK) for level in levels]
    return TiledImage(size, lambda: (list(chunk) for chunk in zip(*parts, strict=True)))


def by_half(bank: FeatureBank, num_inputs: int) -> None:
    """Make room for so many inputs, and for half as many again as before."""
    bank.grow(max(num_inputs, bank.num_images * 3 // 2))


class TiledBank:
    """Features of N images: the inputs of all of them are images of a ``FeatureBank``."""

    zones = EVERYWHERE  # what of an image counts

    def __init__(self, inputs: FeatureBank, tiles: Tiles, grow: Grow = by_half) -> None:
        """Start with no image; ``inputs`` has room for the inputs of some.

        Where images have more than that, ``grow`` makes room for so many inputs, or raises.
        """
        self.inputs, self.tiles, self._grow = inputs, tiles, grow
        self.sizes: list[Size] = []
        self.starts = [0]  # of each image's inputs, and where the last one's end

    @property
    def device(self) -> torch.device:
        """Where features are used."""
        return self.inputs.device

    @property
    def num_images(self) -> int:
        """Images that were written, N."""
        return len(self.sizes)

    def write(self, first: int, images: Sequence[TiledImage]) -> None:
        """Store images as number ``first`` and following; they come in order."""
        assert first == len(self.sizes), "images are written one after the other"
        for image in images:
            start = self.starts[-1]
            needed = start + self.tiles.num_inputs(image.size)
            if needed > self.inputs.num_images:
                self._grow(self.inputs, needed)
            for levels in image.chunks():
                self.inputs.write(start, levels)
                start += len(levels[0])
            own = zones_of_inputs(self.zones, self.tiles, image.size).of_inputs
            numbered = enumerate(own, self.starts[-1])
            self.inputs.zones_at |= {at: each for at, each in numbered if each != EVERYWHERE}
            self.sizes.append(image.size)
            self.starts.append(start)

    def images(self, index: Tensor) -> list[TiledImage]:
        """Return some images as heads are given them."""
        return [
            TiledImage(self.sizes[number], partial(self._chunks, number))
            for number in index.tolist()
        ]

    def groups_of(self, index: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return of each group the inputs of some images, and of which of these each is one.

        Inputs that do not count are left out.
        """
        numbers = index.tolist()
        group_K = torch.cat([self._groups(self.sizes[number]) for number in numbers])
        spans = [torch.arange(*self.starts[number : number + 2]) for number in numbers]
        counts = torch.tensor([len(span) for span in spans])
        input_K, whose_K = torch.cat(spans), torch.arange(len(index)).repeat_interleave(counts)
        masks = (group_K == group for group in range(len(self.tiles.group_names)))
        return [(input_K[mask_K], whose_K[mask_K]) for mask_K in masks]

    def _groups(self, size: Size) -> Tensor:
        """Return the group of each input of an image, (K,); -1 where it does not count."""
        group_K = torch.tensor(self.tiles.groups(size))
        zones = zones_of_inputs(self.zones, self.tiles, size)
        return group_K.masked_fill(~zones.taking_part(group_K), -1)

    def _chunks(self, number: int) -> Iterator[list[Tensor]]:
        whole = torch.arange(self.starts[number], self.starts[number + 1])
        for part in whole.split(CHUNK):
            yield self.inputs.images(part)
