"""The honest protocol: train with several seeds, decide without test labels, measure once.

The headline is the last pass, as mean and standard deviation over seeds. Beside it stands what
choosing the pass by its test AUROC would have claimed, a usual way of reporting: an oracle's number
that nobody can have in production, there to show the difference.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from model.detector import Detector
from model.feature_bank import FeatureBank
from model.recipe import Recipe, RecipeTrainer
from pipeline.calibration import Part, fit
from pipeline.catalogue import Category
from pipeline.evaluation import ScoredSamples, measure
from pipeline.features import BATCH_IMAGES, extract
from pipeline.layout_files import LayoutError
from pipeline.metrics import image_metrics
from pipeline.onboarding import Prepared, make_detector, prepare, score_held_out

ORACLE_LOOKS = 8  # passes that the oracle compares, evenly spread; the last is one of them

Progress = Callable[[str, int, int], None]  # stage, done, total


@dataclass(frozen=True, kw_only=True)
class SeedResult:
    """One training of one category."""

    seed: int
    metrics: Mapping[str, float]
    oracle_image_auroc: float
    threshold: float


@dataclass(frozen=True, kw_only=True)
class CategoryResult:
    """All trainings of one category."""

    category: str
    seeds: Sequence[SeedResult]

    def summary(self) -> dict[str, tuple[float, float]]:
        """Return mean and standard deviation over seeds of every metric all seeds have."""
        rows = [
            {**result.metrics, "oracle_image_auroc": result.oracle_image_auroc}
            for result in self.seeds
        ]
        names = [name for name in rows[0] if all(name in row for row in rows)]
        return {name: mean_and_std([row[name] for row in rows]) for name in names}


def mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and sample standard deviation; 0 for a single value."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return statistics.fmean(values), spread


def run_protocol(
    category: Category, num_seeds: int, progress: Progress, device: str = "cpu"
) -> CategoryResult:
    """Train and measure one category with seeds 0 to ``num_seeds`` - 1.

    The backbone sees every image once, whatever the number of seeds.

    Raises:
        LayoutError: there are no labelled images of both kinds to measure on.
    """
    prepared = prepare(category, lambda done, total: progress("features", done, total), device)
    test = [sample for sample in prepared.samples if sample.split == "test"]
    if len({sample.is_good for sample in test}) < 2:
        raise LayoutError(
            f"{category.name}: {len(test)} labelled test images, not of both kinds; evaluation "
            f"needs good and defective ones. Add a test folder or leave the category out."
        )
    read = extract([sample.uri for sample in test], category, prepared.backbone)
    place = {uri: index for index, uri in enumerate(read.uris)}
    kept = [sample for sample in test if sample.uri in place]
    test_bank = read.bank, torch.tensor([place[sample.uri] for sample in kept])
    results = []
    for seed in range(num_seeds):
        progress("seeds", seed, num_seeds)
        empty = ScoredSamples(
            samples=kept,
            scores=np.zeros(0, np.float32),
            maps=np.zeros((0, 0, 0), np.float16),
            unreadable=read.unreadable,
        )
        results.append(_run_seed(prepared, seed, empty, test_bank))
    progress("seeds", num_seeds, num_seeds)
    return CategoryResult(category=category.name, seeds=results)


def _run_seed(
    prepared: Prepared, seed: int, empty: ScoredSamples, test: tuple[FeatureBank, torch.Tensor]
) -> SeedResult:
    category = prepared.category
    recipe = with_seed(category.recipe, seed)
    trainer = RecipeTrainer(prepared.good.bank, prepared.images_of(Part.TRAIN), recipe)
    every = max(trainer.num_passes // ORACLE_LOOKS, 1)
    seen = []
    for number, _ in enumerate(trainer.run(), start=1):
        if number % every == 0 and number < trainer.num_passes:
            seen.append(_auroc(_score(make_detector(prepared, trainer), *test)[0], empty))
    detector = make_detector(prepared, trainer)
    held_out, _ = score_held_out(detector, prepared.good.bank, prepared.images_of(Part.CALIBRATION))
    calibration = fit(held_out, category.calibration_config)
    scores, maps = _score(detector, *test, with_maps=True)
    scored = replace(empty, scores=scores, maps=maps)
    return SeedResult(
        seed=seed,
        metrics=measure(scored, calibration, category.preprocessing),
        oracle_image_auroc=max([*seen, _auroc(scores, empty)]),
        threshold=calibration.threshold,
    )


def with_seed(recipe: Recipe, seed: int) -> Recipe:
    """Return the recipe with another seed in every head."""
    image = replace(recipe.image, seed=seed) if recipe.image is not None else None
    return Recipe(patch=replace(recipe.patch, seed=seed), image=image)


def _score(
    detector: Detector, bank: FeatureBank, images: torch.Tensor, *, with_maps: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
    """Return image scores (N,) and, when asked for, maps (N, H, W) of cached images."""
    scores, maps = [], [np.zeros((0, 0, 0), np.float16)]
    for index in images.split(BATCH_IMAGES):
        batch_scores, patch_scores = detector.score_pooled(bank.images(index))
        scores.append(batch_scores.cpu().numpy())
        if with_maps:
            maps.append(detector.maps(patch_scores).half().cpu().numpy())
    return np.concatenate(scores), np.concatenate(maps[1:]) if with_maps else maps[0]


def _auroc(scores: NDArray[np.float32], labelled: ScoredSamples) -> float:
    auroc = image_metrics(scores, labelled.defective).auroc
    assert auroc is not None, "both kinds are there: run_protocol has checked"
    return auroc
