"""Training images that are darker, brighter, less sharp or emptier than the rest, or alike.

An image stands out where it lies beyond what the central part of its category allows for
(``robust_tail.py``) and by as much as a person sees; a category may be dark as a whole.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipeline.inspection.found import Found
from pipeline.inspection.image_set import ImageSet
from pipeline.inspection.near_duplicates import near_neighbours, near_pairs
from pipeline.inspection.robust_tail import beyond

RATE = 0.005  # of sets without a fault in which one check finds any
VISIBLE_STEP = 20.0  # grey levels of the mean
VISIBLE_FACTOR = 0.5  # of contrast or sharpness
NOTHING_TO_SEE = 2.0  # grey levels of the standard deviation

Values = NDArray[np.float64]


def dark(image_set: ImageSet) -> list[Found]:
    """Return images darker than the rest."""
    return _standing_out(image_set, "brightness", lambda v: -v, lambda v, m: m - v >= VISIBLE_STEP)


def bright(image_set: ImageSet) -> list[Found]:
    """Return images brighter than the rest."""
    return _standing_out(image_set, "brightness", lambda v: v, lambda v, m: v - m >= VISIBLE_STEP)


def blurred(image_set: ImageSet) -> list[Found]:
    """Return images less sharp than the rest."""
    return _standing_out(image_set, "sharpness", _falling, lambda v, m: v <= VISIBLE_FACTOR * m)


def flat(image_set: ImageSet) -> list[Found]:
    """Return images that show nothing, or far less than the rest."""
    found = _standing_out(image_set, "contrast", _falling, lambda v, m: v <= VISIBLE_FACTOR * m)
    told = {each.uri for each in found}
    contrast = image_set.statistics["contrast"]
    empty = [i for i in image_set.trained_on if contrast[i] < NOTHING_TO_SEE]
    return found + [
        Found(uri=image_set.uris[index], because=f"contrast {contrast[index]:.1f} grey levels")
        for index in empty
        if image_set.uris[index] not in told
    ]


def near_copies(image_set: ImageSet) -> list[Found]:
    """Return images of other bytes that show the same as an earlier one, in either split."""
    contents = dict(zip(image_set.hashes, range(len(image_set.reads)), strict=True))
    index = np.array(sorted(contents.values()), dtype=np.int64)
    prints = [image_set.reads[place].fingerprint for place in index]
    pairs = near_pairs(prints, image_set.pooled[index])
    return [
        Found(
            uri=image_set.uris[index[image]],
            because=f"fingerprints differ in {bits} of 256 bits{_splits(image_set, index, pair)}",
            beside=image_set.uris[index[pair[1]]],
        )
        for pair in pairs
        for image, _, bits in [pair]
    ]


def in_bursts(image_set: ImageSet) -> list[Found]:
    """Return training images that are much like their neighbours by name, nearest first."""
    index = image_set.trained_on
    names = [image_set.uris[place] for place in index]
    return [
        Found(
            uri=names[image],
            because="much nearer to the image before it than to others",
            beside=names[before],
        )
        for image, before in near_neighbours(names, image_set.pooled[index])
    ]


def _splits(image_set: ImageSet, index: NDArray[np.int64], pair: tuple[int, int, int]) -> str:
    splits = [image_set.samples[index[place]].split for place in pair[:2]]
    return "" if splits[0] == splits[1] else f", {splits[0]} and {splits[1]}"


def _falling(values: Values) -> Values:
    lowered: Values = -np.log(np.maximum(values, 1e-3))
    return lowered


def _standing_out(
    image_set: ImageSet,
    name: str,
    unusual: Callable[[Values], Values],
    is_visible: Callable[[Values, float], NDArray[np.bool_]],
) -> list[Found]:
    """Return training images whose statistic stands out, the furthest first."""
    index = image_set.trained_on
    if not len(index):
        return []
    values = image_set.statistics[name][index].astype(np.float64)
    found = np.flatnonzero(beyond(unusual(values), RATE) & is_visible(values, np.median(values)))
    low, high = np.quantile(values, (0.05, 0.95))
    return [
        Found(
            uri=image_set.uris[index[place]],
            because=f"{name} {values[place]:.3g}, most have {low:.3g} to {high:.3g}",
        )
        for place in found[np.argsort(-unusual(values)[found], kind="stable")]
    ]
