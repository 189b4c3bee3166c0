"""What a night's counts mean: which category needs a person first, and the night in one sentence.

A threshold with a stated false-alarm rate flags good images too, so a count of flags says little
until it stands beside the count that false alarms alone would give.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from scipy import special

from pipeline.images.decode import ImageStatus
from pipeline.night.summary import CategorySummary, Summary
from pipeline.pages.words import about, plural

CHANCE = 0.01  # how often a night of good images only may show any category as beyond chance


class Attention(IntEnum):
    """Why a category stands where it does; smaller needs a person sooner."""

    SHIFTED = 0
    BEYOND_CHANCE = 1
    NOT_SCORED = 2
    FAILURES = 3
    AS_EXPECTED = 4
    QUIET = 5


LABELS = {
    Attention.SHIFTED: "Shifted as a whole",
    Attention.BEYOND_CHANCE: "More than false alarms",
    Attention.NOT_SCORED: "Not scored",
    Attention.FAILURES: "Some not scored",
    Attention.AS_EXPECTED: "As expected",
    Attention.QUIET: "None flagged",
}


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """What one category's counts mean."""

    category: str
    counts: CategorySummary
    attention: Attention
    chance: float  # of at least so many flags when all images are good

    @property
    def label(self) -> str:
        """A few words for the card."""
        return LABELS[self.attention]

    @property
    def num_failed(self) -> int:
        """Images that have a champion but could not be scored."""
        return sum(self.counts["failed"].values())


def assess(
    categories: Mapping[str, CategorySummary], calibrations: Mapping[str, Sequence[float]]
) -> list[Assessment]:
    """Judge each category and put those that need attention first.

    Args:
        categories: counts by category.
        calibrations: the champion's calibration scores by category; may lack some.
    """
    num_scored = sum(counts["ok"] > 0 for counts in categories.values())
    limit = CHANCE / max(num_scored, 1)  # Bonferroni: a thousand categories stay one question
    assessments = []
    for name, counts in categories.items():
        chance = chance_of_flags(counts, calibrations.get(name, ()))
        attention = _attention(counts, chance <= limit)
        if counts["drift"]["alert"]:
            attention = Attention.SHIFTED
        assessments.append(
            Assessment(category=name, counts=counts, attention=attention, chance=chance)
        )
    return sorted(assessments, key=_order)


def chance_of_flags(counts: CategorySummary, calibration: Sequence[float]) -> float:
    """Probability of at least this many flags when every scored image is good.

    With n calibration scores of which m lie above the threshold, the realised false-alarm rate is
    Beta(m + 1, n - m), so the number of flags is beta-binomial; without calibration scores the
    stated rate is taken as exact.

    Source: Vovk 2012 (arXiv:1209.2673), section 2: training-conditional validity.
    """
    threshold, rate = counts["threshold"], counts["false_alarm_rate"]
    if not counts["flagged"] or threshold is None or rate is None:
        return 1.0
    num_above = int(np.sum(np.asarray(calibration, np.float32) > np.float32(threshold)))
    num_below = len(calibration) - num_above
    if num_below:
        return _beta_binomial_tail(counts["flagged"], counts["ok"], num_above + 1, num_below)
    return float(special.bdtrc(counts["flagged"] - 1, counts["ok"], rate))


def _beta_binomial_tail(least: int, number: int, a: int, b: int) -> float:
    """Probability of ``least`` or more of ``number`` when the rate is Beta(a, b)."""
    k = np.arange(least, number + 1)
    ways = -np.log(number + 1) - special.betaln(number - k + 1, k + 1)  # log of a binomial
    log_terms = ways + special.betaln(k + a, number - k + b) - special.betaln(a, b)
    return min(1.0, float(np.exp(log_terms).sum()))


def _attention(counts: CategorySummary, beyond_chance: bool) -> Attention:
    if beyond_chance:
        return Attention.BEYOND_CHANCE
    if not counts["ok"]:
        return Attention.NOT_SCORED
    if counts["ok"] < counts["images"]:
        return Attention.FAILURES
    return Attention.AS_EXPECTED if counts["flagged"] else Attention.QUIET


def _order(assessment: Assessment) -> tuple[int, float, int, int, str]:
    counts = assessment.counts
    num_lost = counts["images"] - counts["ok"]
    flags_first = (assessment.chance, -counts["flagged"])
    return (assessment.attention, *flags_first, -num_lost, assessment.category)


def headline(summary: Summary, assessments: Sequence[Assessment]) -> str:
    """The night in one sentence, without more certainty than the numbers carry."""
    num_scored = summary["totals"].get(ImageStatus.OK, 0)
    if not summary["images"]:
        return "No images arrived, so there is nothing to report."
    if not num_scored:
        return _nothing_scored(summary)
    if not summary["flagged"]:
        return f"None of {plural(num_scored, 'scored image')} was flagged."
    verb = "was" if summary["flagged"] == 1 else "were"
    flagged = f"{summary['flagged']:,} of {plural(num_scored, 'scored image')} {verb} flagged."
    expected = f"False alarms alone would come to about {about(summary['expected_false_alarms'])}"
    shifted = [a.category for a in assessments if a.attention is Attention.SHIFTED]
    beyond = [a.category for a in assessments if a.attention is Attention.BEYOND_CHANCE]
    if not shifted and not beyond:
        return f"{flagged} {expected}, so chance can explain them."
    parts = []
    if shifted:
        parts.append(_who(shifted, "has shifted as a whole", "have shifted as a whole"))
    if beyond:
        parts.append(_who(beyond, "stands out", "stand out"))
    return f"{flagged} {expected}; {', and '.join(parts)}."


def _who(categories: Sequence[str], one: str, many: str) -> str:
    if len(categories) == 1:
        return f"{categories[0]} {one}"
    return f"{len(categories):,} categories {many}"


def _nothing_scored(summary: Summary) -> str:
    num_unrouted = summary["totals"].get(ImageStatus.UNROUTED, 0)
    images = plural(summary["images"], "image")
    if num_unrouted == summary["images"]:
        return f"Nothing was scored: {images} arrived, and no category among them has a champion."
    if not num_unrouted:
        return f"Nothing was scored: {images} arrived, and each of them failed."
    return f"Nothing was scored: {images} arrived; they failed or have no champion."


def caveat(summary: Summary) -> str:
    """What the headline leaves out; empty when every image was scored."""
    num_ok = summary["totals"].get(ImageStatus.OK, 0)
    num_unrouted = summary["totals"].get(ImageStatus.UNROUTED, 0)
    num_failed = summary["images"] - num_ok - num_unrouted
    parts = []
    if num_failed:
        parts.append(f"{plural(num_failed, 'image')} could not be scored")
    if num_unrouted:
        parts.append(f"{plural(num_unrouted, 'image')} had no model")
    return f"Not judged: {' and '.join(parts)}." if parts and num_ok else ""
