"""Which of many values lie beyond what their central part allows for.

Ranks alone can never say that the largest value of a set is too large: some value always is the
largest. So location and scale are taken of the central half, where a few wrong values have no say,
and the level is what the largest of as many values without a fault stays below, by simulation.
Their tails are taken to be as long as a logistic distribution's, longer than a normal one's: scores
of real sets without a defect have such tails on a logarithmic scale.

Shapes: N values.
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

LEAST_VALUES = 20  # of fewer the quartiles say too little
LARGEST_SIMULATED = 1_000
NUM_SIMULATED = 4_000
STEP = 1.25  # from one simulated number of values to the next
IQR_OF_LOGISTIC = 2 * math.log(3)

Floats = NDArray[np.float64]


def spread_from_centre(values: NDArray[np.floating]) -> Floats:
    """Return how many quartile ranges each value lies above the median, (N,); negative: below."""
    known = np.asarray(values, np.float64)
    low, middle, high = np.quantile(known, (0.25, 0.5, 0.75))
    scale = max(high - low, 1e-9 * max(abs(middle), 1e-9))
    spread: Floats = (known - middle) / scale
    return spread


def beyond(values: NDArray[np.floating], rate: float) -> NDArray[np.bool_]:
    """Which values are larger than a set without a fault has, (N,).

    Args:
        values: larger means less usual; positive ones best as logarithms.
        rate: share of sets without a fault in which any value is so large.
    """
    if len(values) < LEAST_VALUES:
        return np.zeros(len(values), dtype=bool)
    return spread_from_centre(values) > critical_spread(len(values), rate)


def critical_spread(num_values: int, rate: float) -> float:
    """Return what the largest spread of so many values without a fault exceeds at a rate."""
    if num_values > LARGEST_SIMULATED:  # the quartiles are all but exact
        return math.log(num_values / rate) / IQR_OF_LOGISTIC
    steps = math.ceil(math.log(max(num_values, LEAST_VALUES) / LEAST_VALUES, STEP) - 1e-9)
    return _simulated(round(LEAST_VALUES * STEP**steps), rate)


def critical_spread_of_new(num_new: int, num_known: int, rate: float) -> float:
    """Return what the largest spread of new values without a fault exceeds at a rate.

    It is measured by the quartiles of ``num_known`` others of their kind; of few they are
    uncertain.
    """
    known = min(max(num_known, LEAST_VALUES), LARGEST_SIMULATED)
    down = math.floor(math.log(known / LEAST_VALUES, STEP) + 1e-9)
    up = math.ceil(math.log(max(num_new, 1), STEP) - 1e-9)
    return _simulated_of_new(STEP**up, round(LEAST_VALUES * STEP**down), rate)


@lru_cache(maxsize=256)
def _simulated_of_new(num_new: float, num_known: int, rate: float) -> float:
    random = np.random.default_rng(0)
    draws = random.logistic(size=(NUM_SIMULATED, num_known))
    low, middle, high = np.quantile(draws, (0.25, 0.5, 0.75), axis=1)
    share = np.log(random.uniform(size=NUM_SIMULATED)) / num_new  # its logarithm, below the largest
    largest = share - np.log(-np.expm1(share))
    return float(np.quantile((largest - middle) / (high - low), 1 - rate))


@lru_cache(maxsize=256)
def _simulated(num_values: int, rate: float) -> float:
    draws = np.random.default_rng(0).logistic(size=(NUM_SIMULATED, num_values))
    low, middle, high = np.quantile(draws, (0.25, 0.5, 0.75), axis=1)
    largest = (draws.max(axis=1) - middle) / (high - low)
    return float(np.quantile(largest, 1 - rate))
