"""From zones in pixels of an image to positions of a category's grid."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from model.backbone import STRIDES
from model.errors import CategoryFault
from model.preprocessing import Preprocessing
from model.tiled_zones import zones_of_inputs
from model.zones import EVERYWHERE, Zones
from pipeline.catalogue.catalogue import Category
from pipeline.images import fit
from pipeline.images.masks import MASK_LEVEL, mask_levels
from pipeline.images.picture import ImageTooLarge, UnreadableImage
from pipeline.images.placement import placement
from pipeline.storage import read_bytes

IGNORED_SHARE = 0.5  # of a position, from which on it does not count


class ZonesError(CategoryFault):
    """Zones that leave nothing to score, or a mask that does not belong to its images."""


def zones_of(category: Category) -> Zones:
    """Return what counts on the finest grid of a category, whose crop is known.

    Where images are cut into tiles it is the grid of a whole one, whose size is known.

    Raises:
        ZonesError: nothing would count, or no group of the least area; or the mask cannot be used.
        StorageError: the mask cannot be read.
    """
    way, stride = category.preprocessing, STRIDES[category.layers[0]]
    size = way.size_read
    ignored = _ignored(category, stride)
    grid = size[0] / stride, size[1] / stride
    num_counting = int(grid[0] * grid[1]) if ignored is None else int(np.count_nonzero(~ignored))
    if not num_counting:
        raise ZonesError(
            f"{category.name}: zones.ignore covers all that is looked at, so nothing is left to "
            f"score; draw it smaller"
        )
    least = least_positions(category, grid)
    if ignored is None and least == 1:
        return EVERYWHERE
    rows = () if ignored is None else tuple("".join("01"[i] for i in row) for row in ignored * 1)
    zones = Zones(
        ignored=rows if ignored is not None and ignored.any() else (),
        min_area=least,
        stride=None if way.tiles is None else stride,
    )
    most = max(_largest_group(each) for each in _scored_alone(zones, way, stride))
    if least > most:
        raise ZonesError(
            f"{category.name}: zones.min_area {category.zones.min_area:g} pixels are {least} "
            f"positions of the anomaly map, and no more than {most} that count touch one another "
            f"in {'an image' if way.tiles is None else 'a tile'}; lower it, or ignore less"
        )
    return zones


def _scored_alone(zones: Zones, way: Preprocessing, stride: int) -> list[Tensor]:
    """Return what counts of an image of the usual size, or of each of its tiles, (h, w) each."""
    if way.tiles is None:
        return [zones.counts_on((way.size_read[0] // stride, way.size_read[1] // stride))]
    found, side = zones_of_inputs(zones, way.tiles, way.size_read), way.tiles.size // stride
    tiles = range(way.tiles.num_tiles(way.size_read))
    return [found.of_inputs[at].counts_on((side, side)) for at in tiles if found.counts[at]]


def _largest_group(counts_hw: Tensor) -> int:
    """Return how many positions that count touch one another at most, be it at a corner."""
    from scipy import ndimage  # noqa: PLC0415  a second to import

    groups, _ = ndimage.label(counts_hw.numpy(), np.ones((3, 3)))
    return int(np.bincount(groups[groups > 0]).max())


def least_positions(category: Category, grid: tuple[float, float]) -> int:
    """Return the least area in positions of a map of height and width, at least one."""
    zones = category.zones
    if zones.min_area is None or zones.size is None:
        return 1
    box = placement(zones.size, category.preprocessing).box
    return max(1, math.ceil(zones.min_area * grid[0] * grid[1] / (box[2] * box[3])))


def marked_image(category: Category) -> Image.Image | None:
    """Return what is ignored of an image of the zones' size, above MASK_LEVEL; None: nothing.

    Raises:
        ZonesError: the mask cannot be used.
        StorageError: it cannot be read.
    """
    zones = category.zones
    if zones.ignore is None or zones.size is None:
        return None
    height, width = zones.size
    if isinstance(zones.ignore, str):
        try:
            levels = mask_levels(read_bytes(zones.ignore))
        except (UnreadableImage, ImageTooLarge) as error:
            raise ZonesError(f"{category.name}: zones.ignore {zones.ignore}: {error}") from error
        if levels.size != (width, height):
            raise ZonesError(
                f"{category.name}: zones.ignore {zones.ignore} has {levels.width} x "
                f"{levels.height} pixels, zones.size says {width} x {height}; give the mask and "
                f"the size of one and the same image"
            )
        return levels
    levels = Image.new("L", (width, height))
    draw = ImageDraw.Draw(levels)
    for polygon in zones.ignore:
        draw.polygon(list(polygon), fill=255)
    return levels


def ignored_pixels(category: Category, size: tuple[int, int]) -> NDArray[np.bool_] | None:
    """Return what is ignored of an image as it is read, (H, W); None: nothing is.

    Args:
        category: whose zones are meant.
        size: height and width as it is read, which images that are cut have each their own.

    Raises:
        ZonesError, StorageError: as ``marked_image``.
    """
    levels, way = marked_image(category), category.preprocessing
    if levels is None:
        return None
    if way.tiles is None:
        return fit.to_crop(levels, way, "constant") > MASK_LEVEL
    return fit.to_size(levels, way, size) > MASK_LEVEL


def _ignored(category: Category, stride: int) -> NDArray[np.bool_] | None:
    """Return which positions do not count, each of so many pixels, (h, w)."""
    ignored_HW = ignored_pixels(category, category.preprocessing.size_read)
    if ignored_HW is None:
        return None
    if category.preprocessing.tiles is not None:
        rest = [(0, -side % stride) for side in ignored_HW.shape]
        ignored_HW = np.pad(ignored_HW, rest, mode="edge")
    height, width = ignored_HW.shape
    blocks = ignored_HW.reshape(height // stride, stride, width // stride, stride)
    ignored: NDArray[np.bool_] = blocks.mean(axis=(1, 3)) > IGNORED_SHARE
    return ignored
