"""A fixed pool of scoring workers that goes on when some of them are lost.

A worker that dies, or whose host or network is away, costs the bundle of shards it had in hand:
others take them, one by one, so that a shard which takes its workers down is known by its name.
What the worker had stored of them is not scored again.
The lost worker is back in the pool once Ray has started it anew.

Ray Core actors and not Ray Data, because a night must have exactly one row per image: Ray Data ends
the whole job at one corrupt image or counts its errors by blocks and not by rows, its checkpoints
know a row by its id alone and keep the rows of an old model silently, an autoscaling pool of actors
can get stuck at one, and a listing inside Ray takes hours before the first row. Here the shards are
planned from a manifest, and their names say which are finished.
"""

import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from jobs.cluster.join import reason
from jobs.cluster.probe import ClusterError
from pipeline.night.scoring.task import Task, Written

logger = logging.getLogger(__name__)

POLL_S = 0.5
MOST_LOSSES = 4  # of one shard: it may be what kills them
RETURN_S = 900.0  # for which nobody works before the night is given up
REMEDY = "What is scored is kept; score the night again when that is mended."


class Pool:
    """Workers with ``write`` and ``is_ready``, and the bundles of shards that they are to write."""

    def __init__(self, workers: Sequence[Any], bundles: Sequence[list[Task]]) -> None:
        self.idle, self.waiting = list(workers), list(reversed(bundles))
        self.running: dict[Any, tuple[Any, list[Task]]] = {}
        self.coming_back: dict[Any, Any] = {}
        self.losses: Counter[str] = Counter()

    def results(self) -> Iterator[list[Written]]:
        """Yield what became of each bundle; nothing of any, now and then, while all work.

        Raises:
            ClusterError: a shard fails, is lost too often, or no worker is left.
        """
        worked = time.monotonic()
        while self.waiting or self.running:
            while self.waiting and self.idle:
                worker, bundle = self.idle.pop(), self.waiting.pop()
                self.running[worker.write.remote(bundle)] = (worker, bundle)
            if self.running:
                worked = time.monotonic()
            elif time.monotonic() - worked > RETURN_S:
                raise ClusterError(
                    f"no scoring worker has come back for {RETURN_S:g} s; are its nodes away? "
                    f"{REMEDY}"
                )
            ended, _ = ray.wait([*self.running, *self.coming_back], num_returns=1, timeout=POLL_S)
            for reference in ended:
                if reference in self.coming_back:
                    self._worker_back(reference)
                else:
                    yield from self._take(reference)
            if not ended:
                yield []

    def _take(self, reference: Any) -> Iterator[list[Written]]:
        worker, bundle = self.running.pop(reference)
        try:
            written: list[Written] = ray.get(reference)
        except RayActorError as error:
            self._lose(worker, bundle, error)
        except RayError as error:
            raise ClusterError(f"a scoring worker failed: {reason(error)} {REMEDY}") from error
        else:
            self.idle.append(worker)
            yield written

    def _lose(self, worker: Any, bundle: list[Task], error: RayError) -> None:
        logger.warning("a worker was lost with %d shards: %s", len(bundle), reason(error))
        for task in bundle:
            self.losses[task.name] += 1
            if self.losses[task.name] == MOST_LOSSES:
                raise ClusterError(
                    f"shard {task.name} was lost with {MOST_LOSSES} workers: {reason(error)} "
                    f"{REMEDY}"
                ) from error
        self.waiting += [[task.again()] for task in reversed(bundle)]
        # Ray answers once the worker runs again, or when it is dead for good.
        self.coming_back[worker.is_ready.options(max_task_retries=-1).remote()] = worker

    def _worker_back(self, reference: Any) -> None:
        worker = self.coming_back.pop(reference)
        try:
            ray.get(reference)
        except RayError as error:
            if not (self.idle or self.running or self.coming_back):
                raise ClusterError(
                    f"no scoring worker is left: {reason(error)} {REMEDY}"
                ) from error
        else:
            self.idle.append(worker)
