"""Waiting for a storage that does not answer."""

from collections.abc import Callable

import pytest

from pipeline.storage import ObjectMissing, StorageAway
from pipeline.storage.retry import Retry


def away(times: int) -> Callable[[], str]:
    """A function that works from the call after ``times`` on."""
    calls = iter(range(times + 1))

    def call() -> str:
        if next(calls) < times:
            raise StorageAway("no answer")
        return "here"

    return call


def hasty(**changes: int) -> Retry:
    return Retry(first_pause_s=0, **changes)


@pytest.mark.parametrize("times", [0, 1, 2])
def test_what_works_in_time_is_returned(times: int) -> None:
    assert hasty(attempts=3).call(away(times)) == "here"


def test_it_ends_after_the_last_attempt() -> None:
    with pytest.raises(StorageAway, match="no answer"):
        hasty(attempts=3).call(away(3))


def test_only_a_storage_that_is_away_is_worth_waiting_for() -> None:
    calls = []

    def missing() -> None:
        calls.append(1)
        raise ObjectMissing("never there")

    with pytest.raises(ObjectMissing, match="never there"):
        hasty().call(missing)
    assert calls == [1]


def test_it_is_over_after_so_many_in_a_row_and_not_before() -> None:
    retry = hasty(attempts=1, max_failures=2)
    for expected in (False, True):
        with pytest.raises(StorageAway):
            retry.call(away(1))
        assert retry.gave_up == expected


def test_one_success_in_between_begins_anew() -> None:
    retry = hasty(attempts=1, max_failures=2)
    for _ in range(3):
        with pytest.raises(StorageAway):
            retry.call(away(1))
        retry.call(away(0))
    assert not retry.gave_up


def test_when_it_is_over_nobody_waits_for_further_attempts() -> None:
    retry = Retry(attempts=50, first_pause_s=60, max_failures=0)  # a pause would time out
    with pytest.raises(StorageAway):
        retry.call(away(50))


def test_pauses_grow_to_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("pipeline.storage.retry.time.sleep", pauses.append)
    with pytest.raises(StorageAway):
        Retry(attempts=5, first_pause_s=1, longest_pause_s=4).call(away(9))
    for pause, middle in zip(pauses, (1, 2, 4, 4), strict=True):
        assert 0.5 * middle <= pause <= 1.5 * middle
