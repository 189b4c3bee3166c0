"""The honest protocol: train with several seeds, decide without test labels, measure once.

The headline is the last pass, as mean and standard deviation over seeds. Beside it stands what
choosing the pass by its test AUROC would have claimed, a usual way of reporting: an oracle's number
that nobody can have in production, there to show the difference.

Shapes: N test images that could be read, H x W pixels of the crop.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from model.detector import Detector
from model.feature_bank import FeatureBank
from model.kind import Trainer
from model.tiled_bank import TiledBank
from pipeline.backbones import Fetch, fetch_backbone
from pipeline.calibration import Calibration, Part, fit
from pipeline.catalogue.catalogue import Category
from pipeline.datasets.layouts import Sample
from pipeline.datasets.samples import of_split, refuse_one_kind
from pipeline.evaluation.cost import Cost, measure_cost, read_as_scored
from pipeline.evaluation.heatmap_grid import Tile, choose
from pipeline.feature_store.place import StorePlace
from pipeline.images.batches import BATCH_IMAGES
from pipeline.images.decode import read_image
from pipeline.measuring.labelled import Marks, ScoredSamples, measure, read_marks
from pipeline.measuring.metrics import Curve, PixelCurves, image_curve, image_metrics, pixel_curves
from pipeline.onboarding.features import extract
from pipeline.onboarding.found_settings import found_settings
from pipeline.onboarding.label_head import with_label_head
from pipeline.onboarding.pairs import needs_pairs
from pipeline.onboarding.prepare import (
    PreparedCategory,
    make_detector,
    make_trainer,
    prepare,
    score_unseen,
)
from pipeline.package import MapScale

ORACLE = "oracle_image_auroc"
ADVICE = "Add a test folder or leave the category out."
ORACLE_LOOKS = 8  # passes that the oracle compares, evenly spread; the last is one of them

Progress = Callable[[str, int, int], None]  # stage, done, total
MeanStd = tuple[float, float | None]  # of a single value there is no standard deviation


@dataclass(frozen=True, kw_only=True)
class SeedResult:
    """One training of one category."""

    seed: int
    metrics: Mapping[str, float]  # what is undefined is left out
    oracle_image_auroc: float
    calibration: Calibration
    scores: NDArray[np.float32]  # of the test images, shape (N,)
    roc: Curve  # over images
    pixels: PixelCurves = field(default_factory=PixelCurves)  # without masks there are no curves
    fit_s: float = 0.0  # seconds from features to heads

    @property
    def numbers(self) -> dict[str, float]:
        """The metrics and, by its own name, the oracle's."""
        return {**self.metrics, ORACLE: self.oracle_image_auroc}


@dataclass(frozen=True, kw_only=True)
class CategoryResult:
    """All trainings of one category, on the same test images."""

    category: str
    samples: Sequence[Sample]  # N
    seeds: Sequence[SeedResult]
    counts: Mapping[str, int]
    dataset_digest: str = ""  # over the contents of the good images
    findings: Sequence[str] = ()  # what a person should know of the data
    cost: Cost | None = None
    features: Mapping[str, int] | None = None  # embedded, and from the store; None without one
    tiles: Sequence[Tile] = ()  # some of the images with the first seed's maps

    @property
    def defective(self) -> NDArray[np.bool_]:
        """Labels, shape (N,)."""
        return np.array([not sample.is_good for sample in self.samples], dtype=bool)

    def summary(self) -> dict[str, MeanStd]:
        """Return mean and standard deviation over seeds of every metric all seeds have."""
        rows = [result.numbers for result in self.seeds]
        names = [name for name in rows[0] if all(name in row for row in rows)]
        return {name: mean_and_std([row[name] for row in rows]) for name in names}


@dataclass(frozen=True, kw_only=True)
class TestSet:
    """Labelled images, embedded once for all seeds, as their masks are read once."""

    bank: FeatureBank | TiledBank
    images: torch.Tensor  # (N,), their places in the bank
    unscored: ScoredSamples
    marks: Marks


def mean_and_std(values: Sequence[float]) -> MeanStd:
    """Return mean and sample standard deviation."""
    spread = statistics.stdev(values) if len(values) > 1 else None
    return statistics.fmean(values), spread


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Trains and measures categories, each with seeds 0 to ``num_seeds`` - 1.

    The backbone sees every image once, whatever the number of seeds; variants of one category that
    see the same features share that pass.
    """

    num_seeds: int
    progress: Progress
    features: StorePlace | None = None
    fetch: Fetch = fetch_backbone  # gives the backbone, where it is to compute
    _embedded: list[tuple[Category, PreparedCategory, TestSet]] = field(default_factory=list)

    def measure(self, category: Category) -> CategoryResult:
        """Return what a category comes to.

        Raises:
            LayoutError: there are no labelled images of both kinds to measure on.
        """
        prepared, test = self._features_of(category)
        found = category.model_copy(update=found_settings(prepared.category))
        prepared = replace(prepared, category=found)
        return measure_prepared(prepared, test, self.num_seeds, self.progress)

    def _features_of(self, category: Category) -> tuple[PreparedCategory, TestSet]:
        for other, prepared, test in self._embedded:
            if _share_features(other, category):
                return prepared, test
        tell = partial(self.progress, "features")
        prepared = prepare(category, tell, self.features, self.fetch)
        test = read_test_set(prepared)
        self._embedded.append((category, prepared, test))
        return prepared, test


def _share_features(one: Category, other: Category) -> bool:
    """Whether two variants of a category see the same features."""
    parts = (
        "name",
        "images",
        "anomalies",
        "backbone_config",
        "precision",
        "embedding",
        "preprocessing_settings",
    )
    alike = all(getattr(one, part) == getattr(other, part) for part in parts)
    return alike and needs_pairs(one) == needs_pairs(other)


def measure_prepared(
    prepared: PreparedCategory, test: TestSet, num_seeds: int, progress: Progress
) -> CategoryResult:
    """Train and measure a category whose images are embedded."""
    results: list[SeedResult] = []
    tiles: list[Tile] = []
    cost = None
    for seed in range(num_seeds):
        progress("seeds", seed, num_seeds)
        result, detector, shown = _run_seed(prepared, seed, test)
        results.append(result)
        if seed == 0:
            uris = [sample.uri for sample in test.unscored.samples]
            whole = read_as_scored(uris, prepared.category.preprocessing)
            cost, tiles = measure_cost(detector, whole), shown
    progress("seeds", num_seeds, num_seeds)
    return CategoryResult(
        category=prepared.category.name,
        samples=test.unscored.samples,
        seeds=results,
        counts=_counts(prepared, results[0].calibration, test),
        dataset_digest=prepared.good.digest,
        findings=[*prepared.findings, *test.marks.findings, *prepared.embedder.findings],
        cost=cost,
        features=prepared.embedder.counts,
        tiles=tiles,
    )


def read_test_set(prepared: PreparedCategory) -> TestSet:
    """Read and embed the labelled images of a category, once.

    Raises:
        LayoutError: there are none, or only good or only defective ones.
    """
    category = prepared.category
    test = of_split(prepared.samples, "test")
    refuse_one_kind(category.name, test, "test images", ADVICE)
    read = extract([sample.uri for sample in test], category, prepared.embedder)
    place = {uri: index for index, uri in enumerate(read.uris)}
    kept = [sample for sample in test if sample.uri in place]
    refuse_one_kind(category.name, kept, "test images", ADVICE)
    return TestSet(
        bank=read.bank,
        images=torch.tensor([place[sample.uri] for sample in kept]),
        unscored=ScoredSamples(
            samples=kept,
            scores=np.zeros(0, np.float32),
            maps=np.zeros((0, 0, 0), np.float16),
            unreadable=read.unreadable,
        ),
        marks=read_marks(kept, category.preprocessing),
    )


def _run_seed(
    prepared: PreparedCategory, seed: int, test: TestSet
) -> tuple[SeedResult, Detector, list[Tile]]:
    category, started = prepared.category, time.perf_counter()
    trainer = make_trainer(
        prepared.good,
        prepared.parts,
        category.detector,
        category.recipe.with_seed(seed),
        prepared.pairs,
    )
    trainer = with_label_head(trainer, prepared.good, prepared.parts, prepared.defects)
    seen, looking_s = _train(prepared, trainer, test)
    detector = make_detector(prepared, trainer)
    fit_s = time.perf_counter() - started - looking_s
    unseen = score_unseen(prepared, trainer, detector)
    calibration = fit(unseen.scores, category.calibration_config)
    scores, maps = _score(detector, test, with_maps=True)
    scored = replace(test.unscored, scores=scores, maps=maps)
    roc = image_curve(scores, scored.defective)
    assert roc is not None, "both kinds are there: the test set was checked"
    known = test.marks.known
    result = SeedResult(
        seed=seed,
        metrics=measure(scored, calibration, test.marks),
        oracle_image_auroc=max([*seen, _auroc(scores, test)]),
        calibration=calibration,
        scores=scores,
        roc=roc,
        pixels=pixel_curves(maps[known], test.marks.masks[known]),
        fit_s=fit_s,
    )
    if seed:  # pictures of one training are enough
        return result, detector, []
    scale = MapScale(low=unseen.map_median, threshold=calibration.threshold)
    return result, detector, _tiles(prepared, scored, result, scale, test)


def _train(
    prepared: PreparedCategory, trainer: Trainer, test: TestSet
) -> tuple[list[float], float]:
    """Train to the end; return what an oracle saw on the way, and the seconds it looked.

    It saw the test AUROCs of earlier passes.
    """
    every = max(trainer.num_passes // ORACLE_LOOKS, 1)
    seen, looking_s = [], 0.0
    for number, _ in enumerate(trainer.run(), start=1):
        if number % every == 0 and number < trainer.num_passes:
            started = time.perf_counter()
            seen.append(_auroc(_score(make_detector(prepared, trainer), test)[0], test))
            looking_s += time.perf_counter() - started
    return seen, looking_s


def _score(
    detector: Detector, test: TestSet, *, with_maps: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
    """Return image scores (N,) and, when asked for, maps (N, H, W)."""
    scores, maps = [], [np.zeros((0, 0, 0), np.float16)]
    for index in test.images.split(BATCH_IMAGES):
        batch_scores, patch_scores = detector.score_pooled(test.bank.images(index))
        scores.append(batch_scores.cpu().numpy())
        if with_maps:
            maps.append(detector.maps(patch_scores).half().cpu().numpy())
    return np.concatenate(scores), np.concatenate(maps[1:]) if with_maps else maps[0]


def _auroc(scores: NDArray[np.float32], test: TestSet) -> float:
    auroc = image_metrics(scores, test.unscored.defective).auroc
    assert auroc is not None, "both kinds are there: the test set was checked"
    return auroc


def _tiles(
    prepared: PreparedCategory,
    scored: ScoredSamples,
    result: SeedResult,
    scale: MapScale,
    test: TestSet,
) -> list[Tile]:
    """Return some test images with their maps; one that is gone meanwhile is left out."""
    flagged = result.calibration.flagged(scored.scores)
    tiles = []
    for index in choose(scored.scores, scored.defective).tolist():
        sample = scored.samples[index]
        pixels = read_image(sample.uri, prepared.category.preprocessing).shown
        if pixels is None:
            continue
        tiles.append(
            Tile(
                pixels=pixels,
                levels=scale.to_grey(scored.maps[index].astype(np.float32)),
                mask=test.marks.masks[index],
                defect=sample.defect,
                is_good=sample.is_good,
                score=float(scored.scores[index]),
                flagged=bool(flagged[index]),
            )
        )
    return tiles


def _counts(prepared: PreparedCategory, calibration: Calibration, test: TestSet) -> dict[str, int]:
    samples = test.unscored.samples
    good = sum(sample.is_good for sample in samples)
    return {
        "train": len(prepared.images_of(Part.TRAIN)),
        "calibration": len(calibration.scores),
        "test_good": good,
        "test_defective": len(samples) - good,
        "test_with_masks": sum(bool(sample.mask_uris) for sample in samples),
        "test_unreadable": len(test.unscored.unreadable),
    }
