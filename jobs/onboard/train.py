"""One category's Ray Train job.

Beside each worker that trains there are processes that only steer it. They import this module,
and must not import torch: it would take 0.3 GB of the head's memory for each, and seconds.
"""

from dataclasses import dataclass
from typing import Any

import ray
from ray.train import BackendConfig, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from jobs.cluster.join import Resources

MAX_FAILURES = 3  # of a worker, each resumed from the last checkpoint


@dataclass(frozen=True, kw_only=True)
class Job:
    """How one category's training runs."""

    name: str  # the same name in the same place resumes
    runs: str  # folder or S3 prefix of checkpoints
    resources: Resources
    checkpoint_every_s: float


@ray.remote(num_cpus=0, max_retries=2)
def fit(category: dict[str, Any], job: Job, board: Any) -> str:
    """Run one Ray Train job to its end; return where its last checkpoint lies."""
    resources = job.resources
    trainer = DataParallelTrainer(
        train_category,
        train_loop_config={
            "category": category,
            "board": board,
            "threads": resources.cpus,
            "checkpoint_every_s": job.checkpoint_every_s,
        },
        # TorchTrainer would add a process group, and one worker has nobody to talk to.
        backend_config=BackendConfig(),
        scaling_config=ScalingConfig(
            num_workers=1,
            use_gpu=bool(resources.gpus),
            resources_per_worker={"CPU": resources.cpus, "GPU": resources.gpus},
        ),
        run_config=RunConfig(
            name=job.name,
            storage_path=job.runs,
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
        ),
    )
    checkpoint = trainer.fit().checkpoint
    assert checkpoint is not None, "every job reports a checkpoint, if only of its error"
    prefix = "s3://" if checkpoint.filesystem.type_name == "s3" else ""
    return f"{prefix}{checkpoint.path}"


def train_category(config: dict[str, Any]) -> None:
    """What the worker is sent."""
    from jobs.onboard.train_loop import run  # noqa: PLC0415  torch belongs to the worker alone

    run(config)
