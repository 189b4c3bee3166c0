"""A dump is measured by its training images, also where these are few."""

import numpy as np
import pytest

from pipeline.inspection.category_summary import summarise
from pipeline.inspection.robust_tail import critical_spread_of_new


@pytest.mark.parametrize("num_known", [20, 30])
@pytest.mark.parametrize("num_new", [100])
def test_a_clean_dump_seldom_has_an_unusual_image(num_known: int, num_new: int) -> None:
    """150 categories of 40 normal features: 1 % of the dumps is meant, and 4 % allowed.

    That is 1 % and 3.7 standard errors of 150 dumps.
    """
    random, num_dumps = np.random.default_rng(num_known + num_new), 150
    limit, found = critical_spread_of_new(num_new, num_known, 0.01), 0
    for _ in range(num_dumps):
        summary = summarise("a", "s", random.normal(size=(num_known, 40)).astype(np.float32))
        distances = summary.distances(random.normal(size=(num_new, 40)).astype(np.float32))
        low, middle, high = summary.quartiles
        found += bool(((np.log(distances) - middle) / (high - low) > limit).any())
    assert found <= 0.04 * num_dumps


@pytest.mark.parametrize("num_known", [20, 60, 1000])
def test_the_bound_keeps_its_rate_for_the_tails_that_it_is_made_for(num_known: int) -> None:
    random, num_new = np.random.default_rng(5), 100
    known = random.logistic(size=(2000, num_known))
    low, middle, high = np.quantile(known, (0.25, 0.5, 0.75), axis=1)
    largest = random.logistic(size=(2000, num_new)).max(axis=1)
    share = np.mean(
        (largest - middle) / (high - low) > critical_spread_of_new(num_new, num_known, 0.01)
    )
    assert share <= 0.01 + 3.5 * np.sqrt(0.01 * 0.99 / 2000)


def test_an_image_that_is_far_away_is_still_beyond_the_bound() -> None:
    random = np.random.default_rng(6)
    summary = summarise("a", "s", random.normal(size=(25, 40)).astype(np.float32))
    far = summary.distances(8 * random.normal(size=(1, 40)).astype(np.float32))
    low, middle, high = summary.quartiles
    assert (np.log(far[0]) - middle) / (high - low) > critical_spread_of_new(200, 25, 0.01)
