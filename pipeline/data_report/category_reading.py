"""The images of a category, each embedded once, as its checks know them."""

from dataclasses import dataclass

from pipeline.backbones import LoadedBackbone, own_device
from pipeline.catalogue.catalogue import Category
from pipeline.data_report.zone_view import line_of_zones, picture_of_zones
from pipeline.datasets.samples import Sample, of_split
from pipeline.feature_store.embedder import Embedder, embedder_of
from pipeline.feature_store.place import StorePlace
from pipeline.inspection.category_summary import space_of_backbone
from pipeline.inspection.found import Line
from pipeline.inspection.image_set import Gatherer, ImageSet
from pipeline.onboarding.features import training_uris
from pipeline.onboarding.found_settings import with_found_settings
from pipeline.onboarding.listed_images import list_images

PROBES = 8  # good images, the first of which that can be read is drawn


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A category's images as they were found."""

    category: Category  # with everything set that its images say
    images: ImageSet
    space: str  # of its features
    findings: tuple[str, ...]  # of the layout and of the feature store
    zones: Line | None = None  # what counts of the images; None: all of it
    zones_picture: str = ""  # a data: address; none where they have none


class Reader:
    """Reads one category after another; a backbone that several share is loaded once."""

    def __init__(self, features: StorePlace | None = None, device: str | None = None) -> None:
        """Load nothing yet; ``device`` is the GPU by default where there is one."""
        self.features, self.device = features, device or own_device()
        self._backbone = LoadedBackbone()

    def read(self, category: Category) -> Reading:
        """Read a category's training and test images, each once.

        Raises:
            CategoryFault, StorageError, WeightsError: they cannot be looked at.
        """
        listing = list_images(category)
        samples = listing.samples
        train = set(training_uris(category, samples))
        samples = [each for each in samples if each.split == "test" or each.uri in train]
        good = [each.uri for each in of_split(samples, "train")]
        category = with_found_settings(category, good)
        zones = line_of_zones(category)
        backbone = self._backbone(category.backbone_config).to(self.device)
        embedder = embedder_of(category, backbone, self.features)
        images = _gather(category, embedder, samples)
        return Reading(
            category=category,
            images=images,
            space=space_of_backbone(embedder.backbone, category.embedding),
            findings=(*listing.findings, *embedder.findings),
            zones=zones,
            zones_picture=picture_of_zones(category, good[:PROBES]) if zones else "",
        )


def _gather(category: Category, embedder: Embedder, samples: list[Sample]) -> ImageSet:
    gatherer = Gatherer()
    uris = [sample.uri for sample in samples]
    for batch in embedder.read(uris, category.preprocessing, only_whole=True):
        gatherer.add(batch)
    embedder.flush()
    return gatherer.finish(category.name, samples)
