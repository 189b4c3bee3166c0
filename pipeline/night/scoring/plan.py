"""What is left to do of a night: which shards to score, and which of their rows are good already.

A shard's results have a name that says what they were made from: its rows and everything that
shapes them. The names alone say what is finished and what is out of date, and a rerun
scores what is missing. Rows that failed, or that an earlier, slightly different listing of the
dump has scored with the same champion, are found in the stored shards: only the others are read.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage
from pipeline.images.page_numbers import PAGE, split_page
from pipeline.labels.audit import AUDIT_IMAGES, Draw, draw
from pipeline.night.fleet.fleet import Fleet
from pipeline.night.folder import NightFolder
from pipeline.night.manifest import Shard, shards
from pipeline.night.record import read_record
from pipeline.night.results import PARALLEL_READS, is_final, read_shard, stored_shards
from pipeline.night.scoring.task import Task

ROWS_PER_SHARD = 512
FEW_SHARDS = 4  # outdated ones of a category, which every shard that is left may look through
RESULT_VERSION = 4  # of the meaning of a row; part of every shard's name


@dataclass(frozen=True, kw_only=True)
class NightPlan:
    """A night's shards, and what is left of them."""

    tasks: Sequence[Task]
    names: frozenset[str]  # of all the night's results
    stale: frozenset[str]  # stored results of another manifest or another champion

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


def result_name(shard: Shard, fleet: Fleet) -> str:
    """Name a shard's results by its rows and by everything that shapes them.

    A champion, a threshold or the meaning of a row that changes gives another name.
    """
    return f"{shard.name}-{identity(shard.category, fleet)}"


def identity(category: str, fleet: Fleet) -> str:
    """Name what shapes a category's rows: its champion, and what a row means."""
    champion = fleet.champions.get(category)
    shaping = [champion.model_version, champion.model_digest] if champion else []
    if category in fleet.unusable:
        shaping = ["broken"]  # not the same as none
    document = json.dumps([RESULT_VERSION, *shaping])
    return hashlib.sha256(document.encode()).hexdigest()[:12]


def plan_night(
    manifest: pa.Table,
    fleet: Fleet,
    folder: NightFolder,
    rows_per_shard: int = ROWS_PER_SHARD,
    audit_images: int = AUDIT_IMAGES,
) -> NightPlan:
    """Compare what the night needs with what is stored."""
    stored = stored_shards(folder)
    finished = stored.keys()
    needed = {result_name(s, fleet): s for s in shards(manifest, rows_per_shard)}
    stale = finished - needed.keys()
    record = read_record(folder, stored)
    retry = (
        set(record.with_failures) if record else _with_failures(finished & needed.keys(), folder)
    )
    left = {n: shard for n, shard in needed.items() if n not in finished or n in retry}
    earlier = _earlier(left, stale, folder)
    draws = _draws(manifest, {s.category for s in left.values()}, folder.night, audit_images)
    tasks = [
        Task(
            name,
            shard,
            (*([name] if name in retry else []), *earlier[name]),
            draws.get(shard.category),
        )
        for name, shard in left.items()
    ]
    return NightPlan(tasks=tasks, names=frozenset(needed), stale=frozenset(stale))


def _draws(
    manifest: pa.Table, categories: Iterable[str], night: str, audit_images: int
) -> dict[str, Draw]:
    """Prepare the audit sample of each category that is left."""
    wanted = pa.array(sorted(categories), pa.string())
    rows = manifest.filter(pc.is_in(manifest["category"], value_set=wanted))
    columns = (rows[name].to_pylist() for name in ("category", "image_uri"))
    uris = defaultdict(list)
    for category, uri in zip(*columns, strict=True):
        uris[category].append(uri)
    return {name: draw(night, own, audit_images) for name, own in uris.items() if audit_images}


def rows_made(task: Task, folder: NightFolder) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of a task's files that stored shards hold, by file.

    A file has several where each of its pages is an image; all of them are made, or none counts.
    """
    listed = task.shard.rows
    wanted = dict(
        zip(listed["image_uri"].to_pylist(), listed["image_etag"].to_pylist(), strict=True)
    )
    made: dict[str, list[dict[str, Any]]] = {}
    for name in task.reuse:
        try:
            rows = read_shard(folder.shard(name))
        except storage.ObjectMissing:  # its worker was lost before it was stored
            continue
        files: dict[str, list[dict[str, Any]]] = defaultdict(list)
        unfinished = set()
        for row, is_made in zip(rows.to_pylist(), is_final(rows).to_pylist(), strict=True):
            uri = row["image_uri"]
            file = uri if uri in wanted else split_page(uri)[0]
            if file in wanted and wanted[file] == row["image_etag"]:
                files[file].append(row)
                unfinished |= set() if is_made else {file}
        made |= {file: own for file, own in files.items() if file not in unfinished}
    return made


def _earlier(
    left: Mapping[str, Shard], stale: Iterable[str], folder: NightFolder
) -> dict[str, list[str]]:
    """Return, for each shard that is left, the outdated ones that may hold some of its rows.

    They are of the same category and made alike. Where a category has many, as after a dump that
    sorts before the night's others, their first and last images tell which: each is read for it
    once, and not again for every shard that is left.
    """
    alike = defaultdict(list)
    for name in sorted(stale):
        alike[_made(name)].append(name)
    many = {n for name in left if len(alike[_made(name)]) > FEW_SHARDS for n in alike[_made(name)]}
    spans = _spans(sorted(many), folder)
    return {
        name: [n for n in alike[_made(name)] if n not in spans or _overlap(spans[n], shard)]
        for name, shard in left.items()
    }


def _spans(names: Sequence[str], folder: NightFolder) -> dict[str, tuple[str, str]]:
    """Return where the addresses of stored shards begin and end; a page may stand for its file."""

    def span(name: str) -> tuple[str, str]:
        uris = read_shard(folder.shard(name), ["image_uri"])["image_uri"]
        files = pc.replace_substring_regex(uris, PAGE.pattern, "")
        return pc.min(files).as_py(), pc.max(uris).as_py()

    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        return dict(zip(names, pool.map(span, names), strict=True))


def _overlap(span: tuple[str, str], shard: Shard) -> bool:
    uris = shard.rows["image_uri"]  # sorted
    first: str = uris[0].as_py()
    last: str = uris[-1].as_py()
    return span[0] <= last and first <= span[1]


def _with_failures(names: Iterable[str], folder: NightFolder) -> set[str]:
    """Return those of the stored shards ``names`` that hold rows worth trying again."""
    ordered = sorted(names)
    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        failed = pool.map(lambda name: _holds_failures(folder.shard(name)), ordered)
        return {name for name, has_failures in zip(ordered, failed, strict=True) if has_failures}


def _holds_failures(uri: str) -> bool:
    rows = read_shard(uri, ["status", "image_etag"])
    return not pc.all(is_final(rows), min_count=0).as_py()


def _made(name: str) -> tuple[str, str]:
    """Return of which category a shard's results are, and what shaped them."""
    parts = name.rsplit("-", 3)  # category, number, digest of its rows, identity
    return parts[0], parts[-1]
