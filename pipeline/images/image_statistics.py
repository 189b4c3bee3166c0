"""Cheap statistics of images as the network sees them: is a night lit and focused as ever?

A lamp that ages, an aperture or a lens out of focus changes every image of a category. The scores
rise and do not say why; these three numbers do. They are made of integers up to their last step,
so an image has the same ones to the bit alone, in any batch and on any machine.

Shapes: B images, H x W pixels, N values.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

STATISTICS = ("brightness", "contrast", "sharpness")
MAX_VALUES = 256  # kept of a statistic: its distribution to 1/256, 3 kB for each category

Values = Mapping[str, tuple[float, ...]]  # by statistic: ascending, each a float32 value


def image_statistics(pixels_BHW3: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """Return brightness, contrast and sharpness by name, (B,) each, in grey levels.

    They are the mean of the luma (0 to 255), its standard deviation, and the mean absolute
    Laplacian of its inner pixels, which falls as edges blur. Images have at least 3 pixels either
    way.
    """
    rows = np.array([_of_one(pixels) for pixels in pixels_BHW3], np.float32)
    columns = rows.reshape(-1, len(STATISTICS)).T
    return {name: column.copy() for name, column in zip(STATISTICS, columns, strict=True)}


def condense(values: NDArray[np.float32]) -> tuple[float, ...]:
    """Return (N,) values in ascending order; of many, MAX_VALUES that are evenly ranked.

    They are the shortest decimals that give the same float32 again, for a file that people read.
    """
    ascending = np.sort(np.asarray(values, np.float32))
    num_kept = min(len(ascending), MAX_VALUES)
    ranks = ((np.arange(num_kept) + 0.5) * len(ascending) / max(num_kept, 1)).astype(np.int64)
    return tuple(float(str(value)) for value in ascending[ranks])


def read_values(data: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
    """Return what a file says of each statistic; what it does not know is left out."""
    known = {name: data[name] for name in STATISTICS if name in data}
    return {name: tuple(sorted(float(value) for value in known[name])) for name in known}


def _of_one(pixels_HW3: NDArray[np.uint8]) -> tuple[float, float, float]:
    """Image by image: one image's luma stays in the cache of a core, a batch's does not."""
    luma = np.asarray(Image.fromarray(pixels_HW3).convert("L"))  # ITU-R 601, rounded
    counts = np.bincount(luma.ravel(), minlength=256)
    levels = np.arange(256)
    num, total = luma.size, int(counts @ levels)
    squares = int(counts @ (levels * levels))
    variance = (num * squares - total * total) / (num * num)  # exact up to the division
    return total / num, variance**0.5, _mean_laplacian(luma.astype(np.int16))


def _mean_laplacian(luma: NDArray[np.int16]) -> float:
    centre = luma[1:-1, 1:-1]
    around = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:]
    return int(np.abs(4 * centre - around).sum(dtype=np.int64)) / centre.size
