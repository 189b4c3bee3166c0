"""Category alerts: where a whole category has shifted, one line takes the place of its images.

The scoring job says so in the night's summary, by category, under ``drift``. A summary without
such a word raises no alert.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline import storage
from pipeline.night.folder import NightFolder

MAX_SHOWN = 30  # alerts that stand open on the page; the others are one click away
ABBREVIATIONS = {"ks": "KS", "psi": "PSI"}


@dataclass(frozen=True, kw_only=True)
class Alert:
    """One category whose images as a whole no longer look like its calibration."""

    category: str
    place: int  # of the category on the page
    reason: str
    measures: Sequence[tuple[str, float]]  # what the job measured, by name
    num_images: int  # folded away
    num_flagged: int  # of these


def read_drift(folder: NightFolder) -> dict[str, dict[str, Any]]:
    """What the night's summary says about the drift of each category; empty without a summary."""
    try:
        categories = json.loads(storage.read_bytes(folder.summary))["categories"]
    except storage.ObjectMissing:
        return {}
    return {name: counts["drift"] for name, counts in categories.items() if counts.get("drift")}


def shifted(drift: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Categories with an alert."""
    return {name for name, found in drift.items() if found.get("alert")}


def make_alerts(
    categories: Sequence[str],
    drift: Mapping[str, Mapping[str, Any]],
    counts: Mapping[str, tuple[int, int]],
) -> list[Alert]:
    """The alerts in the order of the page.

    Args:
        categories: all of the night, in the order of the page.
        drift: what ``read_drift`` returns.
        counts: images of each category that the page would show, and how many are flagged.
    """
    alerts, moved = [], shifted(drift)
    for place, name in enumerate(categories):
        if name not in moved:
            continue
        num_images, num_flagged = counts.get(name, (0, 0))
        alert = Alert(
            category=name,
            place=place,
            reason=str(drift[name].get("reason") or "no reason was given"),
            measures=_measures(drift[name]),
            num_images=num_images,
            num_flagged=num_flagged,
        )
        alerts.append(alert)
    return alerts


def _measures(found: Mapping[str, Any]) -> list[tuple[str, float]]:
    return [
        (" ".join(ABBREVIATIONS.get(word, word) for word in name.split("_")), value)
        for name, value in found.items()
        if isinstance(value, float) and math.isfinite(value)
    ]
