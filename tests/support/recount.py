"""A night's summary counted from its rows, all at once: what settling must come to as well."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.night.fleet.fleet import Fleet
from pipeline.night.results import by_category
from pipeline.night.summary import CategorySummary, Summary, no_drift

Drifts = Mapping[str, Mapping[str, Any]]


def recount(
    rows: pa.Table, fleet: Fleet, drifts: Drifts | None = None, night: str = "2026-03-12"
) -> Summary:
    """All that can be told from the rows alone; medians are exact."""
    categories = {
        name: _recount(group, fleet, (drifts or {}).get(name, {}))
        for name, group in by_category(rows).items()
    }
    known = {*fleet.champions, *fleet.without_images}
    return {
        "images": rows.num_rows,
        "totals": dict(sorted(Counter(rows["status"].to_pylist()).items())),
        "flagged": rows["flagged"].to_pylist().count(True),
        "expected_false_alarms": sum(c["expected_false_alarms"] for c in categories.values()),
        "categories": categories,
        "categories_without_images": sorted(known - categories.keys()),
        "flagged_fdr": rows["flagged_fdr"].to_pylist().count(True),
        "drifted": [name for name, entry in categories.items() if entry["drift"]["alert"]],
        "night": night,
        "other_files": {},
        "audit_images": 5,
    }


def _recount(rows: pa.Table, fleet: Fleet, drift: Mapping[str, Any]) -> CategorySummary:
    statuses = Counter(rows["status"].to_pylist())
    champion = fleet.champions.get(rows["category"][0].as_py())
    calibration = champion.reference.calibration if champion else None
    scores = rows["score"].drop_null().to_numpy()
    ok, unrouted = statuses.pop("ok", 0), statuses.pop("unrouted", 0)
    return {
        "images": rows.num_rows,
        "ok": ok,
        "flagged": rows["flagged"].to_pylist().count(True),
        "failed": dict(sorted(statuses.items())),
        "unrouted": unrouted,
        "threshold": calibration.threshold if calibration else None,
        "false_alarm_rate": calibration.false_alarm_rate if calibration else None,
        "expected_false_alarms": ok * (calibration.false_alarm_rate if calibration else 0.0),
        "median_score": float(np.median(scores)) if len(scores) else None,
        "model_name": champion.model_name if champion else None,
        "model_version": champion.model_version if champion else None,
        "fdr": calibration.fdr if calibration else None,
        "flagged_fdr": rows["flagged_fdr"].to_pylist().count(True),
        "fdr_p_value": None,
        "fdr_limit": None,
        "other_modes": {},
        "outside_range": 0,
        "drift": {**no_drift(), **drift},  # type: ignore[typeddict-item]
    }
