"""Which sizes of made defects a category finds, at its own threshold, on unseen good images.

Only what a defect changes goes through the network: the image, or those of its tiles that it lies
in. Of an image that is a false alarm by itself every defect counts as found, so that the curve
starts at the false-alarm rate, not at nothing.

Shapes: C channels, h x w a level's grid, S a side of what the network sees.
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
from model.tile_pixels import cut
from model.tiled_bank import CHUNK, TiledBank, TiledImage
from pipeline.calibration import Calibration
from pipeline.images import fit
from pipeline.images.placement import size_cut
from pipeline.measuring.metrics import clopper_pearson
from pipeline.onboarding.prepare import PreparedCategory
from pipeline.onboarding.small_defects import (
    SIZES,
    common_bounds,
    read_whole,
    small_defects,
    where_ignored,
)
from pipeline.onboarding.synthetic import Pixels

NUM_IMAGES = 12  # unseen good ones, with a defect of each size
NOTE = "made defects, which stand for no real ones"

logger = logging.getLogger(__name__)

Inputs = dict[int, NDArray[np.uint8]]  # those that changed of an image, by their number, (S, S, 3)


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
    for heads, index in _unseen(prepared, detector)[:num_images]:
        for size, score in _scores(prepared, heads, index, beside):
            flags[size].append(bool(calibration.flagged(score)))
    prepared.embedder.flush()
    logger.info("made defects of %s: %.1f s", prepared.category.name, time.monotonic() - started)
    return [SizeFound.of_flags(size, each) for size, each in flags.items() if each]


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
    prepared: PreparedCategory, heads: Heads, index: int, beside: Sequence[Preprocessing]
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield the size and the score (1,) of each defect on one image."""
    category, good = prepared.category, prepared.good
    image = read_whole(good.uris[index], category.preprocessing)
    if image is None:  # gone since
        return
    size = image.shape[0], image.shape[1]
    within = common_bounds(size, (category.preprocessing, *beside))
    ignored, seed = where_ignored(category, size), int(good.hashes[index][:16], 16)
    for defect in small_defects(image, within, ignored, seed):
        changed = changed_inputs(image, defect.pixels, category.preprocessing)
        levels = _with_changed(prepared, index, changed)
        yield defect.size, heads(levels)[0].cpu().numpy()


def changed_inputs(good: Pixels, made: Pixels, preprocessing: Preprocessing) -> Inputs:
    """Return the inputs of the network in which two whole images (H, W, 3) differ."""
    pairs = zip(_inputs(good, preprocessing), _inputs(made, preprocessing), strict=True)
    return {
        number: input_made
        for number, (input_good, input_made) in enumerate(pairs)
        if not np.array_equal(input_good, input_made)
    }


def _inputs(image: Pixels, preprocessing: Preprocessing) -> Iterator[NDArray[np.uint8]]:
    """Yield what a whole image becomes, one input after the other."""
    picture, tiles = Image.fromarray(image), preprocessing.tiles
    if tiles is None:
        yield fit.to_crop(picture, preprocessing)
        return
    size = size_cut((picture.height, picture.width), preprocessing)
    scaled = fit.to_size(picture, preprocessing, size)
    for some in cut(tiles, torch.from_numpy(scaled), CHUNK):
        yield from some.numpy()


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
