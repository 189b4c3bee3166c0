"""What is kept of images whose features have no room: some of their patches, few images whole.

Heads learn from random patches, so that a random share of every image's does. An image scores as
high as its most anomalous patch, though, and the highest of a share is too low: images that are to
be scored must be whole. Those are the images with the smallest keys. With keys that are digests of
their content they are a random choice, the same in whatever order the images come, and the first
in the order of ``pipeline/calibration.py``: the held-out images, and then a few to train on.

Shapes: N images, P patches kept of each, B images of a batch, C channels, K drawn patches.
"""

from bisect import insort
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from model.embedding import join_levels, mean_levels
from model.feature_bank import Allocate, FeatureBank, take

NOWHERE = -1  # place of an image that is not kept whole


class PatchSample:
    """Random patches of N images; read as a ``FeatureBank`` is, which holds the few whole ones."""

    def __init__(
        self, num_images: int, num_positions: int, bank: FeatureBank, allocate: Allocate
    ) -> None:
        """Reserve room for ``num_positions`` patches of each image.

        ``bank`` must be empty; it takes as many whole images as it has room for.
        """
        self.num_positions, self.bank, self.device = num_positions, bank, bank.device
        self.levels, self.channels = bank.levels, bank.channels
        self.patches_NPC = allocate((num_images, num_positions, bank.channels))
        self.means_NC = torch.empty(num_images, bank.channels, device=bank.device)
        self._place_N = torch.full((num_images,), NOWHERE)  # in ``bank``
        self._keys: list[str] = []  # of the images in ``bank``, ascending
        self._image_of: dict[str, int] = {}
        self._generator = torch.Generator().manual_seed(0)

    def write(self, first: int, pooled: Sequence[Tensor], keys: Sequence[str]) -> None:
        """Keep patches of a batch of pooled (B, C, H, W) levels, images ``first`` and following.

        Args:
            first: number of the first image.
            pooled: the levels.
            keys: of each image; two images with the same key are copies.
        """
        batch = slice(first, first + len(keys))
        joint_BPC = join_levels(pooled).flatten(2).transpose(1, 2)
        order_BP = torch.rand(joint_BPC.shape[:2], generator=self._generator).argsort(dim=1)
        chosen_BP = order_BP[:, : self.num_positions].to(joint_BPC.device)
        self.patches_NPC[batch] = joint_BPC.take_along_dim(chosen_BP[..., None], dim=1).half()
        self.means_NC[batch] = torch.cat([level.flatten(1) for level in mean_levels(pooled)], dim=1)
        for index, key in enumerate(keys):
            place = self._claim(first + index, key)
            if place != NOWHERE:
                self.bank.write(place, [level_BCHW[index : index + 1] for level_BCHW in pooled])

    def images(self, index: Tensor) -> list[Tensor]:
        """Return the pooled levels (B, C, H, W) of some of the whole images."""
        place = self._place_N[index.cpu()]
        assert (place != NOWHERE).all(), "only whole images have levels"
        return self.bank.images(place)

    def kept_whole(self, index: Tensor) -> Tensor:
        """Return those of some images that ``images`` has the levels of."""
        return index[(self._place_N[index.cpu()] != NOWHERE).to(index.device)]

    def image_means(self, index: Tensor) -> Tensor:
        """Return the mean feature (N, C) of some images, over all their patches, in float32."""
        return self.means_NC[index]

    def whole(self, image_B: Tensor) -> Tensor:
        """Return the joint features (B P, C) of all patches kept of some images, in float32."""
        return take(self.patches_NPC, image_B).flatten(0, 1).to(self.device).float()

    def draw(
        self, num_patches: int, images: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return random patches (K, C), each kept one equally likely, and whose they are (K,)."""
        randint = partial(
            torch.randint, size=(num_patches,), generator=generator, device=self.device
        )
        pick_K = randint(high=len(images))
        position_K = randint(high=self.num_positions)
        rows_KC = take(self.patches_NPC, images[pick_K], position_K).to(self.device)
        return rows_KC.float(), pick_K

    def _claim(self, image: int, key: str) -> int:
        """Return an image's place in the bank: a free one, or that of the largest key."""
        full = len(self._keys) == self.bank.num_images
        if key in self._image_of or (full and key > self._keys[-1]):
            return NOWHERE
        place = len(self._keys)
        if full:
            last = self._image_of.pop(self._keys.pop())
            place, self._place_N[last] = int(self._place_N[last]), NOWHERE
        insort(self._keys, key)
        self._image_of[key], self._place_N[image] = image, place
        return place


Features = FeatureBank | PatchSample  # what heads are trained on
