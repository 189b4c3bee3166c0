"""Processes that fetch and decode for a scoring worker whose GPU would wait for one process.

Python's lock lets one process read a few hundred images a second, on however many cores; a GPU
scores thousands. So a worker with a GPU has feeders, one a CPU: it asks each for a few files at a
time and gets their pages through Ray's object store. They are its own and end with it. Where there
are no GPUs the cores are busy with scoring, and each worker reads for itself.

Only so many requests are under way as the object store has room for, and nothing is asked for
before there is room again. A lost feeder costs the files that it had in hand: nothing of them had a
row yet, and they are read anew, file by file, so that one which takes feeders down is known by its
name. Where all are lost, or the object store stays full, the worker reads for itself.
"""

import logging
import math
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import (
    ObjectStoreFullError,
    OutOfDiskError,
    RayActorError,
    RayError,
    RayTaskError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from jobs.cluster.join import reason
from jobs.cluster.probe import ClusterError
from jobs.night.prometheus import NightMetrics
from model.errors import NightshiftError
from model.preprocessing import Preprocessing
from pipeline.images.prefetch import NUM_THREADS, read_ahead
from pipeline.night.scoring.file_reader import Listed, Page, Reader, Source
from pipeline.storage.retry import Retry

if TYPE_CHECKING:  # a feeder needs no torch
    from pipeline.night.scoring.scorer import ShardScorer

logger = logging.getLogger(__name__)

Pages = Sequence[list[Page]]

PART_BYTES = 8_000_000  # of pixels in one request, where its files have one page each
PART_FILES = 32
REQUESTS = 2  # of each feeder: one is read while the other is fetched or handed over
STORE_SHARE = 0.25  # of a node's object store, for what is under way to all its workers
POLL_S = 0.5
RETURN_S = 60.0  # for which nobody feeds before the worker reads for itself
FULL_S = 60.0  # for which the object store may be full before it does
MOST_LOSSES = 4  # of one file: it may be what kills them


@dataclass(frozen=True, kw_only=True)
class Feeding:
    """How many feeders each worker has, and how much may be under way to it."""

    beside: int  # on the node of the worker
    elsewhere: int  # on nodes without a GPU
    store_bytes: int

    @property
    def count(self) -> int:
        """Feeders of a worker."""
        return self.beside + self.elsewhere


def feeding_for(nodes: Sequence[Mapping[str, float]]) -> Feeding | None:
    """Share the CPUs that workers with a GPU leave on nodes with these resources.

    None where nobody is to be fed.
    """
    with_gpus = [node for node in nodes if node.get("GPU", 0) >= 1]
    if not with_gpus:
        return None
    num_gpus = sum(int(node["GPU"]) for node in with_gpus)
    others = sum(int(node.get("CPU", 0)) for node in nodes if not node.get("GPU", 0))
    beside = min(int(node.get("CPU", 0) - node["GPU"]) // int(node["GPU"]) for node in with_gpus)
    room = min(node.get("object_store_memory", 0) / node["GPU"] for node in with_gpus)
    feeding = Feeding(
        beside=max(0, beside), elsewhere=others // num_gpus, store_bytes=int(STORE_SHARE * room)
    )
    return feeding if feeding.count else None


class Feeder:
    """A ``Reader`` in a process of its own."""

    def __init__(self, preprocessing: Mapping[str, Preprocessing]) -> None:
        self.reader = Reader(preprocessing, Retry(), NightMetrics())

    def read(self, files: Sequence[Listed]) -> Pages:
        """Fetch and decode files side by side; raises as ``Reader.read`` does."""
        return list(read_ahead(self.reader.read, files, NUM_THREADS))

    def is_ready(self) -> bool:
        """Answer at all."""
        return True


def feeding_here() -> Feeding | None:
    """Return what ``feeding_for`` says of the cluster."""
    return feeding_for([node["Resources"] for node in ray.nodes() if node["Alive"]])


def fed(scorer: "ShardScorer", feeding: Feeding) -> "Feeders":
    """Start the feeders of the worker that calls this, beside its own reading."""
    ways = {name: champion.preprocessing for name, champion in scorer.fleet.champions.items()}
    pixels = max((math.prod(way.size_read) for way in ways.values()), default=1)
    return Feeders(_start(feeding, ways), scorer.source, pixels, feeding.store_bytes)


def _start(feeding: Feeding, preprocessing: Mapping[str, Preprocessing]) -> list[Any]:
    """Start feeders; those that find no CPU yet come later."""
    here = ray.get_runtime_context().get_node_id()
    beside = NodeAffinitySchedulingStrategy(here, soft=False)
    feeder = ray.remote(Feeder)
    options: dict[str, Any] = {"num_cpus": 1, "max_restarts": -1, "max_concurrency": REQUESTS}
    places = [beside] * feeding.beside + ["SPREAD"] * feeding.elsewhere
    ways = ray.put(dict(preprocessing))
    return [feeder.options(**options, scheduling_strategy=place).remote(ways) for place in places]


class Feeders:
    """Reads through feeders; many threads ask at once, one for each request under way."""

    ahead = 1

    def __init__(self, feeders: Sequence[Any], own: Source, pixels: int, store_bytes: int) -> None:
        """Take actors that may not be there yet, with ``read`` and ``is_ready``.

        ``own`` reads where they cannot. The largest image has ``pixels``, and requests under way
        may take ``store_bytes`` of the object store.
        """
        self.own = own
        self.files_a_request = PART_FILES
        self.pixels_a_request = max(pixels, min(PART_FILES * pixels, PART_BYTES // 3))
        room = store_bytes // (3 * self.pixels_a_request)
        self.num_requests = max(1, min(REQUESTS * len(feeders), room))
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()  # a feeder for each free request
        self._lock = threading.Lock()
        self._coming: dict[Any, Any] = {}  # those that start, by Ray's promise of an answer
        self._down: set[Any] = set()
        self._lost_at = time.monotonic()  # the last one; to begin with none is there
        self._num_left = REQUESTS * len(feeders)
        for feeder in [*feeders] * REQUESTS:
            self._await(feeder)

    def read(self, files: Sequence[Listed]) -> Pages:
        """Return the pages of each file, in order.

        Raises:
            ClusterError: a file was lost with too many feeders.
            ServiceAway: the storage as a whole does not answer any more.
        """
        return self._read(files, num_losses=0)

    def _read(self, files: Sequence[Listed], num_losses: int) -> Pages:
        feeder = self._take()
        if feeder is None:
            return self.own.read(files)
        try:
            pages: Pages | None = self._ask(feeder, files)
        except RayActorError as error:
            self._await(feeder)
            return self._again(files, num_losses + 1, error)
        except RayTaskError as error:
            self._idle.put(feeder)
            raise (error.cause if isinstance(error.cause, NightshiftError) else error) from error
        except RayError as error:  # the pages were lost on their way
            self._idle.put(feeder)
            return self._again(files, num_losses + 1, error)
        self._idle.put(feeder)
        return self.own.read(files) if pages is None else pages

    def _ask(self, feeder: Any, files: Sequence[Listed]) -> Pages | None:
        """Return what a feeder reads; None where the object store has no room for it for long."""
        started, pause_s = time.monotonic(), POLL_S
        while True:
            try:
                pages: Pages = ray.get(feeder.read.remote(files))
                return pages
            except (ObjectStoreFullError, OutOfDiskError) as error:
                if time.monotonic() - started > FULL_S:
                    logger.warning("the object store stays full: %s", reason(error))
                    return None
            time.sleep(pause_s)
            pause_s *= 2

    def _again(self, files: Sequence[Listed], num_losses: int, error: RayError) -> Pages:
        logger.warning("a feeder was lost with %d files: %s", len(files), reason(error))
        if num_losses == MOST_LOSSES:
            raise ClusterError(
                f"{files[0].uri} was lost with {MOST_LOSSES} feeders: {reason(error)} What is "
                f"scored is kept; take the file out of the dump and score the night again."
            ) from error
        return [pages for file in files for pages in self._read([file], num_losses)]

    def _take(self) -> Any:
        """Wait for a free feeder; None when none is left, or none has come for long."""
        while True:
            self._look()
            is_alone = self._is_alone()
            try:
                feeder = self._idle.get(timeout=0 if is_alone else POLL_S)
            except queue.Empty:
                if is_alone:
                    return None
            else:
                if feeder not in self._down:
                    return feeder
                self._await(feeder)  # it was lost with another request

    def _is_alone(self) -> bool:
        """Whether nobody feeds, and nobody is waited for any more."""
        with self._lock:
            is_fed = self._num_left > len(self._coming)
            waited_s = time.monotonic() - self._lost_at
        return not self._num_left or (not is_fed and waited_s > RETURN_S)

    def _await(self, feeder: Any) -> None:
        # Ray answers once the feeder runs, or when it is dead for good.
        reference = feeder.is_ready.options(max_task_retries=-1).remote()
        with self._lock:
            self._coming[reference] = feeder
            self._down.add(feeder)
            self._lost_at = time.monotonic()

    def _look(self) -> None:
        """Take back the feeders that run again; forget those that never will."""
        with self._lock:
            if not self._coming:
                return
            answered, _ = ray.wait([*self._coming], num_returns=len(self._coming), timeout=0)
            for reference in answered:
                self._answered(reference, self._coming.pop(reference))

    def _answered(self, reference: Any, feeder: Any) -> None:
        try:
            ray.get(reference)
        except RayError as error:
            self._num_left -= 1
            logger.warning("a feeder does not come back: %s", reason(error))
        else:
            self._down.discard(feeder)
            self._idle.put(feeder)
