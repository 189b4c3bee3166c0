"""The queue that Ray Train runs share: every job ends once, whatever becomes of who does it."""

import heapq
import itertools
import random
from collections import Counter

import pytest

from jobs.cluster.work_queue import MOST_DEATHS, MOST_LOST_NODES, Ended, Holder, Job, WorkQueue


def jobs(*sizes: int, group: str = "") -> list[Job]:
    return [Job(name=f"{group}{size}", size=size, group=group) for size in sizes]


WORKERS = itertools.count()


def taken(queue: WorkQueue, slot: str = "a", node: str = "n") -> str | None:
    """What a new worker of a slot is given."""
    job = queue.take(slot, f"worker{next(WORKERS)}", node)
    return job.name if job is not None else None


def test_the_largest_comes_first() -> None:
    queue = WorkQueue(jobs(3, 9, 5))
    assert [taken(queue, slot) for slot in "abcd"] == ["9", "5", "3", None]


def test_a_slot_stays_with_what_it_has_loaded_while_there_is_work_of_it() -> None:
    queue = WorkQueue([*jobs(9, 2, 1, group="r"), *jobs(8, 7, group="w")])
    assert (taken(queue, "a"), taken(queue, "b")) == ("r9", "w8")
    order = []
    for slot, name in (("a", "r9"), ("a", "r2"), ("a", "r1"), ("b", "w8")):
        queue.end(slot, name)
        order.append(taken(queue, slot))
    assert order == ["r2", "r1", "w7", None]


def test_what_has_ended_is_told_once() -> None:
    queue = WorkQueue(jobs(2, 1))
    assert (taken(queue, "a"), taken(queue, "b")) == ("2", "1")
    assert queue.news(0).held == {"a": Holder(job="2", node="n"), "b": Holder(job="1", node="n")}
    queue.end("a", "2")
    queue.end("b", "1", "too few images")
    news = queue.news(0)
    assert news.ended == [Ended(name="2"), Ended(name="1", error="too few images")]
    assert news.is_over
    assert queue.news(2).ended == []
    assert queue.news(1).ended == [Ended(name="1", error="too few images")]  # as if it was lost


def test_an_answer_that_was_lost_is_given_again_and_counts_for_nothing() -> None:
    queue = WorkQueue(jobs(2, 1))
    given = [queue.take("a", "the same worker", "n") for _ in range(3 * MOST_DEATHS)]
    assert {job.name for job in given if job is not None} == {"2"}
    queue.end("a", "2")
    queue.end("a", "2")
    assert queue.news(0).ended == [Ended(name="2")]
    assert taken(queue) == "1"


def test_a_worker_that_is_started_anew_goes_on_with_its_job() -> None:
    queue = WorkQueue(jobs(2, 1))
    assert [taken(queue), taken(queue)] == ["2", "2"]


@pytest.mark.parametrize("reason", [None, "MemoryError: 3 GB"])
def test_a_job_that_kills_its_worker_twice_is_given_up_and_the_others_go_on(
    reason: str | None,
) -> None:
    queue = WorkQueue(jobs(2, 1))
    names = []
    for number in range(MOST_DEATHS):
        names.append(taken(queue, node=f"node{number}"))  # wherever it is started anew
        if reason is not None:
            queue.explain("a", reason)
    assert names == ["2"] * MOST_DEATHS
    assert taken(queue) == "1"
    (ended,) = queue.news(0).ended
    assert ended.name == "2"
    assert ended.error == f"{reason or 'it ended its worker' + chr(39) + 's process'} (2 times)"


def test_deaths_with_checkpoints_between_them_are_not_the_jobs_fault() -> None:
    queue = WorkQueue(jobs(2, 1))
    for _ in range(5 * MOST_DEATHS):
        assert taken(queue) == "2"
        queue.keep("a")


def test_a_lost_slot_gives_its_job_to_the_next_one_that_asks() -> None:
    queue = WorkQueue(jobs(3, 2, 1))
    assert (taken(queue, "a"), taken(queue, "b")) == ("3", "2")
    queue.give_back("a", "its node was lost")
    queue.give_back("a", "its node was lost")  # known already
    assert taken(queue, "b2") == "3"
    assert taken(queue, "a") == "1"  # it is back, and does something else


def test_a_lost_node_gives_back_what_is_there_now() -> None:
    queue = WorkQueue(jobs(3, 2, 1))
    assert (taken(queue, "a", "n1"), taken(queue, "b", "n2")) == ("3", "2")
    queue.lose_nodes({"n1"})
    assert taken(queue, "a", "n3") == "3"  # Ray Train found it another place
    queue.lose_nodes({"n1"})  # a late word
    held = queue.news(0).held
    assert {slot: (each.job, each.node) for slot, each in held.items()} == {
        **{"a": ("3", "n3"), "b": ("2", "n2")},
    }


def test_a_slot_that_was_taken_for_lost_may_still_end_its_job() -> None:
    queue = WorkQueue(jobs(1))
    assert taken(queue, "a") == "1"
    queue.give_back("a", "its node was lost")
    queue.end("a", "1")
    assert taken(queue, "b") is None
    assert queue.news(0).ended == [Ended(name="1")]


def test_a_job_that_two_slots_have_ends_once() -> None:
    queue = WorkQueue(jobs(1))
    taken(queue, "a")
    queue.give_back("a", "its node was lost")
    assert taken(queue, "b") == "1"
    queue.end("b", "1")
    queue.end("a", "1", "too late")
    assert queue.news(0).ended == [Ended(name="1")]


def test_a_worker_is_told_when_a_job_is_tried_for_the_last_time() -> None:
    queue = WorkQueue(jobs(1))
    tries = [queue.take("a", f"worker{number}", "n") for number in range(MOST_DEATHS)]
    assert [job.is_last_try for job in tries if job is not None] == [False, True]


def test_a_job_whose_nodes_are_lost_again_and_again_is_given_up() -> None:
    queue = WorkQueue(jobs(2, 1))
    for time in range(MOST_LOST_NODES):
        assert taken(queue, node=f"node{time}") == "2"
        queue.give_back("a", "its node was lost")
    assert taken(queue, node="another") == "1"
    assert queue.news(0).ended == [
        Ended(name="2", error=f"its node was lost ({MOST_LOST_NODES} times)")
    ]


def test_a_queue_that_is_stopped_gives_out_nothing_and_hears_of_what_is_held() -> None:
    queue = WorkQueue(jobs(3, 2, 1))
    taken(queue)
    queue.stop()
    assert taken(queue, "b") is None
    queue.end("a", "3")
    assert (queue.news(0).ended, queue.news(0).is_over) == ([Ended(name="3")], True)


def ahead(queue: WorkQueue, slot: str = "a") -> str | None:
    job = queue.ahead(slot)
    return job.name if job is not None else None


def test_what_a_slot_makes_ready_is_what_it_is_given_next() -> None:
    queue = WorkQueue(jobs(4, 3, 2, 1))
    assert (taken(queue, "a"), taken(queue, "b")) == ("4", "3")
    assert [ahead(queue, slot) for slot in "ab"] == ["2", "1"]
    queue.end("b", "3")
    queue.end("a", "4")
    assert (taken(queue, "b"), taken(queue, "a")) == ("1", "2")


def test_a_slot_with_nothing_else_to_do_is_given_what_another_makes_ready() -> None:
    queue = WorkQueue(jobs(3, 2))
    assert (taken(queue, "a"), ahead(queue, "a")) == ("3", "2")
    assert taken(queue, "b") == "2"
    queue.end("a", "3")
    assert taken(queue, "a") is None


def test_nothing_is_made_ready_of_what_the_slot_has_not_loaded() -> None:
    queue = WorkQueue([*jobs(9, group="r"), *jobs(8, 7, group="w")])
    assert (taken(queue, "a"), ahead(queue, "a")) == ("r9", None)
    assert (taken(queue, "b"), ahead(queue, "b")) == ("w8", "w7")


def test_a_job_that_kills_the_worker_that_makes_it_ready_is_the_one_given_up() -> None:
    queue = WorkQueue(jobs(2, 1))
    deaths = 0
    while (name := taken(queue)) is not None:
        if "1" in (name, ahead(queue)):  # 1 kills whoever touches it
            deaths += 1
        else:
            queue.end("a", name)
    assert deaths == 1 + MOST_DEATHS
    ended = {each.name: each.error for each in queue.news(0).ended}
    assert ended == {"2": None, "1": f"it ended its worker's process ({MOST_DEATHS} times)"}


def test_a_lost_slot_makes_nothing_ready() -> None:
    queue = WorkQueue(jobs(3, 2, 1))
    assert (taken(queue, "a"), ahead(queue, "a")) == ("3", "2")
    queue.give_back("a", "its node was lost")
    assert ahead(queue, "a") is None
    assert taken(queue, "b") == "3"
    assert ahead(queue, "b") == "2"


@pytest.mark.parametrize("seed", range(3))
def test_a_thousand_categories_on_eight_slots_that_come_and_go(seed: int) -> None:
    """Every category ends once, and slots that are there work over 95 % of the time."""
    dice = random.Random(seed)
    names = [f"c{number}" for number in range(1000)]
    seconds = {name: dice.lognormvariate(3, 0.6) for name in names}
    queue = WorkQueue(
        Job(name=name, size=round(seconds[name] * dice.uniform(0.8, 1.25))) for name in names
    )
    ended: Counter[str] = Counter()
    now, busy, there = 0.0, 0.0, 0.0
    events: list[tuple[float, str, float, str | None]] = []  # end, slot, start, its job
    homes: dict[str, float] = {}  # since when a slot is there

    def start(slot: str, at: float) -> None:
        job = queue.take(slot, slot, "n")
        took = seconds[job.name] if job is not None else 0
        heapq.heappush(events, (at + took, slot, at, job.name if job is not None else None))

    for number in range(8):
        homes[f"s{number}"] = 0.0
        start(f"s{number}", 0.0)
    number = 8
    while events:
        now, slot, since, name = heapq.heappop(events)
        if name is None:
            there += now - homes.pop(slot)
            continue
        if dice.random() < 0.02:  # its node is lost halfway, and another one joins
            queue.give_back(slot, "its node was lost")
            now = (since + now) / 2
            busy += now - since
            there += now - homes.pop(slot)
            homes[f"s{number}"] = now
            start(f"s{number}", now)
            number += 1
            continue
        busy += now - since
        queue.end(slot, name)
        ended.update(each.name for each in queue.news(ended.total()).ended)
        start(slot, now)
    assert ended == Counter(names)
    assert busy / there > 0.95
