"""The picture of which sizes of made defects are found, by one setting of a category or by two."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pipeline.onboarding.defect_sizes import NOTE, SizeFound
from pipeline.pages import plot_style as style
from pipeline.pages.words import percent

FIGURE = (1280, 720)  # pixels
BOX = (130, 150, 920, 610)  # of the panel: left, top, right, bottom
COLOURS = (style.INK, style.FLAG)  # of the first setting and the second
APART = 0.08  # of two settings' points, in steps between sizes
TOP = 1.04


def size_figure(
    category: str, curves: Mapping[str, Sequence[SizeFound]], false_alarm_rate: float
) -> Figure:
    """Draw the share found by size, with its exact 95 % interval.

    Args:
        category: its name.
        curves: what one setting, or two, found, by the setting's name.
        false_alarm_rate: of the category; what is seen as no defect is found no more often.
    """
    figure = style.new_figure(*FIGURE)
    most = max((each.of for curve in curves.values() for each in curve), default=0)
    style.headings(
        figure,
        f"{category}: which sizes of defects are found",
        f"{most} {NOTE}, on good images that were not learned from",
    )
    axes = style.panel(figure, BOX)
    sizes = sorted({each.size for curve in curves.values() for each in curve})
    ends = []
    for place, (name, curve) in enumerate(curves.items()):
        x = [sizes.index(each.size) + APART * (place - (len(curves) - 1) / 2) for each in curve]
        y = np.array([each.share for each in curve])
        away = [y - [each.low for each in curve], [each.high for each in curve] - y]
        colour = COLOURS[place]
        axes.errorbar(x, y, yerr=away, color=colour, elinewidth=0.8, linewidth=1.8, marker="o")
        ends += [(y[-1], name, colour)] if len(y) else []
    axes.axhline(false_alarm_rate, color=style.SOFT, linewidth=1.1, dashes=(4, 3))
    axes.set_xticks(range(len(sizes)), [f"{size}" for size in sizes])
    axes.set_xlim(-0.4, len(sizes) - 0.6)
    axes.set_ylim(0, TOP)
    axes.set_xlabel("pixels of the image, longer side; bars: 95 % intervals", **style.LABEL)
    axes.set_ylabel("share found", **style.LABEL)
    ends.append((false_alarm_rate, f"false alarms {percent(false_alarm_rate)}", style.SOFT))
    for height, (_, name, colour) in zip(_apart([end[0] for end in ends]), ends, strict=True):
        looks: dict[str, Any] = {"color": colour, "size": style.TEXT, "va": "center"}
        axes.text(1.02, height / TOP, name, transform=axes.transAxes, **looks)
    return figure


def _apart(heights: Sequence[float], gap: float = 0.07) -> list[float]:
    """Return heights of labels that do not lie on one another; lower ones give way upwards."""
    placed = list(heights)
    order = sorted(range(len(heights)), key=heights.__getitem__)
    for below, above in pairwise(order):
        placed[above] = max(placed[above], placed[below] + gap)
    return placed
