"""What is left to do of a night: which shards to score, and which of their rows are good already.

A shard's results have a name that says what they were made from: its rows and everything that
shapes them. What is finished is told from what is out of date by the names alone, and a rerun
scores what is missing. Rows that failed, or that an earlier, slightly different listing of the
dump has scored with the same champion, are found in the stored shards: only the others are read.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage
from pipeline.images.decode import ImageStatus
from pipeline.night.fleet.fleet import Fleet
from pipeline.night.manifest import Shard, shard_prefix, shards
from pipeline.night.results import (
    PARALLEL_READS,
    check_night,
    finished_shards,
    read_shard,
    shard_uri,
)

ROWS_PER_SHARD = 512
RESULT_VERSION = 4  # of the meaning of a row; part of every shard's name
FINAL = [ImageStatus.OK.value, ImageStatus.UNROUTED.value]
FINAL_BYTES = [ImageStatus.UNREADABLE.value, ImageStatus.TOO_LARGE.value]


@dataclass(frozen=True, slots=True)
class Task:
    """One shard to score."""

    name: str  # of its results
    shard: Shard
    reuse: tuple[str, ...] = ()  # stored shards that may hold some of its rows, ready made

    def again(self) -> "Task":
        """Return what is left when its worker was lost: nothing, where it was stored already."""
        return replace(self, reuse=(self.name, *self.reuse))


@dataclass(frozen=True, kw_only=True)
class NightPlan:
    """A night's shards, and what is left of them."""

    tasks: Sequence[Task]
    names: frozenset[str]  # of all the night's results
    stale: frozenset[str]  # stored results of another manifest or another champion
    with_failures: frozenset[str]  # stored results that hold rows worth trying again
    is_settled: bool  # nothing is left to do at all

    @property
    def num_images(self) -> int:
        """Images of the shards that are left."""
        return sum(task.shard.rows.num_rows for task in self.tasks)

    def bundles(self, max_images: int) -> Iterator[list[Task]]:
        """Group tasks into bundles of neighbours, each what a worker takes at a time."""
        bundle: list[Task] = []
        room = max_images
        for task in self.tasks:
            if bundle and task.shard.rows.num_rows > room:
                yield bundle
                bundle, room = [], max_images
            bundle.append(task)
            room -= task.shard.rows.num_rows
        if bundle:
            yield bundle


def result_name(shard: Shard, fleet: Fleet, broken: Collection[str] = ()) -> str:
    """Name a shard's results by its rows and by everything that shapes them.

    A champion, a threshold or the meaning of a row that changes gives another name.
    """
    return f"{shard.name}-{identity(shard.category, fleet, broken)}"


def identity(category: str, fleet: Fleet, broken: Collection[str] = ()) -> str:
    """Name what shapes a category's rows: its champion, and what a row means."""
    champion = fleet.get(category)
    pinned = [champion.model_version, champion.model_digest] if champion else []
    if category in broken:
        pinned = ["broken"]  # not the same as none
    document = json.dumps([RESULT_VERSION, *pinned])
    return hashlib.sha256(document.encode()).hexdigest()[:12]


def plan_night(
    manifest: pa.Table, fleet: Fleet, out: str, night: str, broken: Collection[str] = ()
) -> NightPlan:
    """Compare what the night needs with what is stored.

    Args:
        manifest: the night's images.
        fleet: its champions.
        out: where results go.
        night: its date.
        broken: categories whose champion cannot be used.
    """
    finished = finished_shards(out, night)
    needed = {result_name(s, fleet, broken): s for s in shards(manifest, ROWS_PER_SHARD)}
    names = frozenset(needed)
    stale = finished - names
    settled = _settled(finished, out, night)
    failed = _with_failures(finished & names, out, night) if settled is None else settled
    retry = failed & names
    by_prefix = defaultdict(list)
    for name in sorted(stale):
        by_prefix[_prefix(name)].append(name)
    tasks = []
    for name, shard in needed.items():
        if name in finished and name not in retry:
            continue
        made_alike = name.rpartition("-")[2]
        earlier = [n for n in by_prefix[shard_prefix(shard.category)] if n.endswith(made_alike)]
        tasks.append(Task(name, shard, (*([name] if name in retry else []), *earlier)))
    return NightPlan(
        tasks=tasks,
        names=names,
        stale=frozenset(stale),
        with_failures=frozenset(retry),
        is_settled=settled is not None and not tasks and not stale,
    )


def rows_made(task: Task, out: str, night: str) -> dict[str, dict[str, Any]]:
    """Return the rows of a task's images that stored shards hold, by image."""
    listed = task.shard.rows
    wanted = dict(
        zip(listed["image_uri"].to_pylist(), listed["image_etag"].to_pylist(), strict=True)
    )
    found = {}
    for name in task.reuse:
        try:
            rows = read_shard(shard_uri(out, night, name))
        except storage.ObjectMissing:  # its worker was lost before it was stored
            continue
        for row in rows.filter(_is_final(rows)).to_pylist():
            uri = row["image_uri"]
            if uri in wanted and wanted[uri] == row["image_etag"]:
                found[uri] = row
    return found


def note_settled(out: str, night: str, failed: Iterable[str]) -> None:
    """Remember that all is done with the stored shards, and which of them hold failed rows."""
    document = {"shards": _digest(finished_shards(out, night)), "failed": sorted(failed)}
    storage.write_bytes(_settled_uri(out, night), json.dumps(document).encode())


def _settled(names: Iterable[str], out: str, night: str) -> set[str] | None:
    """Return the shards with failed rows of a night that is done; None when it is not."""
    with suppress(storage.ObjectMissing, ValueError, KeyError):
        document = json.loads(storage.read_bytes(_settled_uri(out, night)))
        if document["shards"] == _digest(names):
            return set(document["failed"])
    return None


def _with_failures(names: Iterable[str], out: str, night: str) -> set[str]:
    """Return those of the stored shards ``names`` that hold rows worth trying again."""
    ordered = sorted(names)
    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        failed = pool.map(lambda name: _holds_failures(shard_uri(out, night, name)), ordered)
        return {name for name, found in zip(ordered, failed, strict=True) if found}


def _holds_failures(uri: str) -> bool:
    return has_failures(read_shard(uri, ["status", "image_etag"]))


def has_failures(rows: pa.Table) -> bool:
    """Whether some rows are worth trying again."""
    return not pc.all(_is_final(rows), min_count=0).as_py()


def _is_final(rows: pa.Table) -> pa.ChunkedArray:
    """Which rows will not change: scored ones, and those whose very bytes are no good.

    Without an etag nobody knows whether the bytes are still the same.
    """
    known = pc.is_valid(rows["image_etag"])
    bad_bytes = pc.is_in(rows["status"], value_set=pa.array(FINAL_BYTES))
    return pc.or_(pc.is_in(rows["status"], value_set=pa.array(FINAL)), pc.and_(bad_bytes, known))


def _settled_uri(out: str, night: str) -> str:
    return storage.join(out, "summary", f"night={check_night(night)}", "settled.json")


def _digest(names: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()


def _prefix(name: str) -> str:
    return name.rsplit("-", 3)[0]
