"""Good images to cached features: the one backbone pass of an onboarding.

Unreadable images are skipped, counted and listed; too many of them refuse the category.
"""

import hashlib
import logging
import posixpath
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.backbone import STRIDES, Backbone
from model.embedding import Embedding
from model.errors import CategoryFault
from model.feature_bank import FeatureBank
from model.tiled_bank import TiledBank
from pipeline import storage
from pipeline.catalogue.catalogue import Category
from pipeline.datasets.samples import GOOD, Sample, of_split
from pipeline.feature_store.embedder import Embedder
from pipeline.images.decode import ImageRead
from pipeline.inspection.image_set import Gatherer, ImageSet
from pipeline.onboarding.feature_cache import bank_of_images
from pipeline.onboarding.find_tiles import refuse_other_positions
from pipeline.onboarding.listed_images import stay_together
from pipeline.onboarding.zones import zones_of

logger = logging.getLogger(__name__)

MAX_UNREADABLE_SHARE = 0.1

Progress = Callable[[int, int], None]  # images done, images in all


class TooManyUnreadable(CategoryFault):
    """Too many of a category's images cannot be read to trust the rest."""


@dataclass(frozen=True, kw_only=True)
class GoodImages:
    """What one backbone pass over the good images of a category left."""

    uris: list[str]  # of the images that could be read, in the order of ``bank``
    hashes: list[str]  # sha256 of their files
    bursts: list[str]  # digests of what stays together
    unreadable: list[ImageRead]
    statistics: dict[str, NDArray[np.float32]]  # of the images, by name, each (N,)
    modes: tuple[str, ...]  # of their files, in alphabetical order
    bank: FeatureBank | TiledBank
    images: ImageSet  # what checks know of them

    @property
    def digest(self) -> str:
        """The same for the same files, whatever their names and order: hex sha256."""
        return digest_of(self.hashes)


def digest_of(hashes: Sequence[str]) -> str:
    """Return one digest of many files' digests, in whatever order: hex sha256."""
    return hashlib.sha256("".join(sorted(hashes)).encode()).hexdigest()


def training_uris(category: Category, samples: Sequence[Sample]) -> list[str]:
    """Return the good images to learn from: all, or `max_images` of them.

    Those with the smallest hashes of their names are a random choice that needs no file to be read,
    the same in every run, in whatever order they are listed and wherever they are copied to.
    """
    uris = [sample.uri for sample in of_split(samples, "train")]
    if category.max_images is None or len(uris) <= category.max_images:
        return uris
    start = len(posixpath.dirname(storage.absolute(category.images).rstrip("/")))
    uris.sort(key=lambda uri: hashlib.sha256(uri[start:].encode()).digest())
    logger.info(
        "%s: takes %d of %d good images, chosen by the hash of their names (max_images)",
        *(category.name, category.max_images, len(uris)),
    )
    return sorted(uris[: category.max_images])


def extract(
    uris: Sequence[str], category: Category, embedder: Embedder, progress: Progress | None = None
) -> GoodImages:
    """Read, check and embed every image once.

    Raises:
        UnreadableImages: more than a tenth cannot be read.
        CacheTooSmall: neither memory nor disk has room.
        ZonesError: nothing of an image would count.
        OtherPositions: images are cut otherwise, where each position has its own head.
    """
    backbone = embedder.backbone
    shapes = level_shapes(backbone, category.embedding, category.preprocessing.size)
    bank = bank_of_images(category, len(uris), shapes, backbone.mean.device)
    bank.zones = zones_of(category)
    started = time.monotonic()
    gatherer = Gatherer()
    good, unreadable = gatherer.reads, gatherer.unreadable
    for batch in embedder.read(uris, category.preprocessing):
        if batch.images:
            bank.write(len(good), batch.levels)
        gatherer.add(batch)
        if progress:
            progress(len(good) + len(unreadable), len(uris))
    embedder.flush()
    if isinstance(bank, TiledBank):
        refuse_other_positions(category.name, bank.tiles, bank.sizes)
    refuse_many_unreadable(category.name, unreadable, len(uris))
    logger.info(
        "embedded %s: %d images, %d unreadable, %.1f s",
        *(category.name, len(good), len(unreadable), time.monotonic() - started),
    )
    images = gatherer.finish(category.name, [Sample(uri, "train", GOOD) for uri in uris])
    uris, hashes = [image.uri for image in good], [image.sha256 for image in good]
    return GoodImages(
        uris=uris,
        hashes=hashes,
        bursts=stay_together(category, uris, hashes),
        unreadable=unreadable,
        statistics=gatherer.statistics,
        images=images,
        modes=tuple(sorted({image.mode for image in good if image.mode})),
        bank=bank,
    )


def level_shapes(
    backbone: Backbone, embedding: Embedding, size: tuple[int, int]
) -> list[tuple[int, int, int]]:
    """Return (C, H, W) of every pooled level for images of a height and width."""
    config, (height, width) = backbone.config, size
    return [
        (channels, height // STRIDES[layer], width // STRIDES[layer])
        for channels, layer in zip(embedding.channels(config.channels), config.layers, strict=True)
    ]


def refuse_many_unreadable(name: str, unreadable: Sequence[ImageRead], total: int) -> None:
    """Refuse a category too many of whose images cannot be read.

    Raises:
        TooManyUnreadable: more than a tenth.
    """
    if len(unreadable) > MAX_UNREADABLE_SHARE * total:
        first = unreadable[0]
        raise TooManyUnreadable(
            f"{name}: {len(unreadable)} of {total} good images cannot be read, more than "
            f"{MAX_UNREADABLE_SHARE:.0%} (first: {first.uri}, {first.error}). "
            f"Mend or remove them and onboard again."
        )
