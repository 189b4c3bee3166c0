import copy
import hashlib
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.calibration import (
    Calibration,
    CalibrationConfig,
    CalibrationError,
    Part,
    TooFewImages,
    first_copies,
    fit,
    fold_by_content,
    smallest_rate,
    split_by_content,
)

RATES = st.sampled_from([0.001, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.25, 0.3, 0.45, 0.5, 0.9])


def config(rate: float, share: float = 0.2) -> CalibrationConfig:
    return CalibrationConfig(false_alarm_rate=rate, share=share)


def digests(count: int, seed: int = 0) -> list[str]:
    return [hashlib.sha256(f"{seed} {index}".encode()).hexdigest() for index in range(count)]


def random_scores(seed: int, count: int, levels: int) -> NDArray[np.float32]:
    """Few levels mean many ties."""
    return np.random.default_rng(seed).integers(0, levels, count).astype(np.float32) / 7


@pytest.mark.parametrize(
    ("count", "rate", "k"),
    [
        (99, 0.1, 90),  # k = (99 + 1) 0.9
        (99, 0.01, 99),  # in floating point 100 x (1 - 0.01) is 99 by luck ...
        (99, 0.45, 55),  # ... and 100 x (1 - 0.45) is 55.00000000000001
        (100, 0.01, 100),  # ceil(101 x 0.99) = ceil(99.99)
        (19, 0.05, 19),
        (1, 0.5, 1),
    ],
)
def test_threshold_is_the_conformal_order_statistic(count: int, rate: float, k: int) -> None:
    scores = np.random.default_rng(0).permutation(np.arange(1, count + 1))
    assert fit(scores.astype(float), config(rate)).threshold == k


def test_flag_is_strictly_above_the_threshold() -> None:
    calibration = fit(np.arange(1, 100, dtype=float), config(0.1))
    assert calibration.flagged(np.array([89.0, 90.0, 90.001])).tolist() == [False, False, True]


def test_p_value_counts_calibration_scores_at_least_as_high() -> None:
    calibration = fit(np.array([1.0, 2.0, 2.0, 5.0]), config(0.25))
    found = calibration.p_value(np.array([[0.0, 2.0, 3.0], [5.0, 5.1, 1.0]]))
    assert found.tolist() == [[5 / 5, 4 / 5, 2 / 5], [2 / 5, 1 / 5, 5 / 5]]


def test_scores_are_compared_in_float32() -> None:
    calibration = fit(np.array([0.1]), config(0.5))
    assert not calibration.flagged(np.array([0.1], dtype=np.float32))[0]
    assert not calibration.flagged(np.array([0.1 + 1e-12]))[0]
    assert calibration.p_value(np.array([0.1 + 1e-12])).tolist() == [1.0]


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**32 - 1), rate=RATES, more=st.integers(0, 200), ties=st.booleans())
def test_an_image_is_flagged_exactly_when_its_p_value_is_at_most_the_rate(
    seed: int, rate: float, more: int, ties: bool
) -> None:
    scores = random_scores(seed, config(rate).min_images + more + 1, 5 if ties else 10**6)
    calibration = fit(scores, config(rate))
    fresh = np.concatenate([scores, np.nextafter(scores, np.float32(np.inf))])
    assert (calibration.flagged(fresh) == (calibration.p_value(fresh) <= rate)).all()


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(19, 300))
def test_any_monotone_rescaling_moves_threshold_with_it(seed: int, n: int) -> None:
    scores = np.random.default_rng(seed).integers(-100, 100, n).astype(np.float32)
    moved = fit(scores**3 / 4, config(0.05)).threshold
    assert moved == np.float32(fit(scores, config(0.05)).threshold) ** 3 / 4


@settings(deadline=None, max_examples=50)
@given(rate=RATES)
def test_one_image_fewer_than_needed_is_refused_and_the_number_works(rate: float) -> None:
    needed = config(rate).min_images
    assert needed == math.ceil(round(1 / rate, 9)) - 1
    assert fit(np.arange(float(needed) or 1.0), config(rate)).threshold >= 0
    with pytest.raises(TooFewImages, match=f"need at least {needed}\\. Collect more") as error:
        fit(np.arange(float(needed - 1)), config(rate))
    assert error.value.needed == needed


def test_the_refusal_keeps_its_number_when_it_is_copied_between_processes() -> None:
    with pytest.raises(TooFewImages, match=r"98 held-out good images") as error:
        fit(np.zeros(98), config(0.01))
    copied = copy.copy(error.value)
    assert (copied.needed, str(copied)) == (99, str(error.value))
    assert "raise false_alarm_rate to 0.0102." in str(copied)


@settings(deadline=None, max_examples=50)
@given(count=st.integers(1, 20_000))
def test_the_smallest_rate_is_certified_and_little_above_the_least(count: int) -> None:
    rate = smallest_rate(count)
    assert config(min(rate, 0.999)).min_images <= count
    assert 1 <= rate * (count + 1) < 1.01


def test_without_images_no_rate_is_offered() -> None:
    assert smallest_rate(0) == 1
    with pytest.raises(TooFewImages, match=r"need at least 198 in all\. Collect more images\.$"):
        split_by_content(["a"], config(0.01))


def test_a_score_that_is_not_finite_is_refused() -> None:
    with pytest.raises(CalibrationError, match="1 of 3 calibration scores"):
        fit(np.array([1.0, np.nan, 2.0]), config(0.5))


@pytest.mark.parametrize("field", ["false_alarm_rate", "share", "fdr"])
@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, float("nan")])
def test_a_config_out_of_range_names_its_field(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"calibration.{field} must be in"):
        CalibrationConfig(**{field: value})


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(9, 50))
def test_json_gives_back_an_equal_calibration(seed: int, n: int) -> None:
    calibration = fit(np.random.default_rng(seed).normal(size=n), config(0.1))
    text = json.dumps(calibration.to_json() | {"model_version": "3"})
    read = Calibration.from_json(json.loads(text))
    assert read == calibration
    assert hash(read) == hash(calibration)


def test_the_level_of_the_list_travels_with_the_calibration() -> None:
    made = fit(np.arange(9.0), CalibrationConfig(false_alarm_rate=0.1, fdr=0.25))
    assert made.to_json()["fdr"] == 0.25
    assert Calibration.from_json(made.to_json()) == made
    older = {name: value for name, value in made.to_json().items() if name != "fdr"}
    assert Calibration.from_json(older).fdr == 0.1


def test_a_threshold_that_does_not_fit_its_scores_is_refused() -> None:
    data = fit(np.arange(9.0), config(0.1)).to_json() | {"threshold": 4.5}
    with pytest.raises(CalibrationError, match=r"stored threshold 4\.5 is not the one of its 9"):
        Calibration.from_json(data)


def realised(rng: np.random.Generator, rate: float, n: int, digits: int | None) -> float:
    """Share of fresh good images flagged in one synthetic category."""
    shape, scale, shift = rng.uniform(0.5, 20), rng.uniform(0.01, 10), rng.normal()
    scores = rng.gamma(shape, scale, n + 1000) + shift
    if digits is not None:
        scores = scores.round(digits)
    flagged: NDArray[np.bool_] = fit(scores[:n], config(rate)).flagged(scores[n:])
    return float(flagged.mean())


@pytest.mark.parametrize(("rate", "n"), [(0.01, 199), (0.05, 59)])
def test_false_alarm_rate_holds_on_fresh_data_of_1000_categories(rate: float, n: int) -> None:
    rng = np.random.default_rng(11)
    shares = np.array([realised(rng, rate, n, None) for _ in range(1000)])
    # (n + 1) rate is whole, so the expected share is the rate itself. One category's share
    # scatters as Beta(n + 1 - k, k) plus 1000 coin tosses; the tolerance is 4 standard errors.
    spread = math.sqrt(rate * (1 - rate) * (1 / (n + 2) + 1 / 1000))
    assert abs(shares.mean() - rate) < 4 * spread / math.sqrt(1000)
    assert shares.std() == pytest.approx(spread, rel=0.15)


def test_ties_only_ever_lower_the_false_alarm_rate() -> None:
    rng = np.random.default_rng(12)
    shares = np.array([realised(rng, 0.05, 99, 0) for _ in range(1000)])
    assert shares.mean() < 0.05 + 4 * shares.std() / math.sqrt(1000)


@pytest.mark.parametrize(
    ("count", "rate", "share", "held_out"),
    [
        (1000, 0.01, 0.2, 200),  # the share decides
        (300, 0.01, 0.2, 99),  # the rate decides
        (198, 0.01, 0.2, 99),  # exactly half
        (41, 0.1, 0.5, 20),  # half, rounded down
        (15, 0.25, 0.2, 3),  # 0.2 x 15 is 3, not 4
    ],
)
def test_split_holds_out_the_share_or_what_the_rate_needs(
    count: int, rate: float, share: float, held_out: int
) -> None:
    parts = split_by_content(digests(count), config(rate, share))
    assert np.count_nonzero(parts == Part.CALIBRATION) == held_out
    assert np.count_nonzero(parts == Part.TRAIN) == count - held_out


def test_the_first_contents_by_hash_are_held_out_and_copies_dropped_from_both_sides() -> None:
    hashes = ["d", "a", "c", "a", "b", "d", "a"]
    parts = split_by_content(hashes, config(0.4, 0.5))
    names = [Part(part).name for part in parts]
    assert (
        names == ["TRAIN", "CALIBRATION", "TRAIN", "DUPLICATE", "CALIBRATION"] + ["DUPLICATE"] * 2
    )


@settings(deadline=None, max_examples=50)
@given(
    numbers=st.lists(st.integers(0, 60), min_size=60, max_size=120), seed=st.integers(0, 2**32 - 1)
)
def test_split_depends_on_content_and_not_on_order(numbers: list[int], seed: int) -> None:
    names = digests(20, 1) + [digests(61)[number] for number in numbers]
    order = np.random.default_rng(seed).permutation(len(names))
    before = split_by_content(names, config(0.1))
    after = split_by_content([names[index] for index in order], config(0.1))
    for part in (Part.TRAIN, Part.CALIBRATION):
        there = {names[index] for index in np.flatnonzero(before == part)}
        moved = [names[order[index]] for index in np.flatnonzero(after == part)]
        assert sorted(there) == sorted(moved)


def test_a_split_that_would_take_more_than_half_says_how_many_images_it_needs() -> None:
    message = r"40 distinct good images.* at least 198 in all.*false_alarm_rate to 0.0477\.$"
    with pytest.raises(TooFewImages, match=message) as error:
        split_by_content(digests(40) * 2, config(0.01))
    assert error.value.needed == 198
    assert np.count_nonzero(split_by_content(digests(40), config(0.0477)) == Part.TRAIN) == 20


@settings(deadline=None, max_examples=50)
@given(numbers=st.lists(st.integers(0, 50), min_size=1, max_size=120), num_folds=st.integers(2, 10))
def test_copies_share_a_fold_and_folds_are_of_equal_size(
    numbers: list[int], num_folds: int
) -> None:
    hashes = digests(10, 1) + [digests(51)[number] for number in numbers]
    folds = fold_by_content(hashes, num_folds)
    for content in set(hashes):
        assert len({fold for fold, name in zip(folds, hashes, strict=True) if name == content}) == 1
    sizes = np.bincount(folds[first_copies(hashes)], minlength=num_folds)
    assert sizes.max() - sizes.min() <= 1


def test_cross_calibration_holds_nothing_out_and_needs_half_the_images() -> None:
    cross = CalibrationConfig(false_alarm_rate=0.01, method="cross")
    parts = split_by_content(digests(99) * 2, cross)
    assert np.bincount(parts, minlength=3).tolist() == [99, 0, 99]
    with pytest.raises(TooFewImages, match=r"98 held-out good images cannot certify.*at least 99"):
        split_by_content(digests(98), cross)


@settings(deadline=None, max_examples=50)
@given(sizes=st.lists(st.integers(1, 6), min_size=30, max_size=60), seed=st.integers(0, 2**32 - 1))
def test_a_burst_is_never_on_both_sides(sizes: list[int], seed: int) -> None:
    bursts = [name for name, size in zip(digests(60), sizes, strict=False) for _ in range(size)]
    hashes = digests(len(bursts), 7)
    order = np.random.default_rng(seed).permutation(len(bursts))
    hashes, bursts = [hashes[i] for i in order], [bursts[i] for i in order]
    parts = split_by_content(hashes, config(0.1), bursts)
    folds = fold_by_content(hashes, 5, bursts)
    for burst in set(bursts):
        members = [index for index, name in enumerate(bursts) if name == burst]
        assert len({(parts[index], folds[index]) for index in members}) == 1
    held_out = np.count_nonzero(parts == Part.CALIBRATION)
    assert max(9, 0.2 * len(hashes)) <= held_out <= len(hashes) / 2
    assert np.ptp(np.bincount(folds, minlength=5)) <= max(sizes)


def test_a_copy_in_another_burst_is_dropped_and_shares_the_fold_of_the_first() -> None:
    hashes, bursts = digests(40), [*digests(20, 1), *digests(20, 1)]
    hashes[39] = hashes[0]
    parts = split_by_content(hashes, config(0.1), bursts)
    assert parts[39] == Part.DUPLICATE
    folds = fold_by_content(hashes, 4, bursts)
    assert folds[39] == folds[0]


def test_bursts_that_are_too_large_or_too_few_are_refused_with_what_to_do() -> None:
    hashes = digests(40)
    with pytest.raises(TooFewImages, match=r"40 distinct good images in 2 bursts: .*`group`"):
        split_by_content(hashes, config(0.1), ["a"] * 35 + ["b"] * 5)
    with pytest.raises(TooFewImages, match=r"40 good images to train on are of 3 bursts, and 5"):
        fold_by_content(hashes, 5, [*"abc", *"c" * 37])


def test_bursts_of_one_image_are_what_no_bursts_are() -> None:
    hashes = digests(50) * 2
    without = split_by_content(hashes, config(0.1)), fold_by_content(hashes, 7)
    alone = split_by_content(hashes, config(0.1), hashes), fold_by_content(hashes, 7, hashes)
    assert [each.tolist() for each in without] == [each.tolist() for each in alone]
