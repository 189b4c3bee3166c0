"""The gate: may a challenger take a champion's place? From counts to a verdict, and why.

Both have scored the same images, none of which was chosen by its score. Where they flag alike,
nobody is better. Where one of them flags alone, a label decides: a defect is won by who flags it, a
good image by who does not.

Where they differ on an image without a label, it counts against the challenger in every test that
could promote it, and for it in every test that could refuse it. So these labels may be missing in
whatever pattern, and a verdict that is reached holds whatever they would say.

False alarms are a share of the images taken for good. Those are the labelled good ones, and those
without a label that not both flag: a defect that neither flags and nobody has labelled is among
them. Where such defects are a share d of the images taken for good, a rise by the margin among
these is one by margin / (1 - d) among the good ones, and the promise holds for that.

PROMOTE: more of the defects are found (McNemar, exact), and false alarms are more by less than
the margin (Tango). KEEP: defects are lost; or false alarms are more, and either no more defects are
found or the rise seen is the margin or beyond. Otherwise NEEDS LABELS.

The promise: a challenger that finds no more defects, or has more false alarms by the margin, is
promoted with probability ``level`` at most, over all looks at its growing evidence. A look without
a label of an image on which they differ is none. KEEP changes nothing and promises nothing over all
looks: each time it is judged at the whole ``level``, so that a later look at the same labels undoes
none.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from pipeline.promotion.paired_tests import better_p, level_of_look, not_worse_p

LEVEL = 0.05


class GateVerdict(StrEnum):
    """What the gate says."""

    PROMOTE = "PROMOTE"
    KEEP = "KEEP"
    NEEDS_LABELS = "NEEDS LABELS"


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    """What the gate promises."""

    margin: float  # by which the share of good images that are flagged may rise, in (0, 1)
    level: float = LEVEL  # probability of a false promotion, in (0, 0.5)

    def __post_init__(self) -> None:
        if not 0 < self.margin < 1:
            raise ValueError(f"the margin must be in (0, 1), got {self.margin}")
        if not 0 < self.level < 0.5:
            raise ValueError(f"the level must be in (0, 0.5), got {self.level}")


@dataclass(frozen=True, kw_only=True)
class Tally:
    """The images that both have scored, counted."""

    images: int
    defects: int  # labelled
    goods: int  # labelled
    defects_gained: int  # flagged by the challenger alone
    defects_lost: int  # flagged by the champion alone
    goods_more: int  # flagged by the challenger alone
    goods_fewer: int  # flagged by the champion alone
    open_gained: int  # without a label, flagged by the challenger alone
    open_lost: int  # without a label, flagged by the champion alone
    open_alike: int  # without a label, flagged by both

    @property
    def taken_for_good(self) -> int:
        """Images among which false alarms are counted: but those known or likely to be defects.

        A defect that neither flags and nobody has labelled is among them.
        """
        return self.images - self.defects - self.open_alike

    @property
    def rise(self) -> float:
        """By how much more of the images taken for good the challenger flags, as far as is known.

        Without a label counts for the challenger.
        """
        more = self.goods_more - self.goods_fewer - self.open_lost
        return more / self.taken_for_good if self.taken_for_good else 0.0

    @property
    def num_told(self) -> int:
        """Images on which they differ that have a label."""
        return self.defects_gained + self.defects_lost + self.goods_more + self.goods_fewer


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A verdict with the numbers that led to it."""

    verdict: GateVerdict
    reason: str
    level: float  # of a promotion at this look
    better_p: float  # finds no more defects, every open image against the challenger
    not_worse_p: float  # false alarms are more by the margin, likewise
    fewer_found_p: float  # finds no fewer defects, every open image for the challenger
    more_alarms_p: float  # has no more false alarms, likewise


def count(
    champion_N: NDArray[np.bool_], challenger_N: NDArray[np.bool_], labels_N: NDArray[np.str_]
) -> Tally:
    """Count images by who flags them and what people say of them.

    Args:
        champion_N: whether the champion flags an image.
        challenger_N: whether the challenger does.
        labels_N: good, defect, or empty for none.
    """
    gained, lost = challenger_N & ~champion_N, champion_N & ~challenger_N
    is_good, is_defect = labels_N == "good", labels_N == "defect"
    is_open = ~is_good & ~is_defect

    def number(which: NDArray[np.bool_]) -> int:
        return int(np.count_nonzero(which))

    return Tally(
        images=len(labels_N),
        defects=number(is_defect),
        goods=number(is_good),
        defects_gained=number(gained & is_defect),
        defects_lost=number(lost & is_defect),
        goods_more=number(gained & is_good),
        goods_fewer=number(lost & is_good),
        open_gained=number(gained & is_open),
        open_lost=number(lost & is_open),
        open_alike=number(champion_N & challenger_N & is_open),
    )


def judge(tally: Tally, config: GateConfig, look: int = 1) -> Judgement:
    """Say whether the challenger takes the champion's place.

    Args:
        tally: of images that were not chosen by their scores.
        config: margin and level.
        look: how often this challenger's growing evidence was judged, this time included.
    """
    t, level = tally, level_of_look(config.level, look)
    better = better_p(t.defects_gained, t.defects_lost + t.open_lost)
    not_worse = not_worse_p(
        t.goods_more + t.open_gained, t.goods_fewer, t.taken_for_good, config.margin
    )
    fewer_found = better_p(t.defects_lost, t.defects_gained + t.open_gained)
    more_alarms = better_p(t.goods_more, t.goods_fewer + t.open_lost)
    if better <= level and not_worse <= level:
        verdict, reason = GateVerdict.PROMOTE, _promoted(t, config)
    elif fewer_found <= config.level:
        verdict, reason = GateVerdict.KEEP, f"it misses defects: {_defects(t)}"
    elif more_alarms <= config.level and not (better <= config.level and t.rise < config.margin):
        verdict, reason = GateVerdict.KEEP, f"it has more false alarms: {_alarms(t)}"
    else:
        verdict, reason = GateVerdict.NEEDS_LABELS, _missing(t, config, level)
    return Judgement(
        verdict=verdict,
        reason=reason,
        level=level,
        better_p=better,
        not_worse_p=not_worse,
        fewer_found_p=fewer_found,
        more_alarms_p=more_alarms,
    )


def _defects(tally: Tally) -> str:
    return (
        f"of {tally.defects} labelled defects it alone flags {tally.defects_gained}, the champion "
        f"alone {tally.defects_lost}"
    )


def _alarms(tally: Tally) -> str:
    return (
        f"of {tally.taken_for_good} images taken for good it alone flags {tally.goods_more}, the "
        f"champion alone {tally.goods_fewer}"
    )


def _promoted(tally: Tally, config: GateConfig) -> str:
    return (
        f"it finds more defects ({_defects(tally)}) and false alarms are more by less than "
        f"{config.margin:g} ({_alarms(tally)})"
    )


def _missing(tally: Tally, config: GateConfig, level: float) -> str:
    """What would decide, as far as labels of the images at hand can."""
    num_open = tally.open_gained + tally.open_lost
    at_best = better_p(tally.defects_gained + tally.open_gained, tally.defects_lost)
    alarms = not_worse_p(
        tally.goods_more, tally.goods_fewer + tally.open_lost, tally.taken_for_good, config.margin
    )
    said = _defects(tally)
    if at_best <= level and alarms <= level:
        return f"{said}; labels of {num_open} images on which they differ can decide"
    more = " more nights (--nights, --images), or whole dumps with labels"
    if at_best <= level:
        return (
            f"{said}; among {tally.taken_for_good} images taken for good a rise of false alarms by "
            f"{config.margin:g} cannot be ruled out: it takes{more}"
        )
    return (
        f"{said}; too few defects on which they differ to tell them apart, whatever the {num_open} "
        f"images without a label are: it takes{more}"
    )
