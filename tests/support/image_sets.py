"""Image sets of which only what a check looks at is real."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.datasets.samples import Sample
from pipeline.images.decode import ImageRead, ImageStatus
from pipeline.images.image_statistics import STATISTICS
from pipeline.inspection.image_set import ImageSet

USUAL = {"brightness": 120.0, "contrast": 40.0, "sharpness": 12.0}


def digest(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def image_set(
    num: int = 60,
    *,
    pooled: np.ndarray | None = None,
    statistics: Mapping[str, np.ndarray] | None = None,
    unreadable: Sequence[ImageRead] = (),
    seed: int = 0,
) -> ImageSet:
    """Good training images that vary a little, all of one size and mode."""
    random = np.random.default_rng(seed)
    spread = random.normal(size=(len(STATISTICS), num))
    own = {
        name: (USUAL[name] * np.exp(0.05 * spread[place])).astype(np.float32)
        for place, name in enumerate(STATISTICS)
    }
    uris = [f"/images/good/{index:03d}.png" for index in range(num)]
    return ImageSet(
        name="steel",
        samples=[Sample(uri, "train", "good") for uri in uris],
        reads=[
            ImageRead(uri, ImageStatus.OK, sha256=digest(index), mode="RGB", size=(96, 128))
            for index, uri in enumerate(uris)
        ],
        unreadable=list(unreadable),
        statistics=own | dict(statistics or {}),
        pooled=np.zeros((num, 0), np.float32) if pooled is None else pooled.astype(np.float32),
    )


def changed(images: ImageSet, index: int, **changes: Any) -> ImageSet:
    """The same set with another read, or another sample, in one place."""
    from dataclasses import fields, replace

    of_sample = {each.name for each in fields(Sample)}
    reads, samples = list(images.reads), list(images.samples)
    reads[index] = replace(
        reads[index], **{name: v for name, v in changes.items() if name not in of_sample}
    )
    samples[index] = replace(
        samples[index], **{name: v for name, v in changes.items() if name in of_sample}
    )
    return replace(images, reads=reads, samples=samples)
