"""A head that did not train or collapsed is refused; a sound one is not, and no label is needed."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factory import category, make_category, texture

from pipeline.onboarding.finish import finish
from pipeline.onboarding.health import UnhealthyHead, judge, refuse_unhealthy, synthetic_auroc
from pipeline.onboarding.prepare import prepare

TRAINED = {"passes": 20, "steps_per_pass": 10, "batch_rows": 512, "hidden": 64, "members": 2}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_category(tmp_path_factory.mktemp("images"))


def onboarded(images: Path, spoil: Any = None, **training: Any) -> dict[str, float]:
    prepared = prepare(
        category(images, resize=96, crop=96, training={"health": "refuse", **training})
    )
    for _ in prepared.trainer.run():
        pass
    if spoil:
        spoil(prepared.trainer.trainers["patch"].head)
    package, _ = finish(prepared)
    return {k[7:]: v for k, v in package.record.metrics.items() if k.startswith("health_")}


def test_a_trained_head_is_sound(images: Path) -> None:
    health = onboarded(images, **TRAINED)
    assert sorted(health) == [
        "patch_noisy_beyond_margin",
        "patch_normal_beyond_margin",
        "patch_spread_over_sigma",
        "score_spread",
        "synthetic_auroc",
    ]
    assert health["patch_normal_beyond_margin"] > 0.5
    assert health["synthetic_auroc"] > 0.6


def test_cross_calibrated_heads_are_judged_by_members_that_have_not_seen_the_images(
    images: Path,
) -> None:
    prepared = prepare(category(images, resize=96, crop=96, calibration="cross", training=TRAINED))
    for _ in prepared.trainer.run():
        pass
    package, _ = finish(prepared)
    assert package.record.counts["train"] == len(package.reference.calibration.scores) == 40
    assert 0.5 < package.record.metrics["health_synthetic_auroc"] < 1


def test_an_untrained_head_is_refused(images: Path) -> None:
    with pytest.raises(UnhealthyHead, match=r"steel: .*patch_normal_beyond_margin is 0\.\d+"):
        onboarded(images, passes=1, steps_per_pass=1)


def test_a_head_whose_scores_are_all_the_same_is_refused(images: Path) -> None:
    def collapse(head: torch.nn.Module) -> None:
        with torch.no_grad():
            head.outer_MU1.zero_()

    with pytest.raises(UnhealthyHead, match=r"score_spread is 0, a sound head has at least 0\.0"):
        onboarded(images, spoil=collapse, **TRAINED)


def test_the_spread_is_measured_in_sigmas(images: Path) -> None:
    settings = TRAINED | {"sigma": 0.001, "sigma_unit": "channel_std"}
    with pytest.raises(UnhealthyHead, match=r"spread_over_sigma is \S+, .* at most 200"):
        onboarded(images, **settings)


def test_a_warning_instead_can_be_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    health = {"score_spread": 0.0, "synthetic_auroc": float("nan")}
    with caplog.at_level(logging.WARNING):
        refuse_unhealthy("steel", health, warn=True)
    assert "score_spread is 0" in caplog.text
    assert "synthetic_auroc is nan, not a number" in caplog.text


def test_a_position_whose_good_tiles_are_all_alike_is_refused_in_words() -> None:
    health = {"tile_1_image_spread_over_sigma": 0.0}
    with pytest.raises(UnhealthyHead, match=r"good images are all alike.*share: all or ignore:"):
        refuse_unhealthy("steel", health, warn=False)


def test_anomalies_that_lie_where_nothing_counts_judge_nobody(images: Path) -> None:
    zones = {"size": [96, 96], "ignore": [[[0, 0], [95, 0], [95, 63], [0, 63]]]}
    prepared = prepare(category(images, resize=96, crop=96, zones=zones))
    make = judge(prepared)[1]
    assert make is not None
    good = texture(0)[:96, :96]
    made = make([good], 16)
    assert 0 < len(made) < 16
    for each in made:
        changed = (each != good).any(axis=2)
        assert changed[64:].sum() >= changed.sum() / 2


def test_synthetic_auroc_is_that_of_anomalies_against_good_images() -> None:
    good = np.array([0.0, 1.0, 2.0], np.float32)
    assert synthetic_auroc(good, np.array([3.0, 1.5], np.float32)) == pytest.approx(5 / 6)
    assert synthetic_auroc(good, np.zeros(0, np.float32)) is None
