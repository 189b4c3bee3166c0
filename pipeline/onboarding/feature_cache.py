"""Where a category's features are kept: in memory, in a file, or only a share of them.

A file has no name: whatever becomes of the process, nothing is left behind. It is mapped, so the
system writes its pages out and drops them as memory gets short. Its room on the disk is reserved at
once: a full disk is a clear error here, and several categories see each other's files.

Where neither has room every image keeps a share of its patches to train on. Whole stay the images
that will be held out, and some training images on which the scale of the heads is set
(``model/folding.py``); ``model/patch_sample.py`` says how they are found.
"""

import logging
import math
import mmap
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from model.errors import CategoryFault
from model.feature_bank import Allocate, FeatureBank, Shape, image_bytes
from model.patch_sample import Features, PatchSample
from pipeline.calibration import CalibrationConfig, Part, split_by_content
from pipeline.catalogue.catalogue import Category

logger = logging.getLogger(__name__)

GB = 10**9
FREE_SHARE = 0.5  # of the disk that one category's file may take
SCALE_IMAGES = 256  # training images kept whole: their mean's error is 1/16 of their spread
LEAST_SHARE = 0.01  # of an image's patches; fewer would say little of it


class CacheTooSmall(CategoryFault):
    """The features have no room in memory or on disk."""


@dataclass(frozen=True, kw_only=True)
class FeatureCache:
    """Room for the features of one category."""

    category: Category
    shapes: Sequence[Shape]  # (C, H, W) of each level, finest first
    device: torch.device  # where features are used, and whose memory counts

    def whole(self, num_images: int) -> FeatureBank:
        """Return room for so many images as they are.

        Raises:
            CacheTooSmall: there is none.
        """
        asked = num_images * image_bytes(self.shapes)
        if not self._has_room(asked):
            raise self._too_small(num_images, "; all of it is needed")
        return FeatureBank(num_images, self.shapes, self.device, self._allocator(asked))

    def training(self, num_images: int) -> Features:
        """Return room for so many images, of which some will be held out by their content.

        Raises:
            CacheTooSmall: not even a share of the patches has room, or every image must be whole
                since it is scored by the member that left it out (calibration: cross).
            TooFewImages: there are too few to hold out.
        """
        if self._has_room(num_images * image_bytes(self.shapes)):
            return self.whole(num_images)
        if self.category.calibration == "cross":
            advice = "; calibration: cross needs every image whole. Take calibration: split"
            raise self._too_small(num_images, advice)
        return self._sample(num_images)

    def _sample(self, num_images: int) -> PatchSample:
        num_held_out = _most_held_out(num_images, self.category.calibration_config)
        num_whole = min(num_held_out + SCALE_IMAGES, num_images)
        whole_bytes = num_whole * image_bytes(self.shapes)
        patch_bytes = torch.float16.itemsize * sum(shape[0] for shape in self.shapes)
        all_patches = math.prod(self.shapes[0][1:])
        room = max(self._memory_bytes, self._disk_bytes)
        num_kept = (room - whole_bytes) // (num_images * patch_bytes)
        least = math.ceil(LEAST_SHARE * all_patches)
        if num_kept < least:
            needed = whole_bytes + num_images * least * patch_bytes
            advice = f"; {num_whole} whole images and a share of the others need {needed / GB:.3g}"
            raise self._too_small(num_images, advice)
        num_kept = min(num_kept, all_patches)
        logger.warning(
            "%s; trains on %.1f %% of each image's patches, %d images whole",
            *(self._shortage(num_images), 100 * num_kept / all_patches, num_whole),
        )
        allocate = self._allocator(whole_bytes + num_images * num_kept * patch_bytes)
        bank = FeatureBank(num_whole, self.shapes, self.device, allocate)
        return PatchSample(num_images, num_kept, bank, allocate)

    @property
    def _memory_bytes(self) -> int:
        return int(self.category.cache_gb * GB)

    @cached_property
    def _disk_bytes(self) -> int:
        free = shutil.disk_usage(tempfile.gettempdir()).free
        return int(min(self.category.cache_disk_gb * GB, FREE_SHARE * free))

    def _has_room(self, size_bytes: int) -> bool:
        return size_bytes <= self._memory_bytes or size_bytes <= self._disk_bytes

    def _allocator(self, size_bytes: int) -> Allocate:
        """Return what gives tensors of so many bytes in all."""
        if size_bytes <= self._memory_bytes:
            return partial(torch.empty, dtype=torch.float16, device=self.device)
        name, folder = self.category.name, tempfile.gettempdir()
        logger.info("%s: %.3g GB of features go to a file in %s", name, size_bytes / GB, folder)
        return mapped

    def _shortage(self, num_images: int) -> str:
        asked = num_images * image_bytes(self.shapes) / GB
        return (
            f"{self.category.name}: the features of {num_images} images take {asked:.3g} GB; there "
            f"is room for {self.category.cache_gb:.3g} GB in memory (cache_gb) and for "
            f"{self._disk_bytes / GB:.3g} GB in {tempfile.gettempdir()} "
            f"(half of what is free there, cache_disk_gb at most)"
        )

    def _too_small(self, num_images: int, advice: str) -> CacheTooSmall:
        return CacheTooSmall(
            f"{self._shortage(num_images)}{advice}. "
            f"Raise cache_gb or cache_disk_gb, or let TMPDIR name a folder with more room."
        )


def mapped(shape: Shape) -> Tensor:
    """Return half-precision zeros that lie in a file without a name, in the temporary folder.

    Raises:
        CacheTooSmall: the disk has filled up, or will not hold such a file.
    """
    size_bytes = torch.float16.itemsize * math.prod(shape)
    try:
        with tempfile.TemporaryFile() as file:
            file.truncate(size_bytes)
            if sys.platform == "linux":  # or a full disk would kill the process as it writes
                os.posix_fallocate(file.fileno(), 0, size_bytes)
            memory = mmap.mmap(file.fileno(), size_bytes)
    except OSError as error:
        raise CacheTooSmall(
            f"{tempfile.gettempdir()} cannot hold {size_bytes / GB:.3g} GB of features: {error}. "
            f"Make room, let TMPDIR name another folder, or raise cache_gb."
        ) from error
    return torch.frombuffer(memory, dtype=torch.float16).view(shape)


def _most_held_out(num_images: int, config: CalibrationConfig) -> int:
    """Return how many of so many images are held out if all can be read and no two are copies.

    Of fewer images never more are.
    """
    parts = split_by_content([str(number) for number in range(num_images)], config)
    return int((parts == Part.CALIBRATION).sum())
