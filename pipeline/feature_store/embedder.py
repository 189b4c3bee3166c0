"""Pooled features of images: from the store where they are there, else from the backbone.

They have the same bits either way, and the same order in memory: what is computed from them cannot
tell where they came from.

Of an image that is cut into tiles they are those of all its inputs, the thumbnail last, and what
looks at images as a whole sees the thumbnail alone. Its tiles are embedded as they are asked for,
but where a store keeps them.

Shapes: B images, K inputs of one, H x W pixels or positions, C channels.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.backbone import Backbone
from model.kind import Heads
from model.preprocessing import Preprocessing
from model.tile_pixels import cut, thumbnail_of
from model.tiled_bank import CHUNK, TiledImage
from model.tiles import Tiles
from pipeline.catalogue.catalogue import Category
from pipeline.feature_store.entry import Entry, EntryRecord
from pipeline.feature_store.feature_group import FeatureGroup
from pipeline.feature_store.identity import open_groups
from pipeline.feature_store.place import StorePlace
from pipeline.feature_store.planes import Setting, plane_names, pool_planes
from pipeline.images.batches import BATCH_IMAGES, batches, pixels_of, read_all
from pipeline.images.decode import ImageRead, ImageStatus
from pipeline.images.fingerprint import fingerprint
from pipeline.images.image_statistics import STATISTICS, image_statistics
from pipeline.images.placement import size_cut
from pipeline.images.prefetch import read_ahead

TILED_DIM = 4  # of an entry's plane: inputs, height, width, channels

Planes = dict[str, Tensor]  # half precision, (B, C, H, W), in the order that was asked for


@dataclass(frozen=True, kw_only=True)
class EmbeddedBatch:
    """Some images of a list, in its order."""

    images: list[ImageRead]  # that could be read
    unreadable: list[ImageRead]
    statistics: dict[str, NDArray[np.float32]]  # by name, (B,)
    planes: Planes  # of the whole images; nothing where B is 0
    tiled: list[TiledImage] | None = None  # all inputs of each, where images are cut into tiles

    @property
    def levels(self) -> list[Any]:
        """What heads are given."""
        return list(self.planes.values()) if self.tiled is None else self.tiled


class Embedder:
    """The backbone of one category with the features that are kept of its images."""

    def __init__(
        self, backbone: Backbone, settings: Sequence[Setting], groups: Sequence[FeatureGroup] = ()
    ) -> None:
        """Join the parts.

        Args:
            backbone: reads at least the layers of all settings.
            settings: what is wanted of its levels.
            groups: where features are looked for; new ones go to the first.
        """
        self.backbone, self.settings, self.groups = backbone, list(settings), list(groups)
        self.names = plane_names(settings)
        self.num_images = self.num_stored = 0  # asked for; found in the store

    @property
    def counts(self) -> dict[str, int] | None:
        """How many images were embedded, and how many of them by the store; None without one."""
        if not self.groups:
            return None
        return {"images": self.num_images, "from_store": self.num_stored}

    @property
    def findings(self) -> list[str]:
        """What a person should know of the store."""
        return [line for group in self.groups for line in group.trouble]

    def read(self, uris: Sequence[str], preprocessing: Preprocessing) -> Iterator[EmbeddedBatch]:
        """Yield all images of a list, read ahead; what the store has is not decoded.

        Args:
            uris: of the images.
            preprocessing: how they are read.
        """
        recall = self._find if self.groups else None
        tiles = preprocessing.tiles
        # The inputs of one image are a batch.
        for batch in batches(read_all(uris, preprocessing, recall), 1 if tiles else BATCH_IMAGES):
            readable = [image for image in batch if image.status is ImageStatus.OK]
            entries = self._entries(readable, tiles)
            yield EmbeddedBatch(
                images=[
                    replace(
                        image.without_pixels(),
                        mode=each.record.mode,
                        size=each.record.size,
                        fingerprint=each.record.fingerprint,
                    )
                    for image, each in zip(readable, entries, strict=True)
                ],
                unreadable=[image for image in batch if image.status is not ImageStatus.OK],
                statistics={
                    name: np.array([each.record.statistics[name] for each in entries], np.float32)
                    for name in STATISTICS
                },
                planes=self._join(entries),
                tiled=[*map(partial(self._tiled, preprocessing), readable, entries)]
                if tiles
                else None,
            )

    def levels_of_pixels(self, heads: Heads, images: Sequence[NDArray[np.uint8]]) -> Sequence[Any]:
        """Return what heads are given of made images (H, W, 3), which have no file."""
        return heads.embed(
            [*map(torch.from_numpy, images)],
            lambda inputs_BHW3: [*self.of_pixels([*inputs_BHW3.numpy()]).values()],
            CHUNK,
        )

    def of_pixels(self, images: Sequence[NDArray[np.uint8]]) -> Planes:
        """Return the features of made images (H, W, 3), each one input of the network."""
        names = [f"made-{hashlib.sha256(pixels.tobytes()).hexdigest()}" for pixels in images]
        found = list(read_ahead(self._find, names)) if self.groups else [None] * len(names)
        reads = [
            ImageRead("", ImageStatus.OK, pixels=pixels, sha256=name, stored=entry)
            for pixels, name, entry in zip(images, names, found, strict=True)
        ]
        return self._join(self._entries(reads, None))

    def flush(self) -> None:
        """Note in the store what is there and that it was used."""
        for group in self.groups:
            group.flush()

    def _find(self, content: str) -> Entry | None:
        found = (group.get(content, self.names) for group in self.groups)
        return next((entry for entry in found if entry is not None), None)

    def _entries(self, images: Sequence[ImageRead], tiles: Tiles | None) -> list[Entry]:
        """Return what is known of each image, from the store or computed now, and keep that."""
        new = iter(self._compute([image for image in images if image.stored is None], tiles))
        entries = [next(new) if image.stored is None else image.stored for image in images]
        self.num_images += len(images)
        self.num_stored += sum(image.stored is not None for image in images)
        return entries

    def _compute(self, images: Sequence[ImageRead], tiles: Tiles | None) -> list[Entry]:
        if not images:
            return []
        pixels = pixels_of(images)
        whole = [thumbnail_of(tiles, each) for each in pixels] if tiles else [torch.stack(pixels)]
        planes = self._of_inputs(torch.cat(whole))
        own = [_each(planes, place) for place in range(len(images))]
        if tiles and self.groups:
            own = [*map(partial(self._with_tiles, tiles), pixels, own)]
        entries = [
            Entry(record=_record_of(image), planes=each)
            for image, each in zip(images, own, strict=True)
        ]
        for group in self.groups[:1]:
            group.put(entries)
        return entries

    def _with_tiles(self, tiles: Tiles, image_HW3: Tensor, whole: Planes) -> Planes:
        """Return the planes (K, H, W, C) of all inputs of an image."""
        parts = [*self._of_tiles(tiles, image_HW3), {name: whole[name][None] for name in whole}]
        return {name: torch.cat([part[name] for part in parts]) for name in self.names}

    def _of_tiles(self, tiles: Tiles, image_HW3: Tensor) -> Iterator[Planes]:
        return map(self._of_inputs, cut(replace(tiles, thumbnail=False), image_HW3, CHUNK))

    def _of_inputs(self, images_BHW3: Tensor) -> Planes:
        """Return half-precision planes (B, H, W, C) as entries hold them."""
        levels = self.backbone(images_BHW3)
        pooled = pool_planes(
            dict(zip(self.backbone.config.layers, levels, strict=True)), self.settings
        )
        return {name: x_BCHW.permute(0, 2, 3, 1).contiguous() for name, x_BCHW in pooled.items()}

    def _join(self, entries: Sequence[Entry]) -> Planes:
        """Return planes (B, C, H, W) of whole images."""
        if not entries:
            return {}
        device = self.backbone.mean.device
        return {
            name: torch.stack([_whole(entry.planes[name]).to(device) for entry in entries]).permute(
                0, 3, 1, 2
            )
            for name in self.names
        }

    def _tiled(self, preprocessing: Preprocessing, image: ImageRead, entry: Entry) -> TiledImage:
        size, tiles = entry.record.size, preprocessing.tiles
        assert size, "of every image that is cut"
        assert tiles, "or it would not be"
        chunks = partial(self._chunks, tiles, image, entry.planes)
        return TiledImage(size_cut(size, preprocessing), chunks)

    def _chunks(
        self, tiles: Tiles, image: ImageRead, planes: Mapping[str, Tensor]
    ) -> Iterator[list[Tensor]]:
        """Yield the levels (k, C, H, W) of an image's inputs, embedded now where none are kept."""
        parts: Iterable[Sequence[Tensor]]
        if any(plane.dim() == TILED_DIM for plane in planes.values()):
            inputs = (planes[name][: None if tiles.thumbnail else -1] for name in self.names)
            parts = zip(*(each.split(CHUNK) for each in inputs), strict=True)
        else:
            (pixels,) = pixels_of([image])
            of_tiles = (
                [part[name] for name in self.names] for part in self._of_tiles(tiles, pixels)
            )
            whole = [planes[name][None] for name in self.names]
            parts = chain(of_tiles, [whole] * tiles.thumbnail)
        device = self.backbone.mean.device
        for part in parts:
            yield [each.to(device).permute(0, 3, 1, 2) for each in part]


def _record_of(image: ImageRead) -> EntryRecord:
    assert image.shown is not None, "it could be read"
    statistics = image_statistics(image.shown[None])
    return EntryRecord(
        content=image.sha256,
        statistics={name: float(value[0]) for name, value in statistics.items()},
        mode=image.mode,
        size=image.size,
        fingerprint=fingerprint(image.shown) if image.size else "",
    )


def _each(planes: Planes, place: int) -> Planes:
    return {name: x_BHWC[place] for name, x_BHWC in planes.items()}


def _whole(plane: Tensor) -> Tensor:
    """Return a plane (H, W, C) of the whole image: of one that is cut, its thumbnail's."""
    return plane[-1] if plane.dim() == TILED_DIM else plane


def embedder_of(
    category: Category,
    backbone: Backbone,
    place: StorePlace | None = None,
    settings: Sequence[Setting] = (),
) -> Embedder:
    """Return what embeds a category's images.

    Args:
        category: with everything set that its images say.
        backbone: on its device, in its numeric mode.
        place: of the feature store, if there is one.
        settings: what is wanted; by default the category's own.
    """
    wanted = settings or [(category.embedding, tuple(category.layers))]
    if place is None:
        return Embedder(backbone, wanted)
    names, preprocessing = plane_names(wanted), category.preprocessing
    groups = open_groups(place, category.name, backbone, preprocessing, names)
    return Embedder(backbone, wanted, groups)
