"""Settling a night: what can only be said once all its rows are there.

``settle`` reads every shard once, as columns, sees that no image is there twice, finds each
category's discoveries (``benjamini_hochberg.py``), looks for drift (``drift.py``), and writes the
summary. Shards whose ``flagged_fdr`` does not say what was found are written again, whole; the
column depends on the p-values alone, so a run that was killed between two of them is mended by the
next. A night that is settled already is known by its record (``record.py``) and not read again.
"""

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from pipeline import storage
from pipeline.images.batches import batches
from pipeline.images.decode import ImageStatus
from pipeline.images.prefetch import read_ahead
from pipeline.labels.audit import AUDIT_IMAGES
from pipeline.night.fleet.fleet import Champion, Fleet
from pipeline.night.folder import NightFolder
from pipeline.night.record import SettledRecord, fingerprint, read_record, write_record
from pipeline.night.results import (
    ResultsError,
    read_shard,
    refuse_duplicates,
    stored_shards,
    write_shard,
)
from pipeline.night.settling.benjamini_hochberg import Discoveries
from pipeline.night.settling.counts import COLUMNS, CategoryCounts, NightCounts, uri_hashes
from pipeline.night.settling.drift import Comparison, alerts, compare, describe
from pipeline.night.settling.drift_table import write_drift
from pipeline.night.settling.reading_alerts import add_reading_alerts
from pipeline.night.summary import (
    CategorySummary,
    DriftSummary,
    Summary,
    no_drift,
    read_summary,
    write_summary,
)

logger = logging.getLogger(__name__)

SHARDS_AT_ONCE = 32


def settle(
    folder: NightFolder,
    fleet: Fleet,
    other_files: Mapping[str, int] | None = None,
    audit_images: int = AUDIT_IMAGES,
) -> Summary:
    """Settle a night that was scored with a fleet, and return its summary.

    ``flagged_fdr`` in the shards, the drift table and the summary are written. ``audit_images`` of
    a category are to be labelled whatever their score.

    Raises:
        ResultsError: a shard is damaged, an image is there twice, or was scored by a champion that
            is not in the fleet.
    """
    started = time.monotonic()
    before = stored_shards(folder)
    noted = dict(other_files or {})
    known = _settled_before(folder) if read_record(folder, before) else None
    if known and (known["other_files"], known["audit_images"]) == (noted, audit_images):
        return known
    shards = sorted(before)
    counts = count(folder, shards, fleet)
    _refuse_repeated(folder, shards, counts)
    discoveries = counts.discoveries()
    unsettled = [shards[number] for number in counts.unsettled(discoveries)]
    for _ in read_ahead(lambda name: _flag(folder, name, discoveries), unsettled):
        pass
    compared = [c for sample in counts.samples() if (c := compare(sample)) is not None]
    shifted = alerts(compared)
    versions = {name: champion.model_version for name, champion in fleet.champions.items()}
    write_drift(folder, compared, shifted, versions)
    drifts = _drift_summaries(compared, shifted)
    counted = counts.categories()
    categories = {
        name: _describe(own, fleet.champions.get(name), discoveries.get(name), drifts.get(name))
        for name, own in counted.items()
    }
    for name, entry in categories.items():
        add_reading_alerts(entry, counted[name].num_larger)
    summary = _summarise(folder, categories, fleet, noted)
    summary["audit_images"] = audit_images
    write_summary(folder, summary)
    after = stored_shards(folder)
    if _unchanged(before, after, unsettled):
        failed = tuple(shards[number] for number in sorted(counts.with_failures()))
        write_record(folder, SettledRecord(fingerprint=fingerprint(after), with_failures=failed))
    logger.info(
        "settled %s: %d images, %d discoveries, %d drifted, %d of %d shards written, %.1f s",
        *(folder.night, summary["images"], summary["flagged_fdr"], len(shifted)),
        *(len(unsettled), len(shards), time.monotonic() - started),
    )
    return summary


def _unchanged(before: dict[str, str], after: dict[str, str], unsettled: Sequence[str]) -> bool:
    """Whether nobody else wrote meanwhile; otherwise what was counted is not what is there."""
    others = after.keys() - set(unsettled)
    return before.keys() == after.keys() and all(before[name] == after[name] for name in others)


def _settled_before(folder: NightFolder) -> Summary | None:
    """Return the summary of a night that is settled already; a million rows stay unread."""
    try:
        return read_summary(folder) if storage.exists(folder.drift) else None
    except (storage.ObjectMissing, ResultsError):  # none, or not a whole one
        return None


def count(folder: NightFolder, shards: Sequence[str], fleet: Fleet) -> NightCounts:
    """Stream over the shards, many at once, and count their rows."""
    counts = NightCounts(fleet)
    tables = read_ahead(lambda name: read_shard(folder.shard(name), COLUMNS), shards)
    first = 0
    for batch in batches(tables, SHARDS_AT_ONCE):
        numbers = np.arange(first, first + len(batch), dtype=np.int32)
        sizes = [rows.num_rows for rows in batch]
        counts.add(pa.concat_tables(batch), np.repeat(numbers, sizes))
        first += len(batch)
    return counts


def _refuse_repeated(folder: NightFolder, shards: Sequence[str], counts: NightCounts) -> None:
    """Look again, at addresses themselves, where hashes say that an image may be there twice."""
    repeated = counts.repeated()
    if not len(repeated):
        return

    def suspects(name: str) -> pa.Table:
        rows = read_shard(folder.shard(name), ["image_uri", "shard"])
        return rows.filter(pa.array(np.isin(uri_hashes(rows), repeated)))

    rows = pa.concat_tables(read_ahead(suspects, shards))
    refuse_duplicates(rows, folder.night, counts.num_rows)


def _flag(folder: NightFolder, shard: str, discoveries: Mapping[str, Discoveries]) -> None:
    """Write one shard again with the flags of the discoveries."""
    rows = read_shard(folder.shard(shard))
    cuts = {
        name: (d.rank + 0.5) / (d.num_calibration + 1) for name, d in discoveries.items() if d.rank
    }
    encoded = rows["category"].combine_chunks().dictionary_encode()
    cut = np.array([cuts.get(name, 0.0) for name in encoded.dictionary.to_pylist()])
    flags = rows["p_value"].to_numpy() <= cut[encoded.indices.to_numpy()]  # none: not a number
    column = rows.schema.get_field_index("flagged_fdr")
    write_shard(folder, shard, rows.set_column(column, rows.schema.field(column), pa.array(flags)))


def _drift_summaries(
    comparisons: Sequence[Comparison], shifted: Mapping[str, Sequence[Comparison]]
) -> dict[str, DriftSummary]:
    """Return what was found of each category that could be compared at all."""
    summaries: dict[str, DriftSummary] = {}
    for comparison in comparisons:
        name = comparison.category
        moved = shifted.get(name, ())
        summary = summaries.setdefault(name, no_drift())
        summary["alert"] = bool(moved)
        summary["reason"] = describe(moved) if moved else None
        summary["shifted"] = [each.statistic for each in moved]
        summary[f"{comparison.statistic}_ks"] = comparison.ks  # type: ignore[literal-required]
        summary[f"{comparison.statistic}_psi"] = comparison.psi  # type: ignore[literal-required]
    return summaries


def _describe(
    counted: CategoryCounts,
    champion: Champion | None,
    discoveries: Discoveries | None,
    drift: DriftSummary | None,
) -> CategorySummary:
    """Put one category's counts beside what its champion promises."""
    failed = dict(counted.statuses)
    num_ok, num_unrouted = failed.pop(ImageStatus.OK, 0), failed.pop(ImageStatus.UNROUTED, 0)
    calibration = champion.reference.calibration if champion else None
    rate = calibration.false_alarm_rate if calibration else None
    return {
        "images": sum(counted.statuses.values()),
        "ok": num_ok,
        "flagged": counted.num_flagged,
        "failed": failed,
        "unrouted": num_unrouted,
        "threshold": calibration.threshold if calibration else None,
        "false_alarm_rate": rate,
        "expected_false_alarms": num_ok * (rate or 0.0),
        "median_score": counted.median_score,
        "model_name": champion.model_name if champion else None,
        "model_version": champion.model_version if champion else None,
        "fdr": discoveries.fdr if discoveries else None,
        "flagged_fdr": discoveries.num_discoveries if discoveries else 0,
        "fdr_p_value": discoveries.p_value if discoveries else None,
        "fdr_limit": discoveries.limit if discoveries else None,
        "other_modes": counted.other_modes,
        "outside_range": counted.num_outside,
        "drift": drift or no_drift(),
    }


def _summarise(
    folder: NightFolder,
    categories: dict[str, CategorySummary],
    fleet: Fleet,
    other_files: dict[str, int],
) -> Summary:
    """Put the categories together."""
    totals: Counter[str] = Counter()
    for entry in categories.values():
        totals += Counter({**entry["failed"], "ok": entry["ok"], "unrouted": entry["unrouted"]})
    with_champion = {*fleet.champions, *fleet.without_images}
    return {
        "images": totals.total(),
        "totals": dict(sorted(totals.items())),
        "flagged": sum(entry["flagged"] for entry in categories.values()),
        "expected_false_alarms": sum(c["expected_false_alarms"] for c in categories.values()),
        "categories": categories,
        "categories_without_images": sorted(with_champion - categories.keys()),
        "flagged_fdr": sum(entry["flagged_fdr"] for entry in categories.values()),
        "drifted": [name for name, entry in categories.items() if entry["drift"]["alert"]],
        "night": folder.night,
        "other_files": other_files,
        "audit_images": AUDIT_IMAGES,
    }
