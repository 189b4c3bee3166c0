"""What the trials of a study say together: which parameters matter, curves, tables, thresholds."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.calibration import CalibrationConfig, TooFewImages, fit
from pipeline.study.records import TrialRecord
from pipeline.study.run import Repeat
from pipeline.study.space import LISTED, Configuration, Domain, label

LEAST_TRIALS = 12  # from which importances are estimated
TREES, SHUFFLES = 200, 20
RATES = (0.001, 0.01, 0.02, 0.05, 0.1, 0.2)  # false-alarm rates of the threshold table


def importance(
    records: Sequence[TrialRecord], space: Mapping[str, Domain], category: str | None
) -> dict[str, Any]:
    """Return each parameter's share of what a forest explains by it, and how much that is.

    All trials count, by their objective at the first rung: the one point that every trial has
    reached after the same training. A parameter's importance is how much worse the forest predicts
    trials it has not seen when that parameter's values are shuffled. Without a category the
    objective is the mean over all.
    """
    names = [name for name, domain in space.items() if not domain.is_fixed]
    told = [record for record in records if record.rungs]
    values = np.array([_first(record, category) for record in told])
    if len(told) < LEAST_TRIALS or not names or np.ptp(values) == 0:
        return {"trials": len(told), "explained": None, "shares": {}}
    inputs = np.array([_encoded(record.configuration, space, names) for record in told])
    gains, explained = _forest_gains(inputs, values)
    total = gains.sum()
    shares = {
        name: float(gain / total) if total else 0.0 for name, gain in zip(names, gains, strict=True)
    }
    ranked = sorted(shares.items(), key=lambda item: -item[1])
    return {"trials": len(told), "explained": explained, "shares": dict(ranked)}


def _forest_gains(
    inputs: NDArray[np.float64], values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """Return the mean loss of fit by shuffling each column, over folds, and R2 on unseen rows.

    All shuffles of a fold are predicted at once: a forest takes as long for one row as for many.
    """
    from sklearn.ensemble import ExtraTreesRegressor  # noqa: PLC0415  takes a second to import
    from sklearn.model_selection import KFold  # noqa: PLC0415

    forest = ExtraTreesRegressor(TREES, min_samples_leaf=2, random_state=0)
    random = np.random.default_rng(0)
    squares, gains = np.empty_like(values), []
    for train, test in KFold(5, shuffle=True, random_state=0).split(inputs):
        forest.fit(inputs[train], values[train])
        rows = np.concatenate([inputs[test], _shuffles(inputs[test], random)])
        errors = (forest.predict(rows).reshape(-1, len(test)) - values[test]) ** 2
        squares[test] = errors[0]
        gains.append(errors[1:].reshape(inputs.shape[1], -1).mean(1) - errors[0].mean())
    explained = 1 - float(squares.sum() / ((values - values.mean()) ** 2).sum())
    return np.clip(np.mean(gains, axis=0), 0, None), max(0.0, explained)


def _shuffles(inputs: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """Return all rows again and again: ``SHUFFLES`` times for each column, which is shuffled."""
    num_columns = inputs.shape[1]
    shuffled = np.tile(inputs, (num_columns, SHUFFLES, 1, 1))
    for column in range(num_columns):
        values = shuffled[column, :, :, column]
        shuffled[column, :, :, column] = random.permuted(values, axis=1)
    return shuffled.reshape(-1, num_columns)


def _first(record: TrialRecord, category: str | None) -> float:
    rung = record.rungs[0]
    value: float = (
        rung["objective"] if category is None else rung["categories"][category]["objective"]
    )
    return value


def _encoded(
    configuration: Configuration, space: Mapping[str, Domain], names: Sequence[str]
) -> list[float]:
    """Return numbers for a configuration: logarithms of what is drawn so, places in lists."""
    row = []
    for name in names:
        domain, value = space[name], configuration[name]
        if domain.kind in LISTED:
            row.append(float([label(each) for each in domain.arguments].index(label(value))))
        else:
            row.append(math.log(value) if domain.kind == "loguniform" else float(value))
    return row


def curve(records: Sequence[TrialRecord], parameter: str, category: str) -> list[dict[str, Any]]:
    """Return each trial's value of a parameter and its objective, in the parameter's order."""
    points = [
        {
            "value": label(record.configuration[parameter]),
            "objective": record.of(category),
            "share": record.rungs[-1]["share"],
        }
        for record in records
        if record.rungs and parameter in record.configuration
    ]
    return sorted(points, key=lambda point: point["value"])


def table_of(records: Sequence[TrialRecord], parameter: str, category: str) -> list[dict[str, Any]]:
    """Return, for each value of a parameter, how its trials did; the best value first."""
    grouped: dict[Any, list[TrialRecord]] = {}
    for record in records:
        if record.rungs and parameter in record.configuration:
            grouped.setdefault(label(record.configuration[parameter]), []).append(record)
    rows = []
    for value, own in grouped.items():
        whole = [
            found
            for record in own
            if record.is_whole and (found := record.of(category)) is not None
        ]
        first = [_first(record, category) for record in own]
        rows.append(
            {
                "value": value,
                "trials": len(own),
                "whole": len(whole),
                "best": max(whole) if whole else None,
                "mean_whole": statistics.fmean(whole) if whole else None,
                "mean_first_rung": statistics.fmean(first),
            }
        )
    return sorted(rows, key=lambda row: -(row["best"] or row["mean_first_rung"] - 1))


def thresholds(repeats: Sequence[Repeat]) -> list[dict[str, Any]]:
    """Return recall against false-alarm rate over stored scores; nothing is trained for it.

    Every repeat's scores have a scale of their own, so each has its own thresholds; recalls are
    averaged. Where the good images are too few for a rate, there is no threshold for it.
    """
    rows: list[dict[str, Any]] = []
    known = [repeat for repeat in repeats if repeat.good_scores and repeat.anomalous_scores]
    for rate in RATES if known else ():
        config = CalibrationConfig(false_alarm_rate=rate)
        recalls = []
        for repeat in known:
            try:
                calibration = fit(np.array(repeat.good_scores), config)
            except TooFewImages:
                continue
            flagged = calibration.flagged(np.array(repeat.anomalous_scores))
            recalls.append(float(flagged.mean()))
        rows.append(
            {
                "false_alarm_rate": rate,
                "recall": statistics.fmean(recalls) if recalls else None,
                "lowest": min(recalls, default=None),
                "highest": max(recalls, default=None),
                "good_images": min(len(repeat.good_scores) for repeat in known),
                "needed": config.min_images,
            }
        )
    return rows
