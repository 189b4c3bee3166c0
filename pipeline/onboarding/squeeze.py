"""What a category loses where its images are squeezed into one input of the network."""

import statistics
from collections.abc import Sequence

from model.preprocessing import Preprocessing
from pipeline.images.decode import ImageRead
from pipeline.images.placement import placement

WORTH_SAYING = 4.0  # pixels of an image, along a side, that become one
SHOWN = 16  # pixels of a defect


def say_squeeze(reads: Sequence[ImageRead], preprocessing: Preprocessing) -> list[str]:
    """Return what a person should know of the size that defects are left with.

    Args:
        reads: good images.
        preprocessing: how they are read.
    """
    sizes = [read.size for read in reads if read.size is not None]
    if not sizes or preprocessing.tiles is not None:
        return []
    height, width = (round(statistics.median(sides)) for sides in zip(*sizes, strict=True))
    seen = placement((height, width), preprocessing).box[2:]
    side = preprocessing.size[::-1]
    factor = max(long / pixels for long, pixels in zip(seen, side, strict=True))
    if factor < WORTH_SAYING:
        return []
    left = f"a defect of {SHOWN} is left with {SHOWN / factor:.1f}"
    return [
        f"images of {width:,} x {height:,} pixels are squeezed into {side[0]} x {side[1]}: "
        f"{factor:.1f} pixels become one, and {left}; `tiles` keeps all of them"
    ]
