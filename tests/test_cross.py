"""The promised false-alarm rate, on made-up categories; ``make bench`` takes a thousand of them."""

import numpy as np
import pytest
from made_up_categories import NUM_GOOD, RATE, realised_rate

NUM_CATEGORIES = 100


def mean_and_error(num_held_out: int) -> tuple[float, float]:
    """Realised rate and its standard error."""
    rates = np.array([realised_rate(seed, num_held_out) for seed in range(NUM_CATEGORIES)])
    return rates.mean(), rates.std() / NUM_CATEGORIES**0.5


def test_cross_calibration_flags_no_more_than_asked_and_not_next_to_nothing() -> None:
    rate, error = mean_and_error(0)
    assert rate <= RATE + 2 * error
    assert rate >= 0.3 * RATE


def test_held_out_images_give_exactly_the_rate_of_conformal_theory() -> None:
    rate, error = mean_and_error(NUM_GOOD // 2)
    exact = np.floor(RATE * (NUM_GOOD // 2 + 1)) / (NUM_GOOD // 2 + 1)  # 2 of 21
    assert rate == pytest.approx(exact, abs=3 * error)
