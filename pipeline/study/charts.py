"""A cloud of trials as an inline SVG: whole trainings filled, those stopped early hollow."""

import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

WIDTH, HEIGHT = 360, 210  # user units; the page scales it
LEFT, RIGHT, TOP, BASE = 44, 352, 28, 168
MARGIN = 0.06  # of the range, on every side

Point = tuple[float, float, bool]  # x, y, whether it was trained to the end


def cloud(points: Sequence[Point], x_name: str, y_name: str, *, log: bool = False) -> Markup:
    """Draw at least one point, and axes; the page's CSS classes colour them. ``log`` is of x."""
    xs = [math.log10(x) if log else x for x, _, _ in points]
    ys = [y for _, y, _ in points]
    x_low, x_high = _range(xs)
    y_low, y_high = _range(ys)
    marks = [
        Markup('<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="3.4"/>').format(
            kind="whole" if whole else "part",
            x=LEFT + (x - x_low) / (x_high - x_low) * (RIGHT - LEFT),
            y=BASE - (y - y_low) / (y_high - y_low) * (BASE - TOP),
        )
        for x, y, (_, _, whole) in zip(xs, ys, points, strict=True)
    ]
    return Markup(
        '<svg class="chart" viewBox="0 0 {w} {h}" role="img" '
        'aria-label="{y_name} against {x_name}, {count} trials">'
        '<line class="axis" x1="{left}" x2="{right}" y1="{base}" y2="{base}"/>{ticks}{marks}'
        '<text x="{left}" y="12">{y_name}</text>'
        '<text x="{middle}" y="{foot}" text-anchor="middle">{x_name}</text></svg>'
    ).format(
        w=WIDTH,
        h=HEIGHT,
        x_name=x_name,
        y_name=y_name,
        count=len(points),
        left=LEFT,
        right=RIGHT,
        base=BASE,
        middle=(LEFT + RIGHT) / 2,
        foot=HEIGHT - 8,
        ticks=_ticks((x_low, x_high), (y_low, y_high), log=log),
        marks=Markup("").join(marks),
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = MARGIN * (high - low) if high > low else 0.05
    return low - room, high + room


def _ticks(x_range: tuple[float, float], y_range: tuple[float, float], *, log: bool) -> Markup:
    """Name a few places of both axes; lines run across at those of y."""
    parts = []
    for share in np.linspace(MARGIN, 1 - MARGIN, 4):
        x = x_range[0] + share * (x_range[1] - x_range[0])
        parts.append(
            Markup('<text x="{x:.1f}" y="{y}" text-anchor="middle">{text}</text>').format(
                x=LEFT + share * (RIGHT - LEFT), y=BASE + 17, text=f"{10**x if log else x:.2g}"
            )
        )
        y = y_range[0] + share * (y_range[1] - y_range[0])
        height = BASE - share * (BASE - TOP)
        parts.append(
            Markup(
                '<line class="grid" x1="{left}" x2="{right}" y1="{h:.1f}" y2="{h:.1f}"/>'
                '<text x="{text_x}" y="{text_y:.1f}" text-anchor="end">{text}</text>'
            ).format(
                left=LEFT,
                right=RIGHT,
                h=height,
                text_x=LEFT - 6,
                text_y=height + 4,
                text=f"{y:.3f}",
            )
        )
    return Markup("").join(parts)
