"""A worker's next category is made ready beside the one that trains, and is the same as alone."""

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from every_kind import small_category
from factory import make_category

from jobs.cluster import slot_worker
from jobs.cluster.work_queue import Job, WorkQueue
from jobs.onboard import train_loop
from jobs.onboard.ahead import Ahead, Begun
from model.errors import CategoryFault
from model.seeded import seeded
from pipeline.backbones import LoadedBackbone
from pipeline.inspection.known_categories import KnownCategories
from pipeline.onboarding.feature_cache import CacheTooSmall
from pipeline.onboarding.unfinished import UnfinishedOnboarding
from pipeline.package import Package

FIRST, SECOND, THIRD = (Job(name=name) for name in ("first", "second", "third"))


class Made:
    """Makes jobs ready, and keeps which thread made which."""

    def __init__(self) -> None:
        self.by: list[tuple[str, str]] = []
        self.go_on = threading.Event()
        self.go_on.set()
        self.raises: list[Exception] = []

    def begin(self, job: Job) -> Any:
        self.by.append((job.name, threading.current_thread().name))
        assert self.go_on.wait(10)
        if self.raises:
            raise self.raises.pop()
        return SimpleNamespace(name=job.name, taken_up=lambda: SimpleNamespace(name=job.name))


MAIN = threading.main_thread().name


def test_the_next_one_is_made_ready_by_a_thread_once() -> None:
    made = Made()
    ahead = Ahead(made.begin)
    assert ahead.take(FIRST).name == "first"
    ahead.start(SECOND)
    assert ahead.take(SECOND).name == "second"
    assert ahead.take(THIRD).name == "third"
    assert made.by == [("first", MAIN), ("second", "ahead"), ("third", MAIN)]


def test_a_job_that_was_made_ready_in_vain_is_not_taken_for_another() -> None:
    made = Made()
    ahead = Ahead(made.begin)
    ahead.start(SECOND)
    assert ahead.take(THIRD).name == "third"
    assert ahead.take(SECOND).name == "second"


def test_no_third_category_is_held_beside_two() -> None:
    made = Made()
    ahead = Ahead(made.begin)
    made.go_on.clear()
    ahead.start(SECOND)
    ahead.start(THIRD)
    ahead.start(None)
    made.go_on.set()
    assert ahead.take(SECOND).name == "second"
    assert made.by == [("second", "ahead")]


def test_a_category_that_is_no_good_is_said_when_its_turn_comes() -> None:
    made = Made()
    made.raises = [CategoryFault("too few images")]
    ahead = Ahead(made.begin)
    ahead.start(SECOND)
    with pytest.raises(CategoryFault, match="too few images"):
        ahead.take(SECOND)
    assert len(made.by) == 1


@pytest.mark.parametrize(
    "error", [MemoryError("3 GB"), RuntimeError("out of memory"), CacheTooSmall("")]
)
def test_what_two_categories_had_no_room_for_is_tried_again_alone(error: Exception) -> None:
    made = Made()
    made.raises = [error]
    ahead = Ahead(made.begin)
    ahead.start(SECOND)
    assert ahead.take(SECOND).name == "second"
    assert made.by == [("second", "ahead"), ("second", MAIN)]


def test_the_time_it_lay_ready_is_not_counted_as_training() -> None:
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Prepared:
        started: float
        embedded: float

    now = time.monotonic()
    begun = Begun(prepared=Prepared(now - 100, now - 60), state=None).taken_up()  # type: ignore[arg-type]
    assert begun.prepared.embedded >= now
    assert begun.prepared.embedded - begun.prepared.started == pytest.approx(40)


def test_networks_that_two_threads_build_have_the_weights_of_their_seeds() -> None:
    def build(seed: int) -> torch.Tensor:
        with seeded(seed):
            return torch.cat([torch.nn.Linear(4, 4).weight.detach() for _ in range(50)])

    alone = {seed: build(seed) for seed in range(2)}
    before = torch.random.get_rng_state()
    found: dict[int, torch.Tensor] = {}
    threads = [
        threading.Thread(target=lambda seed=seed: found.update({seed: build(seed)}))
        for seed in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert all(torch.equal(found[seed], alone[seed]) for seed in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)


class Called:
    """A queue in this process, asked as an actor is."""

    def __init__(self, queue: WorkQueue) -> None:
        self.queue = queue

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self.queue, name))


def onboarded(
    jobs: list[Job], monkeypatch: pytest.MonkeyPatch, *, makes_ahead: bool
) -> tuple[list[Package], list[str]]:
    """The packages of a worker that works through jobs, and which threads made each job ready."""
    queue, by = WorkQueue(jobs), []
    prepare = train_loop.prepare

    def noted(*arguments: Any) -> Any:
        by.append(threading.current_thread().name)
        return prepare(*arguments)

    context = SimpleNamespace(get_node_id=lambda: "node")
    monkeypatch.setattr(train_loop, "prepare", noted)
    monkeypatch.setattr(train_loop, "ask", lambda method, *given: method.remote(*given))
    monkeypatch.setattr(slot_worker, "ask", train_loop.ask)
    monkeypatch.setattr(slot_worker.ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(slot_worker.ray, "nodes", list)
    monkeypatch.setattr(train_loop.ray.train, "report", lambda told: None)
    train_loop.OnboardingWorker(
        queue=Called(queue),
        slot="slot",
        checkpoint_every_s=0,
        features=None,
        backbone=LoadedBackbone(),
        others=KnownCategories(None),
        makes_ahead=makes_ahead,
    ).work()
    monkeypatch.undo()
    assert [each.error for each in queue.news(0).ended] == [None] * len(jobs)
    packages = []
    for job in jobs:
        folder = Path(job.payload["place"], "fetched")
        UnfinishedOnboarding(job.payload["place"]).fetch_package(folder)
        packages.append(Package.read(folder))
    return packages, by


@pytest.mark.parametrize("kind", ["simplenet", "realnet"])
def test_heads_are_the_same_whether_their_category_was_made_ready_beside_another(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [make_category(tmp_path / f"c{seed}", num_test=1, seed=seed) for seed in range(2)]

    def jobs(run: str) -> list[Job]:
        made = [small_category(each, kind, name=each.name).model_dump() for each in folders]
        return [
            Job(
                name=each["name"],
                payload={"category": each, "told": (), "place": f"{tmp_path}/{run}/{number}"},
            )
            for number, each in enumerate(made)
        ]

    alone, by_main = onboarded(jobs("alone"), monkeypatch, makes_ahead=False)
    beside, by_both = onboarded(jobs("beside"), monkeypatch, makes_ahead=True)
    assert by_main == [MAIN] * 2
    assert by_both == [MAIN, "ahead"]
    for one, other in zip(alone, beside, strict=True):
        states = one.heads.state_dict(), other.heads.state_dict()
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
        assert one.reference.calibration == other.reference.calibration
