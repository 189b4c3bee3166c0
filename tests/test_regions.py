"""Regions of an anomaly map: counted by hand, and promised to be rare on good images."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.anomaly_map import anomaly_maps, map_matrix
from model.preprocessing import Fit, Preprocessing
from pipeline.calibration import TooFewImages
from pipeline.images.placement import Placement, placement
from pipeline.images.regions import (
    MAX_REGIONS,
    NO_REGIONS,
    RegionRule,
    find_regions,
    fit_rule,
)

RULE = RegionRule(threshold=1.0, rate=0.1, num_images=9)


def drawn(*lines: str) -> NDArray[np.float32]:
    """A map with these levels: a digit each, 0 where there is a dot."""
    return np.array([[float(c.replace(".", "0")) for c in line] for line in lines], np.float32)


def test_boxes_areas_and_centres_are_in_pixels_of_the_image() -> None:
    """A map of 4 x 8 over an image of 40 x 160: one of its pixels has 10 x 20 = 200."""
    found = find_regions(
        drawn("..3.....", "..25....", "......2.", "......22"),
        RULE,
        Placement((40, 160), (0.0, 0.0, 160.0, 40.0)),
    )
    assert (found.number, found.area_share) == (2, 6 / 32)
    first, second = found.listed
    assert first == {
        **{"x": 40, "y": 0, "width": 40, "height": 20, "area": 600, "share": 3 / 32, "peak": 5.0},
        "centroid_x": pytest.approx(20 * (2.5 + 2.5 + 3.5) / 3),
        "centroid_y": pytest.approx(10 * (0.5 + 1.5 + 1.5) / 3),
    }
    assert [second[name] for name in ("x", "y", "width", "height")] == [120, 20, 40, 20]


def test_what_touches_at_a_corner_is_one_region_and_the_level_itself_is_none() -> None:
    place = Placement((3, 3), (0.0, 0.0, 3.0, 3.0))
    assert find_regions(drawn("2..", ".2.", "..2"), RULE, place).number == 1
    assert find_regions(drawn("2..", "..2", "2.."), RULE, place).number == 3
    assert find_regions(drawn("1..", ".1.", "..1"), RULE, place) == NO_REGIONS


def test_a_few_regions_are_listed_the_largest_first_and_all_are_counted() -> None:
    levels = np.zeros((40, 40), np.float32)
    levels[::2, ::2] = 2.0
    levels[20:23, 30:33] = 2.0
    found = find_regions(levels, RULE, Placement((40, 40), (0.0, 0.0, 40.0, 40.0)))
    # single pixels two apart; four of them lie in the square
    assert (found.number, len(found.listed)) == (400 - 4 + 1, MAX_REGIONS)
    assert [region["area"] for region in found.listed] == [9] + [1] * (MAX_REGIONS - 1)
    assert found.area_share == pytest.approx((396 + 9) / 1600)


def test_what_was_padded_and_what_was_cropped_away_have_no_region() -> None:
    padded = placement((50, 100), Preprocessing(crop=64, fit="pad"))  # 16 rows above and below
    levels = np.zeros((64, 64), np.float32)
    levels[:10] = levels[60:] = 5.0
    assert find_regions(levels, RULE, padded) == NO_REGIONS
    levels[:17] = 5.0
    (region,) = find_regions(levels, RULE, padded).listed
    assert (region["y"], region["height"], region["width"]) == (0, 2, 100)
    cropped = placement((100, 100), Preprocessing(resize=80, crop=64))
    (region,) = find_regions(np.full((64, 64), 5.0, np.float32), RULE, cropped).listed
    assert [region[name] for name in ("x", "y", "width", "height")] == [10, 10, 80, 80]
    assert region["share"] == pytest.approx(0.64)


def test_what_was_padded_around_a_region_of_interest_has_no_region() -> None:
    """A strip of y from 200 to 300 in the middle of a square of 400 x 400, of 64 x 64 levels."""
    way = Preprocessing(crop=64, fit="pad", roi=(200, 200, 400, 100), drawn_on=(500, 800))
    strip = placement((500, 800), way)
    levels = np.zeros((64, 64), np.float32)
    levels[:20] = levels[44:] = levels[5:8, 30:40] = 5.0
    assert find_regions(levels, RULE, strip) == NO_REGIONS
    levels[:] = 5.0
    (region,) = find_regions(levels, RULE, strip).listed
    assert [region[name] for name in ("x", "y", "width", "height")] == [200, 200, 400, 100]


@given(
    height=st.integers(1, 100),
    width=st.integers(1, 100),
    row=st.integers(0, 223),
    column=st.integers(0, 223),
    fit=st.sampled_from(["pad", "stretch"]),
)
def test_boxes_have_a_pixel_at_least_and_none_outside_of_the_image(
    height: int, width: int, row: int, column: int, fit: Fit
) -> None:
    levels = np.zeros((224, 224), np.float32)
    levels[row, column] = levels[-1, -1] = levels[0, 0] = 5.0
    place = placement((height, width), Preprocessing(crop=224, fit=fit))
    for region in find_regions(levels, RULE, place).listed:
        assert 0 <= region["x"] < region["x"] + region["width"] <= width
        assert 0 <= region["y"] < region["y"] + region["height"] <= height


def test_the_level_is_the_order_statistic_that_the_rate_needs() -> None:
    """Of 19 images at 10 %: k = ceil(20 * 0.9) = 18, the second largest."""
    rule = fit_rule(np.arange(19, dtype=np.float32)[::-1], 0.1)
    assert rule == RegionRule(threshold=17.0, rate=0.1, num_images=19)


@pytest.mark.parametrize(
    ("num_images", "rate", "needed"), [(0, 0.1, 9), (8, 0.1, 9), (98, 0.01, 99)]
)
def test_a_rate_that_the_images_cannot_certify_is_refused(
    num_images: int, rate: float, needed: int
) -> None:
    with pytest.raises(TooFewImages, match=f"region_rate {rate:g}; need at least {needed}") as told:
        fit_rule(np.zeros(num_images, np.float32), rate)
    assert told.value.needed == needed


@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1e-3, 1.0, 1e3]), at=st.floats(-3, 3))
def test_an_image_is_passed_over_only_where_its_map_has_no_region(
    seed: int, scale: float, at: float
) -> None:
    patches = scale * torch.randn(1, 6, 6, generator=torch.Generator().manual_seed(seed)) + at
    matrix = map_matrix(6, 48)
    (levels,) = anomaly_maps(patches, matrix, matrix).numpy()
    rule = RegionRule(
        threshold=float(np.float32(levels.max() * (1 - 1e-6))), rate=0.1, num_images=9
    )
    highest = RegionRule(threshold=float(levels.max()), rate=0.1, num_images=9)
    place = Placement((48, 48), (0.0, 0.0, 48.0, 48.0))
    for each in (rule, highest):
        if find_regions(levels, each, place).number:
            assert each.may_have_any(patches.numpy())
    above = RegionRule(threshold=float(patches.max()) + 0.1 * scale, rate=0.1, num_images=9)
    assert find_regions(levels, above, place) == NO_REGIONS


def test_good_images_show_regions_no_more_often_than_promised() -> None:
    """1,000 categories of smooth noise, 19 images held out at 10 %: binomial with Beta(2, 18)."""
    random = np.random.default_rng(0)
    place = Placement((8, 8), (0.0, 0.0, 8.0, 8.0))
    shown = []
    for _ in range(1000):
        maps = random.normal(size=(20, 8, 8)).astype(np.float32)
        rule = fit_rule(maps[:19].max(axis=(1, 2)), 0.1)
        shown.append(find_regions(maps[19], rule, place).number > 0)
    assert abs(np.mean(shown) - 0.1) <= 2.576 * np.sqrt(0.1 * 0.9 / 1000)
