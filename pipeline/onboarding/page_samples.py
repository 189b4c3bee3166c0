"""Samples where each page of a file is an image of its own."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from pipeline.catalogue.catalogue import Category
from pipeline.datasets.samples import Sample
from pipeline.images.decode import count_pages
from pipeline.images.page_numbers import page_uri
from pipeline.images.prefetch import read_ahead
from pipeline.storage import StorageError, read_bytes


def page_samples(category: Category, samples: Sequence[Sample]) -> list[Sample]:
    """Return a sample for each page where the category's ``pages`` is "each"; else they stay.

    The masks of a file with several pages have as many, page by page.
    """
    if category.pages != "each":
        return list(samples)
    return [
        page
        for pages in read_ahead(lambda sample: list(_pages(category, sample)), samples)
        for page in pages
    ]


def _pages(category: Category, sample: Sample) -> Iterator[Sample]:
    try:
        num_pages = count_pages(read_bytes(sample.uri), category.preprocessing)
    except StorageError:  # reading it will tell
        num_pages = 1
    if num_pages == 1:
        yield sample
        return
    for number in range(1, num_pages + 1):
        masks = tuple(page_uri(uri, number) for uri in sample.mask_uris)
        yield replace(sample, uri=page_uri(sample.uri, number), mask_uris=masks)
