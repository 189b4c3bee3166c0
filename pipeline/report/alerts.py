"""Category alerts: where a whole category has shifted, one line takes the place of its images.

The night's summary says so, by category, under ``drift``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.night.summary import DriftSummary, Summary

MAX_SHOWN = 30  # alerts that stand open on the page; the others are one click away
ABBREVIATIONS = {"ks": "KS", "psi": "PSI"}


@dataclass(frozen=True, kw_only=True)
class Alert:
    """One category whose images as a whole no longer look like its calibration."""

    category: str
    position: int  # of the category on the page
    reason: str
    measures: Sequence[tuple[str, float]]  # what settling measured, by name
    num_images: int  # folded away
    num_flagged: int  # of these


def make_alerts(
    categories: Sequence[str], summary: Summary, counts: Mapping[str, tuple[int, int]]
) -> list[Alert]:
    """The alerts in the order of the page.

    Args:
        categories: all of the night, in the order of the page.
        summary: of the night.
        counts: images of each category that the page would show, and how many are flagged.
    """
    alerts = []
    for position, name in enumerate(categories):
        drift = summary["categories"][name]["drift"]
        if not drift["alert"]:
            continue
        num_images, num_flagged = counts.get(name, (0, 0))
        alert = Alert(
            category=name,
            position=position,
            reason=drift["reason"] or "no reason was given",
            measures=_measures(drift),
            num_images=num_images,
            num_flagged=num_flagged,
        )
        alerts.append(alert)
    return alerts


def _measures(drift: DriftSummary) -> list[tuple[str, float]]:
    return [
        (" ".join(ABBREVIATIONS.get(word, word) for word in name.split("_")), value)
        for name, value in drift.items()
        if isinstance(value, float)
    ]
