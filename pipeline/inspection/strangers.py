"""Images that look like another category's.

An image is reported where it is unusual among its own and usual among another's: either alone is
no news.

Shapes: N images, F values of each, U unusual ones of them, K categories.
"""

from collections.abc import Sequence

import numpy as np

from pipeline.inspection.category_summary import TINY, CategorySummary, Floats
from pipeline.inspection.found import Found, Line, line_of
from pipeline.inspection.robust_tail import beyond

RATE = 0.01  # of categories without a stranger in which any image is unusual enough


def strangers(
    pooled_NF: Floats, own: CategorySummary, others: Sequence[CategorySummary]
) -> list[tuple[int, str]]:
    """Return images that look like another category, with its name; the most unusual first.

    Summaries of another space are left out.
    """
    distances_N = own.distances(pooled_NF)
    unusual = np.flatnonzero(beyond(np.log(np.maximum(distances_N, TINY)), RATE))
    names = nearest_others(pooled_NF[unusual], own, others)
    order = np.argsort(-distances_N[unusual], kind="stable")
    return [(int(unusual[place]), name) for place in order if (name := names[place])]


def nearest_others(
    pooled_UF: Floats, own: CategorySummary, others: Sequence[CategorySummary]
) -> list[str | None]:
    """Return for each image the category among whose images it is usual; None: it is in none."""
    compared = [each for each in others if each.space == own.space and each.name != own.name]
    if not compared or not len(pooled_UF):
        return [None] * len(pooled_UF)
    relative_KU = np.stack([each.distances(pooled_UF) / each.usual for each in compared])
    nearest_U = relative_KU.argmin(axis=0)
    return [
        compared[nearest].name if relative_KU[nearest, place] <= 1 else None
        for place, nearest in enumerate(nearest_U)
    ]


def line_of_strangers(found: Sequence[tuple[str, str]]) -> Line:
    """Return the line of images, the most unusual first, with the category each looks like."""
    return line_of(
        "another category",
        [Found(uri=uri, because=f"looks like {other}") for uri, other in found],
        "images that look like another category's",
        "Move them there, or leave them out with `exclude`.",
    )
