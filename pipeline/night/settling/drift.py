"""Drift: has a whole category shifted, or are a few of its images bad?

A lamp, a lens or a supplier that changes moves every image of a category: scores rise, hundreds of
images are flagged, and none of them is the news. Each night's scores and image statistics are
compared with those of the calibration images, and a category that has shifted gets one alert with
its reason.

**Defects must not look like drift.** To ask whether values are higher, the highest TRIM of the
night are left out, and the rest is compared with the calibration by the one-sided two-sample
Kolmogorov-Smirnov statistic (to ask whether they are lower, the lowest are left out). If at most
that share of the images is defective, whatever their values, the rest lies value by value at or
below the good images that it could have kept instead, so the test is as safe as one of good images
alone. More defects than TRIM can add no more than their surplus to the statistic, which MIN_KS
leaves room for.

**A thousand categories are one question.** A direction's p-value is exp(-2 ks^2 n m / (n + m)),
which the exact one exceeds by a few percent at most (two-sided: Wei and Dudley 2012,
arXiv:1107.5356; one-sided: the tests). An alert needs one of at most NIGHT_LEVEL divided by the
number of all comparisons of the night, both directions counted (Bonferroni): a night without any
drift raises any alert with a probability of about that at most.

**Small is not important.** With a thousand images anything is significant. An alert also needs a
KS of MIN_KS, a population stability index (PSI) of MIN_PSI over the calibration deciles after what
chance alone adds to it, (bins - 1)(1/n + 1/m), is taken off, and for image statistics a median that
has moved by MIN_SHIFT of itself: a fixed camera knows its brightness to a grey level, and a
hundredth more is no news.

Shapes: n calibration values, m values of the night.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

TRIM = 0.1  # share of a night's images that may be defective
NIGHT_LEVEL = 0.01  # how often a night without drift may raise any alert
MIN_KS = 0.2
MIN_PSI = 0.25  # the usual mark of a major shift
MIN_SHIFT = 0.05  # of the calibration median; image statistics only
MIN_IMAGES = 20  # on both sides
NUM_BINS = 10

SCORE = "score"
WORDS = {  # what images are when a statistic is lower, and when it is higher
    "brightness": ("images are darker", "images are brighter"),
    "contrast": ("images have less contrast", "images have more contrast"),
    "sharpness": ("images are less sharp", "images are sharper"),
    SCORE: ("scores are lower", "scores are higher"),
}  # in the order of a reason: causes first

Direction = Literal["higher", "lower"]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One statistic of one category's night beside its calibration."""

    category: str
    statistic: str  # a key of WORDS
    num_calibration: int
    num_images: int
    direction: Direction  # of the larger difference
    ks: float  # that difference, without the TRIM of the images that lie farthest that way
    p_value: float  # of this direction alone
    psi: float  # all images; 0 is what chance gives
    median: float
    calibration_median: float

    @property
    def is_large(self) -> bool:
        """Whether the shift would matter if it is real."""
        if self.ks < MIN_KS or self.psi < MIN_PSI:
            return False
        sign = 1 if self.direction == "higher" else -1
        moved = sign * (self.median - self.calibration_median)
        return self.statistic == SCORE or moved >= MIN_SHIFT * self.calibration_median

    @property
    def reason(self) -> str:
        """What has shifted, which way, and by how much."""
        words = WORDS[self.statistic][self.direction == "higher"]
        name = "" if self.statistic == SCORE else f" {self.statistic}"
        medians = f"{self.median:.3g}, was {self.calibration_median:.3g}"
        return f"{words} than at onboarding: median{name} {medians}"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One statistic of one category as ``pipeline/night/settling/rank_counts.py`` counts it."""

    category: str
    statistic: str
    calibration: NDArray[np.float32]  # (n,), ascending
    cells: NDArray[np.int64]  # (2n + 1,)
    median: float | None  # of the night


def compare(sample: Sample) -> Comparison | None:
    """Compare a night with its calibration; None where either has too few values."""
    num_calibration, num_images = len(sample.calibration), int(sample.cells.sum())
    if min(num_calibration, num_images) < MIN_IMAGES or sample.median is None:
        return None
    ranks, below, at_most = _steps(sample.calibration, sample.cells)
    num_left_out = int(TRIM * num_images)
    kept = num_images - num_left_out
    share = ranks / num_calibration
    higher = float(np.max(share - np.minimum(at_most, kept) / kept))
    lower = float(np.max(np.maximum(below - num_left_out, 0) / kept - share))
    ks = max(higher, lower)
    exponent = -2 * ks**2 * num_calibration * kept / (num_calibration + kept)
    return Comparison(
        category=sample.category,
        statistic=sample.statistic,
        num_calibration=num_calibration,
        num_images=num_images,
        direction="higher" if higher >= lower else "lower",
        ks=ks,
        p_value=float(np.exp(exponent)),
        psi=_stability_index(ranks, at_most, num_images),
        median=sample.median,
        calibration_median=float(np.median(sample.calibration)),
    )


def alerts(comparisons: Sequence[Comparison]) -> dict[str, list[Comparison]]:
    """Return the night's shifted categories, with what has shifted in the order of WORDS.

    The number of all comparisons of the night sets the level of each.
    """
    level = NIGHT_LEVEL / max(2 * len(comparisons), 1)
    shifted: dict[str, list[Comparison]] = {}
    order = list(WORDS)
    for comparison in sorted(comparisons, key=lambda c: order.index(c.statistic)):
        if comparison.p_value <= level and comparison.is_large:
            shifted.setdefault(comparison.category, []).append(comparison)
    return shifted


def describe(shifted: Sequence[Comparison]) -> str:
    """Return the reason of a category's alert in one sentence."""
    return "; ".join(comparison.reason for comparison in shifted)


def _steps(
    calibration: NDArray[np.float32], cells: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return, at every step of the calibration's distribution, how many values lie where.

    With a = 0 .. n calibration values, tied ones together: a itself, the number of the night's
    values below the next one, and the number at most as high as the last of them.
    """
    is_step = np.ones(len(calibration) + 1, bool)
    is_step[1:-1] = calibration[1:] > calibration[:-1]
    ranks = np.flatnonzero(is_step)
    below_next = np.cumsum(cells)[2 * ranks]
    return ranks, below_next, below_next - cells[2 * ranks]


def _stability_index(
    ranks: NDArray[np.int64], at_most: NDArray[np.int64], num_images: int
) -> float:
    """PSI over bins that end at calibration quantiles, less what chance adds, at least 0.

    Half an image more in every bin keeps an empty one finite.
    """
    num_calibration = int(ranks[-1])
    wanted = np.arange(1, NUM_BINS) * num_calibration / NUM_BINS
    steps = np.unique(np.searchsorted(ranks[:-1], wanted))
    steps = steps[steps < len(ranks) - 1]
    expected = np.diff(ranks[steps], prepend=0, append=num_calibration) + 0.5
    observed = np.diff(at_most[steps], prepend=0, append=num_images) + 0.5
    expected, observed = expected / expected.sum(), observed / observed.sum()
    index = float(np.sum((observed - expected) * np.log(observed / expected)))
    chance = len(steps) * (1 / num_calibration + 1 / num_images)
    return max(index - chance, 0.0)
