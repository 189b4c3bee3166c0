"""The images of a category, each embedded once, as its checks know them."""

from dataclasses import dataclass

from model.backbone import Backbone, BackboneConfig
from pipeline.backbones import LoadedBackbone, own_device
from pipeline.catalogue.catalogue import Category
from pipeline.data_report.setting_comparison import Comparison, compare_settings
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
from pipeline.onboarding.squeeze import Squeeze, squeeze_of

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
    squeeze: Squeeze | None = None  # what is kept of them; None where no size is known
    sizes: Comparison | None = None  # of defects that are found; None where nobody asked


class Reader:
    """Reads one category after another; a backbone that several share is loaded once."""

    def __init__(
        self,
        features: StorePlace | None = None,
        device: str | None = None,
        *,
        measures_sizes: bool = False,
    ) -> None:
        """Load nothing yet; ``device`` is the GPU by default where there is one.

        With ``measures_sizes`` each category is trained twice, for the sizes of defects it finds.
        """
        self.features, self.device = features, device or own_device()
        self.measures_sizes = measures_sizes
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
        given, category = category, with_found_settings(category, good)
        zones = line_of_zones(category)
        embedder = embedder_of(category, self._fetch(category.backbone_config), self.features)
        images = _gather(category, embedder, samples)
        reads = [each for each in images.reads if each.uri in train]
        squeeze, sizes = squeeze_of(reads, category.preprocessing), None
        if self.measures_sizes:
            sizes = compare_settings(given, squeeze, good, self._fetch, self.features)
        return Reading(
            category=category,
            images=images,
            space=space_of_backbone(embedder.backbone, category.embedding),
            findings=(*listing.findings, *embedder.findings),
            zones=zones,
            zones_picture=picture_of_zones(category, good[:PROBES]) if zones else "",
            squeeze=squeeze,
            sizes=sizes,
        )

    def _fetch(self, config: BackboneConfig) -> Backbone:
        return self._backbone(config).to(self.device)


def _gather(category: Category, embedder: Embedder, samples: list[Sample]) -> ImageSet:
    gatherer = Gatherer()
    uris = [sample.uri for sample in samples]
    for batch in embedder.read(uris, category.preprocessing):
        gatherer.add(batch)
    embedder.flush()
    return gatherer.finish(category.name, samples)
