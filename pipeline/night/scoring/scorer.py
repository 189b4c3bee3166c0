"""Score bundles of shards: rows in, rows out, and one stored object per shard.

Images are fetched and decoded ahead (``file_reader.py``) and go on as soon as they are there: none
waits for a slow one. They pass the backbone in batches of mixed categories, then each its own
category's folded heads. An image's score does not depend on its company, so the order plays no
part.

A ``ShardScorer`` lives as long as its worker, and several threads may use it. It knows nothing of
a cluster.
"""

import dataclasses
import datetime as dt
import math
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor

from model.errors import CategoryFault, ServiceAway
from pipeline.images.batches import batches_within, pixels_of
from pipeline.images.decode import ImageRead, ImageStatus
from pipeline.images.page_numbers import page_uri
from pipeline.images.prefetch import NUM_THREADS, read_ahead, read_as_ready
from pipeline.night.fleet.fleet import Fleet
from pipeline.night.folder import NightFolder
from pipeline.night.results import FLAGS, RESULT_SCHEMA, write_shard
from pipeline.night.scoring.decisions import decide, look
from pipeline.night.scoring.detectors import HEADS_BYTES, Detectors, Network
from pipeline.night.scoring.file_reader import InThreads, Listed, Page, Reader, Source
from pipeline.night.scoring.observer import Observer, timed
from pipeline.night.scoring.pictures import write_pictures
from pipeline.night.scoring.plan import rows_made
from pipeline.night.scoring.task import Task, Written
from pipeline.night.scoring.waiting_pixels import WaitingPixels
from pipeline.storage import StorageError
from pipeline.storage.retry import Retry

UPLOADS = 4  # threads
IN_FLIGHT = 2  # batches at a time: while one waits for its slowest thread, another one works

Clock = Callable[[], dt.datetime]


@dataclass(frozen=True, slots=True)
class _Item:
    """One manifest row on its way: its number in its shard, its image."""

    work: "_Work"
    row: int
    category: str
    page: Page

    @property
    def image(self) -> ImageRead:
        """What was read."""
        return self.page.image

    def without_whole(self) -> "_Item":
        """Return it without the pixels that were cut, which nothing needs once they are scored."""
        if self.image.view is None:
            return self
        image = dataclasses.replace(self.image, pixels=None)
        return dataclasses.replace(self, page=dataclasses.replace(self.page, image=image))


@dataclass
class _Work:
    """A task, its rows as far as they are known, and the pictures that must be stored first."""

    task: Task
    rows: list[dict[str, Any]]
    missing: list[int]  # numbers of the rows to score
    num_left: int
    pictures: list[Future[None]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    scored: Counter[str] = field(default_factory=Counter)  # images by status, those taken over not
    num_flagged: int = 0  # of these

    def split(self, row: int, num_pages: int) -> list[int]:
        """Make the row of a file one row for each of its pages; return their numbers."""
        with self.lock:
            whole = self.rows[row]
            uris = [page_uri(whole["image_uri"], n + 1) for n in range(num_pages)]
            pages = [whole | {"image_uri": uri} for uri in uris]
            first = len(self.rows)
            self.rows[row] = pages[0]
            self.rows += pages[1:]
            self.num_left += num_pages - 1
            return [row, *range(first, len(self.rows))]

    def finish_row(self, row: int, fields: Mapping[str, Any]) -> None:
        """Fill in a row that is scored, or cannot be."""
        with self.lock:
            self.rows[row] |= fields
            self.num_left -= 1
            self.scored[self.rows[row]["status"]] += 1
            self.num_flagged += self.rows[row]["flagged"]

    @property
    def table(self) -> pa.Table:
        """The shard's rows, in its order."""
        return pa.Table.from_pylist(self.rows, RESULT_SCHEMA)


@dataclass(frozen=True, slots=True)
class _Result:
    """What is said of an image."""

    item: _Item
    fields: dict[str, Any]  # of its row
    grey_levels: NDArray[np.uint8] | None = None  # of its anomaly map, where that is kept


class ShardScorer:
    """Scores with the champions of one fleet; loads each backbone once, heads as it needs them."""

    def __init__(  # noqa: PLR0913  each is something a test or a cluster chooses
        self,
        fleet: Fleet,
        folder: NightFolder,
        *,
        device: str = "cpu",
        num_threads: int = NUM_THREADS,
        heads_bytes: int = HEADS_BYTES,
        clock: Clock = lambda: dt.datetime.now(dt.UTC),
        observer: Observer | None = None,
        retry: Retry | None = None,
        source: Source | None = None,
        compiles: bool = False,
    ) -> None:
        self.fleet, self.folder = fleet, folder
        self.detectors = Detectors(fleet.champions, device, heads_bytes, compiles=compiles)
        self.clock = clock
        self.observer = observer or Observer()
        self.retry = retry or Retry()
        ways = {name: champion.preprocessing for name, champion in fleet.champions.items()}
        self.waiting = WaitingPixels()
        reader = Reader(ways, self.retry, self.observer, self.waiting)
        self.source = source or InThreads(reader, num_threads)
        self.heads_retry = dataclasses.replace(self.retry)  # heads at hand prove nothing

    def write(self, tasks: Sequence[Task]) -> list[Written]:
        """Score shards and store each one's rows whole, as soon as its last image is scored.

        Raises:
            ServiceAway: the storage does not answer any more, neither for images nor for rows.
        """
        with ThreadPoolExecutor(UPLOADS, "uploads") as uploads:
            waiting = [
                uploads.submit(self._store, work) for work in self._score_all(tasks, uploads)
            ]
            return [stored.result() for stored in waiting]

    def score(self, tasks: Sequence[Task]) -> pa.Table:
        """Return the rows of shards, in their order; stores nothing but pictures."""
        with ThreadPoolExecutor(UPLOADS, "uploads") as uploads:
            works = {work.task.name: work for work in self._score_all(tasks, uploads)}
            wait([picture for work in works.values() for picture in work.pictures])
        return pa.concat_tables([works[task.name].table for task in tasks])

    def _score_all(self, tasks: Sequence[Task], uploads: ThreadPoolExecutor) -> Iterator[_Work]:
        """Yield each task's work when all its rows are known, whichever is first."""
        works = [self._begin(task) for task in tasks]
        yield from (work for work in works if not work.num_left)
        wanted = ((work, row) for work in works for row in work.missing)
        most = self.source.files_a_request, self._num_pixels, self.source.pixels_a_request
        self.waiting.begin()
        guarded = self.waiting.guarded
        ahead = self.source.num_requests, self.source.ahead
        read = read_as_ready(guarded(self._read), batches_within(wanted, *most), *ahead)
        items = (item for part in read for item in part)
        scored = read_ahead(guarded(self._score_batch), self._batches(items), IN_FLIGHT)
        # However it ends, no thread of it counts pixels after the next call has begun.
        with closing(read), self.waiting.over_with_errors(), closing(scored):
            for batch in scored:
                for result in batch:
                    self._note(result, uploads)
                    if not result.item.work.num_left:
                        yield result.item.work

    def _num_pixels(self, place: tuple[_Work, int]) -> int:
        """Pixels of a row's image in memory; none where nothing reads it."""
        work, row = place
        champion = self.fleet.champions.get(work.rows[row]["category"])
        return 0 if champion is None else math.prod(champion.preprocessing.size_read)

    def _begin(self, task: Task) -> _Work:
        """Lay out a shard's rows; those that are stored already are taken over."""
        made = self.retry.call(lambda: rows_made(task, self.folder))
        scored_at = self.clock()
        rows: list[dict[str, Any]] = []
        missing: list[int] = []
        for entry in task.shard.rows.to_pylist():
            own = made.get(entry["image_uri"])
            if own is None:
                missing.append(len(rows))
                row = dict.fromkeys(RESULT_SCHEMA.names) | dict.fromkeys(FLAGS, False)
                row |= {"scored_at": scored_at}
                row |= {name: entry[name] for name in ("image_uri", "image_etag", "category")}
                own = [row]
            rows += [row | {"shard": task.name} for row in own]
        return _Work(task, rows, missing, len(missing))

    def _read(self, part: Sequence[tuple[_Work, int]]) -> list[_Item]:
        """Read some files; those that no champion can score are not read."""
        items, files = [], []
        for work, row in part:
            if refused := self._refused(work, row):
                items.append(refused)
            else:
                files.append((work, row))
        read = self.source.read([_listed(work.rows[row]) for work, row in files]) if files else []
        for (work, row), pages in zip(files, read, strict=True):
            category = work.rows[row]["category"]
            rows = work.split(row, len(pages)) if len(pages) > 1 else [row]
            items += [_Item(work, n, category, page) for n, page in zip(rows, pages, strict=True)]
        return items

    def _refused(self, work: _Work, row: int) -> _Item | None:
        """Say why a file is not even read, or fetch its heads beside images, not between batches.

        Raises:
            ServiceAway: the storage as a whole does not answer any more.
        """
        category = work.rows[row]["category"]
        if reason := self.fleet.unusable.get(category):
            return _unscored(work, row, ImageStatus.BROKEN_MODEL, reason)
        if category not in self.fleet.champions:
            error = f"category {category!r} has no champion; onboard it or mend the dump"
            return _unscored(work, row, ImageStatus.UNROUTED, error)
        try:
            self.heads_retry.call(lambda: self.detectors.network(category))
        except ServiceAway as error:
            if self.retry.gave_up or self.heads_retry.gave_up:
                raise
            return _unscored(work, row, ImageStatus.UNREACHABLE, str(error))
        except (CategoryFault, StorageError) as error:
            return _unscored(work, row, ImageStatus.BROKEN_MODEL, str(error))
        return None

    def _batches(self, items: Iterable[_Item]) -> Iterator[list[_Item]]:
        """Group images that can share a backbone pass; what cannot be scored passes through."""
        waiting: dict[Network, list[_Item]] = defaultdict(list)
        for item in items:
            if item.image.status is not ImageStatus.OK or item.image.view is not None:
                yield [item]  # or its tiles are a batch
                continue
            group = waiting[self.detectors.network(item.category)]
            group.append(item)
            self.observer.waiting(sum(map(len, waiting.values())))
            if len(group) == self.detectors.batch_images:
                yield sorted(group, key=lambda item: item.category)
                group.clear()
        for group in waiting.values():
            if group:
                yield sorted(group, key=lambda item: item.category)

    def _score_batch(self, batch: list[_Item]) -> list[_Result]:
        """Return what is said of each item of a batch; others may be read in its place then."""
        try:
            return self._scored(batch)
        finally:
            self.waiting.remove(sum(item.page.num_pixels for item in batch))

    def _scored(self, batch: list[_Item]) -> list[_Result]:
        if batch[0].image.status is not ImageStatus.OK:
            image = batch[0].image
            return [_Result(batch[0], {"status": image.status.value, "error": image.error})]
        with timed(self.observer, "score"):
            pixels = pixels_of([item.image for item in batch])
            categories = [item.category for item in batch]
            # Heads that had to make room are fetched again.
            image_scores, patch_scores = self.heads_retry.call(
                lambda: self.detectors.score(categories, pixels)
            )
            scores: NDArray[np.float32] = image_scores.cpu().numpy()
            decided = self._decided(categories, scores)
            return [
                self._result(item, fields, patch_scores[i : i + 1])
                for i, (item, fields) in enumerate(zip(batch, decided, strict=True))
            ]

    def _decided(
        self, categories: Sequence[str], scores_B: NDArray[np.float32]
    ) -> Iterator[dict[str, Any]]:
        """Yield what the row of each image says of its score; categories lie side by side."""
        start = 0
        for category, same in groupby(categories):
            stop = start + len(list(same))
            yield from decide(self.fleet.champions[category], scores_B[start:stop])
            start = stop

    def _result(self, item: _Item, fields: dict[str, Any], patch_scores_1hw: Tensor) -> _Result:
        champion = self.fleet.champions[item.category]
        fields |= item.page.statistics
        make_map = partial(self.detectors.maps, item.category)
        audit = item.work.task.audit
        is_drawn = audit is not None and audit.may_have(item.image.uri)
        seen = item.image, fields, patch_scores_1hw
        more, levels = look(champion, *seen, make_map, is_drawn=is_drawn)
        return _Result(item.without_whole(), fields | more, levels)

    def _note(self, result: _Result, uploads: ThreadPoolExecutor) -> None:
        """Fill in one row; its pictures are stored beside, and before it."""
        item, work = result.item, result.item.work
        map_uri = None
        if result.grey_levels is not None:
            subject = item.category, item.image.uri
            map_uri = self.folder.picture(*subject, "maps")
            pictures = result.grey_levels, item.image.shown
            store = partial(write_pictures, self.folder, *subject, *pictures)
            work.pictures.append(uploads.submit(self._with_retries, store))
        work.finish_row(item.row, {**result.fields, "map_uri": map_uri})

    def _with_retries(self, store: Callable[[], Any]) -> None:
        with timed(self.observer, "write"):
            self.retry.call(store)

    def _store(self, work: _Work) -> Written:
        """Store a shard's rows, after all that they point to."""
        for picture in work.pictures:
            picture.result()
        table, name = work.table, work.task.name
        self._with_retries(partial(write_shard, self.folder, name, table))
        for status, count in work.scored.items():
            num_flagged = work.num_flagged if status == ImageStatus.OK else 0
            self.observer.finished(status, count, num_flagged)
        statuses = dict(Counter(row["status"] for row in work.rows))
        num_flagged = sum(row["flagged"] for row in work.rows)
        return Written(name, statuses, num_flagged, work.scored.total())


def _listed(row: Mapping[str, Any]) -> Listed:
    return Listed(row["image_uri"], row["image_etag"], row["category"])


def _unscored(work: _Work, row: int, status: ImageStatus, error: str) -> _Item:
    uri, category = work.rows[row]["image_uri"], work.rows[row]["category"]
    return _Item(work, row, category, Page(ImageRead(uri, status, error)))
