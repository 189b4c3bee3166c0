"""The boxes of regions as the page draws them: over the rectangle that the network saw."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from model.preprocessing import Preprocessing
from pipeline.images.placement import placement
from pipeline.night.fleet.fleet import Champion


def boxes_of(columns: Mapping[str, Sequence[Any]], champion: Champion | None) -> dict[str, Any]:
    """Return what a page of images says of regions and of what does not count.

    Args:
        columns: of result rows of one category.
        champion: of the category.
    """
    if champion is None:
        return {}
    way, zones = champion.preprocessing, champion.reference.zones
    drawn = {"size": [way.view[1], way.view[0]]}
    ignored = drawn | {"ignored": _runs(zones.ignored, way.view)} if zones.ignored else {}
    return ignored | (_regions(columns, way) if any(columns["num_regions"]) else {})


def _regions(columns: Mapping[str, Sequence[Any]], way: Preprocessing) -> dict[str, Any]:
    sizes = zip(columns["image_height"], columns["image_width"], strict=True)
    each = zip(columns["regions"], sizes, strict=True)
    return {
        "size": [way.view[1], way.view[0]],
        "boxes": [[_drawn(region, size, way) for region in own or ()] for own, size in each],
        "regions": list(columns["num_regions"]),
        "area_share": [None if v is None else float(f"{v:.3g}") for v in columns["area_share"]],
    }


def _runs(ignored: Sequence[str], size: tuple[int, int]) -> list[list[float]]:
    """Return runs of ignored positions of each row as boxes in pixels of the picture."""
    high, wide = size[0] / len(ignored), size[1] / len(ignored[0])
    return [
        [run.start() * wide, number * high, (run.end() - run.start()) * wide, high]
        for number, row in enumerate(ignored)
        for run in re.finditer("1+", row)
    ]


def _drawn(region: Mapping[str, int], size: tuple[int, int], way: Preprocessing) -> list[float]:
    """Return left, top, width and height in pixels of the picture."""
    box = region["x"], region["y"], region["width"], region["height"]
    x, y, wide, high = placement(size, way).to_shares(box)
    height, width = way.view
    return [round(each, 1) for each in (x * width, y * height, wide * width, high * height)]
