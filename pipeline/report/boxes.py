"""The boxes of regions as the page draws them: over the rectangle that the network saw."""

from collections.abc import Mapping, Sequence
from typing import Any

from model.preprocessing import Preprocessing
from pipeline.images.placement import placement


def boxes_of(columns: Mapping[str, Sequence[Any]], way: Preprocessing | None) -> dict[str, Any]:
    """Return what a page of images says of their regions; nothing where no image has any.

    Args:
        columns: of result rows of one category.
        way: how its champion reads images.
    """
    if way is None or not any(columns["num_regions"]):
        return {}
    sizes = zip(columns["image_height"], columns["image_width"], strict=True)
    each = zip(columns["regions"], sizes, strict=True)
    return {
        "size": [way.view[1], way.view[0]],
        "boxes": [[_drawn(region, size, way) for region in own or ()] for own, size in each],
        "regions": list(columns["num_regions"]),
        "area_share": [None if v is None else float(f"{v:.3g}") for v in columns["area_share"]],
    }


def _drawn(region: Mapping[str, int], size: tuple[int, int], way: Preprocessing) -> list[float]:
    """Return left, top, width and height in pixels of the crop."""
    box = region["x"], region["y"], region["width"], region["height"]
    x, y, wide, high = placement(size, way).to_shares(box)
    height, width = way.view
    return [round(each, 1) for each in (x * width, y * height, wide * width, high * height)]
