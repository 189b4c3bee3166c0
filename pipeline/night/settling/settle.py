"""Settling a night: what can only be said once all its rows are there.

``settle`` reads every shard once, as columns, sees that no image is there twice, cuts each
category's list (``discoveries.py``), looks for drift (``drift.py``), and writes the summary. Shards
whose ``flagged_fdr`` is not what the lists say are written again, whole; the column depends on the
p-values alone, so a run that was killed between two of them is mended by the next. A night that is
settled already is known by the etags of its shards and not read again.
"""

import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage
from pipeline.images.batches import batches
from pipeline.images.decode import ImageStatus
from pipeline.images.prefetch import read_ahead
from pipeline.night.fleet.fleet import Champion, Fleet
from pipeline.night.folder import NightFolder
from pipeline.night.results import read_shard, refuse_duplicates, stored_shards, write_shard
from pipeline.night.settling.benjamini_hochberg import Discoveries
from pipeline.night.settling.counts import COLUMNS, NightCounts, uri_hashes
from pipeline.night.settling.drift import Comparison, alerts, compare, describe
from pipeline.night.settling.drift_table import write_drift
from pipeline.night.summary import (
    CategorySummary,
    DriftSummary,
    Summary,
    describe_category,
    describe_night,
    no_drift,
    write_summary,
)

logger = logging.getLogger(__name__)

SHARDS_AT_ONCE = 32
SETTLED_VERSION = 1  # of what settling does with the same rows


def settle(folder: NightFolder, fleet: Fleet) -> Summary:
    """Settle a night and return its summary.

    Args:
        folder: where the night's shards are; ``flagged_fdr`` in them, the drift table and the
            summary are written there.
        fleet: what it was scored with.

    Raises:
        ResultsError: a shard is damaged, an image is there twice, or was scored by a champion that
            is not in the fleet.
    """
    started = time.monotonic()
    before = stored_shards(folder)
    known = _settled_before(folder, _fingerprint(before, fleet))
    if known is not None:
        return known
    shards = sorted(before)
    tally = count(folder, shards, fleet)
    _refuse_repeated(folder, shards, tally)
    found = tally.discoveries()
    unsettled = [shards[number] for number in tally.unsettled(found)]
    for _ in read_ahead(lambda name: _flag(folder, name, found), unsettled):
        pass
    compared = [c for sample in tally.samples() if (c := compare(sample)) is not None]
    shifted = alerts(compared)
    versions = {name: champion.model_version for name, champion in fleet.champions.items()}
    write_drift(folder, compared, shifted, versions)
    summary = _summarise(tally, fleet, found, _drift_summaries(compared, shifted))
    summary["night"] = folder.night
    after = stored_shards(folder)
    if _unchanged(before, after, unsettled):
        summary["settled"] = _fingerprint(after, fleet)
    write_summary(folder, summary)
    logger.info(
        "settled %s: %d images, %d listed, %d categories drifted, %d of %d shards written, %.1f s",
        *(folder.night, summary["images"], summary["flagged_fdr"], len(shifted)),
        *(len(unsettled), len(shards), time.monotonic() - started),
    )
    return summary


def _unchanged(before: dict[str, str], after: dict[str, str], unsettled: Sequence[str]) -> bool:
    """Whether nobody else wrote meanwhile; otherwise what was counted is not what is there."""
    others = after.keys() - set(unsettled)
    return before.keys() == after.keys() and all(before[name] == after[name] for name in others)


def _fingerprint(listing: Mapping[str, str], fleet: Fleet) -> str:
    """Return what a settled night is known by: its shards as they lie there, and its champions."""
    champions = [
        [name, champion.model_version, champion.model_digest, champion.calibration.fdr]
        for name, champion in sorted(fleet.champions.items())
    ]
    identity = json.dumps([SETTLED_VERSION, sorted(listing.items()), champions])
    return hashlib.sha256(identity.encode()).hexdigest()


def _settled_before(folder: NightFolder, fingerprint: str) -> Summary | None:
    """Return the summary of a night that is settled already; a million rows stay unread."""
    try:
        known: Summary = json.loads(storage.read_bytes(folder.summary))
        is_settled = known["settled"] == fingerprint
    except (storage.ObjectMissing, ValueError, KeyError, TypeError):  # none, or not a whole one
        return None
    return known if is_settled and storage.exists(folder.drift) else None


def count(folder: NightFolder, shards: Sequence[str], fleet: Fleet) -> NightCounts:
    """Stream over the shards, many at once, and count their rows."""
    tally = NightCounts(fleet)
    tables = read_ahead(lambda name: read_shard(folder.shard(name), COLUMNS), shards)
    first = 0
    for batch in batches(tables, SHARDS_AT_ONCE):
        numbers = np.arange(first, first + len(batch), dtype=np.int32)
        sizes = [rows.num_rows for rows in batch]
        tally.add(pa.concat_tables(batch), np.repeat(numbers, sizes))
        first += len(batch)
    return tally


def _refuse_repeated(folder: NightFolder, shards: Sequence[str], tally: NightCounts) -> None:
    """Look again, at addresses themselves, where hashes say that an image may be there twice."""
    repeated = tally.repeated()
    if not len(repeated):
        return

    def suspects(name: str) -> pa.Table:
        rows = read_shard(folder.shard(name), ["image_uri", "shard"])
        return rows.filter(pa.array(np.isin(uri_hashes(rows), repeated)))

    num_rows = sum(sum(statuses.values()) for statuses in tally.statuses().values())
    refuse_duplicates(pa.concat_tables(read_ahead(suspects, shards)), folder.night, num_rows)


def _flag(folder: NightFolder, shard: str, found: Mapping[str, Discoveries]) -> None:
    """Write one shard again with the flags that the lists give."""
    rows = read_shard(folder.shard(shard))
    cuts = {name: (d.rank + 0.5) / (d.num_calibration + 1) for name, d in found.items() if d.rank}
    encoded = rows["category"].combine_chunks().dictionary_encode()
    cut = np.array([cuts.get(name, 0.0) for name in encoded.dictionary.to_pylist()])
    listed = rows["p_value"].to_numpy() <= cut[encoded.indices.to_numpy()]
    is_ok = pc.equal(rows["status"], ImageStatus.OK.value)
    flags = pc.if_else(is_ok, pa.array(listed), pa.scalar(None, pa.bool_()))
    place = rows.schema.get_field_index("flagged_fdr")
    write_shard(folder, shard, rows.set_column(place, rows.schema.field(place), flags))


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


def _promise(champion: Champion) -> dict[str, Any]:
    return {
        "threshold": champion.calibration.threshold,
        "false_alarm_rate": champion.calibration.false_alarm_rate,
        "model_name": champion.model_name,
        "model_version": champion.model_version,
    }


def _summarise(
    tally: NightCounts,
    fleet: Fleet,
    found: Mapping[str, Discoveries],
    drifts: Mapping[str, DriftSummary],
) -> Summary:
    totals: Counter[str] = Counter()
    categories: dict[str, CategorySummary] = {}
    medians = tally.median_scores()
    for name, statuses in tally.statuses().items():
        totals.update(statuses)
        promise = _promise(fleet.champions[name]) if name in fleet.champions else {}
        category = describe_category(statuses, tally.flagged(name), medians.get(name), promise)
        listed = found.get(name)
        category["fdr"] = listed.fdr if listed else None
        category["flagged_fdr"] = listed.num_listed if listed else 0
        category["fdr_p_value"] = listed.p_value if listed else None
        category["fdr_limit"] = listed.limit if listed else None
        category["drift"] = drifts.get(name) or no_drift()
        categories[name] = category
    summary = describe_night(
        dict(sorted(totals.items())), categories, [*fleet.champions, *fleet.without_images]
    )
    summary["flagged_fdr"] = sum(category["flagged_fdr"] for category in categories.values())
    summary["drifted"] = [name for name, each in categories.items() if each["drift"]["alert"]]
    return summary
