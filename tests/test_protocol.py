"""The evaluation protocol: seeds, the oracle beside the last pass, clear refusals."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from factory import category, make_category, write_images
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from model.recipe import PRESETS
from pipeline.datasets.layouts import LayoutError
from pipeline.evaluation.protocol import CategoryResult, Protocol, mean_and_std

SCRATCH = (slice(40, 52), slice(20, 76))  # of a picture of 96 x 96, which is scored at 64 x 64


def quiet(stage: str, done: int, total: int) -> None:
    """Nobody watches."""


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> CategoryResult:
    """One of its defective images has no mask."""
    folder = make_category(tmp_path_factory.mktemp("metal"), num_good=24, num_test=4)
    masks = folder / "ground_truth/scratch"
    masks.mkdir(parents=True)
    for path in sorted((folder / "test/scratch").iterdir())[1:]:
        mask = np.zeros((96, 96), dtype=np.uint8)
        mask[SCRATCH] = 255
        Image.fromarray(mask).save(masks / f"{path.stem}_mask.png")
    return Protocol(num_seeds=2, progress=quiet).measure(category(folder, "metal"))


def test_every_seed_is_measured_and_differs(result: CategoryResult) -> None:
    assert [seed.seed for seed in result.seeds] == [0, 1]
    assert result.seeds[0].calibration.threshold != result.seeds[1].calibration.threshold
    assert all(0 <= seed.metrics["image_auroc"] <= 1 for seed in result.seeds)
    assert all("test_recall" in seed.metrics for seed in result.seeds)


def test_the_oracle_is_never_below_the_last_pass(result: CategoryResult) -> None:
    for seed in result.seeds:
        assert seed.oracle_image_auroc >= seed.metrics["image_auroc"]


def test_metrics_are_those_of_the_scores_that_are_kept(result: CategoryResult) -> None:
    assert result.defective.tolist() == [sample.defect == "scratch" for sample in result.samples]
    for seed in result.seeds:
        auroc = roc_auc_score(result.defective, seed.scores)
        assert seed.metrics["image_auroc"] == pytest.approx(auroc)
        precision = average_precision_score(result.defective, seed.scores)
        assert seed.metrics["image_average_precision"] == pytest.approx(precision)
        flagged = seed.scores > np.float32(seed.calibration.threshold)
        assert seed.metrics["test_recall"] == flagged[result.defective].mean()


def test_the_curves_are_those_of_the_metrics(result: CategoryResult) -> None:
    for seed in result.seeds:
        pixel = seed.pixels.roc
        assert pixel is not None
        areas = [np.trapezoid(curve.gain, curve.false_positive_rate) for curve in (seed.roc, pixel)]
        assert areas[0] == pytest.approx(seed.metrics["image_auroc"])
        assert areas[1] == pytest.approx(seed.metrics["pixel_auroc"], abs=1e-3)


def test_counts_say_what_it_was_measured_on(result: CategoryResult) -> None:
    assert result.counts["train"] + result.counts["calibration"] == 24
    assert result.counts["calibration"] == len(result.seeds[0].calibration.scores)
    rest = {name: n for name, n in result.counts.items() if name.startswith("test")}
    assert rest == {
        "test_good": 4,
        "test_defective": 4,
        "test_with_masks": 3,
        "test_unreadable": 0,
    }


def test_tiles_are_the_first_seeds(result: CategoryResult) -> None:
    scores = result.seeds[0].scores
    good = sorted(scores[~result.defective].tolist(), reverse=True)[:3]
    bad = sorted(scores[result.defective].tolist())
    assert [tile.score for tile in result.tiles] == [*good, *bad]
    threshold = result.seeds[0].calibration.threshold
    assert all(tile.flagged == (tile.score > threshold) for tile in result.tiles)
    marked = [tile.mask.mean() for tile in result.tiles if tile.mask.any()]
    assert marked == pytest.approx([12 * 56 / 96**2] * 3, rel=0.15)  # edges fall between pixels
    assert all(tile.pixels.shape == (64, 64, 3) for tile in result.tiles)


def test_without_masks_there_are_no_pixel_metrics_and_curves(tmp_path: Path) -> None:
    folder = make_category(tmp_path, num_good=24, num_test=2)
    (seed,) = Protocol(num_seeds=1, progress=quiet).measure(category(folder, "metal")).seeds
    assert [name for name in seed.metrics if name.startswith("pixel")] == []
    assert (seed.pixels.roc, seed.pixels.pro) == (None, None)


def test_a_category_without_defects_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "good", range(24))
    with pytest.raises(LayoutError, match="metal: 0 labelled test images, not of both kinds"):
        Protocol(num_seeds=1, progress=quiet).measure(
            category(tmp_path / "good", "metal", layout="folder")
        )


@pytest.mark.parametrize(
    ("values", "expected"), [([0.5], (0.5, None)), ([1.0, 3.0], (2.0, 2**0.5)), ([2, 2, 2], (2, 0))]
)
def test_mean_and_std_by_hand(values: list[float], expected: tuple[float, float]) -> None:
    assert mean_and_std(values) == pytest.approx(expected)


def test_a_seed_reaches_every_head() -> None:
    recipe = PRESETS["default"].recipe.with_seed(7)
    assert recipe.image is not None
    assert (recipe.patch.seed, recipe.image.seed) == (7, 7)
    assert dataclasses.replace(recipe.patch, seed=0) == PRESETS["default"].recipe.patch
