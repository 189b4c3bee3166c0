"""Where a night's values lie among calibration values, and their medians, for many categories.

Values arrive a batch at a time, mixed over all categories, and only counts are kept: memory does
not grow with the night. A float32 is compared through the integer of the same order, below the
number of its category, so that one sorted array holds the calibration values of all of them.

Shapes: N values of a batch, n calibration values of one category.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

DROPPED_BITS = 12  # of 32: medians are true to a 4,096th of themselves
MAX_PENDING = 2_000_000


class RankCounts:
    """How many values lie at and between the calibration values of each category.

    A category with n of them has 2n + 1 cells: with ``a`` below a value and ``b`` at most as high
    as it, the value is counted in cell a + b. Where no two calibration values are equal, even
    cells are the gaps between them and odd cells the values themselves.
    """

    def __init__(self, references: Sequence[NDArray[np.float32]]) -> None:
        """Take each category's calibration values, ascending."""
        sizes = np.array([len(values) for values in references], np.int64)
        numbers = np.repeat(np.arange(len(references)), sizes)
        values = np.concatenate([np.zeros(0, np.float32), *references])
        self._keys = _keys(numbers, values)
        self._starts = np.concatenate([[0], np.cumsum(2 * sizes + 1)])
        self._counts = np.zeros(self._starts[-1], np.int64)

    def add(self, categories: NDArray[np.integer], values: NDArray[np.float32]) -> None:
        """Count values (N,) of the categories with these numbers (N,)."""
        keys = _keys(categories, values)
        cells = categories + np.searchsorted(self._keys, keys, "left")
        cells += np.searchsorted(self._keys, keys, "right")
        np.add.at(self._counts, cells, 1)

    def of(self, category: int) -> NDArray[np.int64]:
        """Return one category's cells, (2n + 1,)."""
        return self._counts[self._starts[category] : self._starts[category + 1]]


class StreamingMedians:
    """Medians by category, from the leading bits of their values.

    Memory grows with the range of the values, at most 2,048 cells for each factor of two.
    """

    def __init__(self) -> None:
        self._keys = np.zeros(0, np.uint64)
        self._counts = np.zeros(0, np.int64)
        self._pending: list[tuple[NDArray[np.uint64], NDArray[np.int64]]] = []
        self._num_pending = 0

    def add(self, categories: NDArray[np.integer], values: NDArray[np.float32]) -> None:
        """Count values (N,) of the categories with these numbers (N,)."""
        keys = _keys(categories, values) >> np.uint64(DROPPED_BITS)
        pending = np.unique(keys, return_counts=True)
        self._pending.append(pending)
        self._num_pending += len(pending[0])
        if self._num_pending > MAX_PENDING:
            self._merge()

    def of_all(self) -> dict[int, float]:
        """Return the medians by category; one without a value is left out."""
        self._merge()
        numbers = self._keys >> np.uint64(32 - DROPPED_BITS)
        present, starts = np.unique(numbers, return_index=True)
        ends = np.append(starts, len(numbers))[1:]
        levels = _values(self._keys << np.uint64(DROPPED_BITS) | np.uint64(1 << DROPPED_BITS - 1))
        medians = {}
        for number, start, end in zip(present.tolist(), starts, ends, strict=True):
            reached = np.cumsum(self._counts[start:end])
            middle = np.array([(reached[-1] - 1) // 2, reached[-1] // 2])
            cells = start + np.searchsorted(reached, middle, "right")
            medians[number] = float(levels[cells].astype(np.float64).mean())
        return medians

    def _merge(self) -> None:
        keys = np.concatenate([self._keys, *(keys for keys, _ in self._pending)])
        counts = np.concatenate([self._counts, *(counts for _, counts in self._pending)])
        self._keys, cells = np.unique(keys, return_inverse=True)
        self._counts = np.bincount(cells, counts, len(self._keys)).astype(np.int64)
        self._pending, self._num_pending = [], 0


def _keys(categories: NDArray[np.integer], values: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Return integers in the order of (category, value)."""
    bits = (values + np.float32(0)).view(np.uint32)  # -0.0 is 0.0
    ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    keys: NDArray[np.uint64] = categories.astype(np.uint64) << np.uint64(32) | ordered
    return keys


def _values(keys: NDArray[np.uint64]) -> NDArray[np.float32]:
    """Return the values of keys, whatever their category."""
    ordered = keys.astype(np.uint32)  # drops the category
    bits = np.where(ordered >> 31, ordered & np.uint32((1 << 31) - 1), ~ordered)
    return bits.astype(np.uint32).view(np.float32)
