"""What a package says of its training images: how many, of which sizes and modes, and their look.

A few kilobytes however many they are. Later onboardings and nights are compared with them.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.inspection.category_summary import CategorySummary, summarise
from pipeline.inspection.image_set import ImageSet
from pipeline.inspection.robust_tail import LEAST_VALUES

TRAINING_IMAGES_FILE = "training_images.json"  # of a package
FORMAT = 1
MOST_SIZES = 64  # named; of more only these


@dataclass(frozen=True, kw_only=True)
class TrainingImages:
    """The training images of a category in a few numbers."""

    num_images: int  # that could be read, each content once
    sizes: Mapping[str, int]  # images by "height x width" in the file, the most frequent first
    num_sizes: int
    modes: Mapping[str, int]  # images by mode of the file
    summary: CategorySummary | None  # None where there are too few images for one

    def to_bytes(self) -> bytes:
        """Return the content of TRAINING_IMAGES_FILE."""
        document = {
            "format": FORMAT,
            "images": self.num_images,
            "sizes": dict(self.sizes),
            "num_sizes": self.num_sizes,
            "modes": dict(self.modes),
            "summary": self.summary.to_json() if self.summary else None,
        }
        return json.dumps(document).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> "TrainingImages | None":
        """Read what ``to_bytes`` wrote; None where a later release wrote it in another format.

        Raises:
            ValueError, KeyError, TypeError: it is damaged.
        """
        data: Mapping[str, Any] = json.loads(content)
        if data["format"] != FORMAT:
            return None
        return cls(
            num_images=int(data["images"]),
            sizes=dict(data["sizes"]),
            num_sizes=int(data["num_sizes"]),
            modes=dict(data["modes"]),
            summary=CategorySummary.from_json(s) if (s := data["summary"]) else None,
        )


def describe(images: ImageSet, space: str) -> TrainingImages:
    """Return what there is to say of training images, in a space of ``space_of_backbone``."""
    reads = [images.reads[index] for index in images.trained_on]
    sizes = Counter(in_words(read.size) for read in reads if read.size)
    modes = Counter(read.mode for read in reads if read.mode)
    return TrainingImages(
        num_images=len(reads),
        sizes=dict(sizes.most_common(MOST_SIZES)),
        num_sizes=len(sizes),
        modes=dict(modes.most_common()),
        summary=summary_of(images, space),
    )


def summary_of(images: ImageSet, space: str) -> CategorySummary | None:
    """Return the summary of a category's training images; None where they are too few."""
    index = images.trained_on
    if len(index) < LEAST_VALUES or not images.pooled.shape[1]:
        return None
    return summarise(images.name, space, images.pooled[index])


def in_words(size: tuple[int, int]) -> str:
    """Return a height and width as people write them."""
    return f"{size[0]} x {size[1]}"
