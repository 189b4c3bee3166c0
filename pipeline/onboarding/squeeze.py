"""What a category loses where its images are squeezed into the network's input."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from model.preprocessing import Preprocessing
from pipeline.images.decode import ImageRead
from pipeline.images.placement import placement, size_cut
from pipeline.pages.words import percent

WORTH_SAYING = 4.0  # pixels of an image, along a side, that become one
SHOWN = 16  # pixels of a defect


@dataclass(frozen=True, kw_only=True)
class Squeeze:
    """How much of an ordinary image the network sees."""

    image: tuple[int, int]  # height and width of an image, the middle of all
    input: tuple[int, int]  # of what becomes of it: the network's input, or what is cut into tiles
    seen: float  # share of the image's area that is looked at at all
    factor: float  # pixels of the image, along a side, that become one; at least 1
    kept: float  # pixels of the input for one of the image, at most ``seen``


def squeeze_of(reads: Sequence[ImageRead], preprocessing: Preprocessing) -> Squeeze | None:
    """Return what is kept of a category's images; None where no size is known.

    Args:
        reads: good images.
        preprocessing: how they are read.
    """
    sizes = [read.size for read in reads if read.size is not None]
    if not sizes:
        return None
    height, width = (round(statistics.median(sides)) for sides in zip(*sizes, strict=True))
    place, is_cut = placement((height, width), preprocessing), preprocessing.tiles is not None
    size = size_cut((height, width), preprocessing) if is_cut else preprocessing.size
    left, top, wide, high = place.box
    across, down = wide / size[1], high / size[0]
    first, above, right, below = place.bounds
    inside = min(left + wide, right) - max(left, first), min(top + high, below) - max(top, above)
    seen = inside[0] * inside[1] / (height * width)
    return Squeeze(
        image=(height, width),
        input=size,
        seen=seen,
        factor=max(across, down, 1.0),
        kept=seen / (max(across, 1.0) * max(down, 1.0)),
    )


def in_words(squeeze: Squeeze) -> str:
    """Say how much of an image is kept."""
    (height, width), (high, wide) = squeeze.image, squeeze.input
    unseen = "" if squeeze.seen > 0.995 else f"; {percent(1 - squeeze.seen)} of it is not looked at"
    return (
        f"images of {width:,} x {height:,} pixels become {wide:,} x {high:,}: "
        f"{percent(squeeze.kept)} of their pixels are kept, "
        f"{squeeze.factor:.1f} become one along a side{unseen}"
    )


def say_squeeze(reads: Sequence[ImageRead], preprocessing: Preprocessing) -> list[str]:
    """Return what a person should know of the size that defects are left with.

    Args:
        reads: good images.
        preprocessing: how they are read.
    """
    squeeze = squeeze_of(reads, preprocessing)
    if squeeze is None or preprocessing.tiles is not None or squeeze.factor < WORTH_SAYING:
        return []
    (height, width), (high, wide) = squeeze.image, squeeze.input
    left = f"a defect of {SHOWN} is left with {SHOWN / squeeze.factor:.1f}"
    return [
        f"images of {width:,} x {height:,} pixels are squeezed into {wide} x {high}: "
        f"{squeeze.factor:.1f} pixels become one, and {left}; `tiles` keeps all of them"
    ]
