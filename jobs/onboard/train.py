"""One category's Ray Train run; like ``jobs/cluster/train_run.py`` it must not import torch."""

from typing import Any

import ray

from jobs.cluster.train_run import TrainRun
from pipeline.feature_store.place import StorePlace


@ray.remote(num_cpus=0, max_retries=2)
def fit(
    category: dict[str, Any],
    run: TrainRun,
    checkpoint_every_s: float,
    board: Any,
    features: StorePlace | None,
) -> str:
    """Train to the end; return where the last checkpoint lies."""
    config = {
        "category": category,
        "board": board,
        "checkpoint_every_s": checkpoint_every_s,
        "features": features,
    }
    checkpoint = run.fit(train_category, config).checkpoint
    assert checkpoint is not None, "every job reports a checkpoint, if only of its error"
    prefix = "s3://" if checkpoint.filesystem.type_name == "s3" else ""
    return f"{prefix}{checkpoint.path}"


def train_category(config: dict[str, Any]) -> None:
    """What the worker is sent."""
    from jobs.onboard.train_loop import run  # noqa: PLC0415  torch belongs to the worker alone

    run(config)
