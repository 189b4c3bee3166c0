"""A category ready to train: images read, split and embedded; heads from it, and what they say.

Shapes: N unseen good images.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import compress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model import kinds
from model.backbone import Backbone
from model.detector import Detector, DetectorHeader
from model.kind import Heads, Pairs, Trainer, TrainingSet
from pipeline.backbones import Fetch, fetch_backbone
from pipeline.calibration import Part, fold_by_content
from pipeline.catalogue.catalogue import Category
from pipeline.datasets.layouts import Sample
from pipeline.datasets.samples import of_split
from pipeline.feature_store.embedder import Embedder, embedder_of
from pipeline.feature_store.place import StorePlace
from pipeline.images.batches import BATCH_IMAGES
from pipeline.images.regions import highest_level, refuse_few
from pipeline.inspection.category_summary import space_of_backbone
from pipeline.inspection.known_categories import KnownCategories
from pipeline.inspection.training_summary import TrainingImages, describe
from pipeline.labels.told import Told
from pipeline.onboarding import label_head
from pipeline.onboarding.anomaly_bank import NUM_JUDGING, AnomalyBank, read_bank
from pipeline.onboarding.contamination import (
    in_words,
    inspect_beside,
    inspect_good,
    without_suspects,
)
from pipeline.onboarding.features import GoodImages, Progress, extract, training_uris
from pipeline.onboarding.found_settings import with_found_settings
from pipeline.onboarding.labelled_images import (
    Defects,
    assign,
    find_labelled,
    read_defects,
    say,
)
from pipeline.onboarding.listed_images import list_images
from pipeline.onboarding.pairs import make_pairs, needs_pairs
from pipeline.onboarding.precision_probe import choose_precision
from pipeline.onboarding.squeeze import say_squeeze
from pipeline.onboarding.zones import least_positions

Unseen = tuple[Heads, torch.Tensor]  # heads, and indices into the bank of unseen images


@dataclass(frozen=True, kw_only=True)
class UnseenScores:
    """What heads say of good images that they have not been trained on."""

    images: torch.Tensor  # (N,), indices into the bank
    scores: NDArray[np.float32]  # (N,)
    map_median: float  # level of an ordinary map
    highest: NDArray[np.float32]  # (N,), level of each one's map at its highest


@dataclass(frozen=True, kw_only=True)
class PreparedCategory:
    """A category whose images are read, split and embedded, ready to train."""

    category: Category
    samples: list[Sample]
    findings: tuple[str, ...]  # what a person should know of how they were found
    good: GoodImages
    parts: NDArray[np.int8]  # ``Part`` of each good image
    by_score: NDArray[np.bool_]  # good images that were chosen by their score: no threshold by them
    is_unsure: NDArray[np.bool_]  # images that do not train, and set the threshold as if they did
    defects: Defects  # confirmed ones
    joined: frozenset[str]  # addresses of images that are there for their labels alone
    anomalies: AnomalyBank  # that these are made of, pixels of some: a head is judged by those
    pairs: Pairs | None  # synthetic anomalies, for a kind that learns from them
    embedder: Embedder
    trainer: Trainer
    described: TrainingImages  # what later onboardings and nights compare their images with
    started: float  # monotonic clock, seconds
    embedded: float

    @property
    def backbone(self) -> Backbone:
        """The network that features are of."""
        return self.embedder.backbone

    @cached_property
    def is_used(self) -> NDArray[np.bool_]:
        """Good images that heads or threshold are of, (N,)."""
        return np.isin(self.parts, (Part.TRAIN, Part.CALIBRATION)) | self.is_unsure

    @property
    def has_learned_from_labels(self) -> bool:
        """Whether a labelled image trains, sets the threshold or is a defect of a label head."""
        used = compress(self.good.uris, self.is_used)
        return label_head.is_tried(self.trainer) or not self.joined.isdisjoint(used)

    @property
    def contents(self) -> list[str]:
        """Digests of all images that heads and threshold are of."""
        defects = self.defects.hashes if label_head.is_tried(self.trainer) else ()
        return [*compress(self.good.hashes, self.is_used), *defects, *self.anomalies.hashes]

    def images_of(self, part: Part) -> torch.Tensor:
        """Return the bank's indices of one part."""
        return torch.from_numpy(np.flatnonzero(self.parts == part))

    def unseen(self, trainer: Trainer, detector: Detector) -> Iterator[Unseen]:
        """Yield heads with good images they have not been trained on, a few at a time.

        The whole detector with the held-out images or, where every image trains, each member of
        its heads with the images that this member left out.
        """
        if self.category.calibration == "cross":
            unsure = self._unsure_of_folds()
            for heads, index in trainer.unseen(detector.heads):
                free = index[torch.from_numpy(~self.by_score)[index]]
                free = torch.cat([free, unsure.pop(self._fold_of(int(index[0])), index[:0])])
                if len(free):
                    yield heads, free
        else:
            for index in self.images_of(Part.CALIBRATION).split(BATCH_IMAGES):
                yield detector.heads, index

    @cached_property
    def _folds(self) -> dict[str, int]:
        """The fold of each burst that trains."""
        return folds_of_bursts(self.good, self.parts, self.category.recipe.members)

    def _fold_of(self, image: int) -> int:
        """Of an image that trains: its burst's; of another: its burst's too, or any."""
        burst, members = self.good.bursts[image], int(self.category.recipe.members)
        return self._folds.get(burst, int(burst[:8], 16) % members)

    def _unsure_of_folds(self) -> dict[int, torch.Tensor]:
        """Indices of the images that people are unsure of, by the member that scores them."""
        found = defaultdict(list)
        for image in np.flatnonzero(self.is_unsure).tolist():
            found[self._fold_of(image)].append(image)
        return {fold: torch.tensor(images) for fold, images in found.items()}


def folds_of_bursts(good: GoodImages, parts: NDArray[np.int8], members: int) -> dict[str, int]:
    """Return which member leaves each burst out."""
    train = np.flatnonzero(parts == Part.TRAIN)
    hashes, bursts = ([of[index] for index in train] for of in (good.hashes, good.bursts))
    return dict(zip(bursts, fold_by_content(hashes, members, bursts).tolist(), strict=True))


def make_trainer(
    good: GoodImages,
    parts: NDArray[np.int8],
    detector: str,
    recipe: Any,
    pairs: Pairs | None = None,
) -> Trainer:
    """Return a trainer on the training images; its members leave images out by their content."""
    train = np.flatnonzero(parts == Part.TRAIN)
    hashes, bursts = ([of[index] for index in train] for of in (good.hashes, good.bursts))
    folds = fold_by_content(hashes, recipe.members, bursts)
    images, folds_N = torch.from_numpy(train), torch.from_numpy(folds)
    training_set = TrainingSet(bank=good.bank, images=images, folds=folds_N, pairs=pairs)
    return kinds.make_trainer(detector, training_set, recipe)


def prepare(
    category: Category,
    progress: Progress | None = None,
    features: StorePlace | None = None,
    fetch: Fetch = fetch_backbone,
    told: Sequence[Told] | None = None,
) -> PreparedCategory:
    """Read the layout, embed every good training image once, and set the trainer up.

    Progress is called with images done and images in all; where ``told`` is None, labels are read.

    Raises:
        LayoutError, PixelRangeError, TooManyUnreadable, TooFewImages, CacheTooSmall, Contaminated,
        WeightsError, LabelsError, NoAnomalies: the category cannot be onboarded.
    """
    started = time.monotonic()
    listing = list_images(category)
    samples = listing.samples
    backbone = fetch(category.backbone_config)
    uris = training_uris(category, samples)
    labelled = find_labelled(category, samples, uris, told)
    category = with_found_settings(category, uris)
    if category.precision == "auto" and "bfloat16" in category.precisions:
        backbone = choose_precision(backbone, category.preprocessing.size)
    embedder = embedder_of(category, backbone, features)
    joined = [*uris, *(each.uri for each in labelled.joining)]
    good = extract(joined, category, embedder, progress)
    defects = read_defects(labelled, category, embedder)
    lines = inspect_good(good.images)
    assigned = assign(category, good, labelled, defects)
    parts = without_suspects(category, good.images, lines, assigned.parts, labelled.confirmed)
    unseen = Part.TRAIN if category.calibration == "cross" else Part.CALIBRATION
    num_unseen = int(np.count_nonzero(parts == unseen))
    refuse_few(num_unseen, category.region_rate or category.false_alarm_rate)
    tests = {sample.uri for sample in of_split(samples, "test")}
    anomalies = read_bank(category, tests, needs_pairs(category))
    train = {row: good.uris[row] for row in np.flatnonzero(parts == Part.TRAIN).tolist()}
    pairs = make_pairs(category, train, anomalies, embedder, progress)
    trainer = make_trainer(good, parts, category.detector, category.recipe, pairs)
    return PreparedCategory(
        category=category,
        samples=samples,
        findings=(
            *listing.findings,
            *say(labelled, assigned, defects),
            *in_words(lines),
            *anomalies.findings,
            *say_squeeze(good.images.reads, category.preprocessing),
        ),
        good=good,
        parts=parts,
        by_score=assigned.by_score,
        is_unsure=assigned.is_unsure,
        defects=defects,
        joined=frozenset(each.uri for each in labelled.joining),
        anomalies=anomalies.of_first_draws(NUM_JUDGING),
        pairs=pairs,
        embedder=embedder,
        trainer=label_head.with_label_head(trainer, good, parts, defects),
        described=describe(good.images, space_of_backbone(backbone, category.embedding)),
        started=started,
        embedded=time.monotonic(),
    )


def compare(prepared: PreparedCategory, known: KnownCategories) -> PreparedCategory:
    """Note which images look like another category's; the own champion's summary is left out."""
    own = prepared.described.summary
    if own is None:
        return prepared
    lines = inspect_beside(prepared.good.images, own, known.of_space(own.space))
    return replace(prepared, findings=(*prepared.findings, *in_words(lines)))


def make_detector(prepared: PreparedCategory, trainer: Trainer) -> Detector:
    """Fold a trainer's heads and join them with the backbone."""
    category = prepared.category
    header = DetectorHeader(
        backbone=category.backbone,
        backbone_digest=prepared.backbone.digest,
        layers=tuple(category.layers),
        weights=category.weights_uri,
        precision=prepared.backbone.config.precision,
        ranges=prepared.backbone.config.ranges,
        embedding=category.embedding,
        preprocessing=category.preprocessing,
        detector=category.detector,
        zones=prepared.good.bank.zones,
    )
    return Detector(prepared.backbone, trainer.folded(), header).to(prepared.good.bank.device)


@torch.inference_mode()
def score_unseen(prepared: PreparedCategory, trainer: Trainer, detector: Detector) -> UnseenScores:
    """Score good images by heads that have not been trained on them."""
    scores, medians, highest, images = [], [], [], []
    least = least_positions(prepared.category, detector.header.preprocessing.view)
    for heads, index in prepared.unseen(trainer, detector):
        batch_scores, patch_scores = heads(prepared.good.bank.images(index))
        scores.append(batch_scores.cpu().numpy())
        levels = torch.cat([detector.maps(each) for each in patch_scores.split(1)])
        medians.append(levels.flatten(1).median(dim=1).values.cpu().numpy())
        highest += [highest_level(each, least) for each in levels.cpu().numpy()]
        images.append(index)
    return UnseenScores(
        images=torch.cat(images),
        scores=np.concatenate(scores),
        map_median=float(np.median(np.concatenate(medians))),
        highest=np.array(highest, np.float32),
    )
