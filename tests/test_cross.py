"""The promised false-alarm rate, on made-up categories; ``make bench`` takes a thousand of them."""

import numpy as np
import pytest
from made_up_categories import CROSSWISE, NUM_GOOD, RATE, RECIPES, realised_rate

from model.kinds import KINDS

sizes = pytest.mark.parametrize("size", [50, pytest.param(100, marks=pytest.mark.slow)])

# An ensemble takes a minute; its shorter sibling is the same test of the two kinds it consists of.
ENSEMBLE = pytest.param("ensemble", marks=pytest.mark.slow)
kinds = pytest.mark.parametrize("detector", [ENSEMBLE, *sorted(KINDS.keys() - {"ensemble"})])
crosswise = pytest.mark.parametrize("detector", [ENSEMBLE, "memory_bank", "simplenet"])


def mean_and_error(size: int, num_held_out: int, detector: str) -> tuple[float, float]:
    """Realised rate over so many categories, and its standard error."""
    rates = np.array([realised_rate(seed, num_held_out, detector) for seed in range(size)])
    return rates.mean(), rates.std() / size**0.5


def test_every_kind_is_measured() -> None:
    assert RECIPES.keys() == KINDS.keys()
    assert sorted(CROSSWISE) == ["ensemble", "memory_bank", "simplenet"]


@sizes
@crosswise
def test_cross_calibration_flags_no_more_than_asked_and_not_next_to_nothing(
    size: int, detector: str
) -> None:
    rate, error = mean_and_error(size, 0, detector)
    assert rate <= RATE + 2 * error
    assert rate >= 0.3 * RATE


@sizes
@kinds
def test_held_out_images_give_exactly_the_rate_of_conformal_theory(
    size: int, detector: str
) -> None:
    rate, error = mean_and_error(size, NUM_GOOD // 2, detector)
    exact = np.floor(RATE * (NUM_GOOD // 2 + 1)) / (NUM_GOOD // 2 + 1)  # 2 of 21
    assert rate == pytest.approx(exact, abs=3 * error)
