"""How a catalogue says which parts of an image count: ``zones``.

Everything is in pixels of an image of ``size``, and holds in shares for images of another size and
the same proportions, as one camera delivers them at another resolution.
"""

from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from pipeline.catalogue.addresses import ImagesAddress
from pipeline.catalogue.detector_settings import Strict

Point = tuple[float, float]  # x and y
Floats = NDArray[np.float64]

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
    corners = [n for n, point in enumerate(polygon) if point != polygon[(n + 1) % len(polygon)]]
    points_N2 = np.array([polygon[number] for number in corners]).reshape(-1, 2)
    sides_NN = _sides(points_N2)
    if not sides_NN.any():
        yield f"{where}: all points lie on one line"
        return
    crossing = _crossing(points_N2, sides_NN)
    if crossing is not None:
        one, other = (corners[index] + 1 for index in crossing)
        yield f"{where}: crosses itself between points {one} and {other}"


def _crossing(points_N2: Floats, sides_NN: Floats) -> tuple[int, int] | None:
    """Return the first two edges that meet, be it in a point, and are no neighbours."""
    ends_N2 = np.roll(points_N2, -1, axis=0)
    parts_NN = sides_NN * np.roll(sides_NN, -1, axis=1) <= 0  # edge n reaches both sides of line m
    low_N2, high_N2 = np.minimum(points_N2, ends_N2), np.maximum(points_N2, ends_N2)
    is_near_NN = (low_N2[:, None] <= high_N2).all(axis=2)  # else edges of one line would all meet
    meets_NN = np.triu(parts_NN & parts_NN.T & is_near_NN & is_near_NN.T, 2)
    meets_NN[0, -1] = False
    found = np.argwhere(meets_NN)
    return (int(found[0, 0]), int(found[0, 1])) if len(found) else None


def _sides(points_N2: Floats) -> Floats:
    """Return by its sign on which side of the edge from point m each point n lies, (M, N)."""
    edges_N2 = np.roll(points_N2, -1, axis=0) - points_N2
    to_NN2 = points_N2 - points_N2[:, None]
    sides: Floats = edges_N2[:, None, 0] * to_NN2[..., 1] - edges_N2[:, None, 1] * to_NN2[..., 0]
    return sides
