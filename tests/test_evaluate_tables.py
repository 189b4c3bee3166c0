"""The tables of an evaluation: the same numbers for people and programs, the oracle apart."""

import csv
import dataclasses
import io
import json
import re
from typing import Any

import numpy as np
import pytest
from evaluated import category_result, seed_result
from sklearn.metrics import average_precision_score, roc_auc_score

from pipeline.evaluation.protocol import ORACLE, CategoryResult
from pipeline.evaluation.tables import (
    INTERVALS,
    METRICS,
    QUALITY,
    RATES,
    Evaluation,
    scores_csv,
    tables,
)


def of(*results: CategoryResult, **more: Any) -> Evaluation:
    names = [result.category for result in results]
    found = {result.category: result for result in results}
    options = {"categories": names, "num_seeds": len(results[0].seeds), "results": found}
    return Evaluation(**{**options, **more})


def with_aurocs(name: str, *pairs: tuple[float, float], masks: bool = True) -> CategoryResult:
    """A category whose image AUROCs are (last pass, oracle), a pair per seed."""
    seeds = []
    for number, (last, oracle) in enumerate(pairs):
        seed = seed_result(number, with_masks=masks)
        metrics = {**seed.metrics, "image_auroc": last}
        seeds.append(dataclasses.replace(seed, metrics=metrics, oracle_image_auroc=oracle))
    return dataclasses.replace(category_result(name, 1), seeds=seeds)


def rows(evaluation: Evaluation, heading: str) -> dict[str, list[str]]:
    """Cells by category of the table whose header has this column; and the header itself."""
    found: dict[str, list[str]] = {}
    for table in re.findall(r"(?:^\|.*\n)+", evaluation.to_markdown(), re.MULTILINE):
        lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
        if heading in lines[0]:
            found = {line[0]: line[1:] for line in (lines[0], *lines[2:])}
    return found


def test_the_tables_by_hand() -> None:
    bottle = with_aurocs("bottle", (0.98, 1.0), (1.0, 1.0))
    gear = with_aurocs("gear", (0.8, 0.9), (0.8, 0.9))
    evaluation = of(bottle, gear)
    quality = rows(evaluation, "image AUROC")
    assert [quality[name][0] for name in ("bottle", "gear")] == ["99.0 ± 1.4", "80.0 ± 0.0"]
    # seed by seed 89 and 90: the deviation is of the means, not the mean of the deviations
    assert quality["mean of 2"][0] == "89.5 ± 0.7"
    oracle = rows(evaluation, "oracle: pass picked on the test set")
    assert oracle["bottle"] == ["99.0 ± 1.4", "100.0 ± 0.0", "+1.0"]
    assert oracle["gear"] == ["80.0 ± 0.0", "90.0 ± 0.0", "+10.0"]
    assert oracle["mean of 2"] == ["89.5 ± 0.7", "95.0 ± 0.0", "+5.5"]


def test_the_oracle_stands_apart_and_says_what_it_is() -> None:
    text = of(category_result()).to_markdown()
    results, _, oracle = text.partition("## Oracle: not a result")
    assert "oracle" not in results.lower()
    assert "What picking the training pass on the test set would have claimed." in oracle
    document = of(category_result()).to_json()
    places = (document["mean"], *document["categories"].values())
    for place in (*places, *document["categories"]["gear"]["seeds"]):
        assert ORACLE not in place["results"]
        assert list(place["oracle"]) == [ORACLE]


def test_one_seed_has_no_standard_deviation() -> None:
    evaluation = of(category_result(num_seeds=1))
    for table in ("image AUROC", "oracle: pass picked on the test set"):
        cells = rows(evaluation, table)
        assert all("± –" in row[0] for name, row in cells.items() if name != "category")
    assert "± 0.0" not in evaluation.to_markdown()
    assert evaluation.to_json()["categories"]["gear"]["results"]["image_auroc"]["std"] is None


def test_without_masks_the_table_says_so_and_the_numbers_are_null() -> None:
    plain = dataclasses.replace(category_result(with_masks=False), category="plain")
    evaluation = of(plain, category_result())
    pixel = [place for place, name in enumerate(QUALITY) if name.startswith("pixel")]
    quality = rows(evaluation, "image AUROC")
    assert [quality["plain"][place] for place in pixel] == ["no masks"] * 4
    document = evaluation.to_json()
    for name in (name for name in METRICS if name.startswith("pixel")):
        assert document["categories"]["plain"]["results"][name] == {"mean": None, "std": None}
        assert all(s["results"][name] is None for s in document["categories"]["plain"]["seeds"])
        gear = document["categories"]["gear"]["results"][name]  # the only one that has masks
        assert document["mean"]["results"][name] == pytest.approx(gear)


def test_a_failed_category_has_its_place_and_its_reason() -> None:
    errors = {"few": "5 distinct good images:\nneed 18"}
    evaluation = of(category_result(), categories=["few", "gear"], errors=errors)
    assert list(rows(evaluation, "image AUROC")) == [
        "category",
        "few",
        "gear",
        "mean of 1 out of 2",
    ]
    assert rows(evaluation, "image AUROC")["few"] == ["failed", *[""] * 6]
    assert "\n- few: 5 distinct good images: need 18\n" in evaluation.to_markdown()
    document = evaluation.to_json()["categories"]["few"]
    assert (document["status"], document["error"]) == ("failed", errors["few"])
    assert document["results"]["image_auroc"] == {"mean": None, "std": None}


def test_nothing_but_failures_still_makes_both_tables() -> None:
    evaluation = Evaluation(
        categories=["few"], num_seeds=3, results={}, errors={"few": "too few images"}
    )
    assert "| few | failed |" in evaluation.to_markdown()
    assert json.loads(tables(evaluation)["evaluation.json"])["mean"]["oracle"][ORACLE] == {
        "mean": None,
        "std": None,
    }


def keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: keys(inner) for name, inner in value.items()}
    return [keys(inner) for inner in value] if isinstance(value, list) else None


def test_keys_are_the_same_with_and_without_masks() -> None:
    document = of(category_result()).to_json()
    other = of(category_result(with_masks=False)).to_json()
    assert keys(document) == keys(other)
    seed = document["categories"]["gear"]["seeds"][0]
    assert list(seed["results"]) == [*METRICS, *INTERVALS]


def test_what_is_not_a_number_is_null() -> None:
    seed = seed_result(0)
    metrics = {**seed.metrics, "image_auroc": float("nan"), "pixel_auroc": float("inf")}
    broken = dataclasses.replace(seed, metrics=metrics)
    result = dataclasses.replace(category_result(num_seeds=1), seeds=[broken])
    text = tables(of(result))["evaluation.json"].decode()
    assert "NaN" not in text
    assert "Infinity" not in text
    found = json.loads(text)["categories"]["gear"]
    assert found["seeds"][0]["results"]["image_auroc"] is None
    assert found["results"]["pixel_auroc"]["mean"] is None


def cell(value: dict[str, float]) -> str:
    return f"{100 * value['mean']:.1f} ± {100 * value['std']:.1f}"


def test_markdown_and_json_hold_the_same_numbers() -> None:
    evaluation = of(category_result(), dataclasses.replace(category_result(), category="cog"))
    document = json.loads(tables(evaluation)["evaluation.json"])
    groups = {**document["categories"], "mean of 2": document["mean"]}
    for name, group in groups.items():
        quality = [cell(group["results"][metric]) for metric in QUALITY]
        assert rows(evaluation, "image AUROC")[name] == quality
        last = [cell(group["results"]["image_auroc"]), cell(group["oracle"][ORACLE])]
        assert rows(evaluation, "oracle: pass picked on the test set")[name][:2] == last
        rates = rows(evaluation, "promised")[name][1:3]
        assert [text.partition(" [")[0] for text in rates] == [
            cell(group["results"][rate]) for rate in RATES
        ]


def test_the_interval_is_the_widest_over_seeds() -> None:
    document = of(category_result()).to_json()["categories"]["gear"]
    promised, alarms, recall, good, defective = rows(of(category_result()), "promised")["gear"]
    assert (promised, good, defective) == ("≤ 10", "30", "20")
    for text, rate in ((alarms, "test_false_alarm_rate"), (recall, "test_recall")):
        low = min(seed["results"][f"{rate}_low"] for seed in document["seeds"])
        high = max(seed["results"][f"{rate}_high"] for seed in document["seeds"])
        assert text.endswith(f" [{100 * low:.1f}, {100 * high:.1f}]")


def test_the_numbers_can_be_had_again_from_the_scores() -> None:
    result = category_result()
    found = list(csv.DictReader(io.StringIO(scores_csv(result))))
    assert len(found) == 3 * 50
    for seed in of(result).to_json()["categories"]["gear"]["seeds"]:
        own = [row for row in found if row["seed"] == str(seed["seed"])]
        defective = np.array([row["defect"] != "good" for row in own])
        scores = np.array([row["score"] for row in own], dtype=float)
        flagged = np.array([row["flagged"] for row in own]) == "True"
        assert (flagged == (scores > seed["threshold"])).all()
        expected = {
            "image_auroc": roc_auc_score(defective, scores),
            "image_average_precision": average_precision_score(defective, scores),
            "test_false_alarm_rate": flagged[~defective].mean(),
            "test_recall": flagged[defective].mean(),
        }
        assert {name: seed["results"][name] for name in expected} == pytest.approx(expected)


def test_links_lead_to_the_files() -> None:
    files = {"gear": ["gear/roc.png", "gear/scores.csv"]}
    evaluation = of(category_result(), files=files)
    assert "- gear: [roc.png](gear/roc.png), [scores.csv](gear/scores.csv)" in (
        evaluation.to_markdown()
    )
    assert evaluation.to_json()["categories"]["gear"]["files"] == files["gear"]
