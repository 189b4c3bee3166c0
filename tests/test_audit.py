"""The audit: which images are drawn, and what their labels say of the defects that are missed."""

import datetime as dt
from typing import Any

import numpy as np
import pytest

from pipeline.labels.audit import KEPT, audit_sample, draw
from pipeline.labels.label import Label, to_rows
from pipeline.labels.missed import Missed, missed_by_night, together

MORNING = dt.datetime(2026, 3, 13, 6, 0, tzinfo=dt.UTC)
NIGHT = "2026-03-12"


def said(name: str, word: str, chosen: str, minute: int = 0, **fields: Any) -> Label:
    known = {"category": "bottle", "label": word, "night": NIGHT, "chosen": chosen}
    at = MORNING + dt.timedelta(minutes=minute)
    return Label(**(known | {"image_uri": name, "labelled_at": at} | fields))


def audited(
    words: dict[str, str], flagged: str = "", other: str = "not_flagged", **fields: Any
) -> list[Label]:
    """A whole sample as an import leaves it: first how the results have it, then the audit."""
    return [
        said(name, word, chosen, **fields)
        for name, word in words.items()
        for chosen in ("flagged" if name in flagged else other, "audit")
    ]


def found(labels: list[Label]) -> dict[str, Missed]:
    return missed_by_night(to_rows(labels))


@pytest.mark.parametrize("num_failed", [0, 3, 5])
def test_pictures_are_kept_of_the_sample_also_where_some_images_fail(num_failed: int) -> None:
    uris = [f"s3://dump/{index}.png" for index in range(100)]
    prepared = draw(NIGHT, uris, 5)
    assert sum(map(prepared.may_have, uris)) == 5 * KEPT
    failed = audit_sample(NIGHT, uris)[:num_failed]
    sample = audit_sample(NIGHT, [uri for uri in uris if uri not in failed])
    assert all(map(prepared.may_have, sample))


def test_of_few_images_all_may_be_drawn_and_of_no_sample_none() -> None:
    assert all(map(draw(NIGHT, ["a", "b"], 5).may_have, ["a", "b"]))
    assert not draw(NIGHT, [], 5).may_have("a")
    assert not draw(NIGHT, ["a"], 0).may_have("a")


def test_a_defect_that_is_not_flagged_is_missed_and_nothing_else() -> None:
    words = {"a": "defect", "b": "defect", "c": "good", "d": "unsure", "e": "good"}
    assert found(audited(words, flagged="ac")) == {NIGHT: Missed(images=5, missed=1, unsure=1)}
    assert found(audited(words, flagged="abd"))[NIGHT] == Missed(images=5)


@pytest.mark.parametrize(
    ("other", "counted"), [("unknown", {NIGHT: Missed(2, 1)}), ("not_scored", {})]
)
def test_what_has_no_score_was_not_passed_and_earlier_releases_called_both_unknown(
    other: str, counted: dict[str, Missed]
) -> None:
    assert found(audited({"a": "defect", "b": "good"}, flagged="b", other=other)) == counted


@pytest.mark.parametrize(
    ("share", "low", "high"),
    [  # Clopper and Pearson's tables for 0, 1 and 5 of 5
        (Missed(images=5), 0.0, 0.5218),
        (Missed(images=5, missed=1), 0.0051, 0.7164),
        (Missed(images=5, missed=5), 0.4782, 1.0),
        (Missed(images=5, unsure=1), 0.0, 0.7164),
        (Missed(images=5, unsure=5), 0.0, 1.0),
    ],
)
def test_the_interval_is_the_exact_one(share: Missed, low: float, high: float) -> None:
    assert share.interval == pytest.approx((low, high), abs=5e-5)


def test_the_last_label_counts_and_the_night_is_that_of_the_draw() -> None:
    labels = audited({"a": "good", "b": "good"})
    later = said("a", "defect", "unknown", 1, night="2026-03-20")
    assert found([*labels, later]) == {NIGHT: Missed(images=2, missed=1)}


@pytest.mark.parametrize(
    ("words", "missed"), [(("defect", "good"), [1, 0]), (("good", "defect"), [0, 1])]
)
def test_a_file_that_is_overwritten_every_night_is_another_image_each_time(
    words: tuple[str, str], missed: list[int]
) -> None:
    first, second = (
        audited({"camera1.png": word}, image_etag=etag, night=night, labelled_at=at)
        for word, etag, night, at in zip(
            words, "ab", (NIGHT, "2026-03-13"), (MORNING, MORNING + dt.timedelta(1)), strict=True
        )
    )
    assert [each.missed for each in found(first + second).values()] == missed
    later = said("camera1.png", "defect", "unknown", 5000)  # without an etag: of every such file
    assert [each.missed for each in found([*first, *second, later]).values()] == [1, 1]
    replaced = said("camera1.png", "good", "unknown", 6000, image_etag="b")
    again = found([*first, *second, later, replaced])
    assert [each.missed for each in again.values()] == [1, 0]


def test_a_label_speaks_of_a_drawn_image_whose_etag_nobody_knew() -> None:
    again = said("a", "defect", "unknown", 1, image_etag="e", night="2026-03-20")
    assert found([*audited({"a": "good"}), again]) == {NIGHT: Missed(images=1, missed=1)}


def test_a_sample_that_lost_a_label_says_nothing() -> None:
    assert found([*audited({"a": "good", "b": "good"}), said("a", "undo", "unknown", 1)]) == {}


@pytest.mark.parametrize("night", [None, NIGHT])
def test_a_claim_without_results_says_nothing_since_nobody_knows_what_was_flagged(
    night: str | None,
) -> None:
    assert found([said("a", "defect", "audit", night=night)]) == {}


def test_nights_add_up_and_an_audit_that_never_was_has_no_share() -> None:
    nights = audited({"a": "defect", "b": "good"})
    nights += audited({"c": "good", "d": "good", "e": "good"}, night="2026-03-13")
    assert together(found(nights).values()) == Missed(images=5, missed=1)
    assert together(found(nights).values()).share == 1 / 5
    assert (together([]).share, together([]).interval) == (None, (0.0, 1.0))


@pytest.mark.parametrize("shares", [[0.02] * 6, [0.0, 0.0, 0.3, 0.0, 0.1, 0.0], [0.5, 0.0]])
def test_the_share_is_unbiased_and_its_interval_covers_it(shares: list[float]) -> None:
    """1000 times some nights of 40 images, of which a share is missed, drawn as every night is.

    The mean of the estimates lies within 4 standard errors of the truth; the interval, meant for
    95 %, covers it in 93.4 % at least, 95 less 2.3 standard errors of 1000 draws.
    """
    is_missed = [np.arange(40) < round(40 * share) for share in shares]
    truth = np.mean(is_missed)
    estimates, covered = [], 0
    for repetition in range(1000):
        samples = [
            audit_sample(f"{repetition} {at}", map(str, range(40))) for at in range(len(shares))
        ]
        counts = [
            sum(bool(own[int(uri)]) for uri in sample)
            for own, sample in zip(is_missed, samples, strict=True)
        ]
        whole = together(Missed(images=5, missed=count) for count in counts)
        low, high = whole.interval
        covered += low <= truth <= high
        estimates.append(whole.share)
    standard_error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - truth) <= 4 * standard_error
    assert covered >= 934
