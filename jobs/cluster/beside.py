"""Actors that a command asks all the time, in a process beside it."""

import time
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from jobs.cluster.probe import ClusterError

AWAY_S = 120.0  # for which an actor may be out of reach
PAUSE_S = 0.5
LOST = "what shares the work out among the nodes is lost; run the same command again."


def beside(kind: type, *arguments: Any) -> Any:
    """Return the handle of a new actor on this process's node: no lost worker node takes it."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    return ray.remote(num_cpus=0)(kind).options(scheduling_strategy=here).remote(*arguments)


def ask(method: Any, *arguments: Any) -> Any:
    """Return an actor's answer, asked again while the network to it is away.

    Args:
        method: of the actor, which does the same when it is called twice.
        arguments: its own.

    Raises:
        ClusterError: the actor is lost, or out of reach for long.
    """
    started = time.monotonic()
    while True:
        try:
            return ray.get(method.remote(*arguments))
        except ActorUnavailableError as error:
            if time.monotonic() - started > AWAY_S:
                raise ClusterError(f"{LOST} It was out of reach for {AWAY_S:g} s.") from error
        except RayActorError as error:
            raise ClusterError(LOST) from error
        time.sleep(PAUSE_S)
