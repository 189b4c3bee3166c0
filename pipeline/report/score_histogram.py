"""The night's scores over the calibration scores, as an inline SVG.

Both are drawn as shares of their own number of images, because a night and a calibration set
differ in size. Bins meet at the threshold, so that no bar is half flagged.
"""

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from pipeline.pages.bins import count, edges_around
from pipeline.pages.words import decimal

WIDTH, HEIGHT = 360, 132  # user units of the drawing; the page scales it
LEFT, RIGHT, TOP, BASE = 4, 356, 20, 108
BINS_BELOW = 22  # bins from the lowest score to the threshold
MAX_BINS_ABOVE = 26  # the last one also holds all scores beyond it
MIN_BAR = 1.5  # one image among a million still shows


@dataclass(frozen=True, kw_only=True)
class ScoreBins:
    """Shares of images per bin of equal width."""

    low: float  # score at the left edge
    width: float  # of one bin, in score units
    usual: NDArray[np.float64]  # tonight, not flagged, shape (BINS_BELOW,)
    flagged: NDArray[np.float64]  # tonight, flagged, shape (bins above,)
    calibration: NDArray[np.float64]  # shape (all bins,)
    overflows: bool  # the last bin holds scores beyond its right edge


def bin_scores(
    scores: NDArray[np.floating],
    flagged: NDArray[np.bool_],
    calibration: NDArray[np.floating],
    threshold: float,
) -> ScoreBins:
    """Count scores into bins that meet at the threshold.

    Args:
        scores: tonight's, shape (N,), N >= 1; any unit.
        flagged: the decision of each of them, shape (N,).
        calibration: held-out good images' scores, shape (M,); may be empty.
        threshold: in the unit of ``scores``.
    """
    everything = np.concatenate([scores, calibration]).astype(np.float64)
    low, high = float(everything.min()), float(everything.max())
    reach = threshold - low if threshold > low else max(abs(threshold), 1.0)
    width = reach / BINS_BELOW
    needed = int(np.ceil(max(high - threshold, width) / width))
    num_above = min(max(needed, BINS_BELOW // 3), MAX_BINS_ABOVE)
    edges = edges_around(threshold, width, BINS_BELOW, num_above)
    return ScoreBins(
        low=threshold - reach,
        width=width,
        usual=count(scores[~flagged], edges[: BINS_BELOW + 1]) / len(scores),
        flagged=count(scores[flagged], edges[BINS_BELOW:]) / len(scores),
        calibration=count(calibration, edges) / max(len(calibration), 1),
        overflows=needed > num_above,
    )


def score_histogram(bins: ScoreBins, threshold: float, description: str) -> Markup:
    """Draw the bins; colours come from the page's CSS classes."""
    num_bins = len(bins.calibration)
    step = (RIGHT - LEFT) / num_bins
    scale = (BASE - TOP) / max(bins.usual.max(), bins.flagged.max(), bins.calibration.max(), 1e-12)
    line = LEFT + BINS_BELOW * step
    end = bins.low + num_bins * bins.width
    return Markup(
        '<svg class="chart" viewBox="0 0 {w} {h}" role="img" aria-label="{description}">'
        '<path class="bars" d="{usual}"/><path class="bars hot" d="{flagged}"/>'
        '<path class="calibration" d="{calibration}"/>'
        '<line class="axis" x1="{left}" x2="{right}" y1="{base}" y2="{base}"/>'
        '<line class="limit" x1="{line}" x2="{line}" y1="{top}" y2="{base}"/>'
        '<text class="limit-label" x="{line}" y="{label}" text-anchor="middle">{threshold}</text>'
        '<text x="{left}" y="{foot}">{low}</text>'
        '<text x="{right}" y="{foot}" text-anchor="end">{high}</text></svg>'
    ).format(
        w=WIDTH,
        h=HEIGHT,
        description=description,
        usual=_bars(bins.usual, LEFT, step, scale),
        flagged=_bars(bins.flagged, line, step, scale),
        calibration=_outline(bins.calibration, step, scale),
        left=LEFT,
        right=RIGHT,
        top=TOP - 4,
        base=BASE,
        line=f"{line:.1f}",
        label=TOP - 8,
        foot=HEIGHT - 8,
        threshold=decimal(threshold),
        low=decimal(bins.low),
        high=f"{decimal(end)} and above" if bins.overflows else decimal(end),
    )


def _bars(shares: NDArray[np.float64], start: float, step: float, scale: float) -> str:
    """Rectangles as one path; a bin with any image is at least MIN_BAR high."""
    parts = []
    for index in np.flatnonzero(shares):
        height = max(shares[index] * scale, MIN_BAR)
        left = start + index * step + 0.4
        parts.append(f"M{left:.1f} {BASE}v-{height:.1f}h{step - 0.8:.1f}V{BASE}z")
    return "".join(parts)


def _outline(shares: NDArray[np.float64], step: float, scale: float) -> str:
    """The top edge of all bins as one stepped line, from and to the axis."""
    if not shares.any():
        return ""
    occupied = np.flatnonzero(shares)
    first, last = int(occupied[0]), int(occupied[-1])
    heights = "".join(
        f"V{BASE - share * scale:.1f}h{step:.2f}" for share in shares[first : last + 1]
    )
    return f"M{LEFT + first * step:.1f} {BASE}{heights}V{BASE}"
