"""What a worker tells the queue of its jobs: what they come to, or why there is nothing."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.cluster import slot_worker
from jobs.cluster.progress_board import Reporter
from jobs.cluster.slot_worker import Do, work_through
from jobs.cluster.work_queue import Job, WorkQueue
from model.errors import NightshiftError
from pipeline.storage import StorageAway
from pipeline.storage.retry import Retry


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> WorkQueue:
    """Three jobs, in a queue that is asked in this process."""
    context = SimpleNamespace(get_node_id=lambda: "node")
    monkeypatch.setattr(slot_worker, "ask", lambda method, *given: method.remote(*given))
    monkeypatch.setattr(slot_worker.ray, "get_runtime_context", lambda: context)
    nodes = [{"NodeID": "node", "Alive": True}, {"NodeID": "lost", "Alive": False}]
    monkeypatch.setattr(slot_worker.ray, "nodes", lambda: nodes)
    return WorkQueue([Job(name=name, payload=len(name)) for name in ("a", "few", "bc")])


class Called:
    """A queue in this process, called as an actor is."""

    def __init__(self, queue: WorkQueue) -> None:
        self.queue = queue

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self.queue, name))


def double(job: Job, reporter: Reporter) -> int:
    if job.name == "few":
        raise NightshiftError("too few images")
    return 2 * int(job.payload)


def test_what_jobs_come_to_reaches_the_command_and_one_that_is_no_good_its_reason(
    queue: WorkQueue,
) -> None:
    num_done: list[int] = []
    work_through(Called(queue), "slot", double, after=num_done.append)
    news = queue.news(0)
    assert [(each.name, each.error, each.result) for each in news.ended] == [
        ("a", None, 2),
        ("few", "too few images", None),
        ("bc", None, 4),
    ]
    assert {name: word[0] for name, word in news.progress.items()} == {
        **{"a": "done", "few": "failed"},
        "bc": "done",
    }
    assert num_done == [1, 2, 3]


def test_what_the_command_knows_is_kept_no_longer(queue: WorkQueue) -> None:
    work_through(Called(queue), "slot", double)
    assert queue.news(2).ended[0].result == 4
    assert [each.value is None for each in queue.news(0).ended] == [True, True, False]


def test_an_error_of_our_own_ends_the_process_and_is_the_reason_at_the_last_time(
    queue: WorkQueue,
) -> None:
    def break_down(job: Job, reporter: Reporter) -> int:
        if job.name == "a":
            raise KeyError("sigma")
        return double(job, reporter)

    for _ in range(2):
        with pytest.raises(KeyError, match="sigma"):
            work_through(Called(queue), "slot", break_down)
    work_through(Called(queue), "slot", break_down)
    errors = {each.name: each.error for each in queue.news(0).ended}
    assert errors == {"a": "KeyError: 'sigma' (2 times)", "few": "too few images", "bc": None}


def test_a_worker_that_its_node_took_with_it_is_not_the_jobs_fault(queue: WorkQueue) -> None:
    tries: list[bool] = []

    def note(job: Job, reporter: Reporter) -> None:
        tries.append(job.is_last_try)

    assert queue.take("slot", "a worker that was lost", "lost")
    work_through(Called(queue), "slot", note)  # before the command has seen the node go
    assert tries == [False] * 3


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Do]:
    """Work before which the storage is away so many times, asked three times in all."""
    monkeypatch.setattr(slot_worker, "OUTAGE", Retry(attempts=3, first_pause_s=0))

    def lasting(num_times: int) -> Do:
        left = [num_times]

        def do(job: Job, reporter: Reporter) -> int:
            if left[0]:
                left[0] -= 1
                raise StorageAway("s3://night does not answer")
            return double(job, reporter)

        return do

    return lasting


def test_a_short_outage_costs_no_job(queue: WorkQueue, outage: Callable[[int], Do]) -> None:
    work_through(Called(queue), "slot", outage(2))
    errors = {each.name: each.error for each in queue.news(0).ended}
    assert errors == {"a": None, "few": "too few images", "bc": None}


def test_in_a_long_outage_the_worker_leaves_and_its_job_waits_behind_the_others(
    queue: WorkQueue, outage: Callable[[int], Do]
) -> None:
    work_through(Called(queue), "slot", outage(99))
    news = queue.news(0)
    assert (news.ended, news.held, news.num_waiting) == ([], {}, 3)
    assert news.away == ["s3://night does not answer"]
    names: list[str] = []
    for _ in range(3):
        job = queue.take("other", "worker", "node")
        assert job is not None
        assert not job.is_last_try
        names.append(job.name)
        queue.end("other", job.name)
    assert names == ["few", "bc", "a"]
