"""Actors that a command asks all the time, in a process beside it."""

from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


def beside(kind: type, *arguments: Any) -> Any:
    """Return the handle of a new actor on this process's node: no lost worker node takes it."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    return ray.remote(num_cpus=0)(kind).options(scheduling_strategy=here).remote(*arguments)
