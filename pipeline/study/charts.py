"""A cloud of trials in the units of an SVG, which the page's template draws."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEFT, RIGHT, TOP, BASE = 44, 352, 28, 168  # of the axes
MARGIN = 0.06  # of the range, on every side
NUM_TICKS = 4

Point = tuple[float, float, bool]  # x, y, whether it was trained to the end
Tick = tuple[float, str]  # its place, and what stands there


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """Where points and ticks lie."""

    x_name: str
    y_name: str
    points: Sequence[Point]
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]


def cloud(points: Sequence[Point], x_name: str, y_name: str, *, log: bool = False) -> Cloud:
    """Lay at least one point and two axes out; ``log``: x runs by factors."""
    xs = [math.log10(x) if log else x for x, _, _ in points]
    ys = [y for _, y, _ in points]
    places = zip(_placed(xs, xs, LEFT, RIGHT), _placed(ys, ys, BASE, TOP), strict=True)
    x_ticks, y_ticks = _ticks(xs), _ticks(ys)
    x_texts = [f"{10**x if log else x:.2g}" for x in x_ticks]
    y_texts = [f"{y:.3f}" for y in y_ticks]
    return Cloud(
        x_name=x_name,
        y_name=y_name,
        points=[(x, y, whole) for (x, y), (_, _, whole) in zip(places, points, strict=True)],
        x_ticks=list(zip(_placed(x_ticks, xs, LEFT, RIGHT), x_texts, strict=True)),
        y_ticks=list(zip(_placed(y_ticks, ys, BASE, TOP), y_texts, strict=True)),
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = MARGIN * (high - low) if high > low else 0.05
    return low - room, high + room


def _ticks(values: Sequence[float]) -> list[float]:
    low, high = _range(values)
    return [low + share * (high - low) for share in np.linspace(MARGIN, 1 - MARGIN, NUM_TICKS)]


def _placed(
    values: Sequence[float], among: Sequence[float], start: float, end: float
) -> list[float]:
    """Return where values lie on an axis that holds others."""
    placed: list[float] = np.interp(values, _range(among), (start, end)).tolist()
    return placed
