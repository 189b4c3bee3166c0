"""What a worker tells the queue of its jobs: what they come to, or why there is nothing."""

from types import SimpleNamespace
from typing import Any

import pytest

from jobs.cluster import slot_worker
from jobs.cluster.progress_board import Reporter
from jobs.cluster.slot_worker import work_through
from jobs.cluster.work_queue import Job, WorkQueue
from model.errors import NightshiftError


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> WorkQueue:
    """Three jobs, in a queue that is asked in this process."""
    context = SimpleNamespace(get_node_id=lambda: "node")
    monkeypatch.setattr(slot_worker, "ask", lambda method, *given: method.remote(*given))
    monkeypatch.setattr(slot_worker.ray, "get_runtime_context", lambda: context)
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
