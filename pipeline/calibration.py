"""Calibration: which images set the threshold, the threshold, and the p-value of a score.

Scores have any unit; higher is more anomalous. They are float32, here as in the result rows, so
that a decision never depends on where it was made.

The guarantee (``split_by_content`` + ``fit``): if a new good image is exchangeable with the
held-out ones, it is flagged with probability at most the false-alarm rate, whatever the head and
the distribution. It is an average over calibrations: of one category with n held-out images the
realised rate scatters as Beta(n + 1 - k, k), k = ceil((n + 1)(1 - rate)).

With ``method: cross`` every good image trains, and each is scored by the one member of the heads
that left it out (``fold_by_content``); what is registered is the mean of the members. Nothing is
held out, so 1 % can be asked of 100 images. There is no guarantee of this kind without stability
of the training (with each score compared by its own member it would be 2 rate + sqrt(2 / n):
Vovk 2015, Ann. Math. Artif. Intell. 74; Barber et al. 2021, arXiv:1905.02928). In practice it
errs towards fewer flags: the highest point of the mean of several maps is at most the mean of
their highest points, and an average wanders less than one member. ``tests/test_cross.py`` measures
the realised rate.

Source: split-conformal prediction, Lei et al. 2018 (arXiv:1604.04173), section 2.2.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from fractions import Fraction
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from model.errors import CategoryFault


class CalibrationError(CategoryFault):
    """Scores or a stored calibration from which no threshold can be taken."""


class TooFewImages(CategoryFault):
    """The asked false-alarm rate cannot be certified; ``needed`` images would do."""

    def __init__(self, message: str, needed: int = 0) -> None:
        super().__init__(message)
        self.needed = needed


Method = Literal["split", "cross"]

# Of ten images on the night's list about one is good. A smaller level would list less than it
# saves: with 99 calibration images it takes a tenth of the night's images to fill a list at 0.1,
# a fifth at 0.05 (pipeline/night/settling/benjamini_hochberg.py).
DEFAULT_FDR = 0.1


@dataclass(frozen=True, kw_only=True)
class CalibrationConfig:
    """How often we accept to bother an operator with a good part."""

    false_alarm_rate: float = 0.01  # share of good images flagged, in (0, 1)
    share: float = 0.2  # least share of the good images to hold out, in (0, 0.5]
    method: Method = "split"  # cross: none is held out, each is scored by who has not seen it
    fdr: float = DEFAULT_FDR  # share of good images among those listed, in (0, 1)

    def __post_init__(self) -> None:
        if not 0 < self.false_alarm_rate < 1:
            raise ValueError(
                f"calibration.false_alarm_rate must be in (0, 1), got {self.false_alarm_rate}"
            )
        if not 0 < self.share <= 0.5:
            raise ValueError(f"calibration.share must be in (0, 0.5], got {self.share}")
        if not 0 < self.fdr < 1:
            raise ValueError(f"calibration.fdr must be in (0, 1), got {self.fdr}")

    @property
    def min_images(self) -> int:
        """Fewest held-out good images for which the target rate can be certified."""
        return math.ceil(1 / _exact(self.false_alarm_rate)) - 1


class Part(IntEnum):
    """Where a good image goes."""

    TRAIN = 0
    CALIBRATION = 1
    DUPLICATE = 2  # another copy of an image that is already on one side; used nowhere
    SUSPECT = 3  # left out as a suspected defect; used nowhere
    LEFT_OUT = 4  # left out for what its label says; used nowhere


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Held-out good images' scores and the threshold they give. Made by ``fit``."""

    scores: tuple[float, ...]  # ascending, each a float32 value
    false_alarm_rate: float
    threshold: float  # in the unit of the scores; one of them
    fdr: float = (
        DEFAULT_FDR  # level of the night's list, see pipeline/night/settling/benjamini_hochberg.py
    )

    def flagged(self, scores: NDArray[np.floating]) -> NDArray[np.bool_]:
        """True where score > threshold, compared in float32; the same as p-value <= rate."""
        flags: NDArray[np.bool_] = np.asarray(scores, np.float32) > np.float32(self.threshold)
        return flags

    def p_value(self, scores: NDArray[np.floating]) -> NDArray[np.float64]:
        """(1 + calibration scores >= score) / (n + 1), any shape; small means anomalous."""
        below = np.searchsorted(self._sorted, np.asarray(scores, np.float32), side="left")
        num_scores = len(self.scores)
        values: NDArray[np.float64] = (1 + num_scores - below) / (num_scores + 1)
        return values

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; ``from_json`` gives back an equal calibration."""
        return {
            "threshold": self.threshold,
            "false_alarm_rate": self.false_alarm_rate,
            "fdr": self.fdr,
            "calibration_scores": list(self.scores),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Calibration":
        """Read what ``to_json`` wrote; other keys are left alone.

        Raises:
            CalibrationError: the threshold is not the one that the scores and the rate give.
        """
        scores = np.array(data["calibration_scores"], dtype=np.float64)
        rate, fdr = data["false_alarm_rate"], data.get("fdr", DEFAULT_FDR)
        made = fit(scores, CalibrationConfig(false_alarm_rate=rate, fdr=fdr))
        if made.threshold != float(np.float32(data["threshold"])):
            raise CalibrationError(
                f"stored threshold {data['threshold']:g} is not the one of its {len(scores)} "
                f"calibration scores ({made.threshold:g}); onboard the category again."
            )
        return made

    @cached_property
    def _sorted(self) -> NDArray[np.float32]:
        return np.array(self.scores, dtype=np.float32)


def fit(scores: NDArray[np.floating], config: CalibrationConfig) -> Calibration:
    """Smallest threshold whose expected false-alarm rate is at most the target.

    Args:
        scores: image scores of held-out good images, shape (N,). Must not contain training
            images, nor one image twice.
        config: the target rate; its ``share`` plays no role here.

    Raises:
        TooFewImages: N is below ``config.min_images``.
        CalibrationError: a score is not a finite number.
    """
    num_scores = len(scores)
    _refuse_few(num_scores, config)
    ascending = np.sort(np.asarray(scores, dtype=np.float32))
    if not np.isfinite(ascending).all():
        raise CalibrationError(
            f"{np.count_nonzero(~np.isfinite(ascending))} of {num_scores} calibration scores are "
            f"not finite numbers; need all. Train this category's model again."
        )
    k = math.ceil((num_scores + 1) * (1 - _exact(config.false_alarm_rate)))
    return Calibration(
        scores=tuple(ascending.tolist()),
        false_alarm_rate=config.false_alarm_rate,
        threshold=float(ascending[k - 1]),
        fdr=config.fdr,
    )


def split_by_content(
    hashes: Sequence[str], config: CalibrationConfig, bursts: Sequence[str] | None = None
) -> NDArray[np.int8]:
    """Assign each good image to a ``Part``, by its content and never by its order or name.

    The first contents in the order of their hashes are held out: ``config.share`` of them, or as
    many as the rate needs, but never more than half; with method "cross" none of them. Of several
    copies the first stays. A burst is held out as a whole or not at all.

    Args:
        hashes: content digest of each image that could be read, in any order.
        config: the target rate and the least share.
        bursts: digest of what each image stays together with (``datasets/bursts.py``); by default
            each content is for itself.

    Raises:
        TooFewImages: fewer distinct images than ``config.min_images``, or than twice as many
            where half of them must train, or bursts so large that these cannot be held out.
    """
    first = first_copies(hashes)
    contents = sorted(set(hashes))
    if config.method == "cross":
        _refuse_few(len(contents), config)
        return np.where(first, Part.TRAIN, Part.DUPLICATE).astype(np.int8)
    half = len(contents) // 2
    if config.min_images > half:
        raise TooFewImages(
            f"{len(contents)} distinct good images: holding out half of them, {half}, cannot "
            f"certify a false-alarm rate of {config.false_alarm_rate:g}; need at least "
            f"{2 * config.min_images} in all. Collect more images{_or_raise_rate(half)}.",
            2 * config.min_images,
        )
    wanted = math.ceil(_exact(config.share) * len(contents))
    together = _together(hashes, bursts)
    held_out = _held_out(together, max(min(wanted, half), config.min_images), half, config)
    parts = [Part.CALIBRATION if together[each] in held_out else Part.TRAIN for each in hashes]
    return np.where(first, parts, Part.DUPLICATE).astype(np.int8)


def fold_by_content(
    hashes: Sequence[str], num_folds: int, bursts: Sequence[str] | None = None
) -> NDArray[np.int64]:
    """Fold of each image, 0 .. num_folds - 1; copies share a fold, sizes differ by at most one.

    Sizes count distinct contents. Bursts share a fold too: sizes differ by one of them at most.

    Raises:
        TooFewImages: there are fewer bursts than folds.
    """
    together = _together(hashes, bursts)
    num_bursts = len(set(together.values()))
    if bursts is not None and num_bursts < min(num_folds, len(together)):
        raise TooFewImages(
            f"{len(together)} good images to train on are of {num_bursts} bursts, and "
            f"{num_folds} are needed to leave each out in turn. Collect more bursts, or correct "
            f"the pattern in `group`.",
            num_folds,
        )
    sizes, fold_of = [0] * num_folds, {}
    for burst, size in sorted(Counter(together.values()).items()):
        fold_of[burst] = sizes.index(min(sizes))
        sizes[fold_of[burst]] += size
    return np.array([fold_of[together[content]] for content in hashes], dtype=np.int64)


def _together(hashes: Sequence[str], bursts: Sequence[str] | None) -> dict[str, str]:
    """Return the burst of each content, of its first copy where copies are in several."""
    pairs = zip(hashes, hashes if bursts is None else bursts, strict=True)
    return dict(reversed(list(pairs)))


def _held_out(
    together: dict[str, str], wanted: int, most: int, config: CalibrationConfig
) -> set[str]:
    """Return bursts, in the order of their digests, that have ``wanted`` contents together."""
    held_out: set[str] = set()
    count = 0
    for burst, size in sorted(Counter(together.values()).items()):
        if count < wanted and count + size <= most:
            held_out.add(burst)
            count += size
    if count < config.min_images:
        raise TooFewImages(
            f"{len(together)} distinct good images in {len(set(together.values()))} bursts: "
            f"holding out whole bursts, {count} images at most, cannot certify a false-alarm rate "
            f"of {config.false_alarm_rate:g}; need at least {config.min_images}. Collect more "
            f"bursts, or correct the pattern in `group`.",
            config.min_images,
        )
    return held_out


def first_copies(hashes: Sequence[str]) -> NDArray[np.bool_]:
    """True for the first image of each content, shape (N,)."""
    first = np.zeros(len(hashes), dtype=bool)
    first[np.unique(np.array(hashes, dtype=str), return_index=True)[1]] = True
    return first


def _refuse_few(num_images: int, config: CalibrationConfig) -> None:
    if num_images < config.min_images:
        raise TooFewImages(
            f"{num_images} held-out good images cannot certify a false-alarm rate of "
            f"{config.false_alarm_rate:g}; need at least {config.min_images}. "
            f"Collect more images{_or_raise_rate(num_images)}.",
            config.min_images,
        )


def smallest_rate(num_images: int) -> float:
    """Smallest false-alarm rate that so many held-out images certify, rounded up to 3 digits.

    1 means none: without a held-out image no rate below 1 can be certified.
    """
    scale = 10 ** (len(str(num_images + 1)) + 2)
    rate: float = math.ceil(Fraction(scale, num_images + 1)) / scale
    return rate


def _or_raise_rate(num_images: int) -> str:
    rate = smallest_rate(num_images)
    return f" or raise false_alarm_rate to {rate:g}" if rate < 1 else ""


def _exact(number: float) -> Fraction:
    """The decimal number that was written: 100 x (1 - 0.45) is 55, not a bit more."""
    return Fraction(str(float(number)))
