"""What files say before anybody looks at pixels: copies, and files unlike the rest."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from pipeline.inspection.found import Found
from pipeline.inspection.image_set import ImageSet

Value = TypeVar("Value", bound=Hashable)

MAJORITY = 0.9  # of the images that share something, for the others to stand out
OTHER_PROPORTIONS = 1.05  # one side over the other, against the rest


def unreadable(image_set: ImageSet) -> list[Found]:
    """Return files that no picture comes out of."""
    return [
        Found(uri=read.uri, because=read.error or read.status.value)
        for read in image_set.unreadable
    ]


def exact_copies(image_set: ImageSet) -> list[Found]:
    """Return files of the same bytes as an earlier one of the same split and label."""
    return [
        Found(uri=image_set.uris[index], because="the same bytes", beside=image_set.uris[first])
        for first, index in _copies(image_set)
        if _place(image_set, first) == _place(image_set, index)
    ]


def in_both_splits(image_set: ImageSet) -> list[Found]:
    """Return training files that are test files too."""
    found = []
    for first, index in _copies(image_set):
        splits = {image_set.samples[first].split, image_set.samples[index].split}
        if len(splits) == 2:
            train, test = sorted(
                (first, index), key=lambda place: image_set.samples[place].split, reverse=True
            )
            label = image_set.samples[train].defect
            found.append(
                Found(
                    uri=image_set.uris[train],
                    because=f"the same bytes, {label} in test",
                    beside=image_set.uris[test],
                )
            )
    return found


def with_two_labels(image_set: ImageSet) -> list[Found]:
    """Return files that are called good in one place and defective in another."""
    return [
        Found(
            uri=image_set.uris[index],
            because=f"{image_set.samples[index].defect} and {image_set.samples[first].defect}",
            beside=image_set.uris[first],
        )
        for first, index in _copies(image_set)
        if image_set.samples[first].defect != image_set.samples[index].defect
    ]


def of_another_size(image_set: ImageSet) -> list[Found]:
    """Return images of another size than nearly all others, or of other proportions."""
    sizes = [read.size for read in image_set.reads]
    found = list(_minority(image_set, sizes, lambda size: f"{size[0]} x {size[1]} pixels"))
    if found or None in sizes or not sizes:
        return found
    ratios = np.array([size[1] / size[0] for size in sizes if size])
    usual = float(np.median(ratios))
    off = np.abs(np.log(ratios / usual))
    if (off > np.log(OTHER_PROPORTIONS)).mean() > 1 - MAJORITY:
        return []
    return [
        Found(
            uri=image_set.uris[index],
            because=f"width over height {ratios[index]:.2f}, the others {usual:.2f}",
        )
        for index in np.argsort(-off, kind="stable")
        if off[index] > np.log(OTHER_PROPORTIONS)
    ]


def of_another_mode(image_set: ImageSet) -> list[Found]:
    """Return images whose pixels are coded unlike nearly all others: grey, colours, bits."""
    modes = [read.mode for read in image_set.reads]
    return list(_minority(image_set, modes, lambda mode: f"mode {mode}"))


def _copies(image_set: ImageSet) -> Iterator[tuple[int, int]]:
    """Yield each image whose content was there before, after the first of that content."""
    first: dict[str, int] = {}
    for index, content in enumerate(image_set.hashes):
        if content in first:
            yield first[content], index
        else:
            first[content] = index


def _place(image_set: ImageSet, index: int) -> tuple[str, str]:
    sample = image_set.samples[index]
    return sample.split, sample.defect


def _minority(
    image_set: ImageSet, values: Sequence[Value | None], say: Callable[[Value], str]
) -> Iterator[Found]:
    usual, share = _most_common(values)
    if usual is None or share < MAJORITY:
        return
    for index, value in enumerate(values):
        if value != usual and value is not None:
            because = f"{say(value)}, {share:.0%} have {say(usual)}"
            yield Found(uri=image_set.uris[index], because=because)


def _most_common(values: Sequence[Value | None]) -> tuple[Value | None, float]:
    if not values:
        return None, 0.0
    value, count = Counter(values).most_common(1)[0]
    return value, count / len(values)
