"""What a study answers: the choice, its certainty, what matters, thresholds, the check."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from studied import make_study, record, repeat

from pipeline.catalogue.catalogue import load_catalogue
from pipeline.onboarding.key import onboarding_key
from pipeline.study.answer import answer, catalogue_fragment
from pipeline.study.check import all_measured, correlations, paired, rank_correlation
from pipeline.study.choice import (
    DEFAULT,
    always_failed,
    choose,
    choose_for_all,
    difference,
    finalists,
    key_of,
)
from pipeline.study.records import TrialStatus
from pipeline.study.space import read_space
from pipeline.study.statistics import curve, importance, table_of, thresholds

A, B, C = ({"sigma": float(value), "layers": [2]} for value in (1, 2, 3))


def test_the_default_and_the_best_are_trained_again() -> None:
    records = [
        record("a", A, {"steel": 0.9, "brass": 0.1}),
        record("b", B, {"steel": 0.7, "brass": 0.6}),
        record("c", C, {"steel": 1.0, "brass": 1.0}, rungs=2),  # stopped: never trained whole
    ]
    assert finalists(records, ["steel", "brass"], 1) == [
        *((DEFAULT, name) for name in ("steel", "brass")),
        *((B, name) for name in ("steel", "brass")),  # 0.65 on the mean against 0.5
        (A, "steel"),
    ]


def test_a_category_on_which_every_trial_fails_costs_the_others_nothing() -> None:
    records = [
        record("a", A, {"steel": 0.9, "bad": 0.0}, errors={"bad": "holds NaN"}),
        record("b", B, {"steel": 0.7, "bad": 0.0}, errors={"bad": "holds NaN"}),
    ]
    assert always_failed(records, ["steel", "bad"]) == {"bad": "holds NaN"}
    assert finalists(records, ["steel"], 1) == [(DEFAULT, "steel"), (A, "steel")]
    stopped = record("c", C, {"steel": 0.5, "bad": 0.4}, rungs=2)
    assert always_failed([*records, stopped], ["steel", "bad"]) == {}
    assert always_failed([stopped], ["steel", "bad"]) == {}


def test_a_configuration_that_fails_on_one_category_is_the_worst_there() -> None:
    records = [
        record("a", A, {"steel": 0.9, "brass": 0.0}, errors={"brass": "holds NaN"}),
        record("b", B, {"steel": 0.7, "brass": 0.6}),
        record("c", C, {"steel": 0.0, "brass": 0.0}, errors={"steel": "NaN", "brass": "NaN"}),
    ]
    records[2].status = TrialStatus.FAILED
    assert always_failed(records, ["steel", "brass"]) == {}
    assert finalists(records, ["steel", "brass"], 1)[2:] == [
        *((B, name) for name in ("steel", "brass")),
        (A, "steel"),
    ]


def test_trials_are_ranked_over_the_categories_that_are_left() -> None:
    records = [
        record("a", A, {"steel": 0.8, "gone": 0.0}),
        record("b", B, {"steel": 0.7, "gone": 1.0}),
    ]
    assert finalists(records, ["steel"], 1) == [(DEFAULT, "steel"), (A, "steel")]


def test_the_highest_mean_is_chosen_and_compared_pair_by_pair() -> None:
    values = {key_of(DEFAULT): [0.5, 0.6, 0.7], key_of(A): [0.6, 0.65, 0.8]}
    chosen = choose(values)
    assert chosen.configuration == A
    assert chosen.over_default.mean == pytest.approx(0.25 / 3)
    paired = stats.ttest_rel(values[key_of(A)], values[key_of(DEFAULT)])
    expected = paired.confidence_interval(0.95)
    assert (chosen.over_default.low, chosen.over_default.high) == pytest.approx(tuple(expected))
    assert expected.low > 0
    assert chosen.reason.startswith("the best of 1 finalists, better than the settings")
    assert chosen.values == values[key_of(A)]


def test_what_may_be_luck_changes_nothing_but_is_told() -> None:
    values = {key_of(DEFAULT): [0.5, 0.6, 0.7], key_of(A): [0.9, 0.55, 0.7]}
    chosen = choose(values)
    assert (chosen.configuration, chosen.best) == (DEFAULT, A)
    assert chosen.values == values[key_of(DEFAULT)]
    assert "not better beyond chance: +0.1167 [" in chosen.reason
    single = choose({key_of(DEFAULT): [0.5], key_of(A): [0.9]})
    assert (single.configuration, single.best) == (DEFAULT, A)
    assert "a single repeat cannot tell" in single.reason


def test_the_default_stays_where_nothing_is_better() -> None:
    chosen = choose({key_of(A): [0.5, 0.5], key_of(DEFAULT): [0.5, 0.5]})
    assert chosen.configuration == DEFAULT
    assert chosen.over_default.mean == 0
    assert chosen.reason.startswith("none of 1 finalists")


def test_one_setting_for_all_is_the_best_mean_of_those_that_all_have() -> None:
    values = {
        "steel": {key_of(DEFAULT): [0.5], key_of(A): [0.9], key_of(B): [0.7]},
        "brass": {key_of(DEFAULT): [0.5], key_of(B): [0.6]},
    }
    assert choose_for_all(values).best == B
    assert choose_for_all(values).best_values == pytest.approx([0.65])


def test_a_single_pair_has_no_interval() -> None:
    assert (difference([0.5], [0.25]).low, difference([0.5], [0.25]).mean) == (None, 0.25)


def test_importance_finds_the_parameter_that_the_objective_depends_on() -> None:
    space, _ = read_space({"sigma": {"uniform": [0, 1]}, "th_plus": {"uniform": [0, 1]}})
    random = np.random.default_rng(0)
    records = []
    for number in range(60):
        sigma, margin = random.random(2)
        value = {"steel": 1 - (sigma - 0.5) ** 2}
        records.append(record(str(number), {"sigma": sigma, "th_plus": margin}, value, rungs=1))
    found = importance(records, space, "steel")
    assert list(found["shares"]) == ["sigma", "th_plus"]
    assert sum(found["shares"].values()) == pytest.approx(1)
    assert found["shares"]["sigma"] > 0.9
    assert found["explained"] > 0.8
    assert importance(records[:5], space, "steel")["shares"] == {}


def test_curves_and_tables_hold_every_trial() -> None:
    records = [
        record("b", B, {"steel": 0.7}),
        record("a", A, {"steel": 0.9}),
        record("c", {"sigma": 10.0, "layers": [2, 3]}, {"steel": 0.2}, rungs=1),
    ]
    assert [(p["value"], p["objective"], p["share"]) for p in curve(records, "sigma", "steel")] == [
        (1.0, 0.9, 1.0),
        (2.0, 0.7, 1.0),
        (10.0, 0.2, 0.25),
    ]
    first, second = table_of(records, "layers", "steel")
    assert (first["value"], first["trials"], first["whole"], first["best"]) == ("2", 2, 2, 0.9)
    assert first["mean_whole"] == pytest.approx(0.8)
    assert (second["value"], second["whole"], second["best"]) == ("2+3", 0, None)
    assert second["mean_first_rung"] == pytest.approx(0.2)


def test_thresholds_are_those_of_the_calibration() -> None:
    # 19 good scores 1..19. Rate 0.05: k = ceil(20 x 0.95) = 19, threshold 19: 2 of 4 above it.
    # Rate 0.1: k = 18, threshold 18: 3 of 4. Rate 0.02 needs 49 images.
    rows = {row["false_alarm_rate"]: row for row in thresholds([repeat(A, 0.5)])}
    assert rows[0.05]["recall"] == 0.5
    assert rows[0.1]["recall"] == 0.75
    assert (rows[0.02]["recall"], rows[0.02]["needed"]) == (None, 49)
    assert thresholds([]) == []


@pytest.mark.parametrize("seed", range(5))
def test_rank_correlation_is_spearmans(seed: int) -> None:
    random = np.random.default_rng(seed)
    x: NDArray[np.float64] = random.integers(0, 6, 30).astype(float)  # with ties
    y = x + random.normal(size=30)
    told = rank_correlation(x.tolist(), y.tolist())
    low, value, high = told["low"], told["value"], told["high"]
    assert low is not None
    assert value is not None
    assert high is not None
    ranks = stats.rankdata(x), stats.rankdata(y)
    assert value == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert -1 <= low < value < high <= 1


def test_what_never_varies_has_no_rank() -> None:
    assert rank_correlation([1, 2, 3], [1, 1, 1])["value"] is None
    assert rank_correlation([], [])["value"] is None


def test_the_check_compares_each_trial_as_it_stood() -> None:
    trials = [
        (
            record(str(n), A, {"steel": n / 10}, rungs=3 if n > 2 else 1),
            {"steel": {"image_auroc": n}},
        )
        for n in range(6)
    ]
    found = correlations(trials)["steel"]  # type: ignore[arg-type]
    assert found["all_trials"]["image_auroc"]["value"] == pytest.approx(1)
    assert found["all_trials"]["image_auroc"]["trials"] == 6
    assert found["whole_trials"]["image_auroc"]["trials"] == 3


def test_the_choice_is_compared_with_the_default_on_the_metrics_that_both_have() -> None:
    best = [{"image_auroc": 0.9, "aupro": 0.5}, {"image_auroc": 0.8}]
    default = [{"image_auroc": 0.7}, {"image_auroc": 0.7}]
    found = paired(best, default)
    assert list(found) == ["image_auroc"]
    assert found["image_auroc"]["best"]["mean"] == pytest.approx(0.85)
    assert found["image_auroc"]["difference"]["mean"] == pytest.approx(0.15)
    assert all_measured(best)
    assert not all_measured([{}, best[0]])


def test_the_answer_holds_a_choice_its_regret_and_settings_for_every_category(
    tmp_path: Path,
) -> None:
    study = make_study(tmp_path, ("steel", "brass"))
    records = [
        record("a", A, {"steel": 0.9, "brass": 0.1}),
        record("b", B, {"steel": 0.7, "brass": 0.6}),
    ]
    values = {
        "steel": {0: [0.5, 0.6], 1: [0.9, 1.0], 2: [0.7, 0.8]},
        "brass": {0: [0.4, 0.5], 2: [0.6, 0.7]},
    }
    configurations = (DEFAULT, A, B)
    repeats = [
        repeat(configurations[which], value, number, name)
        for name, own in values.items()
        for which, found in own.items()
        for number, value in enumerate(found, start=1)
    ]
    found = answer(study, records, repeats)
    assert found["overall"]["configuration"] == B
    steel = found["categories"]["steel"]
    assert steel["configuration"] == A
    assert steel["regret_of_one_for_all"]["mean"] == pytest.approx(0.2)  # 0.95 - 0.75
    assert found["categories"]["brass"]["regret_of_one_for_all"]["mean"] == 0
    assert steel["settings"]["training"]["sigma"] == list(
        study.apply(A, study.categories[0]).recipe.patch.sigma
    )
    assert json.loads(json.dumps(found)) == found

    path = tmp_path / "winners.yaml"
    path.write_bytes(catalogue_fragment(study, found))
    winners = {category.name: category for category in load_catalogue(str(path))}
    for name, configuration in (("steel", A), ("brass", B)):
        (own,) = (category for category in study.categories if category.name == name)
        assert winners[name] == study.apply(configuration, own)
        assert onboarding_key(winners[name])
