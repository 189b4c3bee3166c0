"""Many images as the batches that a network takes.

Shapes: B images, H x W pixels.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import TypeVar

import torch
from torch import Tensor

from model.preprocessing import Preprocessing
from pipeline.images.decode import ImageRead, Recall, read_of_file
from pipeline.images.page_numbers import of_same_file
from pipeline.images.prefetch import NUM_THREADS, read_ahead

BATCH_IMAGES = 8

Item = TypeVar("Item")


def batches(items: Iterable[Item], size: int = BATCH_IMAGES) -> Iterator[list[Item]]:
    """Yield lists of ``size`` items; the last may be shorter."""
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch


def batches_within(
    items: Iterable[Item], size: int, weigh: Callable[[Item], int], most: int
) -> Iterator[list[Item]]:
    """Yield lists of ``size`` items at most that weigh ``most`` at most; a heavier one alone."""
    batch: list[Item] = []
    total = 0
    for item in items:
        weight = weigh(item)
        if batch and (len(batch) == size or total + weight > most):
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += weight
    if batch:
        yield batch


def read_all(
    uris: Sequence[str], preprocessing: Preprocessing, recall: Recall | None = None
) -> Iterator[ImageRead]:
    """Yield every image in order, read and decoded ahead of the consumer.

    ``recall`` returns what is known of an image by its digest, which then is not decoded.
    """

    def read(uris: Sequence[str]) -> list[ImageRead]:
        return read_of_file(uris, preprocessing, recall=recall)

    if preprocessing.pages == "each":  # a file is fetched once for so many of its pages
        files: Iterable[Sequence[str]] = of_same_file(uris, BATCH_IMAGES)
    else:
        files = ([uri] for uri in uris)
    return chain.from_iterable(read_ahead(read, files, num_readers(preprocessing)))


def num_readers(preprocessing: Preprocessing) -> int:
    """Return how many threads read ahead: whole images, which are cut later, need memory."""
    return NUM_THREADS if preprocessing.tiles is None else 1


def stack(images: Sequence[ImageRead]) -> Tensor:
    """Return readable images of one size as one uint8 tensor, (B, H, W, 3)."""
    return torch.stack(pixels_of(images))


def pixels_of(images: Sequence[ImageRead]) -> list[Tensor]:
    """Return readable images as uint8 tensors, (H, W, 3) each."""
    return [torch.from_numpy(image.pixels) for image in images if image.pixels is not None]
