"""What feeding costs, with a network that costs nothing.

How many images a second one scoring process takes when their pixels are there, and how much more
CPU time an image takes when two feeders read instead of one.
"""

import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
import torch
from torch import Tensor

from jobs.cluster.join import cluster
from jobs.night.feeders import Feeder, Feeders
from model.preprocessing import Preprocessing
from pipeline.images.batches import batches_within
from pipeline.images.prefetch import NUM_THREADS, read_as_ready
from pipeline.night.fleet.fleet import Fleet
from pipeline.night.folder import NightFolder
from pipeline.night.manifest import shards
from pipeline.night.scoring.detectors import GPU_BATCH_IMAGES, Detectors
from pipeline.night.scoring.file_reader import InThreads, Listed, Page, Reader
from pipeline.night.scoring.observer import Observer
from pipeline.night.scoring.plan import result_name
from pipeline.night.scoring.scorer import ShardScorer
from pipeline.night.scoring.task import Task
from pipeline.storage.retry import Retry
from tests.bench.material import NIGHT, dump_of, onboard, write_pictures
from tests.bench.measure import Ratio, in_fresh_process

NUM_GOOD = 40
NUM_READY = 4096  # images
NUM_READ = 256
ROUNDS = 5
PIXELS = 224 * 224
LOW = -100.0  # of a score: nothing is flagged


def feeding() -> Iterator[Ratio]:
    """One scoring process on ready batches, and two feeders beside one."""
    with tempfile.TemporaryDirectory() as scratch:
        pictures = write_pictures(Path(scratch, "good"), NUM_GOOD, "jpg")
        fleet = in_fresh_process(onboard, Path(scratch, "fleet"), pictures, "efficientnet_lite0")
        yield from in_fresh_process(_ready, fleet, pictures, Path(scratch, "ready"))
        yield from in_fresh_process(_feeders, fleet, pictures, Path(scratch, "read"))


class Ready:
    """A source whose pages are there."""

    num_requests, ahead, files_a_request, pixels_a_request = 2, 1, 32, 32 * PIXELS

    def __init__(self, page: Page) -> None:
        self.page = page

    def read(self, files: Sequence[Listed]) -> list[list[Page]]:
        return [[self.page] for _ in files]


class Nothing(Detectors):
    """Detectors whose network and heads cost nothing."""

    def score(self, categories: Sequence[str], images_BHWC: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full((len(categories),), LOW), torch.zeros(len(categories), 28, 28)


def ready_scorer(fleet: Fleet, folder: NightFolder, picture: Path) -> ShardScorer:
    """Return a scorer to which every file is this picture, read already."""
    ways = {name: champion.preprocessing for name, champion in fleet.champions.items()}
    listed = Listed(str(picture), None, next(iter(ways)))
    (page,) = Reader(ways, Retry(), Observer()).read(listed)
    return ShardScorer(fleet, folder, source=Ready(page))


def _ready(fleet: Fleet, pictures: Path, scratch: Path) -> list[Ratio]:
    torch.set_num_threads(1)
    folder = NightFolder(str(scratch / "out"), NIGHT)
    scorer = ready_scorer(fleet, folder, min(pictures.iterdir()))
    scorer.detectors = Nothing(fleet.champions)
    scorer.detectors.batch_images = GPU_BATCH_IMAGES
    listed = dump_of(pictures, scratch / "dump", NUM_READY)
    tasks = [Task(result_name(shard, fleet), shard) for shard in shards(listed, 512)]
    scorer.write(tasks)
    walls, cpus = [], []
    for _ in range(ROUNDS):
        wall, cpu = time.perf_counter(), time.process_time()
        scorer.write(tasks)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    ms = 1e3 * min(cpus) / NUM_READY
    detail = f"best of {ROUNDS}, batches of {GPU_BATCH_IMAGES}, rows stored on disk"
    rate = NUM_READY / min(walls)
    return [
        Ratio(name="ready batches: images/s", value=rate, target=2000, detail=detail),
        Ratio(name="ready batches: CPU ms an image", value=ms, target=0.3, at_most=True),
    ]


class Measured(Feeder):
    """A feeder that knows what it has cost."""

    def cpu_s(self) -> float:
        return time.process_time()


def _feeders(fleet: Fleet, pictures: Path, scratch: Path) -> list[Ratio]:
    ways = {name: champion.preprocessing for name, champion in fleet.champions.items()}
    uris = dump_of(pictures, scratch, NUM_READ)["image_uri"].to_pylist()
    files = [Listed(uri, None, next(iter(ways))) for uri in uris]
    here = sys.modules[__name__]
    ray.cloudpickle.register_pickle_by_value(here)  # Ray's workers cannot import tests
    own = _own_ms(ways, files)
    with cluster(num_cpus=2):
        actors: list[Any] = [ray.remote(Measured).options(num_cpus=1).remote(ways) for _ in "ab"]
        costs = [
            (_fed_ms(ways, actors[:1], actors, files), _fed_ms(ways, actors, actors, files))
            for _ in range(ROUNDS + 1)
        ][1:]
    one, two = (min(sum(cost[side]) for cost in costs) for side in (0, 1))
    asking = min(cost[1][0] for cost in costs)
    detail = f"CPU ms an image {one:.2f} by one, {two:.2f} by two; {own:.2f} by the process itself"
    name = "two feeders' CPU time over one's"
    return [
        Ratio(name=name, value=two / one, target=1.05, at_most=True, detail=detail),
        Ratio(name="being fed: CPU ms an image", value=asking, target=0.3, at_most=True),
    ]


def _own_ms(ways: Mapping[str, Preprocessing], files: Sequence[Listed]) -> float:
    source, spent = InThreads(Reader(ways, Retry(), Observer()), NUM_THREADS), []
    for _ in range(ROUNDS):
        started = time.process_time()
        for _ in read_as_ready(lambda file: source.read([file]), files, NUM_THREADS):
            pass
        spent.append(time.process_time() - started)
    return 1e3 * min(spent) / len(files)


def _fed_ms(
    ways: Mapping[str, Preprocessing], actors: list[Any], all_of_them: list[Any], files: Any
) -> tuple[float, float]:
    """Return CPU ms an image of the process that is fed, and of feeders."""
    own = InThreads(Reader(ways, Retry(), Observer()), NUM_THREADS)
    source = Feeders(actors, own, PIXELS, store_bytes=10**9)

    def spent() -> tuple[float, float]:
        fed = sum(ray.get([actor.cpu_s.remote() for actor in all_of_them]))
        return time.process_time(), fed

    before = spent()
    most = source.files_a_request, lambda _: PIXELS, source.pixels_a_request
    parts = batches_within(files, *most)
    for _ in read_as_ready(source.read, parts, source.num_requests, source.ahead):
        pass
    here, there = (
        1e3 * (now - then) / len(files) for now, then in zip(spent(), before, strict=True)
    )
    return here, there
