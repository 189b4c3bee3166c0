"""Discoveries: images of which at most a stated share is good on average.

The threshold promises how many of the good images are flagged; of ten thousand good images 1 % are
a hundred flags, and a person cannot tell whether the night's hundred flags hold a single defect.
Benjamini-Hochberg answers that question: it picks images by their conformal p-values so that the
expected share of good ones among the picked, the discoveries, is at most ``fdr``.

Why it holds: all p-values of a night compare with the same calibration scores and so depend on each
other, but positively (PRDS), which is all that Benjamini-Hochberg needs. The expectation is over
nights and calibrations together; a single night's share scatters. It is a promise for each
category: the discoveries of many put together hold about that share too, but no theorem says so. It
is only as good as the exchangeability behind the p-values: where a category has drifted
(``pipeline/night/settling/drift.py``) its discoveries say nothing.

What it cannot do: n calibration images know no p-value below 1/(n + 1), so of m images there is a
discovery only where m / (fdr (n + 1)) have that value: with n = 99, m = 1,000 and fdr 0.1 at least
100, a tenth of the night. Fewer defects are left to the threshold; ``limit`` says so.

A p-value is k/(n + 1) with k = 1 .. n + 1, so counts per k are all that is needed, however many
images a night has.

Sources: Benjamini and Hochberg 1995 (J. R. Stat. Soc. B 57), Benjamini and Yekutieli 2001 (Ann.
Statist. 29), theorem 1.2; Bates et al. 2023 (arXiv:2104.08279), theorem 2 for conformal p-values.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TIE = 1e-9  # relative: 1 x 10 <= 0.1 x 10 x 10 holds in decimals, whatever binary makes of it


@dataclass(frozen=True, kw_only=True)
class Discoveries:
    """What Benjamini-Hochberg finds in one category's night."""

    fdr: float
    num_images: int  # with a p-value
    num_calibration: int
    num_smallest: int  # images at the smallest p-value there is
    num_discoveries: int
    rank: int  # images with a p-value of at most rank / (num_calibration + 1) are discoveries

    @property
    def p_value(self) -> float | None:
        """Largest p-value of a discovery; None without any."""
        return self.rank / (self.num_calibration + 1) if self.rank else None

    @property
    def num_needed(self) -> int:
        """Fewest images at the smallest p-value that make discoveries of this night."""
        return math.ceil(self.num_images / (self.fdr * (self.num_calibration + 1)) * (1 - TIE))

    @property
    def limit(self) -> str | None:
        """Why there is no discovery, in a sentence with its numbers; None where there is one."""
        if self.num_discoveries or not self.num_images:
            return None
        smallest = 1 / (self.num_calibration + 1)
        known = f"{self.num_calibration:,} calibration images know no p-value below {smallest:.2g}"
        if self.num_needed > self.num_images:
            least = math.ceil(1 / self.fdr * (1 - TIE)) - 1
            return (
                f"{known}, so no image can be a discovery at an fdr of {self.fdr:g}; "
                f"onboard with at least {least:,} or raise fdr."
            )
        return (
            f"{known}, so of {self.num_images:,} images at an fdr of {self.fdr:g} "
            f"{self.num_needed:,} ({self.num_needed / self.num_images:.2g}) must have it before "
            f"there is a discovery; {self.num_smallest:,} have it."
        )


def benjamini_hochberg(counts: NDArray[np.integer], fdr: float) -> Discoveries:
    """Find the discoveries among one category's conformal p-values.

    Args:
        counts: number of images with p-value k / (n + 1), k = 1 .. n + 1, for n calibration
            images, shape (n + 1,).
        fdr: level, in (0, 1).
    """
    num_p_values = len(counts)
    at_most = np.cumsum(counts, dtype=np.int64)
    num_images = int(at_most[-1])
    ranks = np.arange(1, num_p_values + 1)
    passes = ranks * float(num_images) <= fdr * num_p_values * at_most * (1 + TIE)
    passes &= counts > 0  # the last discovery has the p-value of an image
    rank = int(ranks[passes].max(initial=0))
    return Discoveries(
        fdr=fdr,
        num_images=num_images,
        num_calibration=num_p_values - 1,
        num_smallest=int(counts[0]),
        num_discoveries=int(at_most[rank - 1]) if rank else 0,
        rank=rank,
    )


def p_value_ranks(
    p_values: NDArray[np.float64], num_calibration: NDArray[np.integer]
) -> NDArray[np.int64]:
    """Return k of p-values k / (n + 1), for n of each image's category; all shapes (N,)."""
    ranks: NDArray[np.int64] = np.rint(p_values * (num_calibration + 1)).astype(np.int64)
    return ranks
