"""The size of a category's images, where they are cut into tiles: that of its maps follows."""

import logging
import statistics
from collections.abc import Sequence
from dataclasses import replace

from pipeline.catalogue.catalogue import Category
from pipeline.onboarding.find_crop import sizes_of_some

logger = logging.getLogger(__name__)


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
