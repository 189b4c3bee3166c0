"""Features that all trials of a study share: one backbone pass over each image and setting.

A view is a category seen by one backbone at one image size. Every level and patch size that the
study may choose is pooled in that one pass and kept in a file of its own, which trials map into
memory: however many processes read it, it is there once. Held-out good images of the calibration
are in no set: what a study chooses cannot bend the threshold's promise.

good/       the images that would train, in folds by content; a trial leaves one fold out
anomalies/  synthetic ones on the images of each fold
labelled/   labelled images to judge by, where the catalogue names some
confirmed/  defects that people labelled, which then take the place of the synthetic anomalies
test/       written after the choice, to check it

Shapes: N images, H x W positions of a level, C channels.
"""

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.backbone import STRIDES
from model.feature_bank import FeatureBank
from pipeline import storage
from pipeline.catalogue.catalogue import Category
from pipeline.feature_store.embedder import Embedder, Planes
from pipeline.feature_store.place import StorePlace
from pipeline.feature_store.planes import Setting, names_of, plane_name
from pipeline.images.batches import batches
from pipeline.onboarding.zones import zones_of
from pipeline.storage.local import local_path
from pipeline.study.feature_copies import own_copies
from pipeline.study.settings import Study
from pipeline.study.space import FEATURE_PARAMETERS

ABOUT, MASKS = "about.json", "masks.npy"


@dataclass(frozen=True, kw_only=True)
class FeatureView:
    """A category as one backbone sees it, with every setting of features that is wanted."""

    category: Category  # its layers are all that are wanted
    settings: Sequence[Setting]
    store: StorePlace | None = None  # of features that were computed before

    @property
    def name(self) -> str:
        """Folder of the view: the same for the same backbone, weights and preprocessing."""
        category = self.category
        wanted = sorted(name for setting in self.settings for name in names_of(setting))
        identity = [view_key(category), wanted]
        return f"{category.name}-{sha256(json.dumps(identity).encode()).hexdigest()[:12]}"


def view_key(category: Category) -> str:
    """Return what tells backbone passes apart: backbone, weights and what happens to an image."""
    weights = category.weights.model_dump() if category.weights else None
    return json.dumps([category.backbone, weights, category.preprocessing_settings], sort_keys=True)


def wanted_views(study: Study) -> dict[str, FeatureView]:
    """Return the views of every category of a study, by its name and ``view_key``."""
    domains = {name: d for name, d in study.space.items() if name in FEATURE_PARAMETERS}
    combinations = itertools.product(*(domain.arguments for domain in domains.values()))
    settings = [{}, *(dict(zip(domains, values, strict=True)) for values in combinations)]
    variants = (study.apply(each, category) for category in study.categories for each in settings)
    found = views(variants)
    return {key: replace(view, store=study.store) for key, view in found.items()}


def views(variants: Iterable[Category]) -> dict[str, FeatureView]:
    """Return, by name of category and ``view_key``, the views that these variants need."""
    grouped: dict[str, list[Category]] = {}
    for variant in variants:
        grouped.setdefault(f"{variant.name} {view_key(variant)}", []).append(variant)
    found = {}
    for key, members in grouped.items():
        layers = sorted({layer for member in members for layer in member.layers})
        settings = dict.fromkeys((member.embedding, tuple(member.layers)) for member in members)
        category = members[0].model_copy(update={"layers": layers})
        found[key] = FeatureView(category=category, settings=list(settings))
    return found


@dataclass
class SetWriter:
    """Fills the files of one set of images, image by image."""

    folder: Path
    view: FeatureView
    num_rows: int
    files: dict[str, NDArray[np.float16]] = field(default_factory=dict)
    written: int = 0

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)

    def write(self, planes: Planes) -> None:
        """Keep all that is wanted of a batch of images."""
        num_images = len(next(iter(planes.values()), ()))
        assert self.written + num_images <= self.num_rows
        for name, level_BCHW in planes.items():
            self._keep(name, level_BCHW)
        self.written += num_images

    def _keep(self, name: str, level_BCHW: Tensor) -> None:
        rows = level_BCHW.flatten(2).transpose(1, 2).cpu().numpy()
        if name not in self.files:
            path, shape = self.folder / f"{name}.npy", (self.num_rows, *rows.shape[1:])
            self.files[name] = np.lib.format.open_memmap(path, "w+", np.float16, shape)
        self.files[name][self.written : self.written + len(rows)] = rows

    def finish(self, about: Mapping[str, Any]) -> None:
        """Write what is known of the images."""
        for file in self.files.values():
            file.flush()  # type: ignore[attr-defined]
        size = self.view.category.preprocessing.size
        (self.folder / ABOUT).write_text(json.dumps({**about, "size": size}))


def write_all(writer: SetWriter, images: Iterable[NDArray[np.uint8]], embedder: Embedder) -> None:
    """Write made images (H, W, 3) in their order."""
    for batch in batches(images):
        writer.write(embedder.of_pixels(batch))


def publish(folder: Path, uri: str) -> None:
    """Copy a finished set to where it belongs; it is there when the last of its files is."""
    files = sorted(folder.iterdir(), key=lambda path: path.name == ABOUT)
    for path in files:
        storage.write_file(storage.join(uri, path.name), path)


def about(uri: str) -> dict[str, Any]:
    """Return what ``SetWriter.finish`` was told of the images of a set."""
    known: dict[str, Any] = json.loads(storage.read_bytes(storage.join(uri, ABOUT)))
    return known


def is_there(uri: str) -> bool:
    """Whether a set has been published."""
    return storage.exists(storage.join(uri, ABOUT))


def masks(uri: str) -> NDArray[np.bool_]:
    """Return the thinned masks of a set, (N, h, w)."""
    found: NDArray[np.bool_] = np.load(_local(uri, MASKS))
    return found


def open_bank(uri: str, category: Category, device: str = "cpu") -> FeatureBank:
    """Return a set's features as a category's settings want them, mapped into memory."""
    embedding, layers = category.embedding, category.layers
    arrays = [
        np.load(_local(uri, f"{plane_name(embedding, layer, len(layers))}.npy"), mmap_mode="c")
        for layer in layers
    ]
    height, width = about(uri)["size"]
    shapes = [
        (rows.shape[2], height // STRIDES[layer], width // STRIDES[layer])
        for rows, layer in zip(arrays, layers, strict=True)
    ]
    stores = map(torch.from_numpy, arrays)
    bank = FeatureBank(len(arrays[0]), shapes, device, allocate=lambda _: next(stores))
    if category.finds_crop:  # the set has the rectangle that was found for it
        category = category.model_copy(update={"fit": "pad", "crop": (height, width)})
    bank.zones = zones_of(category)
    return bank


def _local(uri: str, name: str) -> Path:
    """Return a file of a set on this machine."""
    if storage.is_local(uri):
        return Path(local_path(uri)) / name
    return own_copies().fetch(uri, name)
