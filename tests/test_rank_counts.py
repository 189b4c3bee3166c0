"""RankCounts among calibration values and medians: as a sort of everything would say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.night.settling.rank_counts import RankCounts, StreamingMedians

VALUES = st.sampled_from([-1e30, -2.5, -1.0, -0.0, 0.0, 1e-30, 1.0, 1.5, 2.0, 3e38])


@settings(max_examples=200, deadline=None)
@given(
    references=st.lists(st.lists(VALUES, max_size=6), min_size=1, max_size=4),
    night=st.lists(st.tuples(st.integers(0, 3), VALUES), max_size=40),
    cut=st.integers(0, 40),
)
def test_every_value_is_counted_by_what_is_below_it_and_what_is_at_most_as_high(
    references: list[list[float]], night: list[tuple[int, float]], cut: int
) -> None:
    night = [(category, value) for category, value in night if category < len(references)]
    places = RankCounts([np.sort(np.array(values, np.float32)) for values in references])
    for part in (night[:cut], night[cut:]):
        numbers = np.array([category for category, _ in part], np.int64)
        places.add(numbers, np.array([value for _, value in part], np.float32))
    for category, reference in enumerate(references):
        expected = np.zeros(2 * len(reference) + 1, int)
        for value in (value for owner, value in night if owner == category):
            expected[sum(r < value for r in reference) + sum(r <= value for r in reference)] += 1
        assert places.of(category).tolist() == expected.tolist()


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2), st.floats(allow_nan=False, allow_infinity=False, width=32)
        ).filter(lambda pair: abs(pair[1]) > 1e-30 or pair[1] == 0),
        max_size=30,
    ),
    st.integers(0, 30),
)
def test_medians_are_those_of_numpy_to_a_4096th(night: list[tuple[int, float]], cut: int) -> None:
    medians = StreamingMedians()
    for part in (night[:cut], night[cut:]):
        numbers = np.array([category for category, _ in part], np.int64)
        medians.add(numbers, np.array([value for _, value in part], np.float32))
    found = medians.of_all()
    assert set(found) == {category for category, _ in night}
    for category, median in found.items():
        own = np.sort([value for owner, value in night if owner == category])
        middle = own[[(len(own) - 1) // 2, len(own) // 2]]
        assert median == pytest.approx(middle.mean(), abs=np.abs(middle).mean() / 4096 + 1e-40)


def test_many_values_take_little_room() -> None:
    """A factor of two has 2,048 cells: 100,000 values between 1 and 4 have at most 4,096."""
    medians = StreamingMedians()
    random = np.random.default_rng(0)
    values = random.uniform(1, 4, 100_000).astype(np.float32)
    for part in np.split(values, 10):
        medians.add(np.zeros(len(part), np.int64), part)
    assert medians.of_all()[0] == pytest.approx(np.median(values), rel=1 / 4096)
    assert len(medians._keys) <= 4096
