import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binomtest
from skimage.measure import label
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from pipeline.measuring.metrics import (
    ImageMetrics,
    NotANumber,
    clopper_pearson,
    image_curve,
    image_metrics,
    pixel_curves,
    pixel_metrics,
    realised_rates,
)


def slow_aupro(maps: NDArray[np.floating], masks: NDArray[np.bool_], limit: float) -> float:
    """The definition: one binary prediction per distinct score, one overlap per region."""
    regions = [
        (index, labels == number)
        for index, labels in enumerate(label(mask, connectivity=2) for mask in masks)
        for number in range(1, labels.max() + 1)
    ]
    rates, overlaps = [0.0], [0.0]
    for threshold in np.unique(maps)[::-1]:
        predicted = maps >= threshold
        rates.append(predicted[~masks].mean())
        overlaps.append(np.mean([predicted[index][region].mean() for index, region in regions]))
    cut = next(index for index, rate in enumerate(rates) if rate >= limit)
    at_limit = np.interp(limit, rates[cut - 1 : cut + 1], overlaps[cut - 1 : cut + 1])
    return float(np.trapezoid([*overlaps[:cut], at_limit], [*rates[:cut], limit]) / limit)


def random_case(seed: int, levels: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    masks = rng.random((4, 7, 6)) < 0.2
    masks[0], masks[1, 2, 2], masks[1, 0, 0] = False, True, False
    maps = rng.integers(0, levels, masks.shape) + masks * rng.integers(0, levels, masks.shape)
    return maps.astype(np.float32), masks


@pytest.mark.parametrize(
    ("scores", "defective", "expected"),
    [
        ([1, 2, 3, 4], [0, 0, 1, 1], (1.0, 1.0, 1.0)),
        ([4, 3, 2, 1], [0, 0, 1, 1], (0.0, (1 / 3 + 2 / 4) / 2, 2 / 3)),
        ([1, 1, 1, 1], [0, 0, 1, 1], (0.5, 0.5, 2 / 3)),
        # found at 9 (precision 1), at 7 (2 of 3) and at 5 (3 of 5); F1 there 1/2, 2/3, 3/4
        ([9, 8, 7, 6, 5, 4, 2], [1, 0, 1, 0, 1, 0, 0], (9 / 12, (1 + 2 / 3 + 3 / 5) / 3, 0.75)),
    ],
)
def test_image_metrics_match_the_hand_table(
    scores: list[int], defective: list[int], expected: tuple[float, float, float]
) -> None:
    found = image_metrics(np.array(scores, float), np.array(defective, bool))
    assert dataclasses.astuple(found) == pytest.approx(expected)


def test_pixel_metrics_match_the_hand_calculation() -> None:
    # Region A is the 9, region B the 7 and the 5; negatives 8 6 4 2, so rate steps of 1/4.
    maps = np.array([[[9, 8, 7, 5, 6, 4, 2]]], dtype=np.float32)
    masks = np.array([[[1, 0, 1, 1, 0, 0, 0]]], dtype=bool)
    found = pixel_metrics(maps, masks)
    assert found.num_regions == 2
    assert found.auroc == pytest.approx(9 / 12)
    assert found.average_precision == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)
    assert found.aupro_30 == pytest.approx((0.5 * 0.3 + 0.25 * 0.05) / 0.3)
    assert found.aupro_05 == pytest.approx(0.5)


def test_a_tie_across_the_limit_is_interpolated_at_the_limit() -> None:
    # The curve runs straight from (0, 0) to (0.5, 1): at 0.3 it is at 0.6.
    found = pixel_metrics(np.array([[[1.0, 1.0, 0.0]]]), np.array([[[True, False, False]]]))
    assert found.aupro_30 == pytest.approx(0.3 * 0.6 / 2 / 0.3)
    assert found.auroc == pytest.approx(0.75)


def test_a_small_region_counts_as_much_as_a_large_one() -> None:
    masks = np.zeros((1, 8, 8), dtype=bool)
    masks[0, :4, :4] = masks[0, 7, 7] = True
    found_large = pixel_metrics(np.where(masks & (np.arange(8) < 4), 1.0, 0.0), masks)
    found_small = pixel_metrics(np.where(masks & (np.arange(8) >= 4), 1.0, 0.0), masks)
    # Half the overlap at rate 0, then a straight line to (1, 1).
    assert found_large.aupro_30 == pytest.approx(0.5 + 0.5 * 0.3 / 2)
    assert found_small.aupro_30 == pytest.approx(found_large.aupro_30)
    assert found_small.auroc < found_large.auroc


def test_pixels_that_touch_at_a_corner_are_one_region() -> None:
    masks = np.eye(3, dtype=bool)[None]
    assert pixel_metrics(np.zeros((1, 3, 3)), masks).num_regions == 1


def test_regions_do_not_reach_into_the_next_image() -> None:
    masks = np.zeros((2, 3, 3), dtype=bool)
    masks[:, 1, 1] = True
    assert pixel_metrics(np.zeros((2, 3, 3)), masks).num_regions == 2


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), levels=st.sampled_from([2, 5, 30, 10_000]))
def test_aupro_equals_the_threshold_loop_over_all_scores(seed: int, levels: int) -> None:
    maps, masks = random_case(seed, levels)
    found = pixel_metrics(maps, masks)
    assert found.aupro_30 == pytest.approx(slow_aupro(maps, masks, 0.3), abs=1e-12)
    assert found.aupro_05 == pytest.approx(slow_aupro(maps, masks, 0.05), abs=1e-12)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), levels=st.sampled_from([2, 5, 30, 10_000]))
def test_detection_metrics_equal_scikit_learn(seed: int, levels: int) -> None:
    maps, masks = random_case(seed, levels)
    found = image_metrics(maps.ravel(), masks.ravel())
    precision, recall, _ = precision_recall_curve(masks.ravel(), maps.ravel())
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
    assert found.auroc == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()))
    assert found.average_precision == pytest.approx(
        average_precision_score(masks.ravel(), maps.ravel())
    )
    assert found.f1_max == pytest.approx(f1.max())
    pixels = pixel_metrics(maps, masks)
    assert (pixels.auroc, pixels.average_precision) == (found.auroc, found.average_precision)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_monotone_rescaling_changes_no_metric(seed: int) -> None:
    maps, masks = random_case(seed, 30)
    assert pixel_metrics(maps**3 - 7, masks) == pixel_metrics(maps, masks)
    assert pixel_metrics(np.exp(maps.astype(float)), masks) == pixel_metrics(maps, masks)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_order_of_images_and_pixels_changes_no_metric(seed: int) -> None:
    maps, masks = random_case(seed, 30)
    order = np.random.default_rng(seed).permutation(len(maps))
    expected = dataclasses.astuple(pixel_metrics(maps, masks))
    moved = pixel_metrics(maps[order, ::-1, ::-1], masks[order, ::-1, ::-1])
    assert dataclasses.astuple(moved) == pytest.approx(expected, abs=1e-12)


def test_metrics_are_undefined_rather_than_invented_when_a_class_is_missing() -> None:
    scores = np.array([1.0, 2.0])
    nothing = image_metrics(scores, np.array([False, False]))
    assert nothing == ImageMetrics(auroc=None, average_precision=None, f1_max=None)
    assert image_metrics(scores, np.array([True, True])) == nothing
    assert image_metrics(scores[:0], np.zeros(0, bool)) == nothing
    assert image_curve(scores, np.array([True, True])) is None
    assert json.loads(json.dumps(dataclasses.asdict(nothing)))["auroc"] is None


def test_pixel_metrics_are_undefined_without_any_mask() -> None:
    maps, masks = np.ones((2, 3, 3)), np.zeros((2, 3, 3), dtype=bool)
    found = pixel_metrics(maps, masks)
    assert found.num_regions == 0
    assert found.auroc is found.average_precision is found.aupro_30 is found.aupro_05 is None
    assert pixel_metrics(maps, ~masks).aupro_30 is None
    assert pixel_curves(maps, masks).roc is None


def test_a_score_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(NotANumber, match="hold NaN"):
        image_metrics(np.array([1.0, np.nan, 2.0]), np.array([True, False, False]))


def test_whole_curves_carry_the_areas() -> None:
    maps, masks = random_case(3, 50)
    curves = pixel_curves(maps, masks, max_points=10**6)
    roc = np.trapezoid(curves.roc.gain, curves.roc.false_positive_rate)
    assert roc == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()))
    pro = np.trapezoid(curves.pro.gain, curves.pro.false_positive_rate)
    assert pro == pytest.approx(slow_aupro(maps, masks, 1.0))


def test_thinned_curves_keep_their_ends_and_stay_on_the_curve() -> None:
    rng = np.random.default_rng(0)
    masks = rng.random((5, 64, 64)) < 0.3
    maps = rng.random(masks.shape) + 0.4 * masks
    whole, thin = pixel_curves(maps, masks, 10**6).pro, pixel_curves(maps, masks).pro
    assert 200 < len(thin.gain) <= 500 < len(whole.gain)
    assert (thin.false_positive_rate[0], thin.gain[0]) == (0, 0)
    assert (thin.false_positive_rate[-1], thin.gain[-1]) == (1, 1)
    vertices = set(zip(whole.false_positive_rate, whole.gain, strict=True))
    assert set(zip(thin.false_positive_rate, thin.gain, strict=True)) <= vertices


@settings(deadline=None)
@given(
    trials=st.integers(1, 400),
    share=st.floats(0, 1),
    confidence=st.sampled_from([0.8, 0.95, 0.99]),
)
def test_clopper_pearson_equals_scipy(trials: int, share: float, confidence: float) -> None:
    successes = round(share * trials)
    exact = binomtest(successes, trials).proportion_ci(confidence, method="exact")
    found = clopper_pearson(successes, trials, confidence)
    assert found == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_no_trials_say_nothing_about_a_share() -> None:
    assert clopper_pearson(0, 0) == (0.0, 1.0)


def test_realised_rates_count_good_and_defective_images_apart() -> None:
    flagged = np.array([True, False, False, False, True, True, False])
    defective = np.array([False, False, False, False, True, True, True])
    rates = realised_rates(flagged, defective)
    assert (rates.false_alarm_rate.count, rates.false_alarm_rate.total) == (1, 4)
    assert rates.false_alarm_rate.value == 0.25
    assert rates.recall.value == pytest.approx(2 / 3)
    # 2 of 3: the low end p solves P(X >= 2) = 3 p^2 - 2 p^3 = 0.025, the high end P(X = 3) = 0.975
    assert 3 * rates.recall.low**2 - 2 * rates.recall.low**3 == pytest.approx(0.025)
    assert rates.recall.high == pytest.approx(0.975 ** (1 / 3))


def test_a_rate_over_no_images_has_no_value() -> None:
    recall = realised_rates(np.array([False]), np.array([False])).recall
    assert (recall.value, recall.low, recall.high) == (None, 0.0, 1.0)
