"""Some images of each category of a dump, each embedded once, as its champion sees them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from model.detector import refuse_other_backbone
from model.preprocessing import Preprocessing
from pipeline import storage
from pipeline.backbones import LoadedBackbone, own_device
from pipeline.catalogue.rename_table import read_renames
from pipeline.datasets.image_lists import is_manifest
from pipeline.datasets.samples import GOOD, Sample
from pipeline.feature_store.embedder import Embedder
from pipeline.inspection.category_summary import CategorySummary
from pipeline.inspection.image_set import Gatherer, ImageSet
from pipeline.inspection.training_summary import TrainingImages
from pipeline.night.fleet.fleet import Champion, Fleet
from pipeline.night.fleet.hold import held_fleet
from pipeline.night.fleet.resolve import resolve_fleet
from pipeline.night.fleet.stand_ins import with_stand_ins
from pipeline.night.listing import Listing, list_dump
from pipeline.night.manifest import read_manifest
from pipeline.registry import category_names, connection, models


@dataclass(frozen=True, kw_only=True)
class DumpReading:
    """Some images of a category of a dump as they were found, and what its champion knows."""

    num_images: int  # in the dump
    images: ImageSet  # those that were looked at
    preprocessing: Preprocessing
    champion: Champion
    trained_on: TrainingImages | None  # None where an earlier release onboarded the category

    @property
    def own(self) -> CategorySummary | None:
        """The summary of its training images, by the name of today."""
        found = self.trained_on.summary if self.trained_on else None
        return found and replace(found, name=self.champion.category)


def listed_dump(dump: str) -> Listing:
    """Return the images of a dump as scoring would find them; nothing is stored.

    Raises:
        StorageError: the dump cannot be read.
        ManifestError: it has no images.
    """
    if not is_manifest(dump):
        return list_dump(dump)
    uri = storage.absolute(dump)
    return Listing(uri=uri, images=read_manifest(uri), other_files={})


def champions_for(out: str, categories: set[str]) -> Fleet:
    """Return what would score a dump today: the fleet that is held, or the registry's champions.

    Packages are copied beside the results, where scoring finds them.

    Raises:
        RegistryError, StorageError, FleetError: it cannot be had.
    """
    held = held_fleet(out)
    if held is not None:
        champions = with_stand_ins(held.champions, categories, read_renames(out))
        return replace(held, champions=champions).of_night(categories, {})
    connection.connect()
    renames = category_names.all_renames()
    versions = with_stand_ins(models.champions(), categories, renames)
    return resolve_fleet(out, versions, categories, models.download)


class DumpReader:
    """Reads one category after another; a backbone that several share is loaded once."""

    def __init__(self, most: int, device: str | None = None) -> None:
        """Load nothing yet; of a category so many images are looked at, all where that is 0."""
        self.most, self.device = most, device or own_device()
        self._backbone = LoadedBackbone(self.device)

    def read(
        self, champion: Champion, uris: Sequence[str], trained_on: TrainingImages | None
    ) -> DumpReading:
        """Read some of a category's images, of a file with several pages the first.

        Raises:
            CategoryFault, StorageError, WeightsError: they cannot be looked at.
        """
        header = champion.load_heads()[0]
        backbone = self._backbone(header.backbone_config)
        refuse_other_backbone(backbone, header)
        embedder = Embedder(backbone, [(header.embedding, header.layers)])
        preprocessing = champion.preprocessing
        if preprocessing.pages == "each":
            preprocessing = replace(preprocessing, pages="first")
        chosen = choose(uris, self.most)
        gatherer = Gatherer()
        for batch in embedder.read(chosen, preprocessing):
            gatherer.add(batch)
        samples = [Sample(uri, "train", GOOD) for uri in chosen]  # each is judged by the others
        return DumpReading(
            num_images=len(uris),
            images=gatherer.finish(champion.category, samples),
            preprocessing=preprocessing,
            champion=champion,
            trained_on=trained_on,
        )


def choose(uris: Sequence[str], most: int) -> list[str]:
    """Return so many addresses, chosen by their hashes: the same in every run. 0: all of them."""
    if not most or len(uris) <= most:
        return list(uris)
    return sorted(sorted(uris, key=lambda uri: hashlib.sha256(uri.encode()).digest())[:most])
