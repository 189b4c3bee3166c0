import numpy as np
import pytest
from scipy import stats

from pipeline.night.summary import CategorySummary, no_drift
from pipeline.report import verdict


def counts(ok: int, flagged: int) -> CategorySummary:
    return {
        "images": ok, "ok": ok, "flagged": flagged, "failed": {}, "unrouted": 0,
        "threshold": 1.0, "false_alarm_rate": 0.1, "expected_false_alarms": ok * 0.1,
        "median_score": 0.5, "model_name": "m", "model_version": "1", "fdr": 0.1, "flagged_fdr": 0,
        "fdr_p_value": None, "fdr_limit": None, "drift": no_drift(),
    }  # fmt: skip


def test_chance_of_a_flag_averages_to_the_false_alarm_rate() -> None:
    calibration = [0.5] * 90 + [2.0] * 9  # N = 99, rate 0.1: the 90th score is the threshold
    assert verdict.chance_of_flags(counts(1, 1), calibration) == pytest.approx(0.1)


def test_chance_of_flags_agrees_with_simulation() -> None:
    calibration = [0.5] * 90 + [2.0] * 9
    random = np.random.default_rng(1)
    rates = random.beta(10, 90, 200_000)  # of 100 gaps between and beside 99 scores, 10 lie above
    simulated = np.mean(random.binomial(50, rates) >= 9)
    # standard error below 0.001
    assert verdict.chance_of_flags(counts(50, 9), calibration) == pytest.approx(
        simulated, abs=0.004
    )


def test_chance_of_flags_without_calibration_is_binomial() -> None:
    expected = 1 - stats.binom.cdf(2, 10, 0.1)
    assert verdict.chance_of_flags(counts(10, 3), []) == pytest.approx(expected)


def test_categories_that_need_attention_come_first() -> None:
    lost = counts(5, 0) | {"images": 7, "failed": {"missing": 2}}
    blind = counts(0, 0) | {"images": 7, "unrouted": 7, "threshold": None}
    categories = {"quiet": counts(50, 0), "few": counts(50, 1), "many": counts(50, 40)}
    order = verdict.assess(categories | {"lost": lost, "blind": blind}, {})
    assert [a.category for a in order] == ["many", "blind", "lost", "few", "quiet"]


def test_a_thousand_quiet_categories_do_not_raise_one_by_luck() -> None:
    flags = np.random.default_rng(3).binomial(200, 0.1, 1000)
    categories = {f"c{i}": counts(200, int(n)) for i, n in enumerate(flags)}
    order = verdict.assess(categories, {})
    assert order[0].attention is verdict.Attention.AS_EXPECTED
