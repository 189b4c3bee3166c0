"""Plots of an evaluated category as PNG files: ROC, PRO, scores, heatmaps.

Curves are drawn for every seed. Scores and heatmaps are the first seed's: every training has a
scale and a threshold of its own.
"""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipeline.evaluation.heatmap_grid import grid_figure
from pipeline.evaluation.protocol import CategoryResult
from pipeline.evaluation.score_plot import scores_figure
from pipeline.evaluation.tables import with_spread
from pipeline.measuring.metrics import Curve
from pipeline.pages import plot_style as style
from pipeline.pages.words import decimal, percent

CURVE_SIZE = (1040, 900)  # pixels
CURVE_BOX = (130, 136, 1000, 800)  # left, top, right, bottom
PRO_LIMITS = {0.05: "pixel_aupro_05", 0.3: "pixel_aupro_30"}


def draw(result: CategoryResult) -> dict[str, bytes]:
    """Return PNG files by name; without masks there is no pro.png."""
    first = result.seeds[0]
    threshold = decimal(first.calibration.threshold)
    about_scores = f"Scores of {_counted(result)} · seed {first.seed}"
    about_maps = f"Images and heatmaps · seed {first.seed} · threshold {threshold}"
    figures = {
        "roc.png": roc_figure(result),
        "scores.png": scores_figure(
            first.scores, result.defective, first.calibration, (result.category, about_scores)
        ),
    }
    if first.pixels.pro is not None:
        figures["pro.png"] = pro_figure(result)
    figures["heatmaps.png"] = grid_figure(result.tiles, (result.category, about_maps))
    return {name: style.png(figure) for name, figure in figures.items()}


def roc_figure(result: CategoryResult) -> Figure:
    """Draw the ROC over images of every seed, and where its threshold has put it."""
    figure = style.new_figure(*CURVE_SIZE)
    style.headings(figure, result.category, f"ROC of {_counted(result)} · {_seeds(result)}")
    axes = _square(figure, 1.0)
    axes.set_xlabel("good images flagged (false-positive rate)", **style.LABEL)
    axes.set_ylabel("defective images flagged (recall)", **style.LABEL)
    axes.plot([0, 1], [0, 1], color=style.BAR, linewidth=1, dashes=(4, 4))
    axes.text(0.5, 0.46, "chance", color=style.SOFT, size=style.SMALL)
    for seed in result.seeds:
        _line(axes, seed.roc, len(result.seeds))
        point = seed.metrics["test_false_alarm_rate"], seed.metrics["test_recall"]
        marker: dict[str, Any] = {
            "color": style.FLAG,
            "markeredgecolor": style.SURFACE,
            "markersize": 7,
        }
        axes.plot(*point, "o", clip_on=False, zorder=4, **marker)
    auroc = f"AUROC {with_spread(*result.summary()['image_auroc'])} %"
    axes.text(0.98, 0.11, auroc, ha="right", color=style.INK, size=style.TITLE)
    known = "● at the threshold, set without test images"
    axes.text(0.98, 0.04, known, ha="right", color=style.FLAG, size=style.TEXT)
    return figure


def pro_figure(result: CategoryResult) -> Figure:
    """Draw the PRO over pixels of every seed, as far as AUPRO counts it."""
    figure = style.new_figure(*CURVE_SIZE)
    about = f"PRO, overlap with each defect, of {_counted(result)} · {_seeds(result)}"
    style.headings(figure, result.category, about)
    axes = _square(figure, max(PRO_LIMITS))
    axes.set_xlabel("good pixels marked (false-positive rate)", **style.LABEL)
    axes.set_ylabel("part of a defect region marked, mean over regions", **style.LABEL)
    for seed in result.seeds:
        assert seed.pixels.pro is not None, "the same masks for every seed"
        _line(axes, seed.pixels.pro, len(result.seeds))
    summary = result.summary()
    for row, (limit, name) in enumerate(PRO_LIMITS.items()):
        axes.axvline(limit, color=style.BAR, linewidth=1, dashes=(4, 4))
        text = f"AUPRO up to {percent(limit)}:  {with_spread(*summary[name])} %"
        axes.text(0.294, 0.11 - 0.07 * row, text, ha="right", color=style.INK, size=style.TITLE)
    return figure


def _square(figure: Figure, reach: float) -> Axes:
    """Axes of two shares, x from 0 to ``reach``."""
    axes = style.panel(figure, CURVE_BOX)
    axes.xaxis.set_major_formatter(style.PERCENT)
    axes.set_xlim(0, reach)
    axes.set_ylim(0, 1)
    return axes


def _line(axes: Axes, curve: Curve, num_seeds: int) -> None:
    """One seed's curve; lines of many seeds stay apart by being thin and a little transparent."""
    alpha = 1.0 if num_seeds == 1 else 0.65
    x, y = up_to(curve, axes.get_xlim()[1])
    axes.plot(x, y, color=style.INK, linewidth=1.4, alpha=alpha, clip_on=False, zorder=3)


def up_to(curve: Curve, limit: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the vertices of a curve cut at a false-positive rate, the last one on the cut."""
    x, y = curve.false_positive_rate, curve.gain
    inside = x < limit
    return np.append(x[inside], limit), np.append(y[inside], np.interp(limit, x, y))


def _seeds(result: CategoryResult) -> str:
    num_seeds = len(result.seeds)
    return "one seed" if num_seeds == 1 else f"{num_seeds} seeds, a line each"


def _counted(result: CategoryResult) -> str:
    num_defective = int(np.sum(result.defective))
    return f"{len(result.samples) - num_defective} good and {num_defective} defective images"
