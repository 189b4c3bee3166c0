"""A night's summary: its counts in plain JSON types, for the report and for other programs."""

import json
from typing import Any, TypedDict

from pipeline import storage
from pipeline.labels.audit import AUDIT_IMAGES
from pipeline.night.folder import NightFolder
from pipeline.night.results import ResultsError


class DriftSummary(TypedDict):
    """Whether a whole category has shifted; None where too few images could be compared."""

    alert: bool
    reason: str | None  # what has shifted, which way and by how much
    shifted: list[str]  # of score, brightness, contrast, sharpness, image_mode, pixel_range
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
    unknown: Any = dict.fromkeys(DriftSummary.__annotations__)
    drift: DriftSummary = unknown | {"alert": False, "shifted": []}
    return drift


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
    fdr: float | None  # at most this share of the discoveries is good on average
    flagged_fdr: int  # discoveries
    fdr_p_value: float | None  # the largest of a discovery; None without any
    fdr_limit: str | None  # why there is no discovery
    other_modes: dict[str, int]  # scored images by a mode that no good image had at onboarding
    outside_range: int  # scored images with many pixels outside of the category's range
    drift: DriftSummary


class Summary(TypedDict):
    """The night in plain JSON types."""

    images: int
    totals: dict[str, int]  # by status
    flagged: int
    expected_false_alarms: float
    categories: dict[str, CategorySummary]
    categories_without_images: list[str]  # they have a champion, the dump has none of their images
    flagged_fdr: int  # discoveries
    drifted: list[str]  # categories with a drift alert
    night: str
    other_files: dict[str, int]  # files of the dumps that are no images, by kind
    audit_images: int  # of a category, drawn to be labelled whatever their score


def write_summary(folder: NightFolder, summary: Summary) -> None:
    """Store the summary as JSON."""
    content = json.dumps(summary, indent=2, allow_nan=False).encode()
    storage.write_bytes(folder.summary, content)


def read_summary(folder: NightFolder) -> Summary:
    """Return a night's summary; what an earlier release did not count is none, or unknown.

    Raises:
        ObjectMissing: the night has not been settled.
        ResultsError: the file is damaged.
    """
    content = storage.read_bytes(folder.summary)
    try:
        document = json.loads(content)
        categories = {name: _category(entry) for name, entry in document["categories"].items()}
        return {
            "images": document["images"],
            "totals": document["totals"],
            "flagged": document["flagged"],
            "expected_false_alarms": document["expected_false_alarms"],
            "categories": categories,
            "categories_without_images": document.get("categories_without_images", []),
            "flagged_fdr": document.get("flagged_fdr", 0),
            "drifted": [name for name, entry in categories.items() if entry["drift"]["alert"]],
            "night": folder.night,
            "other_files": document.get("other_files", {}),
            "audit_images": document.get("audit_images", AUDIT_IMAGES),
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResultsError(
            f"{folder.summary} is damaged ({error!r}); score the night again: what is scored is "
            f"kept, and the summary is written anew"
        ) from error


def _category(entry: dict[str, Any]) -> CategorySummary:
    none: dict[str, Any] = {"flagged_fdr": 0, "other_modes": {}, "outside_range": 0}
    unknown = dict.fromkeys(("fdr", "fdr_p_value", "fdr_limit")) | none
    drift = {**no_drift(), **(entry.get("drift") or {})}
    known = {**unknown, **entry, "drift": drift}
    category: CategorySummary = {name: known[name] for name in CategorySummary.__annotations__}  # type: ignore[assignment]
    return category
