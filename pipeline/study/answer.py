"""The answer of a study, as plain values: study.json, and the catalogue of the winners."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import yaml

from pipeline.catalogue.catalogue import Category
from pipeline.study.choice import (
    Choice,
    choose,
    choose_for_all,
    difference,
    key_of,
    mean_interval,
    values_of,
)
from pipeline.study.records import TrialRecord
from pipeline.study.run import Repeat
from pipeline.study.settings import Study
from pipeline.study.statistics import curve, importance, table_of, thresholds

Answer = dict[str, Any]
FRAGMENT_HEAD = """\
# The settings that the study `{name}` chose, category by category; `nightshift onboard` takes this
# file as it is. Nothing has been registered or promoted.
"""


def answer(study: Study, records: Sequence[TrialRecord], repeats: Sequence[Repeat]) -> Answer:
    """Return what the study found, before anybody has looked at a test image."""
    names = [category.name for category in study.categories]
    values = values_of(repeats, names)
    overall = choose_for_all(values)
    settings = study.settings.model_dump(mode="json", exclude={"space"})
    return {
        "study": study.name,
        "settings": settings,
        "space": {name: domain.to_json() for name, domain in study.space.items()},
        "overall": _chosen(overall) | {"importance": importance(records, study.space, None)},
        "categories": {
            category.name: _of_category(
                study,
                category,
                records,
                [r for r in repeats if r.category == category.name],
                overall,
            )
            for category in study.categories
        },
        "trials": [_brief(record) for record in records],
        "finalists": [asdict(repeat) for repeat in repeats],
    }


def _of_category(
    study: Study,
    category: Category,
    records: Sequence[TrialRecord],
    repeats: Sequence[Repeat],
    overall: Choice,
) -> dict[str, Any]:
    name = category.name
    values = values_of(repeats, [name])[name]
    own = choose(values)
    for_all = values[key_of(overall.best)]
    variant = study.apply(own.configuration, category)
    chosen = [
        repeat for repeat in repeats if key_of(repeat.configuration) == key_of(own.configuration)
    ]
    return _chosen(own) | {
        "settings": settings_of(variant),
        "regret_of_one_for_all": asdict(difference(own.best_values, for_all)),
        "one_for_all_mean": statistics.fmean(for_all),
        "importance": importance(records, study.space, name),
        "curves": {
            parameter: curve(records, parameter, name)
            for parameter in ("sigma",)
            if parameter in study.space
        },
        "tables": {
            parameter: table_of(records, parameter, name)
            for parameter, domain in study.space.items()
            if domain.kind in ("choice", "grid") and not domain.is_fixed
        },
        "thresholds": thresholds(chosen),
    }


def _chosen(choice: Choice) -> dict[str, Any]:
    return {
        "configuration": choice.configuration,
        "objective": asdict(mean_interval(choice.values)),
        "default_objective": asdict(mean_interval(choice.default_values)),
        "best": {
            "configuration": choice.best,
            "objective": asdict(mean_interval(choice.best_values)),
            "over_default": asdict(choice.over_default),
            "repeats": choice.best_values,
        },
        "default_repeats": choice.default_values,
        "reason": choice.reason,
    }


def _brief(record: TrialRecord) -> dict[str, Any]:
    """Return a trial without its loss curves."""
    rungs = [
        {name: value for name, value in rung.items() if name != "curves"} for rung in record.rungs
    ]
    return asdict(record) | {"rungs": rungs}


def settings_of(category: Category) -> dict[str, Any]:
    """Return all settings of a category as a catalogue says them."""
    found: dict[str, Any] = category.model_dump(mode="json", exclude_none=True)
    return found


def catalogue_fragment(study: Study, found: Answer) -> bytes:
    """Return a catalogue of the winners, each category with all its settings."""
    entries = [found["categories"][category.name]["settings"] for category in study.categories]
    text = yaml.safe_dump({"categories": entries}, sort_keys=False, allow_unicode=True)
    return (FRAGMENT_HEAD.format(name=study.name) + text).encode()


def log_metrics(found: Answer) -> dict[str, float]:
    """Return what the study's run shows."""
    metrics = {
        "objective": found["overall"]["objective"]["mean"],
        "best_over_default": found["overall"]["best"]["over_default"]["mean"],
    }
    for name, own in found["categories"].items():
        metrics |= {
            f"{name}/objective": own["objective"]["mean"],
            f"{name}/best_over_default": own["best"]["over_default"]["mean"],
            f"{name}/regret_of_one_for_all": own["regret_of_one_for_all"]["mean"],
        }
    cost = found.get("cost", {})
    metrics |= {f"seconds/{stage}": taken for stage, taken in cost.get("seconds", {}).items()}
    return metrics | {"backbone_passes": float(sum(cost.get("backbone_passes", {}).values()))}
