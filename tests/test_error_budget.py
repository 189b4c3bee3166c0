"""When too many images failed, the night is no good; by hand."""

from typing import Any

import pytest

from pipeline.night.error_budget import ErrorBudget
from pipeline.night.summary import Summary


def night(**failed: tuple[int, int]) -> Summary:
    """Categories by name: images, and how many of them cannot be read."""
    categories: dict[str, Any] = {
        name: {"images": images, "failed": {"unreadable": bad} if bad else {}, "unrouted": 0}
        for name, (images, bad) in failed.items()
    }
    images = sum(entry["images"] for entry in categories.values())
    bad = sum(sum(entry["failed"].values()) for entry in categories.values())
    totals = {"ok": images - bad, "unreadable": bad}
    return Summary(images=images, totals=totals, categories=categories)


@pytest.mark.parametrize(
    ("num_failed", "good"), [(0, True), (10, True), (11, False)], ids=["none", "all of it", "more"]
)
def test_one_in_a_hundred_may_fail_by_default(num_failed: int, good: bool) -> None:
    assert (ErrorBudget().overruns(night(a=(1000, num_failed))) == []) == good


def test_a_category_may_not_hide_in_a_large_night() -> None:
    (sentence,) = ErrorBudget().overruns(night(large=(10_000, 0), small=(40, 5)))
    assert sentence == "category small: 5 of 40 images failed, more than the error budget allows"


def test_the_worst_category_is_named_first() -> None:
    answer = ErrorBudget(night=1).overruns(night(a=(100, 20), b=(100, 0), c=(100, 30)))
    assert [sentence.split(":")[0] for sentence in answer] == ["category c", "category a"]


def test_three_images_are_never_too_many_but_for_a_budget_of_zero() -> None:
    assert ErrorBudget().overruns(night(a=(5, 3))) == []
    strict = ErrorBudget(night=0, category=0).overruns(night(a=(5, 1)))
    assert [sentence.split(":")[0] for sentence in strict] == ["the night", "category a"]


def test_unrouted_images_are_no_errors_until_nothing_else_is_left() -> None:
    mixed = night(a=(10, 0))
    mixed["images"] += 90
    mixed["totals"]["unrouted"] = 90
    assert ErrorBudget().overruns(mixed) == []
    mixed["totals"] = {"unrouted": 100}
    assert ErrorBudget().overruns(mixed) == ["none of 100 images has a score"]


def test_a_night_without_images_is_good() -> None:
    assert ErrorBudget(night=0, category=0).overruns(night()) == []


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_budget_is_a_share(share: float) -> None:
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        ErrorBudget(night=share)
