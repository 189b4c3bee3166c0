"""Settings that a category's good images say, where the catalogue leaves them open."""

from collections.abc import Sequence
from typing import Any

from pipeline.catalogue.catalogue import Category
from pipeline.onboarding.find_crop import with_crop
from pipeline.onboarding.find_range import with_range
from pipeline.onboarding.find_tiles import with_size_of_images

FOUND = ("pixel_range", "crop", "fit", "tiles")


def with_found_settings(category: Category, uris: Sequence[str]) -> Category:
    """Return a category with everything set that its good images say.

    Raises:
        PixelRangeError: the images do not say their range.
    """
    return with_size_of_images(with_crop(with_range(category, uris), uris), uris)


def found_settings(category: Category) -> dict[str, Any]:
    """Return what ``with_found_settings`` may have set."""
    return {name: getattr(category, name) for name in FOUND}
