"""What only a look at all categories tells: images that are in two, or look like another's.

Memory holds a summary of each category and 16 bytes of each image; the rest waits in files of a
temporary folder, so a thousand categories take as much as ten.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data_report.category_reading import Reading
from pipeline.inspection.category_summary import CategorySummary
from pipeline.inspection.found import Found, Line, line_of
from pipeline.inspection.strangers import line_of_strangers, strangers
from pipeline.inspection.training_summary import summary_of

MANY_COPIES = 1_000  # of a category: named one by one up to here

Numbers = NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """One category, for the second look."""

    name: str
    contents: Numbers  # (N,), the first 8 bytes of each image's digest
    shown: Numbers  # (N,), likewise of its fingerprint's; 0 where there is none
    summary: CategorySummary | None  # None where there are too few images for one


class AcrossCategories:
    """Takes readings one by one, then says what they have in common."""

    def __init__(self, folder: Path) -> None:
        """Keep files in a folder that somebody else removes."""
        self.folder = folder
        self._kept: list[_Kept] = []

    def add(self, reading: Reading) -> None:
        """Take a category."""
        images = reading.images
        index = images.trained_on
        pooled = images.pooled[index] if images.pooled.size else images.pooled
        uris = np.array(images.uris, dtype=np.str_)
        file = self._file(len(self._kept))
        np.savez(file, uris=uris, index=index, pooled=pooled.astype(np.float16))
        self._kept.append(
            _Kept(
                name=images.name,
                contents=_numbers([read.sha256 for read in images.reads]),
                shown=_numbers([_digest(read.fingerprint) for read in images.reads]),
                summary=summary_of(images, reading.space),
            )
        )

    def lines(self) -> Iterator[tuple[str, list[Line]]]:
        """Yield the lines of every category that was taken, by its name."""
        copies = self._copies()
        summaries = [each.summary for each in self._kept if each.summary]
        for place, kept in enumerate(self._kept):
            with np.load(self._file(place)) as stored:
                uris, index = stored["uris"], stored["index"]
                pooled = stored["pooled"].astype(np.float32)
            alike = strangers(pooled, kept.summary, summaries) if kept.summary else []
            yield (
                kept.name,
                [
                    line_of(
                        "across categories",
                        self._shared(uris, copies.get(place, [])),
                        "images that are in another category too",
                        "Remove them from the category that they do not belong to.",
                    ),
                    line_of_strangers([(str(uris[index[row]]), other) for row, other in alike]),
                ],
            )

    def _copies(self) -> dict[int, list[tuple[int, int, int]]]:
        """Return by category (image, other category, other image) of what another has too."""
        found: dict[int, list[tuple[int, int, int]]] = {}
        for numbers in ([k.contents for k in self._kept], [k.shown for k in self._kept]):
            told = {place: {image for image, *_ in each} for place, each in found.items()}
            for place, image, other, twin in _in_several(numbers):
                if image not in told.get(place, ()):
                    found.setdefault(place, []).append((image, other, twin))
        return found

    def _shared(self, uris: NDArray[np.str_], copies: list[tuple[int, int, int]]) -> list[Found]:
        found, opened = [], dict[int, NDArray[np.str_]]()
        for image, other, twin in copies[:MANY_COPIES]:
            if other not in opened:
                with np.load(self._file(other)) as stored:
                    opened = {other: stored["uris"]}
            found.append(
                Found(
                    uri=str(uris[image]),
                    because=f"the same image is in {self._kept[other].name}",
                    beside=str(opened[other][twin]),
                )
            )
        return found

    def _file(self, place: int) -> Path:
        return self.folder / f"{place}.npz"


def _in_several(numbers: list[Numbers]) -> Iterator[tuple[int, int, int, int]]:
    """Yield category, image, another category and its image wherever two have the same number."""
    total = np.concatenate([np.zeros(0, np.uint64), *numbers])
    owner = np.repeat(np.arange(len(numbers)), [len(each) for each in numbers])
    within = np.concatenate([np.zeros(0, np.int64), *(np.arange(len(each)) for each in numbers)])
    order = np.lexsort((within, owner, total))
    order = order[total[order] > 0]
    numbered = total[order]
    ends = np.append(np.flatnonzero(numbered[1:] != numbered[:-1]) + 1, len(order))
    ends = ends[: len(order)]  # none of nothing
    starts = np.concatenate([[0], ends])[: len(ends)]
    several = owner[order[starts]] != owner[order[ends - 1]]
    for start, end in zip(starts[several], ends[several], strict=True):
        group = order[start:end]
        for place in group:
            other = group[0] if owner[group[0]] != owner[place] else group[-1]
            yield int(owner[place]), int(within[place]), int(owner[other]), int(within[other])


def _digest(fingerprint: str) -> str:
    return hashlib.sha256(fingerprint.encode()).hexdigest() if fingerprint else ""


def _numbers(digests: list[str]) -> Numbers:
    return np.array([int(digest[:16] or "0", 16) for digest in digests], dtype=np.uint64)
