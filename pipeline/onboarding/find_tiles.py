"""The size of a category's images, where they are cut into tiles: that of its maps follows."""

import logging
import statistics
from collections.abc import Sequence
from dataclasses import replace

from model.errors import CategoryFault
from model.tiles import Size, Tiles
from pipeline.catalogue.catalogue import Category
from pipeline.onboarding.find_crop import sizes_of_some

logger = logging.getLogger(__name__)


class OtherPositions(CategoryFault):
    """Good images whose tiles lie at other positions, where each position has its own head."""


def with_size_of_images(category: Category, uris: Sequence[str]) -> Category:
    """Return a category with ``tiles`` that knows the middle size of its images; others as is.

    Images of other sizes are cut by the same rule; their maps are brought to that size.

    Args:
        category: perhaps with ``tiles``.
        uris: the good images to learn from.
    """
    tiles = category.tiles
    sizes = list(sizes_of_some(category, uris)) if tiles is not None else []
    if tiles is None or not sizes:
        return category  # none can be read, which reading them all tells
    height, width = (round(statistics.median(sides)) for sides in zip(*sizes, strict=True))
    found = replace(tiles, image=(height, width))
    size = tiles.scaled((height, width))
    logger.info(
        "%s: images of %d x %d pixels are cut into %d tiles of %d; maps have %d x %d pixels",
        *(category.name, width, height, found.num_tiles(size), tiles.size, *found.view[::-1]),
    )
    return category.model_copy(update={"tiles": found})


def refuse_other_positions(name: str, tiles: Tiles, sizes: Sequence[Size]) -> None:
    """Refuse good images that are not cut as the middle one is, where positions have their heads.

    Args:
        name: of the category.
        tiles: its own, with the middle size.
        sizes: of the images that were cut.

    Raises:
        OtherPositions: some have other tiles.
    """
    if tiles.share != "position" or tiles.image is None:
        return
    usual = tiles.corners(tiles.scaled(tiles.image))
    other = [size for size in sizes if tiles.corners(size) != usual]
    if other:
        (height, width), (high, wide) = tiles.scaled(tiles.image), other[0]
        raise OtherPositions(
            f"{name}: {len(other)} of {len(sizes)} good images have other tiles than one of "
            f"{width} x {height} pixels, the first {wide} x {high}; `tiles: {{share: position}}` "
            f"needs images of one size, of aligned objects. Take share: all, or give images of "
            f"another size a category of their own"
        )
