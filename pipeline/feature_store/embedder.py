"""Pooled features of images: from the store where they are there, else from the backbone.

They have the same bits either way, and the same order in memory: what is computed from them cannot
tell where they came from.

Shapes: B images, H x W pixels or positions, C channels.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.backbone import Backbone
from model.preprocessing import Preprocessing
from pipeline.catalogue.catalogue import Category
from pipeline.feature_store.entry import Entry, EntryRecord
from pipeline.feature_store.feature_group import FeatureGroup
from pipeline.feature_store.identity import open_groups
from pipeline.feature_store.place import StorePlace
from pipeline.feature_store.planes import Setting, plane_names, pool_planes
from pipeline.images.batches import batches, read_all
from pipeline.images.decode import ImageRead, ImageStatus
from pipeline.images.fingerprint import fingerprint
from pipeline.images.image_statistics import STATISTICS, image_statistics
from pipeline.images.prefetch import read_ahead

Planes = dict[str, Tensor]  # half precision, (B, C, H, W), in the order that was asked for


@dataclass(frozen=True, kw_only=True)
class EmbeddedBatch:
    """Some images of a list, in its order."""

    images: list[ImageRead]  # that could be read
    unreadable: list[ImageRead]
    statistics: dict[str, NDArray[np.float32]]  # by name, (B,)
    planes: Planes  # nothing where B is 0


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
        """Yield all images of a list, read ahead; what the store has is not decoded."""
        recall = self._find if self.groups else None
        for batch in batches(read_all(uris, preprocessing, recall)):
            readable = [image for image in batch if image.status is ImageStatus.OK]
            entries = self._entries(readable)
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
            )

    def of_pixels(self, images: Sequence[NDArray[np.uint8]]) -> Planes:
        """Return the features of made images (H, W, 3), which have no file."""
        names = [f"made-{hashlib.sha256(pixels.tobytes()).hexdigest()}" for pixels in images]
        found = list(read_ahead(self._find, names)) if self.groups else [None] * len(names)
        reads = [
            ImageRead("", ImageStatus.OK, pixels=pixels, sha256=name, stored=entry)
            for pixels, name, entry in zip(images, names, found, strict=True)
        ]
        return self._join(self._entries(reads))

    def flush(self) -> None:
        """Note in the store what is there and that it was used."""
        for group in self.groups:
            group.flush()

    def _find(self, content: str) -> Entry | None:
        found = (group.get(content, self.names) for group in self.groups)
        return next((entry for entry in found if entry is not None), None)

    def _entries(self, images: Sequence[ImageRead]) -> list[Entry]:
        """Return what is known of each image, from the store or computed now, and keep that."""
        new = iter(self._compute([image for image in images if image.stored is None]))
        entries = [next(new) if image.stored is None else image.stored for image in images]
        self.num_images += len(images)
        self.num_stored += sum(image.stored is not None for image in images)
        return entries

    def _compute(self, images: Sequence[ImageRead]) -> list[Entry]:
        found = [(image.pixels, image) for image in images if image.pixels is not None]
        if not found:
            return []
        images_BHW3 = np.stack([pixels for pixels, _ in found])
        statistics = image_statistics(images_BHW3)
        prints = [fingerprint(each) if image.size else "" for each, image in found]
        levels = self.backbone(torch.from_numpy(images_BHW3))
        pooled = pool_planes(
            dict(zip(self.backbone.config.layers, levels, strict=True)), self.settings
        )
        rows = {name: x_BCHW.permute(0, 2, 3, 1).contiguous() for name, x_BCHW in pooled.items()}
        entries = [
            Entry(
                record=EntryRecord(
                    content=image.sha256,
                    statistics={name: float(v[place]) for name, v in statistics.items()},
                    mode=image.mode,
                    size=image.size,
                    fingerprint=prints[place],
                ),
                planes={name: x_BHWC[place] for name, x_BHWC in rows.items()},
            )
            for place, image in enumerate(images)
        ]
        for group in self.groups[:1]:
            group.put(entries)
        return entries

    def _join(self, entries: Sequence[Entry]) -> Planes:
        if not entries:
            return {}
        device = self.backbone.mean.device
        return {
            name: torch.stack([entry.planes[name].to(device) for entry in entries]).permute(
                0, 3, 1, 2
            )
            for name in self.names
        }


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
