"""Where test scores lie around the threshold: good images above, defective ones below.

A defect may score twenty times as high as the threshold, so the axis is linear around the usual
scores and nearly logarithmic far from them: asinh((score - centre) / width). Centre is the median
calibration score, width the way from there to the threshold. Bins are equally wide on that axis
and meet at the threshold, so that no bar is half flagged.

Shapes: N images, K bins.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from pipeline.calibration import Calibration
from pipeline.pages import plot_style as style
from pipeline.pages.bins import Floats, count, edges_around
from pipeline.pages.words import decimal

SIZE = (1280, 820)  # pixels
GOOD_BOX, DEFECTIVE_BOX = (150, 190, 1240, 400), (150, 510, 1240, 720)  # left, top, right, bottom
NUM_BINS = 54
TICK_GAP = 0.06  # of the axis, at least
HEADROOM = 1.1  # of the highest bar


@dataclass(frozen=True, kw_only=True)
class ScoreAxis:
    """The axis of one training's scores."""

    centre: float
    width: float
    edges: Floats  # of the bins, as positions on the axis, shape (K + 1,)

    def place(self, scores: NDArray[np.floating] | float) -> Floats:
        """Return positions on the axis, any shape."""
        scaled = (np.asarray(scores, dtype=np.float64) - self.centre) / self.width
        positions: Floats = np.arcsinh(scaled)
        return positions

    def shares(self, scores: NDArray[np.floating]) -> Floats:
        """Return the share of the images in each bin, shape (K,)."""
        return count(self.place(scores), self.edges) / max(len(scores), 1)

    def ticks(self) -> list[float]:
        """Return round scores, far enough apart to be read."""
        low, high = self.edges[[0, -1]]
        gap = TICK_GAP * (high - low)
        kept: list[float] = []
        for score in _round_numbers(*(self.centre + self.width * np.sinh([low, high]))):
            place = self.place(score)
            if low <= place <= high and all(abs(place - self.place(k)) >= gap for k in kept):
                kept.append(score)
        return sorted(kept)


def score_axis(scores: NDArray[np.floating], calibration: Calibration) -> ScoreAxis:
    """Lay out the axis of test images' scores (N,), N >= 1, and of the calibration's."""
    everything = np.concatenate([scores, calibration.scores]).astype(np.float64)
    centre = float(np.median(calibration.scores))
    width = calibration.threshold - centre or max(abs(centre), 1.0)
    bounds = np.array([everything.min(), calibration.threshold, everything.max()])
    low, limit, high = np.arcsinh((bounds - centre) / width)
    step = max(high - low, 1e-3) / NUM_BINS
    below, above = (max(int(np.ceil(way / step)), 1) for way in (limit - low, high - limit))
    return ScoreAxis(centre=centre, width=width, edges=edges_around(limit, step, below, above))


def scores_figure(
    scores: NDArray[np.float32],
    defective: NDArray[np.bool_],
    calibration: Calibration,
    headings: tuple[str, str],
) -> Figure:
    """Draw one training's scores of test images and their labels, (N,) each."""
    axis = score_axis(scores, calibration)
    figure = style.new_figure(*SIZE)
    style.headings(figure, *headings)
    flagged = calibration.flagged(scores)
    upper, lower = style.panel(figure, GOOD_BOX), style.panel(figure, DEFECTIVE_BOX)
    for axes, name, kind, colour in (
        (upper, "good test images", ~defective, style.BAR),
        (lower, "defective test images", defective, style.FLAG),
    ):
        axes.stairs(axis.shares(scores[kind]), axis.edges, fill=True, color=colour)
        counted = f"{np.sum(flagged & kind)} of {np.sum(kind)} flagged"
        _name(axes, 0.0, f"{name}: {counted}", style.INK)
    outline = axis.shares(np.array(calibration.scores))
    upper.stairs(outline, axis.edges, color=style.INK, linewidth=1.0)
    _name(upper, 1.0, f"outline: {len(calibration.scores)} calibration scores", style.SOFT)
    for axes in (upper, lower):
        _frame(axes, axis, calibration.threshold)
    label = f"threshold {decimal(calibration.threshold)}"
    place = float(axis.place(calibration.threshold)), 1.05
    transform = upper.get_xaxis_transform()
    upper.text(*place, label, transform=transform, ha="center", color=style.INK, size=style.SMALL)
    lower.set_xlabel("anomaly score (the axis is compressed for high scores)", **style.LABEL)
    return figure


def _name(axes: Axes, x: float, text: str, colour: str) -> None:
    """Say above a panel what it holds."""
    side = "right" if x else "left"
    axes.text(x, 1.2, text, transform=axes.transAxes, ha=side, color=colour, size=style.TEXT)


def _frame(axes: Axes, axis: ScoreAxis, threshold: float) -> None:
    ticks = axis.ticks()
    axes.set_xticks(axis.place(np.array(ticks)), [f"{tick:g}".replace("-", "−") for tick in ticks])
    axes.set_xlim(axis.edges[0], axis.edges[-1])
    axes.set_ylim(0, axes.dataLim.y1 * HEADROOM)
    axes.locator_params(axis="y", nbins=4)
    axes.set_ylabel("share of images", **style.LABEL)
    axes.axvline(float(axis.place(threshold)), color=style.INK, linewidth=1.1, dashes=(4, 3))


def _round_numbers(low: float, high: float) -> Iterator[float]:
    """Yield round numbers of the size of low and high, the roundest first."""
    yield 0.0
    largest = max(abs(low), abs(high))
    start = int(np.floor(np.log10(largest)))
    for power in range(start, start - 4, -1):
        for factor in (1, 5, 2, 3, 7):
            for number in (factor * 10.0**power, -factor * 10.0**power):
                yield float(f"{number:.6g}")
    yield from map(float, MaxNLocator(8).tick_values(low, high))
