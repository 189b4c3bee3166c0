"""Score a night's dump: manifest, pinned fleet, shards over a fixed pool of actors, report.

A shard's results have a name that says what they were made from: a rerun scores what is missing
or out of date and leaves the rest alone.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
import torch
from ray.exceptions import RayError

from jobs.cluster import ClusterError, Slots, cluster, reason, slots
from jobs.progress import Display
from pipeline import registry, storage, tracking
from pipeline.fleet import Fleet, pin_fleet, read_fleet
from pipeline.manifest import Shard, build_manifest, read_manifest, shards
from pipeline.report import write_report
from pipeline.results import (
    Summary,
    check_night,
    finished_shards,
    read_night,
    remove_shards,
    summarise,
    write_summary,
)
from pipeline.scoring import ShardScorer, result_name

logger = logging.getLogger(__name__)

ROWS_PER_SHARD = 256
MANIFEST_SUFFIXES = (".parquet", ".csv", ".jsonl", ".json", ".manifest")
POLL_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Night:
    """What a scored night came to."""

    summary: Summary
    report: str
    num_scored: int  # images scored by this call; the others were done before
    scoring_s: float  # from the first worker's start to the last shard's rows

    @property
    def images_per_s(self) -> float:
        """Throughput of this call, from storage to stored rows."""
        return self.num_scored / max(self.scoring_s, 1e-9)

    @property
    def num_failed(self) -> int:
        """Images that have no score."""
        totals = self.summary["totals"]
        return sum(count for status, count in totals.items() if status != "ok")


def score(dump: str, out: str, night: str) -> Night:
    """Score every image of a dump exactly once and write results, summary and report.

    A cluster is joined or started when there is something to score.

    Args:
        dump: prefix of the night's images, or a ready manifest.
        out: where results go; a folder or an S3 prefix.
        night: YYYY-MM-DD.
    """
    check_night(night)
    out = storage.absolute(out).rstrip("/")
    manifest = load_manifest(dump)
    fleet = _pin(manifest, out, night)
    wanted = {result_name(shard, fleet): shard for shard in shards(manifest, ROWS_PER_SHARD)}
    finished = finished_shards(out, night)
    missing = [shard for name, shard in wanted.items() if name not in finished]
    logger.info("night %s: %d shards, %d to score", night, len(wanted), len(missing))
    started = time.monotonic()
    if missing:
        with cluster():
            _score_shards(missing, out, night)
    scoring_s = time.monotonic() - started
    remove_shards(out, night, finished - wanted.keys())
    champions = {name: champion.to_json() for name, champion in fleet.items()}
    summary = summarise(read_night(out, night), {"format": 1, "champions": champions})
    write_summary(out, night, summary)
    return Night(
        summary=summary,
        report=write_report(out, night),
        num_scored=sum(shard.rows.num_rows for shard in missing),
        scoring_s=scoring_s,
    )


def load_manifest(dump: str) -> pa.Table:
    """Read a ready manifest, or list a dump."""
    if dump.lower().endswith(MANIFEST_SUFFIXES):
        return read_manifest(dump)
    return build_manifest(dump)


def _pin(manifest: pa.Table, out: str, night: str) -> Fleet:
    tracking.connect()
    categories = set(manifest["category"].unique().to_pylist())
    return pin_fleet(out, night, registry.champions(), categories, registry.download)


class ScoringWorker:
    """A ``ShardScorer`` in a process of its own; it finds the fleet where it was pinned."""

    def __init__(self, out: str, night: str, threads: int) -> None:
        torch.set_num_threads(threads)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.scorer = ShardScorer(read_fleet(out, night), out, night, device)

    def write(self, shard: Shard) -> dict[str, int]:
        """Score one shard and store its rows."""
        return self.scorer.write(shard)


def _score_shards(missing: Sequence[Shard], out: str, night: str) -> None:
    """Give each worker of a fixed pool the next shard as soon as it has finished one."""
    workers = _start_workers(slots(len(missing)), out, night)
    total = sum(shard.rows.num_rows for shard in missing)
    done = 0
    waiting = list(reversed(missing))
    running: dict[Any, Any] = {}
    with Display("scoring").shown() as display:
        while waiting or running:
            while waiting and workers:
                worker = workers.pop()
                running[worker.write.remote(waiting.pop())] = worker
            ready, _ = ray.wait(list(running), num_returns=1, timeout=POLL_S)
            for reference in ready:
                done += sum(_counts(reference).values())
                workers.append(running.pop(reference))
            display.update({night: ("images", done, total)})


def _counts(reference: Any) -> dict[str, int]:
    """Return a shard's images by status.

    Raises:
        ClusterError: its worker failed, or died more often than it was started again.
    """
    try:
        counts: dict[str, int] = ray.get(reference)
    except RayError as error:
        raise ClusterError(
            f"a scoring worker failed: {reason(error)} "
            f"What is scored is kept; score the night again when that is mended."
        ) from error
    return counts


def _start_workers(share: Slots, out: str, night: str) -> list[Any]:
    options = {"num_cpus": share.cpus, "num_gpus": share.gpus, "max_restarts": 3}
    worker = ray.remote(ScoringWorker).options(**options, max_task_retries=3)
    return [worker.remote(out, night, share.threads) for _ in range(share.num_jobs)]
