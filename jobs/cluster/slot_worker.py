"""What a slot's worker does: job after job of the queue, until none waits."""

import itertools
import pickle
import uuid
from collections.abc import Callable
from typing import Any

import ray

from jobs.cluster.beside import ask
from jobs.cluster.join import reason
from jobs.cluster.progress_board import DONE, FAILED, Reporter
from jobs.cluster.work_queue import Job
from model.errors import NightshiftError, ServiceAway
from pipeline.storage.retry import Retry

Do = Callable[[Job, Reporter], Any]
OUTAGE = Retry()  # how long a job waits for a service that is away


def do_nothing(num_done: int) -> None:
    """Leave a job that is done alone."""


def work_through(
    queue: Any, slot: str, do: Do, *, after: Callable[[int], None] = do_nothing
) -> None:
    """Do jobs until none waits.

    A job that is no good is reported, with its reason. A service that is away is no job's fault:
    the job is done again after pauses, and then given back while this worker ends. Another error
    may have left the process in a bad state, and ends it: a new worker tries the job once more.

    Args:
        queue: the actor.
        slot: whose worker this is.
        do: returns what the job comes to; the command gets it.
        after: called after each job, with how many this worker has done.
    """
    worker, node = uuid.uuid4().hex, ray.get_runtime_context().get_node_id()
    # Before it asks for work: what the one before it had on a lost node was not the job's fault.
    ask(queue.lose_nodes, [each["NodeID"] for each in ray.nodes() if not each["Alive"]])
    for num_done in itertools.count(1):
        job: Job | None = ask(queue.take, slot, worker, node)
        if job is None:
            return
        try:
            error, value = _try(do, job, Reporter(queue, job.name))
        except ServiceAway as away:
            ask(queue.leave, slot, reason(away))
            return
        except Exception as unexpected:
            ask(queue.explain, slot, reason(unexpected))
            raise
        ask(queue.end, slot, job.name, error, value)
        after(num_done)


def _try(do: Do, job: Job, reporter: Reporter) -> tuple[str | None, bytes]:
    """Return why a job failed, and what it came to."""
    error, value = None, None
    try:
        value = OUTAGE.call(lambda: do(job, reporter))
    except ServiceAway:
        raise
    except NightshiftError as failure:  # trying again would not help
        error = reason(failure)
    reporter.tell(FAILED if error else DONE, 1, 1)
    return error, pickle.dumps(value)
