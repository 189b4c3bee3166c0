"""A bank of anomalous images from anywhere, that a detector learns from: `anomalies:`."""

import logging
from dataclasses import replace

import numpy as np

from model.errors import CategoryFault
from model.preprocessing import Preprocessing
from pipeline import storage
from pipeline.datasets.bank_files import refuse_unfinished
from pipeline.datasets.samples import ImageNames
from pipeline.images.batches import read_all
from pipeline.onboarding.synthetic import Pixels

logger = logging.getLogger(__name__)


class NoAnomalies(CategoryFault):
    """A bank of anomalous images has none that can be read."""


def read_bank(category: str, uri: str, preprocessing: Preprocessing, most: int) -> list[Pixels]:
    """Return images below a folder, at any depth, each stretched to the size of the crop.

    Of more than ``most`` some are drawn, the same in every run.

    Raises:
        NoAnomalies: there is no image, or none can be read.
        UnfinishedBank: it is one of ours, and some images are missing.
    """
    refuse_unfinished(category, uri)
    try:
        names = ImageNames.below(uri).images
    except storage.ObjectMissing:
        names = []
    whole = replace(preprocessing, fit="stretch")  # whatever is cut out of the good ones
    order = np.random.default_rng(0).permutation(len(names))[:most]
    reads = list(read_all([storage.join(uri, names[i]) for i in sorted(order)], whole))
    images = [read.pixels for read in reads if read.pixels is not None]
    unread = [read for read in reads if read.pixels is None]
    if unread:
        logger.warning(
            "%s: %d of %d anomalous images cannot be read, first %s (%s)",
            *(category, len(unread), len(reads), unread[0].uri, unread[0].error),
        )
    if not images:
        first = f" (first: {unread[0].uri}, {unread[0].error})" if unread else ""
        raise NoAnomalies(
            f"{category}: anomalies: {uri} holds {len(names)} images, and none of them can be "
            f"read{first}. Let it name a folder of images, or leave it out: anomalies are then "
            f"made of the good images."
        )
    return images
