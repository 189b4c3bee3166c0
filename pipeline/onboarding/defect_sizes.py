"""Which sizes of made defects a category finds, at its own threshold, on unseen good images.

Only what a defect changes goes through the network: the image, or those of its tiles that it lies
in, see ``defect_change.py``.

The images are some of those that set the threshold. At most the asked share of these lies above it
by itself: there or lower starts the share found, where nothing that is made is seen.

Shapes: C channels, h x w a level's grid.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from model.detector import Detector
from model.kind import Heads
from model.preprocessing import Preprocessing
from model.tiled_bank import TiledBank, TiledImage
from pipeline.calibration import Calibration
from pipeline.measuring.metrics import clopper_pearson
from pipeline.onboarding.defect_change import Inputs, good_image
from pipeline.onboarding.prepare import PreparedCategory
from pipeline.onboarding.small_defects import (
    SIZES,
    common_bounds,
    small_defects,
    where_ignored,
)
from pipeline.onboarding.zones import marked_image

PICTURE = "defect-sizes"  # name of an example that shows them
NUM_IMAGES = 12  # unseen good ones, with a defect of each size
NOTE = "made defects, which stand for no real ones"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SizeFound:
    """How many made defects of a size were found, with the exact 95 % interval of their share."""

    size: int  # pixels of the image
    found: int
    of: int
    share: float
    low: float
    high: float

    @classmethod
    def of_flags(cls, size: int, flags: Sequence[bool]) -> "SizeFound":
        """Count them; there is at least one."""
        found, total = sum(flags), len(flags)
        low, high = clopper_pearson(found, total)
        return cls(size=size, found=found, of=total, share=found / total, low=low, high=high)


def measure_sizes(
    prepared: PreparedCategory,
    detector: Detector,
    calibration: Calibration,
    num_images: int = NUM_IMAGES,
    beside: Sequence[Preprocessing] = (),
) -> list[SizeFound]:
    """Return what is found of each size; sizes for which there is no room are left out.

    Args:
        prepared: the category, trained.
        detector: its own.
        calibration: its threshold.
        num_images: at most, with one defect of each size: those with the smallest hashes.
        beside: other ways of reading the images: defects lie where these look as well.
    """
    started = time.monotonic()
    flags: dict[int, list[bool]] = {size: [] for size in SIZES}
    marked = marked_image(prepared.category)
    for heads, index in _unseen(prepared, detector)[:num_images]:
        for size, score in _scores(prepared, heads, index, marked, beside):
            flags[size].append(bool(calibration.flagged(score)))
    prepared.embedder.flush()
    logger.info("made defects of %s: %.1f s", prepared.category.name, time.monotonic() - started)
    return [SizeFound.of_flags(size, each) for size, each in flags.items() if each]


def findings_of_sizes(sizes: Sequence[SizeFound], min_area: float = 0) -> list[str]:
    """Say it where a category finds none of the largest made defects: its threshold is too high.

    Args:
        sizes: what ``measure_sizes`` found.
        min_area: in pixels of the image; smaller defects are not to be found.
    """
    if not sizes or sizes[-1].found or sizes[-1].size ** 2 < min_area:
        return []
    largest = sizes[-1]
    return [
        f"none of {largest.of} made defects of {largest.size} pixels is found: the threshold lies "
        f"above them; see whether the good images that score highest are good"
    ]


def _unseen(prepared: PreparedCategory, detector: Detector) -> list[tuple[Heads, int]]:
    """Return unseen images with the heads that have not seen them, in the order of contents."""
    found = [
        (heads, index)
        for heads, some in prepared.unseen(prepared.trainer, detector)
        for index in some.tolist()
    ]
    return sorted(found, key=lambda each: prepared.good.hashes[each[1]])


@torch.inference_mode()
def _scores(
    prepared: PreparedCategory,
    heads: Heads,
    index: int,
    marked: Image.Image | None,
    beside: Sequence[Preprocessing],
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield the size and the score (1,) of each defect on one image."""
    ways, good = prepared.category.preprocessing, prepared.good
    uri, seed = good.uris[index], int(good.hashes[index][:16], 16)
    image = good_image(uri, ways)
    if image is None:  # gone since
        return
    size = image.whole.shape[0], image.whole.shape[1]
    within, ignored = common_bounds(size, (ways, *beside)), where_ignored(marked, size)
    for defect in small_defects(image.whole, within, ignored, seed):
        levels = _with_changed(prepared, index, image.changed_inputs(defect))
        yield defect.size, heads(levels)[0].cpu().numpy()


def _with_changed(prepared: PreparedCategory, index: int, changed: Inputs) -> list[Any]:
    """Return what heads are given of a good image some of whose inputs are others."""
    bank = prepared.good.bank
    made = list(prepared.embedder.of_pixels([*changed.values()]).values())
    new = {number: [level[k] for level in made] for k, number in enumerate(changed)}
    whole = torch.tensor([index])
    if not isinstance(bank, TiledBank):
        return _replaced(bank.images(whole), new, 0)
    (image,) = bank.images(whole)

    def chunks() -> Iterator[list[Tensor]]:
        first = 0
        for levels in image.chunks():
            yield _replaced(levels, new, first)
            first += len(levels[0])

    return [TiledImage(image.size, chunks)]


def _replaced(
    levels: Sequence[Tensor], new: Mapping[int, Sequence[Tensor]], first: int
) -> list[Tensor]:
    """Return levels (k, C, h, w) of inputs from number ``first`` on, with the new ones in them."""
    levels = [level.clone() for level in levels]
    for number, each in new.items():
        if first <= number < first + len(levels[0]):
            for level, values in zip(levels, each, strict=True):
                level[number - first] = values
    return levels
