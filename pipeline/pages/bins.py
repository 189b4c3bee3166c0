"""Bins of scores that meet at the threshold, so that no bar of a histogram is half flagged.

Shapes: N values, K bins.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def edges_around(threshold: float, width: float, num_below: int, num_above: int) -> Floats:
    """Return the edges of bins of one width, shape (K + 1,); one of them is the threshold."""
    return threshold + width * np.arange(-num_below, num_above + 1, dtype=np.float64)


def count(values: NDArray[np.floating], edges: Floats) -> NDArray[np.int64]:
    """Count (N,) values by bin, shape (K,).

    A bin has its right edge, as a score at the threshold is not flagged. What lies beyond the
    edges counts in the bin at that end.
    """
    num_bins = len(edges) - 1
    bins = np.searchsorted(edges, np.asarray(values, np.float64), side="left") - 1
    return np.bincount(bins.clip(0, num_bins - 1), minlength=num_bins)
