"""Regions: where an anomaly map is above what good images show, in pixels of the image.

The level is split-conformal, as the threshold of image scores is (``pipeline/calibration.py``): of
good images like the held-out ones, at most a stated share shows any region. Positions that touch,
be it at a corner, are one region.

Shapes: N good images, H x W pixels of an anomaly map.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.calibration import CalibrationConfig, TooFewImages, fit, smallest_rate
from pipeline.images.placement import Placement

MAX_REGIONS = 16  # listed of an image, the largest ones; their number and share count all
TOUCHING = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True, kw_only=True)
class RegionRule:
    """From which level of its anomaly maps on a category has regions. Made by ``fit_rule``."""

    threshold: float  # a float32 value; what lies above it belongs to a region
    rate: float  # share of good images with any region, at most
    num_images: int  # held-out good images that the level rests on
    least: int = 1  # positions of a map that a region has at least

    def may_have_any(self, patch_scores: NDArray[np.float32]) -> bool:
        """Whether an image can have a region at all.

        A map is made of weighted means of patch scores, so that no level is above the highest one;
        what rounding may add is allowed for. It saves the map of most good images.
        """
        rounding = 1e-4 * float(np.abs(patch_scores).max())
        return float(patch_scores.max()) + rounding > self.threshold


@dataclass(frozen=True, kw_only=True)
class Regions:
    """What stands above the level on one image."""

    listed: list[dict[str, float]]  # the largest first: fields as in the column ``regions``
    number: int  # of all regions
    area_share: float  # of the image, of all regions together

    def to_row(self) -> dict[str, Any]:
        """Return the columns of a result row."""
        return {"regions": self.listed, "num_regions": self.number, "area_share": self.area_share}


NO_REGIONS = Regions(listed=[], number=0, area_share=0.0)


def highest_level(map_HW: NDArray[np.float32], least: int) -> float:
    """Return the highest level at which, and not above which, a map has a region.

    It is one of its levels: where at most that is asked for, a region has ``least`` positions.
    """
    if least == 1:
        return float(map_HW.max())
    from scipy import ndimage  # noqa: PLC0415  a second to import

    levels = np.unique(map_HW)
    low, high = 0, len(levels) - 1  # above the last one nothing lies
    while low < high:
        middle = (low + high) // 2
        labels_HW, _ = ndimage.label(map_HW > levels[middle], TOUCHING)
        if np.bincount(labels_HW.ravel())[1:].max(initial=0) >= least:
            low = middle + 1
        else:
            high = middle
    return float(levels[low])


def fit_rule(highest_N: NDArray[np.float32], rate: float, least: int = 1) -> RegionRule:
    """Return the lowest level that at most a share of good images exceeds anywhere.

    ``highest_N`` are the ``highest_level`` of held-out good images' maps; a region has ``least``
    positions.

    Raises:
        TooFewImages: they cannot certify the share.
        CalibrationError: a level is not a finite number.
    """
    refuse_few(len(highest_N), rate)
    made = fit(highest_N, CalibrationConfig(false_alarm_rate=rate))
    return RegionRule(threshold=made.threshold, rate=rate, num_images=len(highest_N), least=least)


def refuse_few(num_images: int, rate: float) -> None:
    """Refuse a share of good images with regions that so many held-out ones cannot certify.

    Raises:
        TooFewImages: says how many are needed, and which share they can certify.
    """
    needed = CalibrationConfig(false_alarm_rate=rate).min_images
    if num_images < needed:
        raise TooFewImages(
            f"{num_images} held-out good images cannot certify region_rate {rate:g}; need at least "
            f"{needed}. Collect more images or raise region_rate to {smallest_rate(num_images):g}.",
            needed,
        )


def find_regions(map_HW: NDArray[np.float32], rule: RegionRule, place: Placement) -> Regions:
    """Return the regions of an anomaly map over the rectangle of ``place``, on any grid.

    What was padded has no region.
    """
    above_HW = (map_HW > np.float32(rule.threshold)) & _inside(map_HW.shape, place)
    if not above_HW.any():
        return NO_REGIONS
    from scipy import ndimage  # noqa: PLC0415  a second to import

    labels_HW, _ = ndimage.label(above_HW, TOUCHING)
    sizes = np.bincount(labels_HW.ravel())[1:]
    is_one = sizes >= rule.least
    number, total = int(np.count_nonzero(is_one)), int(sizes[is_one].sum())
    largest = np.argsort(-sizes, kind="stable")[: min(number, MAX_REGIONS)]
    windows = ndimage.find_objects(labels_HW)
    image_area = float(place.size[0] * place.size[1])
    pixel = place.box[2] * place.box[3] / map_HW.size  # of the map, in pixels of the image
    listed = []
    for index in largest.tolist():
        area = min(sizes[index] * pixel, image_area)
        own = {"area": round(area), "share": area / image_area}
        is_own = labels_HW[windows[index]] == index + 1
        listed.append(_describe(map_HW, windows[index], is_own, place) | own)
    share = min(total * pixel / image_area, 1.0)
    return Regions(listed=listed, number=number, area_share=share)


def _inside(grid: tuple[int, ...], place: Placement) -> NDArray[np.bool_]:
    """Return which positions of a map have their centre within the bounds, not in a padding."""
    (first, above, right, below), (left, top, wide, high) = place.bounds, place.box
    y_H = top + (np.arange(grid[0]) + 0.5) * high / grid[0]
    x_W = left + (np.arange(grid[1]) + 0.5) * wide / grid[1]
    is_row, is_column = (y_H > above) & (y_H < below), (x_W > first) & (x_W < right)
    inside: NDArray[np.bool_] = is_row[:, None] & is_column
    return inside


def _describe(
    map_HW: NDArray[np.float32],
    window: tuple[slice, slice],
    is_own: NDArray[np.bool_],
    place: Placement,
) -> dict[str, float]:
    """Return box, highest level and centre of a region, of which ``window`` is the box."""
    rows, columns = np.nonzero(is_own)
    grid, (down, across) = (map_HW.shape[0], map_HW.shape[1]), window
    seen = across.start, down.start, across.stop - across.start, down.stop - down.start
    x, y, wide, high = place.to_image(seen, grid)
    centre = columns.mean() + across.start + 0.5, rows.mean() + down.start + 0.5, 0.0, 0.0
    first, right = _whole(x, wide, place.bounds[2])
    above, below = _whole(y, high, place.bounds[3])
    return {
        "x": first,
        "y": above,
        "width": right - first,
        "height": below - above,
        "peak": float(map_HW[window][is_own].max()),
        "centroid_x": place.to_image(centre, grid)[0],
        "centroid_y": place.to_image(centre, grid)[1],
    }


def _whole(start: float, length: float, last: int) -> tuple[int, int]:
    """Return the whole pixels nearest to both ends, at least one apart and up to ``last``."""
    first = min(round(start), last - 1)
    return first, max(round(start + length), first + 1)
