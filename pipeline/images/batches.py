"""Many images as the batches that a network takes.

Shapes: B images, H x W pixels.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from model.preprocessing import Preprocessing
from pipeline.images.decode import ImageRead, read_image, read_of_file
from pipeline.images.page_numbers import of_same_file
from pipeline.images.prefetch import read_ahead

BATCH_IMAGES = 8

Item = TypeVar("Item")


def batches(items: Iterable[Item], size: int = BATCH_IMAGES) -> Iterator[list[Item]]:
    """Yield lists of ``size`` items; the last may be shorter."""
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch


def read_all(uris: Sequence[str], preprocessing: Preprocessing) -> Iterator[ImageRead]:
    """Yield every image in order, read and decoded ahead of the consumer."""
    if preprocessing.pages != "each":
        return read_ahead(lambda uri: read_image(uri, preprocessing), uris)
    files = of_same_file(uris, BATCH_IMAGES)  # a file is fetched once for so many of its pages
    return chain.from_iterable(read_ahead(lambda some: read_of_file(some, preprocessing), files))


def stack(images: Sequence[ImageRead]) -> Tensor:
    """Return readable images as one uint8 tensor, (B, H, W, 3)."""
    return torch.from_numpy(
        np.stack([image.pixels for image in images if image.pixels is not None])
    )
