"""The parts of the morning report as plain values: what the page's template prints.

Nothing here is escaped; the template does that, once, for everything.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from pipeline.catalogue.category_name import is_category_name
from pipeline.images.decode import ImageStatus
from pipeline.night.fleet.fleet import Champion
from pipeline.night.summary import Summary
from pipeline.pages.words import clock, plural
from pipeline.report import score_histogram
from pipeline.report.verdict import Assessment


@dataclass(frozen=True, kw_only=True)
class Card:
    """One category: its counts, what they mean, and its scores as a drawing."""

    assessment: Assessment
    champion: Champion | None
    chart: Markup | None  # None without a scored image


@dataclass(frozen=True, kw_only=True)
class Unrouted:
    """A category without a champion, and what gives it one."""

    category: str
    num_images: int
    advice: str
    command: str  # empty when none helps


def card(assessment: Assessment, rows: pa.Table, champion: Champion | None) -> Card:
    """Draw a category's scores over its champion's calibration scores."""
    chart = None
    scored = rows.filter(pc.equal(rows["status"], ImageStatus.OK.value))
    if champion and scored.num_rows:
        scores = scored["score"].to_numpy()
        calibration = np.asarray(champion.reference.calibration.scores, dtype=np.float64)
        threshold = champion.reference.calibration.threshold
        flagged = scored["flagged"].to_numpy()
        bins = score_histogram.bin_scores(scores, flagged, calibration, threshold)
        chart = score_histogram.score_histogram(
            bins, threshold, _describe(scores, calibration, assessment)
        )
    return Card(assessment=assessment, champion=champion, chart=chart)


def _describe(scores: Any, calibration: Any, assessment: Assessment) -> str:
    reference = ""
    if len(calibration):
        reference = f" over {len(calibration):,} calibration scores, median "
        reference += f"{np.median(calibration):.3g}"
    return (
        f"Histogram of {plural(len(scores), 'score')} tonight, median {np.median(scores):.3g},"
        f"{reference}; {assessment.counts['flagged']:,} above the threshold of "
        f"{assessment.counts['threshold']:.3g}."
    )


def totals(summary: Summary) -> dict[str, int]:
    """The five numbers of the header; scored, failed and unrouted add up to images."""
    num_scored = summary["totals"].get(ImageStatus.OK, 0)
    num_unrouted = summary["totals"].get(ImageStatus.UNROUTED, 0)
    return {
        "images": summary["images"],
        "scored": num_scored,
        "flagged": summary["flagged"],
        "failed": summary["images"] - num_scored - num_unrouted,
        "unrouted": num_unrouted,
    }


def strip(numbers: Mapping[str, int]) -> list[tuple[str, float, float]]:
    """The night as one bar: kind, left edge and width in percent; what is there can be seen."""
    usual = numbers["scored"] - numbers["flagged"]
    parts = {"scored": usual} | {name: numbers[name] for name in ("flagged", "failed", "unrouted")}
    shares = {
        name: max(number / numbers["images"], 0.004) for name, number in parts.items() if number
    }
    scale, left, bar = 100 / sum(shares.values()), 0.0, []
    for name, share in shares.items():
        bar.append((name, round(left, 2), round(share * scale, 2)))
        left += share * scale
    return bar


def unrouted(assessments: Sequence[Assessment]) -> list[Unrouted]:
    """Categories without a champion, those with most images first."""
    lost = [(a.category, a.counts["unrouted"]) for a in assessments if a.counts["unrouted"]]
    lost.sort(key=lambda entry: (-entry[1], entry[0]))
    return [_unrouted(*entry) for entry in lost]


def _unrouted(category: str, num_images: int) -> Unrouted:
    command = ""
    if not category:
        advice = (
            "These files lie directly under the dump. "
            "Move them into a folder named after their category."
        )
    elif not is_category_name(category):
        advice = (
            "This folder cannot name a category: lower-case letters, digits, - and _ only, "
            "at most 57 characters. Rename it, or leave it out of the dump."
        )
    else:
        advice = (
            "No champion yet. Add the category to the catalogue and onboard it, or promote its "
            "challenger; then score the night again."
        )
        command = f"nightshift onboard CATALOGUE --only {shlex.quote(category)}"
    return Unrouted(category=category, num_images=num_images, advice=advice, command=command)


def scored_between(rows: pa.Table) -> str:
    """When scoring ran; empty when no row says."""
    span = pc.min_max(rows["scored_at"]).as_py()
    if span["min"] is None:
        return ""
    first, last = clock(span["min"]), clock(span["max"])
    return first if first == last else f"{first} to {last}"
