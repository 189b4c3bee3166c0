"""The evaluation protocol: seeds, the oracle beside the last pass, clear refusals."""

import dataclasses
from pathlib import Path

import pytest
from factory import category, make_category, write_images

from jobs.evaluate import Evaluation
from model.recipe import PRESETS
from pipeline.layouts import LayoutError
from pipeline.protocol import CategoryResult, SeedResult, mean_and_std, run_protocol, with_seed


def quiet(stage: str, done: int, total: int) -> None:
    """Nobody watches."""


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> CategoryResult:
    folder = make_category(tmp_path_factory.mktemp("metal"), num_good=24, num_test=4)
    return run_protocol(category(folder, "metal"), 2, quiet)


def test_every_seed_is_measured_and_differs(result: CategoryResult) -> None:
    assert [seed.seed for seed in result.seeds] == [0, 1]
    assert result.seeds[0].threshold != result.seeds[1].threshold
    assert all(0 <= seed.metrics["image_auroc"] <= 1 for seed in result.seeds)
    assert all("test_recall" in seed.metrics for seed in result.seeds)


def test_the_oracle_is_never_below_the_last_pass(result: CategoryResult) -> None:
    for seed in result.seeds:
        assert seed.oracle_image_auroc >= seed.metrics["image_auroc"]


def test_a_category_without_defects_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "good", range(24))
    with pytest.raises(LayoutError, match="metal: 0 labelled test images, not of both kinds"):
        run_protocol(category(tmp_path / "good", "metal", layout="folder"), 1, quiet)


@pytest.mark.parametrize(
    ("values", "expected"), [([0.5], (0.5, 0.0)), ([1.0, 3.0], (2.0, 2**0.5)), ([2, 2, 2], (2, 0))]
)
def test_mean_and_std_by_hand(values: list[float], expected: tuple[float, float]) -> None:
    assert mean_and_std(values) == pytest.approx(expected)


def test_a_seed_reaches_every_head() -> None:
    recipe = with_seed(PRESETS["default"], 7)
    assert recipe.image is not None
    assert (recipe.patch.seed, recipe.image.seed) == (7, 7)
    assert dataclasses.replace(recipe.patch, seed=0) == PRESETS["default"].patch


def seed_result(seed: int, auroc: float, oracle: float, **more: float) -> SeedResult:
    metrics = {"image_auroc": auroc, **more}
    return SeedResult(seed=seed, metrics=metrics, oracle_image_auroc=oracle, threshold=1.0)


def test_the_table_by_hand() -> None:
    bottle = CategoryResult(
        category="bottle",
        seeds=[
            seed_result(0, 0.98, 1.0, pixel_auroc=0.9),
            seed_result(1, 1.0, 1.0, pixel_auroc=0.9),
        ],
    )
    gear = CategoryResult(
        category="gear", seeds=[seed_result(0, 0.8, 0.9), seed_result(1, 0.8, 0.9)]
    )
    evaluation = Evaluation(results=[bottle, gear], failed={})
    lines = evaluation.to_markdown().splitlines()
    assert lines[2].startswith("| bottle | 99.0 +- 1.4 | 100.0 +- 0.0 |")
    assert lines[3].startswith("| gear | 80.0 +- 0.0 | 90.0 +- 0.0 |")
    assert lines[4].startswith("| mean | 89.5 | 95.0 |")
    assert evaluation.mean()["pixel_auroc"] == pytest.approx(0.9)  # of the one that has masks
    assert evaluation.to_json()["categories"]["gear"]["seeds"][0]["image_auroc"] == 0.8
