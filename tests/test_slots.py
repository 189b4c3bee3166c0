"""Runs that come and go: what starts, and when there is no point in another."""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.cluster import slots as slots_module
from jobs.cluster.join import Resources
from jobs.cluster.probe import ClusterError
from jobs.cluster.slots import MOST_AWAY, MOST_FRUITLESS, Slots
from jobs.cluster.work_queue import Ended, Job, WorkQueue

NODE = "node"


class Called:
    """A queue in this process, asked as an actor is."""

    def __init__(self, queue: WorkQueue) -> None:
        self.queue = queue

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.queue, name)
        return SimpleNamespace(remote=method)


class Cluster:
    """Runs of Ray Train that a test lets work and fail, a step for each look at them."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.running: dict[str, Future[Any]] = {}
        self.num_started = 0
        self.nodes = {NODE}
        self.queue: Any = None
        self.step: Callable[[], None] = lambda: None

    def start(self, name: str) -> Future[Any]:
        self.num_started += 1
        self.running[name] = Future()
        return self.running[name]

    def fail(self, name: str, error: str) -> None:
        self.running.pop(name).set_exception(RuntimeError(error))

    def take(self, name: str) -> str:
        job = self.queue.take(name, f"worker of {name}", NODE)
        return str(job.name)

    def work(self, names: Sequence[str]) -> None:
        """Let each of these runs do one job; one that has none to do ends."""
        for name in names:
            job = self.queue.take(name, f"worker of {name}", NODE)
            if job is None:
                self.running.pop(name).set_result(None)
            else:
                self.queue.end(name, job.name)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Two places for runs, and the real queue; a look takes no time."""
    held = Cluster(room=2)

    def beside(kind: type[WorkQueue], jobs: list[Job]) -> Called:
        held.queue = kind(jobs)
        return Called(held.queue)

    def ask(method: Any, *given: Any) -> Any:
        answer = method.remote(*given)
        held.step()
        return answer

    def run(*, name: str, **_: Any) -> Any:
        return SimpleNamespace(start=lambda loop, config: held.start(name))

    def nodes() -> list[dict[str, Any]]:
        return [{"NodeID": node, "Alive": True} for node in held.nodes]

    monkeypatch.setattr(slots_module, "beside", beside)
    monkeypatch.setattr(slots_module, "ask", ask)
    monkeypatch.setattr(slots_module, "TrainRun", run)
    monkeypatch.setattr(
        slots_module, "start_task", lambda loop, config, resources: held.start(config["slot"])
    )
    monkeypatch.setattr(slots_module, "POLL_S", 0)
    monkeypatch.setattr(slots_module, "END_S", 0)
    monkeypatch.setattr(slots_module, "jobs_at_a_time", lambda cpus, gpus: held.room)
    monkeypatch.setattr(slots_module.ray, "nodes", nodes)
    return held


def slots_of(num_jobs: int, runs: str | None = "runs") -> Generator[Ended]:
    slots = Slots(loop=print, config={}, runs=runs, resources=Resources(num_jobs=2, cpus=1, gpus=0))
    jobs = [Job(name=str(number)) for number in range(num_jobs)]
    return slots.work_through(jobs, lambda progress: None)


def work_through(num_jobs: int, runs: str | None = "runs") -> list[Ended]:
    return list(slots_of(num_jobs, runs))


@pytest.mark.parametrize("runs", [None, "runs"])
@pytest.mark.parametrize("num_jobs", [1, 2, 5])
def test_there_are_no_more_runs_than_places_and_jobs(
    cluster: Cluster, num_jobs: int, runs: str | None
) -> None:
    cluster.step = lambda: cluster.work(list(cluster.running))
    assert {ended.name for ended in work_through(num_jobs, runs)} == set(map(str, range(num_jobs)))
    assert cluster.num_started == min(2, num_jobs)


def test_a_place_that_comes_later_gets_a_run(cluster: Cluster) -> None:
    def step() -> None:
        cluster.work(list(cluster.running))
        cluster.room = 3

    cluster.step = step
    assert len(work_through(9)) == 9
    assert cluster.num_started == 3


def test_runs_that_fail_by_turns_are_not_started_for_ever(cluster: Cluster) -> None:
    def step() -> None:  # while one fails another is still about to
        for name in list(cluster.running)[:1]:
            cluster.fail(name, "no module named torch")

    cluster.step = step
    with pytest.raises(ClusterError, match=r"5 of the jobs are left.* no module named torch"):
        work_through(5)
    assert cluster.num_started <= MOST_FRUITLESS + 1
    assert cluster.queue.news(0).ended == []


def test_while_a_service_is_away_no_job_is_to_blame_and_the_command_ends(cluster: Cluster) -> None:
    def step() -> None:
        for name in list(cluster.running):
            cluster.take(name)
            cluster.queue.leave(name, "s3://night does not answer")
            cluster.running.pop(name).set_result(None)

    cluster.step = step
    with pytest.raises(
        ClusterError, match=r"1,000 of the jobs .*: s3://night does not answer Mend"
    ):
        work_through(1000)
    assert cluster.num_started == MOST_AWAY
    assert cluster.queue.news(0).ended == []


def test_jobs_that_never_get_their_service_stop_the_others_of_nothing(cluster: Cluster) -> None:
    def step() -> None:
        for name in list(cluster.running):
            if cluster.take(name) in {"0", "1", "2"}:
                cluster.queue.leave(name, "s3://night does not answer")
                cluster.running.pop(name).set_result(None)
            else:
                cluster.work([name])

    cluster.step = step
    with pytest.raises(ClusterError, match="3 of the jobs"):
        work_through(20)
    assert {each.name for each in cluster.queue.news(0).ended} == set(map(str, range(3, 20)))


def test_whoever_takes_what_ends_and_fails_leaves_nothing_to_do_behind(cluster: Cluster) -> None:
    cluster.step = lambda: cluster.work(list(cluster.running))
    ending = slots_of(9)
    next(ending)
    with pytest.raises(OSError, match="no space left"):
        ending.throw(OSError("no space left"))
    assert cluster.queue.take("a run", "its worker", NODE) is None


def test_a_run_that_works_on_keeps_the_jobs_of_those_that_fail(cluster: Cluster) -> None:
    looks = 0

    def step() -> None:
        nonlocal looks
        looks += 1
        for name in list(cluster.running)[1:]:
            cluster.fail(name, "its node has no disk")
        if looks > 4:
            cluster.work(list(cluster.running))

    cluster.step = step
    ended = work_through(5)
    assert [each.error for each in ended] == [None] * 5


def test_after_a_job_that_was_done_runs_are_started_again(cluster: Cluster) -> None:
    def step() -> None:  # a run does a job and fails at the next
        for name in list(cluster.running):
            cluster.work([name])
            if name in cluster.running:
                cluster.fail(name, "out of memory")

    cluster.room = 1
    cluster.step = step
    assert [each.error for each in work_through(5)] == [None] * 5
    assert cluster.num_started >= 5


def test_the_job_of_a_lost_node_goes_to_another(cluster: Cluster) -> None:
    def step() -> None:
        if cluster.running and cluster.nodes:
            cluster.take(next(iter(cluster.running)))
            cluster.nodes = set()
        else:
            cluster.work(list(cluster.running)[1:])

    cluster.step = step
    assert [each.error for each in work_through(2)] == [None, None]
