"""A pool of scoring workers on a real Ray cluster: a lost worker costs what it had in hand."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray

from jobs.cluster.join import cluster
from jobs.cluster.probe import ClusterError
from jobs.night.pool import MOST_LOSSES, Pool
from pipeline.night.manifest import Shard
from pipeline.night.scoring.task import Task, Written

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


class Worker:
    """Writes a line per shard; what is asked for in the folder happens to it first."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def write(self, tasks: list[Task]) -> list[Written]:
        for task in tasks:
            if (self.folder / f"{task.name}.refuse").exists():
                raise ValueError("no such thing")
            deaths = sorted(self.folder.glob(f"{task.name}.death*"))
            if deaths:
                deaths[0].unlink()
                os._exit(1)
        with (self.folder / "written").open("a") as file:
            file.writelines(f"{task.name}\n" for task in tasks)
        return [Written(task.name, {"ok": 2}, 0, 2) for task in tasks]

    def is_ready(self) -> bool:
        return True


@pytest.fixture(scope="module", autouse=True)
def two_cpus() -> Iterator[None]:
    here = sys.modules[__name__]
    ray.cloudpickle.register_pickle_by_value(here)  # Ray's workers cannot import tests
    with cluster(num_cpus=2):
        yield
    ray.cloudpickle.unregister_pickle_by_value(here)


def task(name: str) -> Task:
    return Task(name, Shard(name, "a", pa.table({"image_uri": [f"{name}-0", f"{name}-1"]})))


def pool(folder: Path, *bundles: str, max_restarts: int = MOST_LOSSES) -> Pool:
    remote: Any = ray.remote(num_cpus=1, max_restarts=max_restarts)(Worker)
    return Pool(
        [remote.remote(str(folder)) for _ in range(2)],
        [[task(name) for name in names] for names in bundles],
    )


def test_the_shard_of_a_lost_worker_is_written_by_another_once(tmp_path: Path) -> None:
    for name in ("a.death1", "c.death1", "c.death2"):
        (tmp_path / name).touch()
    found = [one.name for written in pool(tmp_path, "ab", "cd", "ef").results() for one in written]
    assert sorted(found) == list("abcdef")
    assert sorted((tmp_path / "written").read_text().split()) == list("abcdef")


def test_a_shard_that_takes_every_worker_down_is_named(tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / f"b.death{number}").touch()
    with pytest.raises(ClusterError, match=f"shard b was lost with {MOST_LOSSES} workers"):
        list(pool(tmp_path, "ab").results())


def test_workers_that_never_come_back_are_done_without(tmp_path: Path) -> None:
    (tmp_path / "a.death1").touch()
    list(pool(tmp_path, *"abc", max_restarts=0).results())
    assert sorted((tmp_path / "written").read_text().split()) == list("abc")
    for name in ("d.death1", "d.death2"):
        (tmp_path / name).touch()
    with pytest.raises(ClusterError, match="no scoring worker is left"):
        list(pool(tmp_path, "d", max_restarts=0).results())


@ray.remote(num_cpus=0)
def never() -> None:
    time.sleep(600)


def test_a_night_does_not_wait_for_ever_for_workers_that_are_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.night.pool.RETURN_S", 1.0)
    waiting = pool(tmp_path, "a")
    waiting.idle.clear()
    reference = never.remote()
    waiting.coming_back[reference] = None
    with pytest.raises(ClusterError, match="no scoring worker has come back for 1 s"):
        list(waiting.results())
    ray.cancel(reference, force=True)


def test_an_error_of_the_work_itself_ends_the_night(tmp_path: Path) -> None:
    (tmp_path / "a.refuse").touch()
    with pytest.raises(ClusterError, match=r"a scoring worker failed: .*no such thing"):
        list(pool(tmp_path, "ab").results())
