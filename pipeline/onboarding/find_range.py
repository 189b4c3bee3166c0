"""The range of a category's pixels, found in its good images.

Some images are looked at first: where none has more than 8 bits, nothing has to be found, and none
is read twice. Otherwise every image is, for a range must hold the brightest of them.
"""

import logging
import random
from collections.abc import Iterator, Sequence
from contextlib import suppress

from pipeline.catalogue.catalogue import Category
from pipeline.images.batches import BATCH_IMAGES
from pipeline.images.page_numbers import file_and_page, of_same_file
from pipeline.images.picture import ImageFile, ImageTooLarge, UnreadableImage
from pipeline.images.pixel_range import Levels, PixelRangeError, levels_of, smallest_range
from pipeline.images.prefetch import read_ahead
from pipeline.storage import StorageError, read_bytes

NUM_PROBES = 16
STRAYS = 0.1  # share of the images that may be of the other kind, deep or 8 bits

logger = logging.getLogger(__name__)


def with_range(category: Category, uris: Sequence[str]) -> Category:
    """Return the category with the range of its pixels; as it is where that is set, or 8 bits do.

    Raises:
        PixelRangeError: the images do not say it.
    """
    if category.pixel_range is not None:
        return category
    probes = random.Random(0).sample(list(uris), min(len(uris), NUM_PROBES))  # noqa: S311
    if not any(_levels(category, probes)):
        return category
    levels = list(_levels(category, uris))
    deep = [each for each in levels if each is not None]
    if len(deep) <= STRAYS * len(levels):
        return category  # they are refused one by one
    if len(levels) - len(deep) > STRAYS * len(levels):
        raise PixelRangeError(
            f"{category.name}: {len(deep)} of {len(levels)} good images have more than 8 bits, the "
            f"others 8; make two categories of them, or set `pixel_range` to take both"
        )
    found = smallest_range(category.name, deep)
    logger.info(
        "%s: %d of %d good images have more than 8 bits, white is %g",
        *(category.name, len(deep), len(levels), found),
    )
    return category.model_copy(update={"pixel_range": found})


def _levels(category: Category, uris: Sequence[str]) -> Iterator[Levels | None]:
    """Yield the levels of each image, None of 8 bits; what cannot be read is told later."""

    def read(uris: Sequence[str]) -> list[Levels | None]:
        pages = [file_and_page(uri, category.pages) for uri in uris]
        try:
            file = ImageFile(read_bytes(pages[0][0]), category.max_pixels)
        except StorageError:
            return []
        found = []
        for _, page in pages:
            with suppress(UnreadableImage, ImageTooLarge):
                found.append(levels_of(file.page(page or 1)))
        return found

    files = of_same_file(uris, BATCH_IMAGES)
    return (levels for found in read_ahead(read, files) for levels in found)
