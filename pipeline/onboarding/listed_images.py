"""A category's images as its settings have them: its layout's, page by page, some left out.

And which of them stay together on one side of training and calibration.
"""

import posixpath
from collections.abc import Sequence
from dataclasses import replace

from pipeline import storage
from pipeline.catalogue.catalogue import Category
from pipeline.datasets.bursts import BurstColumn, bursts, bursts_of_column, read_column
from pipeline.datasets.layouts import LayoutError, Listing, read_layout
from pipeline.datasets.samples import of_split
from pipeline.images.page_numbers import file_and_page
from pipeline.onboarding.page_samples import page_samples


def list_images(category: Category) -> Listing:
    """Return a category's images; those of `exclude` are left out, and it is said how many.

    Raises:
        LayoutError: the images do not lie as they must, or none is left to train on.
        StorageError: they, or the file of `exclude`, cannot be read.
    """
    listing = read_layout(category.layout, category.images, category.group_column)
    samples = page_samples(category, listing.samples)
    excluded = excluded_uris(category)
    kept = [sample for sample in samples if sample.uri not in excluded]
    if not of_split(kept, "train"):
        raise LayoutError(
            f"{category.name}: `exclude` leaves out all {len(of_split(samples, 'train'))} training "
            f"images; leave out fewer."
        )
    num_left_out = len(samples) - len(kept)
    left_out = [f"exclude: {num_left_out} images left out"] if num_left_out else []
    return replace(listing, samples=kept, findings=(*listing.findings, *left_out))


def stay_together(category: Category, uris: Sequence[str], hashes: Sequence[str]) -> list[str]:
    """Return a digest of what each image stays together with, by the category's `group`.

    Raises:
        StorageError, ManifestError: a manifest's column says so, and it cannot be read.
    """
    if not isinstance(category.group, BurstColumn):
        return bursts(category.group, uris, hashes)
    files = [file_and_page(uri, category.pages)[0] for uri in uris]
    return bursts_of_column(read_column(category.images, category.group), files, hashes)


def excluded_uris(category: Category) -> frozenset[str]:
    """Return the addresses of `exclude`; a file's relative ones start at the file.

    Raises:
        StorageError: the file cannot be read.
    """
    if not isinstance(category.exclude, str):
        return frozenset(category.exclude or ())
    folder = posixpath.dirname(category.exclude)
    lines = storage.read_bytes(category.exclude).decode(errors="replace").splitlines()
    return frozenset(storage.absolute(line.strip(), folder) for line in lines if line.strip())
