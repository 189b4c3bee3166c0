"""How a catalogue says which parts of an image count: ``zones``.

Everything is in pixels of an image of ``size``, and holds in shares for images of another size and
the same proportions, as one camera delivers them at another resolution.
"""

from collections.abc import Iterator
from itertools import combinations
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from pipeline.catalogue.addresses import ImagesAddress
from pipeline.catalogue.detector_settings import Strict

Point = tuple[float, float]  # x and y

MOST_POINTS = 500  # of a polygon
LEAST_SIDE = 32  # of a region of interest: what the smallest crop has


def _as_ignored(given: Any) -> Any:
    """Say in one line what is expected, where each part of a union would say its own."""
    if given is None or (isinstance(given, str) and given):
        return given
    if isinstance(given, list | tuple) and all(map(_is_polygon, given)):
        return given
    raise ValueError(
        "expected polygons, each a list of three or more points [x, y], or the address of a mask"
    )


def _is_polygon(given: Any) -> bool:
    if not isinstance(given, list | tuple) or not 3 <= len(given) <= MOST_POINTS:
        return False
    return all(isinstance(point, list | tuple) and len(point) == 2 for point in given)


Ignored = Annotated[
    tuple[tuple[Point, ...], ...] | ImagesAddress | None, BeforeValidator(_as_ignored)
]


class ZoneSettings(Strict):
    """Which parts of an image count, and how large what counts must be."""

    size: tuple[PositiveInt, PositiveInt] | None = None  # height and width of the image drawn on
    roi: tuple[int, int, PositiveInt, PositiveInt] | None = None  # left, top, width, height
    ignore: Ignored = None  # polygons, or a mask that marks what does not count
    min_area: float | None = Field(default=None, gt=0, allow_inf_nan=False)  # pixels

    @model_validator(mode="after")
    def _fits_together(self) -> "ZoneSettings":
        findings = list(self._findings())
        if findings:
            raise ValueError("\n".join(findings))
        return self

    @property
    def is_set(self) -> bool:
        """Whether anything but the size is said."""
        return self.roi is not None or self.ignore is not None or self.min_area is not None

    def _findings(self) -> Iterator[str]:
        if not self.is_set:
            return
        if self.size is None:
            yield "size is required: [height, width] of the image that the zones were drawn on"
            return
        height, width = self.size
        if self.roi is not None:
            x, y, wide, high = self.roi
            if x < 0 or y < 0 or x + wide > width or y + high > height:
                yield f"roi {list(self.roi)} is not inside of the {width} x {height} pixels of size"
            if min(wide, high) < LEAST_SIDE:
                yield f"roi is {wide} x {high} pixels; it needs {LEAST_SIDE} on each side"
        if self.min_area is not None and self.min_area > height * width:
            yield f"min_area {self.min_area:g} is more than the {height * width} pixels of size"
        polygons = self.ignore if isinstance(self.ignore, tuple) else ()
        for number, polygon in enumerate(polygons):
            yield from _of_polygon(f"ignore[{number}]", polygon, width, height)


def _of_polygon(where: str, polygon: tuple[Point, ...], width: int, height: int) -> Iterator[str]:
    outside = [(x, y) for x, y in polygon if not (0 <= x <= width and 0 <= y <= height)]
    if outside:
        yield (
            f"{where}: {len(outside)} of {len(polygon)} points are outside of the {width} x "
            f"{height} pixels of size, first {list(outside[0])}"
        )
        return
    edges = list(zip(polygon, (*polygon[1:], polygon[0]), strict=True))
    for (one, first), (other, second) in combinations(enumerate(edges), 2):
        is_next = other - one in (1, len(edges) - 1)
        if not is_next and _cross(first, second):
            yield f"{where}: crosses itself between points {one + 1} and {other + 1}"
            return
    if not any(_side(polygon[0], polygon[1], point) for point in polygon[2:]):
        yield f"{where}: all points lie on one line"


def _cross(first: tuple[Point, Point], second: tuple[Point, Point]) -> bool:
    """Whether two edges meet, be it in a point."""
    sides = [_side(*first, second[0]), _side(*first, second[1])]
    others = [_side(*second, first[0]), _side(*second, first[1])]
    if not any((*sides, *others)):  # on one line
        return all(
            min(a[axis], b[axis]) <= max(c[axis], d[axis])
            and min(c[axis], d[axis]) <= max(a[axis], b[axis])
            for axis in (0, 1)
            for (a, b), (c, d) in [(first, second)]
        )
    return sides[0] * sides[1] <= 0 and others[0] * others[1] <= 0


def _side(start: Point, end: Point, point: Point) -> float:
    """Return on which side of a line a point lies: its sign."""
    (x, y), (u, v), (p, q) = start, end, point
    return (u - x) * (q - y) - (v - y) * (p - x)
