"""What the good images look like before anything is trained, and what becomes of suspects."""

import logging
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from model.errors import CategoryFault
from pipeline.calibration import Part
from pipeline.catalogue.catalogue import Category
from pipeline.checks import Verdict
from pipeline.inspection.category_summary import CategorySummary
from pipeline.inspection.data_checks import SUSPECTS, examine
from pipeline.inspection.found import Line
from pipeline.inspection.image_set import ImageSet
from pipeline.inspection.strangers import line_of_strangers, strangers

logger = logging.getLogger(__name__)


class Contaminated(CategoryFault):
    """Good images look defective, and the category is not to be onboarded with such."""


def inspect_good(images: ImageSet) -> list[Line]:
    """Return the checks of the good images that did not pass."""
    lines = examine(images)
    return [line for line in lines if line.check.verdict is not Verdict.PASS]


def inspect_beside(
    images: ImageSet, own: CategorySummary, others: Sequence[CategorySummary]
) -> list[Line]:
    """Return the line of good images that look like another category's, if there are any.

    Summaries of another space are left out.
    """
    index = images.trained_on
    found = strangers(images.pooled[index], own, others)
    line = line_of_strangers([(images.uris[index[row]], other) for row, other in found])
    return [line] if found else []


def in_words(lines: list[Line]) -> list[str]:
    """Return what a person should know, a sentence each."""
    return [f"{line.check.name}: {line.check.finding}. {line.check.advice}" for line in lines]


def without_suspects(
    category: Category,
    images: ImageSet,
    lines: list[Line],
    parts: NDArray[np.int8],
    confirmed: Collection[str] = (),
) -> NDArray[np.int8]:
    """Return the part of each image (N,), suspects apart where `contamination` says so.

    ``confirmed`` images stay: somebody looked at them and found them good.

    Raises:
        Contaminated: there are suspects, and the category refuses them.
    """
    suspects = next((line for line in lines if line.check.name == SUSPECTS), None)
    used = {uri for uri, part in zip(images.uris, parts, strict=True) if part != Part.LEFT_OUT}
    uris = {found.uri for found in suspects.images} & used - {*confirmed} if suspects else set()
    if suspects is None or not uris or category.contamination == "report":
        return parts
    if category.contamination == "refuse":
        raise Contaminated(
            f"{category.name}: {suspects.check.finding}, and `contamination: refuse`. Look at them "
            f"with `nightshift inspect`; leave defects out with `exclude`, and set `contamination: "
            f"report` where all are good."
        )
    dropped = np.array([uri in uris for uri in images.uris], dtype=bool)
    logger.info("%s: %d suspects left out", category.name, len(uris))
    return np.where(dropped, np.int8(Part.SUSPECT), parts).astype(np.int8)
