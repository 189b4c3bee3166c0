"""Drift: whole categories that shift are seen, a minority of defects is not mistaken for it.

Nights here have 1,000 categories with four statistics each, so each comparison is held against
0.01 / 8,000.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from pipeline.night.settling.drift import (
    MIN_IMAGES,
    NIGHT_LEVEL,
    TRIM,
    Comparison,
    Sample,
    alerts,
    compare,
    describe,
)
from pipeline.night.settling.rank_counts import RankCounts

NUM_TESTS = 8000  # of a night of 1,000 categories: four statistics, two directions
Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]


def sample(calibration: NDArray[np.floating], night: NDArray[np.floating], **known: str) -> Sample:
    ascending = np.sort(calibration.astype(np.float32))
    places = RankCounts([ascending])
    places.add(np.zeros(len(night), np.int64), night.astype(np.float32))
    return Sample(
        category=known.get("category", "bottle"),
        statistic=known.get("statistic", "score"),
        calibration=ascending,
        cells=places.of(0),
        median=float(np.median(night)) if len(night) else None,
    )


def compared(
    calibration: NDArray[np.floating], night: NDArray[np.floating], **known: str
) -> Comparison:
    found = compare(sample(calibration, night, **known))
    assert found is not None
    return found


def night_of(num_categories: int, num_calibration: int, num_images: int, draw: Draw) -> float:
    """Share of categories that alert, as if their night had NUM_TESTS comparisons."""
    random = np.random.default_rng(7)
    num_alerts = 0
    for _ in range(num_categories):
        found = compared(random.normal(size=num_calibration), draw(random, num_images))
        num_alerts += found.p_value <= NIGHT_LEVEL / NUM_TESTS and found.is_large
    return num_alerts / num_categories


def shifted(share: float, by: float) -> Draw:
    def draw(random: np.random.Generator, num: int) -> NDArray[np.float64]:
        values = random.normal(size=num)
        values[: round(share * num)] += by
        return values

    return draw


TIED = st.lists(st.integers(0, 12), min_size=MIN_IMAGES, max_size=60)


@settings(max_examples=200, deadline=None)
@given(calibration=TIED, night=TIED)
def test_the_statistic_is_scipys_on_what_trimming_leaves(
    calibration: list[int], night: list[int]
) -> None:
    """Ties included: the highest tenth is left out before asking whether values are higher."""
    cal, values = np.array(calibration, float), np.sort(np.array(night, float))
    kept = len(night) - int(TRIM * len(night))
    higher = stats.ks_2samp(cal, values[:kept], alternative="greater").statistic
    lower = stats.ks_2samp(cal, values[len(night) - kept :], alternative="less").statistic
    found = compared(cal, values)
    assert found.ks == pytest.approx(max(higher, lower), abs=1e-12)
    if abs(higher - lower) > 1e-9:
        assert found.direction == ("higher" if higher > lower else "lower")


@pytest.mark.parametrize("num_calibration", [20, 99, 200])
@pytest.mark.parametrize("num_kept", [18, 51, 180, 400])
@pytest.mark.parametrize("difference", [0.15, 0.25, 0.4, 0.6, 0.8])
def test_the_exact_p_value_is_at_most_a_few_percent_larger(
    num_calibration: int, num_kept: int, difference: float
) -> None:
    one = np.arange(num_calibration) / num_calibration
    other = np.arange(num_kept) / num_kept + difference
    exact = stats.ks_2samp(one, other, alternative="greater", method="exact")
    size = num_calibration * num_kept / (num_calibration + num_kept)
    assert exact.pvalue <= 1.03 * np.exp(-2 * exact.statistic**2 * size)


def test_psi_by_hand() -> None:
    """Half the night in the lowest of ten bins, half an image more in each, chance taken off."""
    calibration = np.arange(1000.0)
    low, even = np.full(200, 50.0), np.linspace(100, 999, 200)
    found = compared(calibration, np.concatenate([low, even]))
    counts = np.histogram(np.concatenate([low, even]), [-1, *np.arange(99.5, 999, 100), 1e9])[0]
    before, after = np.full(10, 0.1), (counts + 0.5) / 405
    expected = np.sum((after - before) * np.log(after / before)) - 9 * (1 / 1000 + 1 / 400)
    assert found.psi == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("num_images", [20, 200])
def test_chance_alone_gives_a_psi_of_about_nothing(num_images: int) -> None:
    random = np.random.default_rng(0)
    found = [
        compared(random.normal(size=100), random.normal(size=num_images)).psi for _ in range(300)
    ]
    assert np.mean(found) < 0.05


@pytest.mark.parametrize(
    ("num_calibration", "num_images"), [(20, 20), (99, 30), (99, 200), (199, 200)]
)
@pytest.mark.parametrize("share", [0.0, 0.1])
def test_of_a_thousand_unshifted_categories_none_alerts_with_a_tenth_of_defects_or_without(
    num_calibration: int, num_images: int, share: float
) -> None:
    """Allowed are 0.01 alerts in the whole night; the defects lie 5 deviations out."""
    assert night_of(1000, num_calibration, num_images, shifted(share, 5.0)) == 0


@pytest.mark.parametrize(
    ("num_calibration", "num_images", "power"), [(99, 200, 0.8), (199, 200, 0.97), (99, 1000, 0.97)]
)
@pytest.mark.parametrize("by", [1.0, -1.0])
def test_a_category_that_shifts_by_one_deviation_alerts(
    num_calibration: int, num_images: int, power: float, by: float
) -> None:
    """Even where it is one of a thousand; one of ten is seen with 99 calibration images too."""
    assert night_of(300, num_calibration, num_images, shifted(1.0, by)) >= power


def test_in_a_small_night_a_shift_is_seen_with_few_calibration_images() -> None:
    random = np.random.default_rng(3)
    seen = 0
    for _ in range(200):
        own = compared(random.normal(size=99), random.normal(1, 1, 200), category="a")
        others = [
            compared(random.normal(size=99), random.normal(size=200), category=f"b{i}")
            for i in range(9)
        ]
        found = alerts([own, *others])
        assert set(found) <= {"a"}
        seen += "a" in found
    assert seen >= 0.97 * 200


@given(seed=st.integers(0, 2**32 - 1), num_defects=st.integers(0, 10))
@settings(max_examples=100, deadline=None)
def test_defects_can_only_lower_the_statistic_of_good_images(seed: int, num_defects: int) -> None:
    """What the trimming promises: wherever up to a tenth of defects lie, the night looks no higher
    than some 90 % of its good images do."""
    random = np.random.default_rng(seed)
    calibration, good = random.normal(size=50), random.normal(size=100 - num_defects)
    defects = random.normal(0, 10, num_defects)
    night = np.sort(np.concatenate([good, defects]))[:90]
    own = stats.ks_2samp(calibration, night, alternative="greater").statistic
    kept = random.permutation(good)[:90]
    assert own <= stats.ks_2samp(calibration, kept, alternative="greater").statistic + 1e-12


def test_too_few_images_are_not_compared() -> None:
    enough, few = np.arange(float(MIN_IMAGES)), np.arange(MIN_IMAGES - 1.0)
    assert compare(sample(enough, enough)) is not None
    assert compare(sample(enough, few)) is None
    assert compare(sample(few, enough)) is None
    assert compare(sample(np.zeros(0), np.zeros(0))) is None


def comparison(**known: object) -> Comparison:
    made = Comparison(
        category="bottle",
        statistic="brightness",
        num_calibration=99,
        num_images=200,
        direction="lower",
        ks=0.9,
        p_value=1e-20,
        psi=2.0,
        median=82.04,
        calibration_median=104.2,
    )
    return dataclasses.replace(made, **known)


@pytest.mark.parametrize(
    "known",
    [
        {"ks": 0.19},
        {"psi": 0.24},
        {"p_value": 0.0051},
        {"median": 100.0},  # a fixed camera's every difference is certain, but this one is small
        {"median": 120.0},  # the bulk lies lower, the median does not
    ],
)
def test_what_is_small_or_may_be_chance_is_no_alert(known: dict[str, float]) -> None:
    assert list(alerts([comparison()])) == ["bottle"]
    assert alerts([comparison(**known)]) == {}


def test_more_comparisons_need_more_certainty() -> None:
    one = comparison(p_value=1e-5)
    others = [comparison(category=f"c{i}", p_value=1.0) for i in range(499)]
    assert set(alerts([one, *others])) == {"bottle"}  # 0.01 / (2 x 500) = 1e-5
    assert alerts([one, *others, comparison(category="last", p_value=1.0)]) == {}


@pytest.mark.parametrize(
    ("statistic", "lower", "higher"),
    [
        ("brightness", "images are darker", "images are brighter"),
        ("contrast", "images have less contrast", "images have more contrast"),
        ("sharpness", "images are less sharp", "images are sharper"),
    ],
)
def test_a_reason_says_what_which_way_and_by_how_much(
    statistic: str, lower: str, higher: str
) -> None:
    down = comparison(statistic=statistic)
    up = comparison(statistic=statistic, direction="higher", median=130.0)
    assert down.reason == f"{lower} than at onboarding: median {statistic} 82, was 104"
    assert up.reason == f"{higher} than at onboarding: median {statistic} 130, was 104"


def test_causes_come_before_scores() -> None:
    score = comparison(statistic="score", direction="higher", median=1.32, calibration_median=0.1)
    found = alerts([score, comparison()])
    assert describe(found["bottle"]) == (
        "images are darker than at onboarding: median brightness 82, was 104; "
        "scores are higher than at onboarding: median 1.32, was 0.1"
    )
