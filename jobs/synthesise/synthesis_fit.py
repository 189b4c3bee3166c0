"""The Ray Train run of a bank; like ``jobs/cluster/train_run.py`` it must not import torch."""

from typing import Any

import ray

from jobs.cluster.train_run import TrainRun


@ray.remote(num_cpus=0, max_retries=2)
def fit(order: dict[str, Any], run: TrainRun, board: Any) -> dict[str, Any]:
    """Train and draw to the end; return what the workers say of it."""
    metrics = run.fit(make_bank, {"order": order, "board": board}).metrics
    assert metrics is not None, "every job reports how it ended"
    return dict(metrics)


def make_bank(config: dict[str, Any]) -> None:
    """What the worker is sent."""
    from jobs.synthesise.synthesis_loop import run  # noqa: PLC0415  torch belongs to the worker

    run(config)
