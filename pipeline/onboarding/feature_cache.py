"""Where a category's features are kept: in memory, or in a file.

A file has no name: whatever becomes of the process, nothing is left behind. It is mapped, so the
system writes its pages out and drops them as memory gets short. Its room on the disk is reserved at
once: a full disk is a clear error here, and several categories see each other's files.
"""

import logging
import math
import mmap
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from model.errors import CategoryFault
from model.feature_bank import Allocate, FeatureBank, Shape, image_bytes
from model.tiled_bank import TiledBank
from pipeline.catalogue.catalogue import Category

logger = logging.getLogger(__name__)

GB = 10**9
FREE_SHARE = 0.5  # of the disk that one category's file may take


class CacheTooSmall(CategoryFault):
    """The features have no room in memory or on disk."""


def bank_of_images(
    category: Category, num_images: int, shapes: Sequence[Shape], device: torch.device
) -> FeatureBank | TiledBank:
    """Return room for so many images, whatever they are to the network; as ``reserve`` does."""
    tiles = category.preprocessing.tiles
    if tiles is None:
        return reserve(category, num_images, shapes, device)
    inputs = category.preprocessing.num_inputs
    bank = reserve(category, num_images * inputs, shapes, device, inputs)
    return TiledBank(bank, tiles, partial(_grow, category, shapes))


def reserve(
    category: Category,
    num_inputs: int,
    shapes: Sequence[Shape],
    device: torch.device,
    inputs_an_image: int = 1,
) -> FeatureBank:
    """Return room for the features of so many inputs of the network, on the device of their use.

    Shapes are (C, H, W) of each level, finest first; an image may be several inputs, its tiles and
    thumbnail.

    Raises:
        CacheTooSmall: neither memory nor disk has room.
    """
    allocate = _place(category, num_inputs, shapes, inputs_an_image)
    return FeatureBank(num_inputs, shapes, device, allocate)


def _grow(category: Category, shapes: Sequence[Shape], bank: FeatureBank, num_inputs: int) -> None:
    """Make room for so many inputs of images that are larger than the usual one.

    Raises:
        CacheTooSmall: neither memory nor disk has room.
    """
    beside = max(level.nbytes for level in bank.levels)  # it is there twice meanwhile
    inputs = category.preprocessing.num_inputs
    with_more = max(num_inputs, bank.num_images * 3 // 2)
    try:
        allocate = _place(category, with_more, shapes, inputs, beside)
    except CacheTooSmall:
        with_more = num_inputs
        allocate = _place(category, with_more, shapes, inputs, beside)
    bank.grow(with_more, allocate)


def _place(
    category: Category,
    num_inputs: int,
    shapes: Sequence[Shape],
    inputs_an_image: int,
    beside: int = 0,
) -> Allocate | None:
    """Return what keeps features in a file; None where memory has room for them.

    ``beside`` are bytes of features that are in memory or on disk at the same time.

    Raises:
        CacheTooSmall: neither memory nor disk has room.
    """
    asked = num_inputs * image_bytes(shapes) + beside
    memory, folder = int(category.cache_gb * GB), tempfile.gettempdir()
    if asked <= memory:
        return None
    disk = int(min(category.cache_disk_gb * GB, FREE_SHARE * shutil.disk_usage(folder).free))
    if asked <= disk:
        logger.info("%s: %.3g GB of features go to a file in %s", category.name, asked / GB, folder)
        return mapped
    fit = max(memory, disk) // image_bytes(shapes) // inputs_an_image
    num_images = -(-num_inputs // inputs_an_image)
    cut = f" of {inputs_an_image} inputs (tiles and thumbnail)" if inputs_an_image > 1 else ""
    fewer = f", or take fewer images: {fit} fit; `max_images: {fit}` trains on so many"
    if beside:  # some are larger, so that nobody knows how many would fit
        cut, fewer = f"{cut} and more", ", or take fewer images (max_images)"
    raise CacheTooSmall(
        f"{category.name}: the features of {num_images} images{cut} take {asked / GB:.3g} GB; "
        f"there is room for {memory / GB:.3g} GB in memory (cache_gb) and for {disk / GB:.3g} GB "
        f"in {folder} (half of what is free there, cache_disk_gb at most). Raise cache_gb or "
        f"cache_disk_gb, let TMPDIR name a folder with more room{fewer if fit else ''}."
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
            f"Make room, let TMPDIR name another folder, raise cache_gb, or set max_images lower."
        ) from error
    return torch.frombuffer(memory, dtype=torch.float16).view(shape)
