"""A night's summary: its counts in plain JSON types, for the report and for other programs."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, NotRequired, TypedDict

from pipeline import storage
from pipeline.images.decode import ImageStatus
from pipeline.night.folder import NightFolder


class DriftSummary(TypedDict):
    """Whether a whole category has shifted; None where too few images could be compared."""

    alert: bool
    reason: str | None  # what has shifted, which way and by how much
    shifted: list[str]  # of score, brightness, contrast, sharpness
    score_ks: float | None
    score_psi: float | None
    brightness_ks: float | None
    brightness_psi: float | None
    contrast_ks: float | None
    contrast_psi: float | None
    sharpness_ks: float | None
    sharpness_psi: float | None


def no_drift() -> DriftSummary:
    """What is said of a category that could not be compared."""
    return {
        "alert": False,
        "reason": None,
        "shifted": [],
        "score_ks": None,
        "score_psi": None,
        "brightness_ks": None,
        "brightness_psi": None,
        "contrast_ks": None,
        "contrast_psi": None,
        "sharpness_ks": None,
        "sharpness_psi": None,
    }


class CategorySummary(TypedDict):
    """What one category's images came to; None where no image could be scored."""

    images: int
    ok: int
    flagged: int
    failed: dict[str, int]  # by status; neither ok nor unrouted
    unrouted: int
    threshold: float | None
    false_alarm_rate: float | None
    expected_false_alarms: float
    median_score: float | None
    model_name: str | None
    model_version: str | None
    fdr: NotRequired[float | None]  # this and what follows: set when the night is settled
    flagged_fdr: NotRequired[int]
    fdr_p_value: NotRequired[float | None]  # largest that is listed; None where nothing is
    fdr_limit: NotRequired[str | None]  # why nothing is listed
    drift: NotRequired[DriftSummary]


class Summary(TypedDict, total=False):
    """The night in plain JSON types."""

    night: str  # set by write_summary
    images: int
    totals: dict[str, int]  # by status
    flagged: int
    flagged_fdr: int  # set when the night is settled, like the next one
    drifted: list[str]  # categories with a drift alert
    settled: str  # what the settled night is known by
    expected_false_alarms: float
    categories: dict[str, CategorySummary]
    categories_without_images: list[str]  # they have a champion, the dump has none of their images


def describe_night(
    totals: dict[str, int], categories: dict[str, CategorySummary], champions: Iterable[str]
) -> Summary:
    """Put a night's counts by status and its categories together."""
    return {
        "images": sum(totals.values()),
        "totals": totals,
        "flagged": sum(category["flagged"] for category in categories.values()),
        "expected_false_alarms": sum(c["expected_false_alarms"] for c in categories.values()),
        "categories": categories,
        "categories_without_images": sorted(set(champions) - set(categories)),
    }


def describe_category(
    statuses: Mapping[str, int],
    num_flagged: int,
    median_score: float | None,
    champion: Mapping[str, Any],
) -> CategorySummary:
    """Put one category's counts by status beside what its champion promises."""
    failed = dict(statuses)
    num_ok = failed.pop(ImageStatus.OK, 0)
    num_unrouted = failed.pop(ImageStatus.UNROUTED, 0)
    rate = champion.get("false_alarm_rate")
    return {
        "images": sum(statuses.values()),
        "ok": num_ok,
        "flagged": num_flagged,
        "failed": failed,
        "unrouted": num_unrouted,
        "threshold": champion.get("threshold"),
        "false_alarm_rate": rate,
        "expected_false_alarms": num_ok * (rate or 0.0),
        "median_score": median_score,
        "model_name": champion.get("model_name"),
        "model_version": champion.get("model_version"),
    }


def write_summary(folder: NightFolder, summary: Summary) -> None:
    """Store the summary with its night as JSON."""
    document = {**summary, "night": folder.night}
    storage.write_bytes(folder.summary, json.dumps(document, indent=2, allow_nan=False).encode())
