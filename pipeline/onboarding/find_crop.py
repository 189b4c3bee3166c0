"""The rectangle of a category's own proportions, found in its good images: ``fit: keep``."""

import logging
import math
import random
import statistics
from collections.abc import Iterator, Sequence

from model.preprocessing import MAX_SIDE, MIN_SIDE
from pipeline.catalogue.catalogue import Category
from pipeline.images.batches import num_readers
from pipeline.images.page_numbers import file_and_page
from pipeline.images.picture import ImageTooLarge, UnreadableImage, open_picture
from pipeline.images.placement import size_seen
from pipeline.images.prefetch import read_ahead
from pipeline.storage import StorageError, read_bytes

NUM_PROBES = 64  # images whose proportions are looked at
STEP = 32  # pixels: what a backbone's strides divide
MOST_MORE = 1.15  # times the pixels that were asked for, or fewer by the same factor

logger = logging.getLogger(__name__)


def with_crop(category: Category, uris: Sequence[str]) -> Category:
    """Return a category of ``fit: keep`` with the rectangle of its images; others as they are.

    Its number of pixels is about that of the square that ``crop`` says. Images are padded into it:
    a little, since its sides are multiples of 32, or more where their proportions are others.
    """
    if not category.finds_crop:
        return category
    ratios = [width / height for height, width in sizes_of_some(category, uris)]
    if not ratios:
        return category  # none can be read, which reading them all tells
    height, width = rectangle(category.preprocessing.size[0], statistics.median(ratios))
    logger.info("%s: images are padded into %d x %d pixels", category.name, height, width)
    return category.model_copy(update={"fit": "pad", "crop": (height, width)})


def rectangle(side: int, width_over_height: float) -> tuple[int, int]:
    """Return height and width of the rectangle that comes closest to some proportions.

    Its number of pixels is that of a square of this side, within 15 %.
    """
    sides = range(MIN_SIDE, MAX_SIDE + 1, STEP)
    most = math.log(MOST_MORE)
    sizes = [
        (height, width)
        for height in sides
        for width in sides
        if abs(math.log(height * width / side**2)) <= most
    ]
    return min(
        sizes,
        key=lambda size: (
            round(abs(math.log(size[1] / size[0] / width_over_height)), 9),
            abs(math.log(size[0] * size[1] / side**2)),
        ),
    )


def sizes_of_some(category: Category, uris: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield height and width of some of a category's images, of all where they are few."""
    probes = random.Random(0).sample(list(uris), min(len(uris), NUM_PROBES))  # noqa: S311

    def read(uri: str) -> list[tuple[int, int]]:
        file, page = file_and_page(uri, category.pages)
        try:
            # A JPEG is decoded at an eighth of its size: only the header's is asked for.
            data = read_bytes(file)
            picture = open_picture(data, category.max_pixels, least_side=1, page=page or 1)
        except (StorageError, UnreadableImage, ImageTooLarge):
            return []
        return [size_seen(picture.size_in_file, category.preprocessing)]

    found = read_ahead(read, probes, num_readers(category.preprocessing))
    return (size for sizes in found for size in sizes)
