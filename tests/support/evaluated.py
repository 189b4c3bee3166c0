"""Results of made-up trainings: scores and maps drawn at random, measured as real ones are."""

from dataclasses import asdict

import numpy as np

from pipeline.calibration import CalibrationConfig, fit
from pipeline.datasets.layouts import Sample
from pipeline.evaluation.heatmap_grid import Tile, choose
from pipeline.evaluation.protocol import CategoryResult, SeedResult
from pipeline.measuring.labelled import ScoredSamples
from pipeline.measuring.metrics import (
    image_curve,
    image_metrics,
    pixel_curves,
    pixel_metrics,
    realised_rates,
)

NUM_GOOD, NUM_DEFECTIVE, SIDE = 30, 20, 32
COUNTS = {"train": 80, "calibration": 20, "test_good": NUM_GOOD, "test_defective": NUM_DEFECTIVE}


def samples() -> list[Sample]:
    good = [Sample(f"/images/good/{i}.png", "test", "good") for i in range(NUM_GOOD)]
    return good + [Sample(f"/images/dent/{i}.png", "test", "dent") for i in range(NUM_DEFECTIVE)]


def masks() -> np.ndarray:
    """Rectangles of growing size, two on every other defective image, shape (N, H, W)."""
    found = np.zeros((NUM_GOOD + NUM_DEFECTIVE, SIDE, SIDE), dtype=bool)
    for index in range(NUM_DEFECTIVE):
        found[NUM_GOOD + index, 3 : 6 + index % 9, 4:12] = True
        found[NUM_GOOD + index, 20:24, 20:27] = index % 2 == 1
    return found


def maps(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (random.normal(size=masks().shape) + 1.5 * masks()).astype(np.float16)


def seed_result(seed: int, *, with_masks: bool = True) -> SeedResult:
    random = np.random.default_rng(seed)
    defective = np.repeat([False, True], [NUM_GOOD, NUM_DEFECTIVE])
    scores = (random.normal(size=len(defective)) + 2.0 * defective).astype(np.float32)
    calibration = fit(random.normal(size=20), CalibrationConfig(false_alarm_rate=0.1))
    metrics = {f"image_{k}": v for k, v in asdict(image_metrics(scores, defective)).items()}
    for name, share in asdict(realised_rates(calibration.flagged(scores), defective)).items():
        ends = {f"test_{name}_low": share["low"], f"test_{name}_high": share["high"]}
        metrics |= {f"test_{name}": share["value"], **ends}
    curves = {}
    if with_masks:
        found = asdict(pixel_metrics(maps(seed), masks()))
        metrics |= {f"pixel_{k}": v for k, v in found.items() if k != "num_regions"}
        curves = {"pixels": pixel_curves(maps(seed), masks())}
    return SeedResult(
        seed=seed,
        metrics=metrics,
        oracle_image_auroc=min(metrics["image_auroc"] + 0.01, 1.0),
        calibration=calibration,
        scores=scores,
        roc=image_curve(scores, defective),
        **curves,
    )


def tile(index: int, first: SeedResult) -> Tile:
    random = np.random.default_rng(index)
    return Tile(
        pixels=random.integers(0, 255, (SIDE, SIDE, 3)).astype(np.uint8),
        levels=random.integers(0, 255, (SIDE, SIDE)).astype(np.uint8),
        mask=masks()[index],
        defect=samples()[index].defect,
        is_good=samples()[index].is_good,
        score=float(first.scores[index]),
        flagged=bool(first.calibration.flagged(first.scores)[index]),
    )


def category_result(
    name: str = "gear", num_seeds: int = 3, *, with_masks: bool = True
) -> CategoryResult:
    seeds = [seed_result(seed, with_masks=with_masks) for seed in range(num_seeds)]
    scored = ScoredSamples(samples=samples(), scores=seeds[0].scores, maps=maps(0), unreadable=[])
    shown = choose(scored.scores, scored.defective).tolist()
    return CategoryResult(
        category=name,
        samples=samples(),
        seeds=seeds,
        counts=COUNTS,
        tiles=[tile(index, seeds[0]) for index in shown],
    )
