"""Join a Ray cluster or start one on this machine, in bounded time."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray

from jobs.cluster.probe import ClusterError, ask_cluster
from jobs.cluster.session_folder import session_folder
from model.errors import NightshiftError

logger = logging.getLogger(__name__)

WORKER_ENVIRONMENT = {
    # Two spinning OpenMP threads that share a core with anybody else run ten times slower.
    "OMP_WAIT_POLICY": "PASSIVE",
    # Large tensors and pictures come and go with every batch. glibc would hand their memory back
    # and have every page cleared again; kept, it costs nothing and the peak stays the same.
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
    "MALLOC_TOP_PAD_": str(64 * 2**20),
    "MALLOC_MMAP_MAX_": "0",
    # Every shard has threads of its own; what they kept in heaps of their own would add up.
    "MALLOC_ARENA_MAX": "1",
    # Ray Train would start one more process for each category, to be told that a node will be
    # taken away; without it a category goes on from its last checkpoint, 15 s old at most.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}


@dataclass(frozen=True, kw_only=True)
class Resources:
    """How many jobs run side by side, and what each of them gets."""

    num_jobs: int
    cpus: int  # and threads of its PyTorch
    gpus: int  # 0 or 1


@contextmanager
def cluster(num_cpus: int | None = None, *, ask_first: bool = True) -> Iterator[None]:
    """Use the running Ray session, the cluster at RAY_ADDRESS, or a local one for the block.

    Args:
        num_cpus: of a local cluster; by default all that the machine has.
        ask_first: make sure that the cluster answers; without it Ray may wait for ever.

    Raises:
        ClusterError: nothing answers at RAY_ADDRESS, or Ray does not start on this machine.
    """
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS", "")
    if ask_first and address not in ("", "local"):
        ask_cluster(address)
    if address in ("", "local"):
        with session_folder() as folder:
            yield from _session(address, _local_options(num_cpus, folder))
    else:
        yield from _session(address, {})


def _local_options(num_cpus: int | None, folder: str | None) -> dict[str, Any]:
    return {
        **{"address": "local", "include_dashboard": False, "num_cpus": num_cpus},
        # Actors and waiting tasks take no CPU; Ray would warn of a process for each.
        "_system_config": {"worker_maximum_startup_concurrency": 8},
        "_temp_dir": folder,
    }


def _session(address: str, options: Mapping[str, Any]) -> Iterator[None]:
    """Start or join, and leave."""
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        if options:  # handed down: a worker that is told apart starts half a second later
            with _in_environment(WORKER_ENVIRONMENT):
                ray.init(**quiet, **options)
        else:
            ray.init(**quiet, runtime_env={"env_vars": WORKER_ENVIRONMENT})
    except Exception as error:
        if options:
            said = "Ray does not start on this machine"
            remedy = "Run `nightshift doctor`, which looks at its memory and disks."
        else:
            said = f"Ray does not join the cluster at RAY_ADDRESS={address}"
            remedy = "Correct the address, or unset it to run on this machine."
        raise ClusterError(f"{said}: {reason(error)} {remedy}") from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _in_environment(values: Mapping[str, str]) -> Iterator[None]:
    """Let the processes that are started in the block have some variables."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values:
            if name in before:
                os.environ[name] = before[name]
            else:
                del os.environ[name]


def resources_for(num_tasks: int) -> Resources:
    """Share the cluster out among ``num_tasks``: a GPU each where there are GPUs, else CPUs.

    A job runs on one node, so it never gets more CPUs than the smallest node has.
    """
    nodes = _nodes()
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    cpus = [int(node["CPU"]) for node in nodes]
    if gpus:
        shares = [int(node["CPU"] // node["GPU"]) for node in nodes if node.get("GPU", 0)]
        return Resources(num_jobs=min(num_tasks, gpus), cpus=max(1, min(shares)), gpus=1)
    per_job = max(1, min(*cpus, sum(cpus) // max(num_tasks, 1)))
    return Resources(num_jobs=max(1, jobs_at_a_time(per_job, 0)), cpus=per_job, gpus=0)


def jobs_at_a_time(cpus: int, gpus: int) -> int:
    """Return how many jobs of so many CPUs and GPUs the nodes that are there hold at a time."""
    name, each = ("GPU", gpus) if gpus else ("CPU", cpus)
    return sum(int(node.get(name, 0)) // each for node in _nodes())


def num_accelerators() -> int:
    """Return how many GPUs the cluster has."""
    return int(sum(node.get("GPU", 0) for node in _nodes()))


def memory_per_job(resources: Resources) -> int:
    """Bytes that Ray has for each job on the node that is shortest of memory."""
    return min(int(node["memory"] // max(1, node["CPU"] // resources.cpus)) for node in _nodes())


def _nodes() -> list[dict[str, float]]:
    """Return the resources of each node that has a CPU to work with."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    nodes = [node for node in nodes if node.get("CPU", 0) >= 1]
    if not nodes:
        raise ClusterError("the Ray cluster has no CPU to work with; add a worker node.")
    return nodes


def reason(error: BaseException) -> str:
    """Return in one line why a task or an actor failed: the error it died of, not its traceback."""
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    if isinstance(cause, NightshiftError):
        return " ".join(lines)
    last = lines[-1] if lines else "no reason given."
    name = type(cause).__name__
    return (last if name in last else f"{name}: {last}")[:500]
