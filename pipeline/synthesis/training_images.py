"""The good images that a diffusion model learns from: what a detector sees, but smaller.

Shapes: N images.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from model.preprocessing import MAX_SIDE, Preprocessing
from pipeline.calibration import Part, split_by_content
from pipeline.catalogue.catalogue import Category
from pipeline.images.batches import batches, read_all, stack
from pipeline.images.decode import ImageRead, ImageStatus
from pipeline.onboarding.features import Progress, digest_of, refuse_many_unreadable, training_uris
from pipeline.onboarding.found_settings import with_found_settings
from pipeline.onboarding.listed_images import list_images, stay_together


@dataclass(frozen=True, kw_only=True)
class TrainingImages:
    """Images to learn from, and which data set they are of."""

    pixels: Tensor  # uint8 (N, size, size, 3)
    dataset_digest: str  # of all good images, as in the package of an onboarding


def read_training_images(
    category: Category, size: int, progress: Progress | None = None
) -> TrainingImages:
    """Read the good images that a detector of the category would train on, ``size`` pixels wide.

    Images held out for calibration stay unseen: a detector may learn from the bank.

    Raises:
        LayoutError, PixelRangeError, TooManyUnreadable, TooFewImages: as onboarding does.
    """
    samples = list_images(category).samples
    uris = training_uris(category, samples)
    preprocessing = scaled(with_found_settings(category, uris).preprocessing, size)
    good: list[ImageRead] = []
    unreadable: list[ImageRead] = []
    pixels: list[Tensor] = []
    for batch in batches(read_all(uris, preprocessing)):
        readable = [image for image in batch if image.status is ImageStatus.OK]
        unreadable += [image for image in batch if image.status is not ImageStatus.OK]
        if readable:
            pixels.append(stack(readable))
        good += [image.without_pixels() for image in readable]
        if progress:
            progress(len(good) + len(unreadable), len(uris))
    refuse_many_unreadable(category.name, unreadable, len(uris))
    hashes = [image.sha256 for image in good]
    together = stay_together(category, [image.uri for image in good], hashes)
    train = split_by_content(hashes, category.calibration_config, together) == Part.TRAIN
    return TrainingImages(
        pixels=torch.cat(pixels)[torch.from_numpy(train)], dataset_digest=digest_of(hashes)
    )


def scaled(preprocessing: Preprocessing, size: int) -> Preprocessing:
    """Return what shows the same part of each image in a square ``size`` pixels wide."""
    height, width = preprocessing.size
    if height != width and preprocessing.fit == "pad":  # the network wants a square to learn from
        preprocessing = replace(preprocessing, fit="stretch")
    resize = round(preprocessing.resize * size / min(height, width))
    resize = min(max(resize, size), MAX_SIDE)
    return replace(preprocessing, crop=size, resize=resize, tiles=None)
