"""Discoveries: Benjamini-Hochberg as others compute it, and the share of good images in them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pipeline.calibration import CalibrationConfig, fit
from pipeline.night.settling.benjamini_hochberg import benjamini_hochberg, p_value_ranks


def counts_of(ranks: np.ndarray, num_calibration: int) -> np.ndarray:
    return np.bincount(ranks - 1, minlength=num_calibration + 1)


@settings(max_examples=300, deadline=None)
@given(
    num_calibration=st.integers(1, 60),
    num_images=st.integers(1, 80),
    fdr=st.sampled_from([0.01, 0.05, 0.0731, 0.1, 0.2, 0.5, 0.9]),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_list_is_the_one_of_scipy(
    num_calibration: int, num_images: int, fdr: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    skew = random.choice([0.2, 1.0, 3.0])  # nights with many, some and few small p-values
    ranks = 1 + (random.random(num_images) ** (1 / skew) * (num_calibration + 1)).astype(int)
    p_values = ranks / (num_calibration + 1)
    expected = stats.false_discovery_control(p_values, method="bh") <= fdr * (1 + 1e-9)
    found = benjamini_hochberg(counts_of(ranks, num_calibration), fdr)
    assert found.num_discoveries == expected.sum()
    cut = -1.0 if found.p_value is None else found.p_value
    assert ((p_values <= cut) == expected).all()
    assert (found.num_images, found.num_calibration) == (num_images, num_calibration)
    assert (found.limit is None) == (found.num_discoveries > 0)


def test_a_list_by_hand() -> None:
    """n = 9, m = 10, fdr 0.3: p = 0.1 needs 10 x 0.1 / 0.3 -> 4 images, p = 0.2 needs 7."""
    assert benjamini_hochberg(np.array([4, 0, 0, 0, 0, 0, 0, 0, 0, 6]), 0.3).num_discoveries == 4
    assert benjamini_hochberg(np.array([3, 0, 0, 0, 0, 0, 0, 0, 0, 7]), 0.3).num_discoveries == 0
    found = benjamini_hochberg(np.array([3, 4, 0, 0, 0, 0, 0, 0, 0, 3]), 0.3)
    assert (found.num_discoveries, found.rank, found.p_value) == (7, 2, 0.2)


def test_a_tie_in_decimals_is_listed() -> None:
    """10 images at p = 0.1 of 10 at fdr 0.1: 0.1 <= 0.1."""
    assert benjamini_hochberg(np.array([10, *[0] * 9]), 0.1).num_discoveries == 10


def test_a_night_without_images_lists_none_and_has_no_excuse() -> None:
    found = benjamini_hochberg(np.zeros(100, int), 0.1)
    assert (found.num_discoveries, found.p_value, found.limit) == (0, None, None)


def test_what_cannot_be_listed_is_said_with_its_numbers() -> None:
    few = benjamini_hochberg(np.array([3, *[0] * 98, 997]), 0.1)
    assert few.num_needed == 100  # 1000 / (0.1 x 100)
    assert few.limit == (
        "99 calibration images know no p-value below 0.01, so of 1,000 images at an fdr of 0.1 "
        "100 (0.1) must have it before there is a discovery; 3 have it."
    )
    impossible = benjamini_hochberg(np.array([5, 0, 0, 0, 0]), 0.1)
    assert impossible.limit == (
        "4 calibration images know no p-value below 0.2, so no image can be a discovery at an fdr "
        "of 0.1; onboard with at least 9 or raise fdr."
    )


@pytest.mark.parametrize("num_images", [1, 7, 200, 12_345])
@pytest.mark.parametrize("num_calibration", [9, 99, 1234])
def test_the_fewest_needed_are_enough_and_one_less_is_not(
    num_images: int, num_calibration: int
) -> None:
    """Where all others are as ordinary as can be."""

    def listed(num: int) -> int:
        counts = np.zeros(num_calibration + 1, int)
        counts[-1] = num_images - num
        counts[0] += num
        return benjamini_hochberg(counts, 0.2).num_discoveries

    needed = benjamini_hochberg(np.array([0] * num_calibration + [num_images]), 0.2).num_needed
    assert needed <= num_images
    assert listed(needed) == needed
    assert listed(needed - 1) == 0


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(9, 300))
def test_ranks_are_those_of_the_calibration(seed: int, n: int) -> None:
    random = np.random.default_rng(seed)
    calibration = fit(random.normal(size=n), CalibrationConfig(false_alarm_rate=0.1))
    scores = random.normal(size=40).astype(np.float32)
    above = (np.array(calibration.scores, np.float32)[None] >= scores[:, None]).sum(axis=1)
    found = p_value_ranks(calibration.p_value(scores), np.full(40, n))
    assert found.tolist() == (1 + above).tolist()


@pytest.mark.parametrize("share_defective", [0.0, 0.2])
def test_the_share_of_good_images_on_the_list_is_the_one_asked_for(share_defective: float) -> None:
    """2,000 nights of 100 images with calibrations of their own, at 0.2.

    At most: the level times the share of good images, here plus 4 standard errors. Where all are
    good it is far less (0.05), since p-values that share a calibration are small together.
    """
    random = np.random.default_rng(5)
    num_nights, num_images, num_calibration, fdr = 2000, 100, 199, 0.2
    num_good = num_images - int(share_defective * num_images)
    shares, found_all = [], []
    for _ in range(num_nights):
        calibration = np.sort(random.normal(size=num_calibration))
        scores = random.normal(size=num_images)
        scores[num_good:] += 3.0
        ranks = 1 + num_calibration - np.searchsorted(calibration, scores, side="left")
        found = benjamini_hochberg(counts_of(ranks, num_calibration), fdr)
        listed = ranks <= found.rank
        shares.append(listed[:num_good].sum() / max(listed.sum(), 1))
        found_all.append(listed[num_good:].mean() if share_defective else 1.0)
    error = float(np.std(shares)) / num_nights**0.5
    expected = fdr * num_good / num_images
    assert np.mean(shares) <= expected + 4 * error
    assert np.mean(found_all) > 0.6
