"""Onboard one category: images -> features -> head -> calibration -> evaluation -> package.

Everything here runs in one process and knows nothing of a cluster. ``prepare`` looks at every
good image once; the trainer it holds may be stopped and restored between passes; ``finish``
takes every decision on held-out good images and only then looks at labelled ones.
"""

import copy
import hashlib
import json
import logging
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from model.backbone import Backbone
from model.detector import Detector, DetectorHeader
from model.folding import FoldedHeads
from model.patch_sample import Features
from model.preprocessing import Preprocessing
from model.recipe import Recipe, RecipeTrainer
from pipeline import heatmap, storage
from pipeline.backbones import fetch_backbone
from pipeline.calibration import Calibration, Part, fit, fold_by_content, split_by_content
from pipeline.catalogue import Category
from pipeline.evaluation import ScoredSamples, measure, score_samples
from pipeline.features import BATCH_IMAGES, GoodImages, Progress, extract_training, read_all
from pipeline.health import (
    refuse_unhealthy,
    synthetic_auroc,
    synthetic_scores,
    training_health,
)
from pipeline.images import read_image
from pipeline.layouts import Sample, read_layout
from pipeline.package import MapScale, OnboardingRecord, Package

logger = logging.getLogger(__name__)

NUM_EXAMPLES = 6
NUM_ANOMALIES, HEALTH_GROUPS = 48, 8  # synthetic anomalies, from so many groups of unseen images


Unseen = tuple[FoldedHeads, torch.Tensor]  # heads, and places in the bank of unseen images


@dataclass(frozen=True, kw_only=True)
class UnseenScores:
    """What heads say of good images that they have not been trained on."""

    images: torch.Tensor  # (N,), places in the bank
    scores: NDArray[np.float32]  # (N,)
    map_median: float  # level of an ordinary map


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A category whose images are read, split and embedded, ready to train."""

    category: Category
    samples: list[Sample]
    good: GoodImages[Features]
    parts: NDArray[np.int8]  # ``Part`` of each good image
    backbone: Backbone
    trainer: RecipeTrainer
    started: float  # monotonic clock, seconds
    embedded: float

    def images_of(self, part: Part) -> torch.Tensor:
        """Return the bank's indices of one part."""
        return torch.from_numpy(np.flatnonzero(self.parts == part))

    def unseen(self, trainer: RecipeTrainer, detector: Detector) -> Iterator[Unseen]:
        """Yield heads with good images they have not been trained on, a few at a time.

        The whole detector with the held-out images or, where every image trains, each member of
        its heads with the images that this member left out.
        """
        if self.category.calibration == "cross":
            yield from trainer.unseen(detector.heads)
        else:
            for index in self.images_of(Part.CALIBRATION).split(BATCH_IMAGES):
                yield detector.heads, index


def make_trainer(
    good: GoodImages[Features], parts: NDArray[np.int8], recipe: Recipe
) -> RecipeTrainer:
    """Return a trainer on the training images; its members leave images out by their content."""
    train = np.flatnonzero(parts == Part.TRAIN)
    folds = fold_by_content([good.hashes[index] for index in train], recipe.members)
    return RecipeTrainer(good.bank, torch.from_numpy(train), torch.from_numpy(folds), recipe)


def prepare(category: Category, progress: Progress | None = None, device: str = "cpu") -> Prepared:
    """Read the layout, embed every good training image once, and set the trainer up.

    Raises:
        LayoutError, UnreadableImages, TooFewImages, CacheTooSmall, WeightsError: the category
            cannot be onboarded.
    """
    started = time.monotonic()
    samples = read_layout(category.layout, category.images)
    uris = [sample.uri for sample in samples if sample.split == "train" and sample.is_good]
    backbone = fetch_backbone(category.backbone_config).to(device)
    good = extract_training(uris, category, backbone, progress)
    parts = split_by_content(good.hashes, category.calibration_config)
    return Prepared(
        category=category,
        samples=samples,
        good=good,
        parts=parts,
        backbone=backbone,
        trainer=make_trainer(good, parts, category.recipe),
        started=started,
        embedded=time.monotonic(),
    )


def finish(prepared: Prepared) -> tuple[Package, dict[str, NDArray[np.uint8]]]:
    """Fold, calibrate, then evaluate; return the package and example pictures by name."""
    trained = time.monotonic()
    category = prepared.category
    detector = make_detector(prepared, prepared.trainer)
    unseen = score_unseen(prepared, prepared.trainer, detector)
    calibration = fit(unseen.scores, category.calibration_config)
    scale = MapScale(low=unseen.map_median, threshold=calibration.threshold)
    health = measure_health(prepared, detector, unseen)
    refuse_unhealthy(category.name, health, warn=category.training.health == "warn")
    calibrated = time.monotonic()
    test = [sample for sample in prepared.samples if sample.split == "test"]
    scored = score_samples(test, detector)
    timings = {
        "embedding": prepared.embedded - prepared.started,
        "training": trained - prepared.embedded,
        "calibration": calibrated - trained,
        "evaluation": time.monotonic() - calibrated,
    }
    package = Package(
        header=detector.header,
        heads=copy.deepcopy(detector.heads).cpu(),
        calibration=calibration,
        map_scale=scale,
        record=_record(prepared, scored, calibration, timings, health),
    )
    logger.info(
        "onboarded %s: %d train, %d calibration, threshold %.4g, %.1f s",
        *(category.name, *np.bincount(prepared.parts, minlength=2)[:2], calibration.threshold),
        time.monotonic() - prepared.started,
    )
    shown = scored if scored.samples else _worst_unseen(prepared, detector, unseen)
    return package, _examples(shown, scale, category.preprocessing)


def write_package(prepared: Prepared, folder: Path) -> Package:
    """Finish and write everything into ``folder``."""
    package, examples = finish(prepared)
    package.write(folder, examples)
    return package


def onboarding_key(category: Category) -> str:
    """Return what identifies an onboarding: its settings and the names and etags of its files.

    The same catalogue entry over the same files has the same key, so that a job that is started
    again finds what it began, and finds a finished one done.
    """
    total = hashlib.sha256(json.dumps(category.model_dump(), sort_keys=True).encode())
    if category.layout == "manifest":
        total.update(storage.read_bytes(category.images))
    else:
        listed = sorted((item.uri, item.etag) for item in storage.list_objects(category.images))
        total.update(json.dumps(listed).encode())
    return total.hexdigest()


def make_detector(prepared: Prepared, trainer: RecipeTrainer) -> Detector:
    """Fold a trainer's heads and join them with the backbone."""
    category = prepared.category
    header = DetectorHeader(
        backbone=category.backbone,
        backbone_digest=prepared.backbone.digest,
        layers=tuple(category.layers),
        weights=category.weights_uri,
        embedding=category.embedding,
        preprocessing=category.preprocessing,
    )
    return Detector(prepared.backbone, trainer.folded(), header).to(prepared.good.bank.device)


@torch.inference_mode()
def score_unseen(prepared: Prepared, trainer: RecipeTrainer, detector: Detector) -> UnseenScores:
    """Score good images by heads that have not been trained on them."""
    scores, medians, images = [], [], []
    for heads, index in prepared.unseen(trainer, detector):
        batch_scores, patch_scores = heads(prepared.good.bank.images(index))
        scores.append(batch_scores.cpu().numpy())
        medians.append(detector.maps(patch_scores).flatten(1).median(dim=1).values.cpu().numpy())
        images.append(index)
    return UnseenScores(
        images=torch.cat(images),
        scores=np.concatenate(scores),
        map_median=float(np.median(np.concatenate(medians))),
    )


def measure_health(
    prepared: Prepared, detector: Detector, unseen: UnseenScores
) -> dict[str, float]:
    """Return by name what tells a sound head from a broken one; ``pipeline/health.py`` says how."""
    health = training_health(prepared.trainer) | {"score_spread": float(unseen.scores.std())}
    pairs = list(prepared.unseen(prepared.trainer, detector))
    pairs = pairs[:: -(-len(pairs) // HEALTH_GROUPS)]
    anomalous = [np.zeros(0, np.float32)]
    for heads, index in pairs:
        uris = [prepared.good.uris[place] for place in index.tolist()]
        images = list(read_all(uris, prepared.category.preprocessing))
        num = NUM_ANOMALIES // len(pairs)
        anomalous.append(synthetic_scores(heads, detector, images, num))
    auroc = synthetic_auroc(unseen.scores, np.concatenate(anomalous))
    return health if auroc is None else health | {"synthetic_auroc": auroc}


def _record(
    prepared: Prepared,
    scored: ScoredSamples,
    calibration: Calibration,
    timings: dict[str, float],
    health: dict[str, float],
) -> OnboardingRecord:
    category, good = prepared.category, prepared.good
    metrics = {"threshold": calibration.threshold}
    metrics |= {f"health_{name}": value for name, value in health.items()}
    if scored.samples:
        metrics |= measure(scored, calibration, category.preprocessing)
    per_part = np.bincount(prepared.parts, minlength=len(Part))
    return OnboardingRecord(
        category=category.name,
        settings=category.model_dump(mode="json") | {"recipe": asdict(prepared.trainer.recipe)},
        dataset_digest=hashlib.sha256("".join(sorted(good.hashes)).encode()).hexdigest(),
        counts={
            **{part.name.lower(): int(per_part[part]) for part in Part},
            "unreadable": len(good.unreadable),
            "test": len(scored.samples),
            "test_unreadable": len(scored.unreadable),
        },
        unreadable=[
            {"uri": image.uri, "status": image.status.value, "error": image.error or ""}
            for image in [*good.unreadable, *scored.unreadable]
        ],
        curve=[{"head": name, **vars(report)} for name, report in prepared.trainer.reports],
        metrics=metrics,
        timings_s=timings,
        backbone_images=prepared.backbone.num_images_seen,
    )


def _worst_unseen(prepared: Prepared, detector: Detector, unseen: UnseenScores) -> ScoredSamples:
    """Return the most anomalous unseen good images, where there are no labelled ones to show."""
    worst = np.argsort(-unseen.scores, kind="stable")[:NUM_EXAMPLES]
    images = unseen.images[worst]
    _, patch_scores = detector.score_pooled(prepared.good.bank.images(images))
    uris = [prepared.good.uris[index] for index in images.tolist()]
    return ScoredSamples(
        samples=[Sample(uri=uri, split="train", defect="good") for uri in uris],
        scores=unseen.scores[worst],
        maps=detector.maps(patch_scores).half().cpu().numpy(),
        unreadable=[],
    )


def _examples(
    scored: ScoredSamples, scale: MapScale, preprocessing: Preprocessing
) -> dict[str, NDArray[np.uint8]]:
    """Return the most anomalous of these images, each beside its heatmap."""
    worst = np.argsort(-scored.scores, kind="stable")[:NUM_EXAMPLES]
    pictures = {}
    for rank, index in enumerate(worst):
        sample = scored.samples[index]
        pixels = read_image(sample.uri, preprocessing).pixels
        if pixels is None:  # gone since it was scored
            continue
        levels = scale.to_grey(scored.maps[index].astype(np.float32))
        pair = np.concatenate([pixels, heatmap.overlay(pixels, levels)], axis=1)
        label = re.sub(r"[^A-Za-z0-9_-]+", "-", sample.defect)[:40]
        pictures[f"{rank + 1:02d}-{label}"] = pair
    return pictures
