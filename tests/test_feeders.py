"""Feeders on a real Ray cluster of pretended GPUs: who feeds whom, and what a lost one costs."""

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import ray
from factory import make_fleet, texture
from pictures import encoded, png_header
from PIL import Image
from ray.exceptions import ObjectStoreFullError

from jobs.cluster.join import Resources, resources_for
from jobs.cluster.probe import ClusterError
from jobs.cluster.session_folder import session_folder
from jobs.night import feeders as feeding
from jobs.night import score as job
from jobs.night.feeders import Feeders, Feeding, feeding_for
from pipeline import storage
from pipeline.images.batches import batches
from pipeline.images.decode import ImageRead, ImageStatus
from pipeline.images.prefetch import read_as_ready
from pipeline.night.folder import NightFolder
from pipeline.night.listing import list_dump
from pipeline.night.results import read_night
from pipeline.night.scoring.file_reader import Listed, Page
from pipeline.night.scoring.plan import plan_night
from pipeline.night.scoring.scorer import ShardScorer

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

NIGHT = "2026-03-12"
GB = 1_000_000_000
OWN_CLOCK = ("scored_at", "map_uri")


class Reads:
    """A feeder that writes down what it reads; what is asked for in the folder happens first."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def read(self, files: Sequence[Listed]) -> list[list[Page]]:
        for file in files:
            for asked in sorted(self.folder.glob(f"{file.uri}.*"))[:1]:
                asked.unlink()
                if asked.suffix.startswith(".death"):
                    os._exit(1)
                raise ObjectStoreFullError
        with (self.folder / "read").open("a") as log:
            log.writelines(f"{file.uri}\n" for file in files)
        return [[Page(ImageRead(file.uri, ImageStatus.OK))] for file in files]

    def is_ready(self) -> bool:
        return True


class Own:
    """Reads where feeders cannot."""

    num_requests = ahead = files_a_request = pixels_a_request = 1

    def read(self, files: Sequence[Listed]) -> list[list[Page]]:
        return [[Page(ImageRead(f"own {file.uri}", ImageStatus.OK))] for file in files]


@pytest.fixture(scope="module", autouse=True)
def two_gpus() -> Iterator[None]:
    here = sys.modules[__name__]
    ray.cloudpickle.register_pickle_by_value(here)  # Ray's workers cannot import tests
    with session_folder() as folder:
        ray.init(
            **{"address": "local", "num_cpus": 4, "num_gpus": 2, "include_dashboard": False},
            **{"logging_level": "ERROR", "log_to_driver": False, "_temp_dir": folder},
            object_store_memory=200_000_000,
        )
        yield
        ray.shutdown()
    ray.cloudpickle.unregister_pickle_by_value(here)


def feeders(
    folder: Path, count: int = 1, *, max_restarts: int = -1, store_bytes: int = GB
) -> Feeders:
    actor: Any = ray.remote(num_cpus=1, max_restarts=max_restarts, max_concurrency=2)(Reads)
    actors = [actor.remote(str(folder)) for _ in range(count)]
    return Feeders(actors, Own(), pixels=1000 * 1000, store_bytes=store_bytes)


def files(names: str) -> list[Listed]:
    return [Listed(name, None, "steel") for name in names]


def read(source: Feeders, names: str) -> list[str]:
    return [page.image.uri for pages in source.read(files(names)) for page in pages]


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([{"CPU": 8}], None),  # whoever scores on CPUs reads for itself
        ([{"CPU": 1, "GPU": 1}], None),  # no CPU is left for a feeder
        ([{"CPU": 16, "GPU": 1}], (15, 0)),
        ([{"CPU": 16, "GPU": 4}], (3, 0)),
        ([{"CPU": 16, "GPU": 1}, {"CPU": 8, "GPU": 2}], (3, 0)),  # no worker gets more than another
        ([{"CPU": 1, "GPU": 1}, {"CPU": 6}], (0, 6)),
        ([{"CPU": 4, "GPU": 2}, {"CPU": 3}, {"CPU": 4}], (1, 3)),
    ],
)
def test_a_worker_has_a_feeder_for_each_cpu_that_nobody_scores_on(
    nodes: list[dict[str, float]], expected: tuple[int, int] | None
) -> None:
    found = feeding_for([node | {"object_store_memory": 4 * GB} for node in nodes])
    assert (found and (found.beside, found.elsewhere)) == expected


def test_what_is_under_way_to_all_workers_of_a_node_fits_into_a_share_of_its_object_store() -> None:
    found = feeding_for([{"CPU": 16, "GPU": 4, "object_store_memory": 4 * GB}])
    assert found == Feeding(beside=3, elsewhere=0, store_bytes=GB // 4)


def test_a_night_on_fed_workers_has_the_rows_of_one_that_reads_for_itself(
    packages: dict[str, Path], tmp_path: Path
) -> None:
    """Each worker has a CPU and a GPU, and a feeder beside it which ends with it."""
    dump, folder = f"{tmp_path}/dump", NightFolder(str(tmp_path / "out"), NIGHT)
    for i in range(12):
        name = "steel" if i % 2 else "wood"
        storage.write_bytes(f"{dump}/{name}/{i}.png", encoded(Image.fromarray(texture(i))))
    storage.write_bytes(f"{dump}/steel/empty.png", b"")
    storage.write_bytes(f"{dump}/steel/huge.png", png_header(20_000, 20_000))
    storage.write_bytes(f"{dump}/new-part/0.png", encoded(Image.fromarray(texture(1))))
    fleet, manifest = make_fleet(folder, packages), list_dump(dump).images
    Path(f"{dump}/wood/0.png").unlink()
    tasks = plan_night(manifest, fleet, folder, 4).tasks
    resources = resources_for(len(tasks))
    assert resources == Resources(num_jobs=2, cpus=2, gpus=1)
    workers = job._start_workers(resources, 2, folder)
    wait_for(lambda: not {"CPU", "GPU"} & ray.available_resources().keys())
    for bundle in (tasks[::2], tasks[1::2]):
        ray.get(workers.pop().write.remote(bundle))
    found = read_night(folder)
    assert Counter(found["status"].to_pylist()) == {
        **{"ok": 11, "missing": 1, "unreadable": 1, "too_large": 1, "unrouted": 1}
    }
    plain = ShardScorer(fleet, NightFolder(str(tmp_path / "plain"), NIGHT)).score(tasks)
    expected = plain.sort_by("image_uri").drop_columns(OWN_CLOCK)
    assert found.drop_columns(OWN_CLOCK).equals(expected)
    wait_for(lambda: ray.available_resources().get("CPU") == 4)


def test_the_files_of_a_lost_feeder_are_read_by_another_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "b.death").touch()
    (tmp_path / "c.death").touch()
    assert read(feeders(tmp_path, 2), "abcd") == list("abcd")
    assert sorted((tmp_path / "read").read_text().split()) == list("abcd")


def test_a_file_that_takes_every_feeder_down_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeding, "MOST_LOSSES", 2)
    (tmp_path / "b.death1").touch()
    (tmp_path / "b.death2").touch()
    with pytest.raises(ClusterError, match=r"^b was lost with 2 feeders"):
        read(feeders(tmp_path), "ab")


def test_where_no_feeder_is_left_the_worker_reads_for_itself(tmp_path: Path) -> None:
    (tmp_path / "a.death").touch()
    assert read(feeders(tmp_path, max_restarts=0), "ab") == ["own a", "own b"]


def test_where_no_feeder_comes_for_long_the_worker_reads_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeding, "RETURN_S", 0.5)
    there_is_no_room: Any = ray.remote(num_cpus=64)(Reads)
    source = Feeders([there_is_no_room.remote(str(tmp_path))], Own(), pixels=1, store_bytes=GB)
    assert read(source, "ab") == ["own a", "own b"]


def test_a_full_object_store_is_waited_for_and_then_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeding, "POLL_S", 0.01)
    source = feeders(tmp_path)
    (tmp_path / "a.full").touch()
    assert read(source, "ab") == ["a", "b"]
    monkeypatch.setattr(feeding, "FULL_S", 0.0)
    (tmp_path / "a.full").touch()
    assert read(source, "ab") == ["own a", "own b"]


def test_no_more_is_asked_for_than_the_object_store_has_room_for(tmp_path: Path) -> None:
    """Requests of 8 MB: 20 MB have room for two of them, and four could be made."""
    source = feeders(tmp_path, 2, store_bytes=20_000_000)
    assert (3 * source.pixels_a_request, source.num_requests) == (7_999_998, 2)
    parts = batches(iter(files("abcdefghijklmnopqrst")), 2)  # of 3 MB each
    consumed = read_as_ready(source.read, parts, source.num_requests, source.ahead)
    next(consumed)
    time.sleep(1)
    assert len((tmp_path / "read").read_text().split()) <= 2 * (1 + source.num_requests)
    consumed.close()
