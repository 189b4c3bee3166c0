"""Which settings a study answers with, and how sure it is. No test image has a say.

The best of many trials is flattered by luck. So a few finalists, the category's settings as they
are among them, are trained again with other seeds and other images held out, and these repeats
decide. Differences are paired: every candidate meets the same seeds and folds. What is not better
beyond chance changes nothing.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy import special

from pipeline.study.records import TrialRecord, TrialStatus
from pipeline.study.run import Repeat

Configuration = dict[str, Any]
DEFAULT: Configuration = {}  # the category as the catalogue has it


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Mean of paired differences with its 95 % interval (Student's t)."""

    mean: float
    low: float | None  # a single pair has no interval
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The settings chosen for one category or for all together, and the best that were found."""

    configuration: Configuration  # chosen: the best, or the default where it may be luck
    best: Configuration
    best_values: list[float]  # objective of each repeat
    default_values: list[float]
    over_default: Difference  # of the best
    reason: str

    @property
    def values(self) -> list[float]:
        """Objective of each repeat of the chosen settings."""
        return self.default_values if self.configuration == DEFAULT else self.best_values


def finalists(
    records: Sequence[TrialRecord], categories: Sequence[str], num: int
) -> list[tuple[Configuration, str]]:
    """Return which configuration to train again for which category, the default first.

    For each category these are the best ``num`` over all categories and the best of its own. A
    configuration that fails on some of them counts there as the worst.
    """
    whole = trained_whole(records)
    ranked = sorted(whole, key=lambda r: -sum(r.of(name) or 0.0 for name in categories))
    chosen = [(DEFAULT, name) for name in categories]
    chosen += [(record.configuration, name) for record in ranked[:num] for name in categories]
    for name in categories:
        own = sorted(whole, key=lambda record: -(record.of(name) or 0.0))
        chosen += [(record.configuration, name) for record in own[:1]]
    unique = {json.dumps([one, name], sort_keys=True): (one, name) for one, name in chosen}
    return list(unique.values())


def trained_whole(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the trials that were neither stopped early nor failed in every category."""
    return [r for r in records if r.is_whole and r.status is not TrialStatus.FAILED]


def always_failed(records: Sequence[TrialRecord], categories: Sequence[str]) -> dict[str, str]:
    """Return why, of the categories on which every trial fails: nothing is learned of those.

    One that was stopped early has not failed; without a whole trial nothing is known yet.
    """
    begun, found = [record for record in records if record.rungs], dict[str, str]()
    for name in categories:
        reasons = [record.rungs[-1].get("errors", {}).get(name) for record in begun]
        if trained_whole(records) and all(reasons):
            found[name] = reasons[0]
    return found


def values_of(
    repeats: Sequence[Repeat], categories: Sequence[str]
) -> dict[str, dict[str, list[float]]]:
    """Return the objective of every repeat, in order, by category and configuration (as JSON)."""
    found: dict[str, dict[str, list[float]]] = {name: {} for name in categories}
    for repeat in sorted(repeats, key=lambda each: each.repeat):
        own = found[repeat.category].setdefault(key_of(repeat.configuration), [])
        own.append(repeat.metrics["objective"])
    return found


def choose(values: Mapping[str, list[float]]) -> Choice:
    """Return the candidate with the highest mean if it is better than the default beyond chance.

    Otherwise the default stays: the best of several is better than it by luck alone, and settings
    that work are not given up for that. Values are the objective of every repeat by configuration
    (as JSON).
    """
    default = values[key_of(DEFAULT)]
    best = max(values, key=lambda key: (statistics.fmean(values[key]), key == key_of(DEFAULT)))
    over = difference(values[best], default)
    sure = over.low is not None and over.low > 0
    return Choice(
        configuration=json.loads(best) if sure else DEFAULT,
        best=json.loads(best),
        best_values=values[best],
        default_values=default,
        over_default=over,
        reason=_reason(over, len(values) - 1, len(default), is_default=best == key_of(DEFAULT)),
    )


def _reason(over: Difference, finalists: int, repeats: int, *, is_default: bool) -> str:
    if is_default:
        return (
            f"none of {finalists} finalists was better than the settings as they are over "
            f"{repeats} repeats"
        )
    if over.low is None:
        return (
            f"the best of {finalists} finalists was better by {over.mean:.4f}, but a single repeat "
            f"cannot tell that from chance (study.seeds); the settings stay as they are"
        )
    between = f"{over.mean:+.4f} [{over.low:+.4f}, {over.high:+.4f}] over {repeats} repeats"
    if over.low > 0:
        return f"the best of {finalists} finalists, better than the settings as they are: {between}"
    return (
        f"the best of {finalists} finalists is not better beyond chance: {between}; "
        f"the settings stay as they are"
    )


def choose_for_all(values: Mapping[str, Mapping[str, list[float]]]) -> Choice:
    """Return the candidate with the highest mean over all categories that have it."""
    common = set.intersection(*(set(own) for own in values.values()))
    merged = {
        key: [
            statistics.fmean(row)
            for row in zip(*(own[key] for own in values.values()), strict=True)
        ]
        for key in sorted(common)
    }
    return choose(merged)


def difference(values: Sequence[float], others: Sequence[float]) -> Difference:
    """Return the mean of ``values`` - ``others``, pair by pair."""
    each = [value - other for value, other in zip(values, others, strict=True)]
    mean = statistics.fmean(each)
    if len(each) < 2:
        return Difference(mean=mean, low=None, high=None)
    half = float(special.stdtrit(len(each) - 1, 0.975)) * statistics.stdev(each) / len(each) ** 0.5
    return Difference(mean=mean, low=mean - half, high=mean + half)


def mean_interval(values: Sequence[float]) -> Difference:
    """Return the mean of values with its interval."""
    return difference(values, [0.0] * len(values))


def key_of(configuration: Mapping[str, Any]) -> str:
    """Name a configuration: the same for the same values."""
    return json.dumps(dict(configuration), sort_keys=True)
