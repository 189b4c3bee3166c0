"""Detection and localisation metrics: exact, from one sort, without a loop over thresholds.

Shapes: N images, H x W pixels, K distinct scores among the positives (defective images or pixels).
Scores have any unit; higher is more anomalous. Rates and areas are shares in [0, 1].

Every area here is a sum over positives. A positive with score s raises the curve by its weight
while the false-positive rate runs from f0 (negatives above s) to f1 (negatives at or above s): a
straight line, since tied scores cannot be told apart. Its part of the area up to a limit L is a
closed form in f0, f1 and L, and the sum is the trapezoid over all score levels, without error.
So only the negatives are sorted (values, no indices) and the few positives looked up in them:
seconds and one copy of the maps (160 MB, float32) for 800 maps of 224 x 224.

Rule for the undefined: when positives or negatives are missing there is no curve; the metric is
None (null in JSON), never 0, 1 or NaN.

Source: PRO, Bergmann et al. 2020 (arXiv:1911.02357), section 5.1; average precision as in
scikit-learn (a step function, not interpolated); Clopper and Pearson 1934.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from model.errors import CategoryFault

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]
Weights = NDArray[np.float64]

EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)


class NotANumber(CategoryFault):
    """A score or an anomaly map holds NaN."""


@dataclass(frozen=True, kw_only=True)
class ImageMetrics:
    """Detection quality over a test set; None when it holds only good or only defective images."""

    auroc: float | None = None
    average_precision: float | None = None
    f1_max: float | None = None  # best F1 over all thresholds: an oracle's, not an operator's


@dataclass(frozen=True, kw_only=True)
class PixelMetrics:
    """Localisation quality over all test pixels pooled; None when all or no pixels are defect."""

    auroc: float | None = None
    average_precision: float | None = None
    aupro_30: float | None = None  # per-region overlap up to a false-positive rate of 0.3
    aupro_05: float | None = None  # the same up to 0.05
    num_regions: int = 0


@dataclass(frozen=True)
class Curve:
    """Vertices of a rising polyline from (0, 0) to (1, 1)."""

    false_positive_rate: NDArray[np.float64]
    gain: NDArray[np.float64]  # true-positive rate (ROC) or mean per-region overlap (PRO)


@dataclass(frozen=True)
class PixelCurves:
    """ROC and PRO of the same pixels; None when no mask marks a pixel."""

    roc: Curve | None = None
    pro: Curve | None = None


@dataclass(frozen=True, kw_only=True)
class Share:
    """A counted share with its Clopper-Pearson interval (95 %)."""

    count: int
    total: int
    value: float | None  # None when total is 0; the interval is then (0, 1)
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class RealisedRates:
    """What a threshold did on labelled images."""

    false_alarm_rate: Share  # good images flagged
    recall: Share  # defective images flagged


@dataclass(frozen=True)
class _Ranking:
    """Distinct scores of the positives from high to low, placed among the negatives."""

    above: NDArray[np.int64]  # (K,) negatives above the level
    reached: NDArray[np.int64]  # (K,) negatives at or above it
    num_negatives: int
    count: NDArray[np.int64]  # (K,) positives at the level
    weight: Weights  # (K,) the sum of their weights


def image_metrics(scores: Floats, defective: Bools) -> ImageMetrics:
    """Image AUROC, average precision and best F1 of scores and labels, (N,) each."""
    ranking = _rank(scores, defective)
    if ranking is None:
        return ImageMetrics()
    return ImageMetrics(
        auroc=_area(ranking, ranking.count, 1.0),
        average_precision=_average_precision(ranking),
        f1_max=_f1_max(ranking),
    )


def pixel_metrics(maps: Floats, masks: Bools) -> PixelMetrics:
    """Pixel AUROC and average precision, and AUPRO at the two usual limits.

    A region is an 8-connected component of one mask and counts the same whatever its size. AUPRO is
    divided by its limit, so 1 is perfect; the curve is cut exactly at the limit. Maps and masks are
    (N, H, W), good images included, whose masks are all False.
    """
    weight, num_regions = region_weights(masks)
    ranking = _rank(maps, masks, weight)
    if ranking is None:
        return PixelMetrics(num_regions=num_regions)
    return PixelMetrics(
        auroc=_area(ranking, ranking.count, 1.0),
        average_precision=_average_precision(ranking),
        aupro_30=_area(ranking, ranking.weight, 0.3),
        aupro_05=_area(ranking, ranking.weight, 0.05),
        num_regions=num_regions,
    )


def image_curve(scores: Floats, defective: Bools, max_points: int = 500) -> Curve | None:
    """ROC over images, shapes (N,); at most ``max_points`` vertices, each on the exact curve."""
    ranking = _rank(scores, defective)
    return None if ranking is None else _curve(ranking, ranking.count, max_points)


def pixel_curves(maps: Floats, masks: Bools, max_points: int = 500) -> PixelCurves:
    """ROC and PRO over pixels, shapes (N, H, W); thinned like ``image_curve``."""
    ranking = _rank(maps, masks, region_weights(masks)[0])
    if ranking is None:
        return PixelCurves()
    roc = _curve(ranking, ranking.count, max_points)
    return PixelCurves(roc=roc, pro=_curve(ranking, ranking.weight, max_points))


def realised_rates(flagged: Bools, defective: Bools) -> RealisedRates:
    """False-alarm rate and recall of decisions, both of shape (N,).

    ``flagged`` should come from ``Calibration.flagged``, so that one comparison decides everywhere.
    """
    return RealisedRates(
        false_alarm_rate=_share(flagged[~defective]), recall=_share(flagged[defective])
    )


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact binomial interval (low, high) of a share; (0, 1) when there were no trials."""
    tail = (1 - confidence) / 2
    misses = trials - successes
    low = special.betaincinv(successes, misses + 1, tail) if successes else 0.0
    high = special.betaincinv(successes + 1, misses, 1 - tail) if misses else 1.0
    return float(low), float(high)


def region_weights(masks: Bools) -> tuple[Weights, int]:
    """Weight of each defect pixel in the mean per-region overlap, and the number of regions.

    Returns:
        Weights 1 / (area of its region x number of regions), in the order of ``maps[masks]``.
    """
    from scipy import ndimage  # noqa: PLC0415  half a second to import, for masks alone

    areas = [np.empty(0, dtype=np.int64)]
    num_regions = 0
    for mask in masks[masks.any(axis=(1, 2))]:
        labels, found = ndimage.label(mask, structure=EIGHT_NEIGHBOURS)
        areas.append(np.bincount(labels.ravel())[labels[mask]])
        num_regions += found
    return 1.0 / (np.concatenate(areas) * max(num_regions, 1)), num_regions


def _share(flagged: Bools) -> Share:
    count, total = int(flagged.sum()), len(flagged)
    low, high = clopper_pearson(count, total)
    return Share(
        count=count, total=total, value=count / total if total else None, low=low, high=high
    )


def _rank(scores: Floats, positive: Bools, weight: Weights | None = None) -> _Ranking | None:
    """Place the positives among the negatives; None when either is missing."""
    negatives = scores[~positive]
    levels, level_of = np.unique(scores[positive], return_inverse=True)
    if not len(levels) or not len(negatives):
        return None
    negatives.sort()
    if np.isnan(levels[-1]) or np.isnan(negatives[-1]):  # NaN sorts last
        raise NotANumber("scores hold NaN; need numbers. Train this category's model again.")
    levels = levels[::-1]
    return _Ranking(
        above=len(negatives) - np.searchsorted(negatives, levels, side="right"),
        reached=len(negatives) - np.searchsorted(negatives, levels, side="left"),
        num_negatives=len(negatives),
        count=np.bincount(level_of)[::-1],
        weight=np.bincount(level_of, weights=weight).astype(np.float64)[::-1],
    )


def _area(ranking: _Ranking, gain: NDArray[np.number], limit: float) -> float:
    """Mean height, from 0 to ``limit``, of the curve that rises by ``gain`` at each level."""
    start = ranking.above / ranking.num_negatives
    end = ranking.reached / ranking.num_negatives
    rising = np.minimum(end, limit) - np.minimum(start, limit)
    slanted = rising**2 / (2 * np.where(end > start, end - start, 1))
    return float(gain @ (np.maximum(limit - end, 0) + slanted) / gain.sum()) / limit


def _average_precision(ranking: _Ranking) -> float:
    found = ranking.count.cumsum()
    return float(ranking.count @ (found / (found + ranking.reached))) / int(found[-1])


def _f1_max(ranking: _Ranking) -> float:
    found = ranking.count.cumsum()
    return float((2 * found / (found + ranking.reached + found[-1])).max())


def _curve(ranking: _Ranking, gain: NDArray[np.number], max_points: int) -> Curve:
    """Vertices evenly spread along the curve: x + y only grows, so it measures the way."""
    total = gain.cumsum() / gain.sum()
    x = np.column_stack([ranking.above, ranking.reached]).ravel() / ranking.num_negatives
    y = np.column_stack([np.append(0, total[:-1]), total]).ravel()
    x, y = np.concatenate([[0], x, [1]]), np.concatenate([[0], y, [1]])
    wanted = np.searchsorted(x + y, np.linspace(0, 2, max_points))
    kept = np.unique(np.minimum(wanted, len(x) - 1))
    return Curve(false_positive_rate=x[kept], gain=y[kept])
