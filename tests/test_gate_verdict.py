"""The gate: verdicts by hand, and over a thousand made-up categories what it promises."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.promotion.gate_verdict import (
    GateConfig,
    GateVerdict,
    Judgement,
    Tally,
    count,
    judge,
)

CONFIG = GateConfig(margin=0.01)
NOTHING = dict.fromkeys(
    (
        *("defects", "goods", "defects_gained", "defects_lost", "goods_more", "goods_fewer"),
        *("open_gained", "open_lost", "open_alike"),
    ),
    0,
)


def tally(images: int = 600, **counts: int) -> Tally:
    return Tally(images=images, **(NOTHING | counts))


@pytest.mark.parametrize(
    ("counts", "verdict"),
    [  # the first look is at 0.04: five of five are 1/32 = 0.031, four of four 1/16
        ({"defects_gained": 5}, "PROMOTE"),
        ({"defects_gained": 4}, "NEEDS LABELS"),
        ({"defects_gained": 9, "defects_lost": 1}, "PROMOTE"),  # 11 / 1024
        ({"defects_gained": 5, "defects_lost": 1}, "NEEDS LABELS"),  # 7 / 64
        ({"defects_gained": 5, "open_lost": 1}, "NEEDS LABELS"),  # it might be a defect
        ({"defects_gained": 5, "open_alike": 9}, "PROMOTE"),
        ({"defects_lost": 5}, "KEEP"),
        ({"defects_lost": 5, "open_gained": 1}, "NEEDS LABELS"),  # likewise, the other way
        ({"goods_more": 5}, "KEEP"),
        ({"goods_more": 5, "open_lost": 1}, "NEEDS LABELS"),
        ({"defects_gained": 9, "goods_more": 6}, "KEEP"),  # a rise of 0.01 among 600
        ({"defects_gained": 9, "goods_more": 6, "goods_fewer": 1}, "NEEDS LABELS"),
        ({"defects_gained": 9, "goods_more": 1, "goods_fewer": 1}, "PROMOTE"),
        (
            {"defects_gained": 9, "goods_more": 5},
            "NEEDS LABELS",
        ),  # less than 0.01, and it finds more
        ({"images": 200, "defects_gained": 9}, "NEEDS LABELS"),  # a rise cannot be ruled out
        ({}, "NEEDS LABELS"),
        ({"images": 0}, "NEEDS LABELS"),
        ({"open_gained": 40, "open_lost": 40}, "NEEDS LABELS"),
    ],
)
def test_the_verdict_is_that_of_the_counts(counts: dict[str, int], verdict: str) -> None:
    assert judge(tally(**counts), CONFIG).verdict == verdict


def test_a_later_look_asks_for_more() -> None:
    five = tally(defects_gained=5)  # 1/32; the second look is at 0.005
    assert judge(five, CONFIG, look=2).verdict is GateVerdict.NEEDS_LABELS
    eight = tally(images=2000, defects_gained=8)  # 1/256
    assert judge(eight, CONFIG, look=2).verdict is GateVerdict.PROMOTE


@pytest.mark.parametrize("look", [1, 2, 9])
@pytest.mark.parametrize("worse", ["defects_lost", "goods_more"])
def test_asking_again_undoes_no_keep(worse: str, look: int) -> None:
    assert judge(tally(**{worse: 5}), CONFIG, look).verdict is GateVerdict.KEEP  # 1/32
    at_the_whole_level = {worse: 10, worse.replace("lost", "gained").replace("more", "fewer"): 3}
    assert judge(tally(**at_the_whole_level), CONFIG, look).verdict is GateVerdict.KEEP  # 0.046


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"defects_gained": 3, "open_gained": 2}, "labels of 2 images on which they differ can"),
        ({"open_gained": 2, "open_lost": 1}, "too few defects .* the 3 images without a label"),
        ({"images": 100, "open_gained": 9}, "a rise of false alarms by 0.01 cannot be ruled out"),
        ({"images": 100, "open_gained": 9}, r"more nights \(--nights, --images\)"),
        ({}, r"more nights \(--nights, --images\)"),
    ],
)
def test_what_is_missing_is_said(counts: dict[str, int], words: str) -> None:
    import re

    assert re.search(words, judge(tally(**counts), CONFIG).reason)


def test_images_are_counted_by_who_flags_them_and_what_is_said() -> None:
    champion = np.array([1, 0, 1, 0, 1, 0, 1, 0, 1], bool)
    challenger = np.array([0, 1, 0, 1, 0, 1, 1, 0, 1], bool)
    labels = np.array(["defect", "defect", "good", "good", "", "", "", "", "defect"])
    assert count(champion, challenger, labels) == Tally(
        images=9, defects=3, goods=2, defects_lost=1, defects_gained=1, goods_fewer=1, goods_more=1,
        open_lost=1, open_gained=1, open_alike=1,
    )  # fmt: skip


@pytest.mark.parametrize("fields", [{"margin": 0}, {"margin": 1}, {"margin": 0.1, "level": 0.5}])
def test_a_promise_that_is_none_is_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be in"):
        GateConfig(**fields)


NUM_CATEGORIES = 1000
FALSE_ALARMS, RECALL = 0.01, 0.8


class MadeUp:
    """A category: what champion and challenger flag of its defects and good images."""

    def __init__(
        self, random: np.random.Generator, num_defects: int, recall: float, alarms: float
    ) -> None:
        # Half of what they miss or flag falsely they have in common, as models of one backbone do.
        def flags(share: float, own: float, size: int, common: NDArray[Any]) -> NDArray[np.bool_]:
            return np.where(common[0] < 0.5, common[1] < share, own_draw(size) < own)

        def own_draw(size: int) -> NDArray[np.floating]:
            return random.random(size)

        defects, goods = random.random((2, num_defects)), random.random((2, 600))
        self.champion = np.concatenate(
            [
                flags(RECALL, RECALL, num_defects, defects),
                flags(FALSE_ALARMS, FALSE_ALARMS, 600, goods),
            ]
        )
        self.challenger = np.concatenate(
            [flags(recall, recall, num_defects, defects), flags(alarms, alarms, 600, goods)]
        )
        self.truth = np.array(["defect"] * num_defects + ["good"] * 600)

    def judge(self, labelled: NDArray[np.bool_] | bool = True, look: int = 1) -> Judgement:
        labels = np.where(labelled, self.truth, "")
        return judge(count(self.champion, self.challenger, labels), GateConfig(margin=0.02), look)


def shares(num_defects: int, recall: float, alarms: float = FALSE_ALARMS) -> dict[str, float]:
    random = np.random.default_rng(num_defects)
    made = [
        MadeUp(random, num_defects, recall, alarms).judge().verdict for _ in range(NUM_CATEGORIES)
    ]
    return {verdict: made.count(verdict) / NUM_CATEGORIES for verdict in GateVerdict}


MOST_BY_CHANCE = 0.05 + 3 * (0.05 * 0.95 / NUM_CATEGORIES) ** 0.5  # 0.071


@pytest.mark.parametrize("num_defects", [20, 100])
def test_a_challenger_that_is_no_better_is_seldom_promoted(num_defects: int) -> None:
    assert shares(num_defects, RECALL)["PROMOTE"] <= MOST_BY_CHANCE


def test_a_challenger_with_more_false_alarms_is_seldom_promoted_however_much_it_finds() -> None:
    assert shares(100, 0.99, alarms=FALSE_ALARMS + 0.02)["PROMOTE"] <= MOST_BY_CHANCE


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_of_missed_defects_among_the_good_the_promise_holds_for_a_wider_margin(
    share: float,
) -> None:
    random = np.random.default_rng(4)
    rise = CONFIG.margin / (1 - share)  # among the good images; the others nobody flags
    more = random.binomial(round(2000 * (1 - share)), rise, NUM_CATEGORIES)
    verdicts = [
        judge(tally(2020, defects=20, defects_gained=20, goods_more=int(number)), CONFIG).verdict
        for number in more
    ]
    assert verdicts.count(GateVerdict.PROMOTE) / NUM_CATEGORIES <= MOST_BY_CHANCE


def test_a_challenger_that_misses_more_is_kept_out() -> None:
    found = shares(100, 0.6)
    assert found["KEEP"] > 0.7
    assert found["PROMOTE"] < 0.002


@pytest.mark.parametrize(("num_defects", "least"), [(20, 0.02), (100, 0.5)])
def test_the_power_for_a_challenger_that_halves_the_misses(num_defects: int, least: float) -> None:
    assert shares(num_defects, 0.9)["PROMOTE"] >= least


@pytest.mark.parametrize("recall", [RECALL, 0.9, 0.5])
def test_without_labels_it_always_needs_labels(recall: float) -> None:
    random = np.random.default_rng(1)
    verdicts = {
        MadeUp(random, 100, recall, FALSE_ALARMS).judge(labelled=False).verdict for _ in range(200)
    }
    assert verdicts == {GateVerdict.NEEDS_LABELS}


def test_labels_that_somebody_picks_to_please_promote_nobody() -> None:
    """Only what the challenger alone found is labelled, and none of what it lost."""
    random = np.random.default_rng(2)
    promoted = 0
    for _ in range(NUM_CATEGORIES):
        made = MadeUp(random, 100, RECALL, FALSE_ALARMS)
        pleasing = made.challenger & ~made.champion & (made.truth == "defect")
        promoted += made.judge(pleasing).verdict is GateVerdict.PROMOTE
    assert promoted / NUM_CATEGORIES <= MOST_BY_CHANCE


def test_asking_every_morning_promotes_no_more_by_chance() -> None:
    random = np.random.default_rng(3)
    promoted = 0
    for _ in range(NUM_CATEGORIES):
        made = MadeUp(random, 100, RECALL, FALSE_ALARMS)
        labelled = np.zeros(len(made.truth), bool)
        verdicts = []
        for morning, some in enumerate(np.array_split(random.permutation(len(labelled)), 5)):
            labelled[some] = True
            verdicts.append(made.judge(labelled, look=morning + 1).verdict)
        promoted += GateVerdict.PROMOTE in verdicts
    assert promoted / NUM_CATEGORIES <= MOST_BY_CHANCE
