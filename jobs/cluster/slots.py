"""A run for every job that the cluster holds at a time; they share one queue of work.

A run works through job after job instead of being started for each. Runs come while jobs wait and
the cluster has room for them, as it has after a node joined; a run whose node is away gives its job
back, and goes on with another once Ray has found it a place.

What trains detectors to keep is a run of Ray Train, which takes four processes and seconds to
start; what only measures is a task.
"""

import logging
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any

import ray

from jobs.cluster.beside import ask, beside
from jobs.cluster.join import Resources, jobs_at_a_time, reason
from jobs.cluster.probe import ClusterError
from jobs.cluster.progress_board import JobProgress
from jobs.cluster.train_run import Loop, TrainRun, start_task
from jobs.cluster.work_queue import Ended, Job, News, WorkQueue

POLL_S = 0.3
END_S = 30.0  # within which runs notice that nothing waits
MOST_FRUITLESS = 2  # runs one after another that failed without a job done
MOST_AWAY = 6  # jobs one after another whose worker left, as a service was away

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Slots:
    """The runs of one command."""

    loop: Loop  # of a worker; it takes its jobs from its ``queue``
    config: dict[str, Any]  # for the loop
    resources: Resources  # of each
    runs: str | None = None  # where Ray Train keeps what it writes; None: they are tasks

    def work_through(
        self, jobs: Sequence[Job], show: Callable[[JobProgress], None]
    ) -> Iterator[Ended]:
        """Yield what becomes of each job, as they end.

        Args:
            jobs: no two of one name.
            show: is told how far they are, twice a second at least.

        Raises:
            ClusterError: the queue is lost, or what is left cannot be done now: a service is away,
                or runs fail whatever they do.
        """
        queue: Any = beside(WorkQueue, list(jobs))
        runs, num_known = _Runs(self, queue), 0
        try:
            while True:
                news: News = ask(queue.news, num_known)
                num_known += len(news.ended)
                yield from news.ended
                show(news.progress)
                if news.is_over:
                    break
                runs.look_after(news)
                time.sleep(POLL_S)
            runs.wait()
        finally:  # whoever takes what ends may fail: in a session that goes on, runs end as well
            queue.stop.remote()


class _Runs:
    """The runs that work or are about to."""

    def __init__(self, slots: Slots, queue: Any) -> None:
        self._slots, self._queue = slots, queue
        self._running: dict[str, Future[Any]] = {}
        self._num_fruitless, self._last_error = 0, ""  # that failed one after another
        self._num_left, self._left_before = 0, 0  # workers that left; of these before a job's end

    def look_after(self, news: News) -> None:
        """Take leave of runs that have ended or are lost, and start those that are wanted."""
        self._note(news)
        for name in [name for name, run in self._running.items() if run.done()]:
            self._leave(name, self._running.pop(name))
        if not news.num_waiting and not news.held:
            return
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        if lost := {held.node for held in news.held.values()} - alive:
            self._queue.lose_nodes.remote(lost)
        num_jobs = news.num_waiting + len(news.held)
        num_away = self._num_left - self._left_before
        if self._num_fruitless < MOST_FRUITLESS and num_away < min(MOST_AWAY, num_jobs):
            self._fill_up(num_jobs)
        elif not self._running:  # those that still run may yet do what waits
            raise ClusterError(
                f"{num_jobs:,} of the jobs are left, and none can be done now: "
                f"{self._last_error} Mend it and run the command again."
            )

    def _note(self, news: News) -> None:
        if news.ended:
            self._num_fruitless, self._left_before = 0, self._num_left
        if len(news.away) > self._num_left:
            self._num_left, self._last_error = len(news.away), news.away[-1]

    def _fill_up(self, num_left: int) -> None:
        resources = self._slots.resources
        room = jobs_at_a_time(resources.cpus, resources.gpus)
        for _ in range(min(max(room, 1), num_left) - len(self._running)):
            self._start()

    def wait(self) -> None:
        """Let the runs end, which notice by themselves that nothing waits."""
        wait(self._running.values(), timeout=END_S)

    def _start(self) -> None:
        name, slots = f"slot-{uuid.uuid4().hex[:12]}", self._slots
        config = {**slots.config, "queue": self._queue, "slot": name}
        if slots.runs is None:
            self._running[name] = start_task(slots.loop, config, slots.resources)
            return
        run = TrainRun(name=name, runs=slots.runs, resources=slots.resources)
        self._running[name] = run.start(slots.loop, config)

    def _leave(self, name: str, run: "Future[Any]") -> None:
        error = run.exception()
        if error is None:
            return
        logger.info("a run failed", exc_info=error)
        self._num_fruitless, self._last_error = self._num_fruitless + 1, reason(error)
        self._queue.give_back.remote(name, self._last_error)
