"""A bank of anomalous images from anywhere, that a detector learns from: `anomalies:`."""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from model.errors import CategoryFault
from pipeline import storage
from pipeline.catalogue.catalogue import Category
from pipeline.datasets.bank_files import refuse_unfinished
from pipeline.datasets.samples import ImageNames, some
from pipeline.images.batches import read_all
from pipeline.images.page_numbers import split_page
from pipeline.onboarding.labelled_images import copies_of
from pipeline.onboarding.synthetic import Pixels

NUM_JUDGING = 48  # images that a finished head is judged by, at most

logger = logging.getLogger(__name__)


class NoAnomalies(CategoryFault):
    """A bank of anomalous images has none that can be learned from."""


@dataclass(frozen=True, kw_only=True)
class AnomalyBank:
    """Anomalous images that were drawn to learn from, in the order of their names."""

    draws: Sequence[int] = ()  # which draw each was
    pixels: Sequence[Pixels] = ()  # of each, (H, W, 3)
    hashes: Sequence[str] = ()  # of all contents, whether or not their pixels are kept
    tests: Sequence[str] = ()  # addresses of test images and copies of them, left out

    def of_first_draws(self, number: int) -> "AnomalyBank":
        """Keep the pixels of ``number`` draws alone."""
        own = [row for row, draw in enumerate(self.draws) if draw < number]
        draws, pixels = [self.draws[row] for row in own], [self.pixels[row] for row in own]
        return replace(self, draws=draws, pixels=pixels)

    @property
    def findings(self) -> list[str]:
        """What a person should know of it."""
        what = "are test images or copies of them, from which nothing is learned"
        tests = self.tests
        return [f"anomalies: {len(tests)} images {what}: {some(tests, 3)}"] if tests else []


def read_bank(category: Category, tests: Collection[str], most: int) -> AnomalyBank:
    """Return images below a category's folder, at any depth, each stretched to the crop's size.

    Of more than ``most`` some are drawn, the same in every run. Those with the content of a test
    image are left out. Without a folder there are none.

    Raises:
        NoAnomalies: there is no image, or none can be learned from.
        UnfinishedBank: it is one of ours, and some images are missing.
    """
    if category.anomalies is None:
        return AnomalyBank()
    folder = category.anomalies
    refuse_unfinished(category.name, folder)
    try:
        names = ImageNames.below(folder).images
    except storage.ObjectMissing:
        names = []
    order = np.random.default_rng(0).permutation(len(names))[:most].tolist()
    draw_of = {storage.join(folder, names[place]): draw for draw, place in enumerate(order)}
    files = {split_page(uri)[0] for uri in tests}
    copies = copies_of(files, draw_of.keys(), storage.look_up({*files, *draw_of}))
    whole = replace(category.preprocessing, fit="stretch")  # whatever is cut out of the good ones
    reads = list(read_all(sorted(draw_of.keys() - copies), whole))
    unread = [read for read in reads if read.pixels is None]
    if unread:
        logger.warning(
            "%s: %d of %d anomalous images cannot be read, first %s (%s)",
            *(category.name, len(unread), len(reads), unread[0].uri, unread[0].error),
        )
    if len(unread) == len(reads):
        why = f"{len(copies)} are test images or copies of them" if copies else ""
        why = f"first: {unread[0].uri}, {unread[0].error}" if unread else why
        raise NoAnomalies(
            f"{category.name}: anomalies: {folder} holds {len(names)} images, and none of them can "
            f"be learned from{f' ({why})' if why else ''}. Let it name a folder of other images, "
            f"or leave it out: anomalies are then made of the good images."
        )
    return AnomalyBank(
        draws=[draw_of[read.uri] for read in reads if read.pixels is not None],
        pixels=[read.pixels for read in reads if read.pixels is not None],
        hashes=[read.sha256 for read in reads if read.pixels is not None],
        tests=sorted(copies),
    )
