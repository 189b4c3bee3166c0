"""The Ray Train job of a bank; like ``jobs/onboard/train.py`` it must not import torch."""

from dataclasses import dataclass
from typing import Any

import ray
from ray.train import BackendConfig, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from jobs.cluster.join import Resources

MAX_FAILURES = 3  # of a worker, each resumed from the last checkpoint


@dataclass(frozen=True, kw_only=True)
class SynthesisJob:
    """How a bank's job runs."""

    name: str  # the same name in the same place resumes
    runs: str  # folder or S3 prefix of checkpoints
    resources: Resources  # of each worker
    num_workers: int


@ray.remote(num_cpus=0, max_retries=2)
def fit(order: dict[str, Any], job: SynthesisJob, board: Any) -> dict[str, Any]:
    """Run one Ray Train job to its end; return what it says of itself."""
    resources = job.resources
    trainer = DataParallelTrainer(
        make_bank,
        train_loop_config={
            "order": order,
            "board": board,
            "threads": resources.cpus,
        },
        backend_config=_backend(job),
        scaling_config=ScalingConfig(
            num_workers=job.num_workers,
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
    metrics = trainer.fit().metrics
    assert metrics is not None, "every job reports how it ended"
    return dict(metrics)


def _backend(job: SynthesisJob) -> BackendConfig:
    """Return what lets several workers add up; one has nobody to talk to."""
    if job.num_workers == 1:
        return BackendConfig()
    from ray.train.torch import TorchConfig  # noqa: PLC0415  imports torch

    return TorchConfig()


def make_bank(config: dict[str, Any]) -> None:
    """What the worker is sent."""
    from jobs.synthesise.synthesis_loop import run  # noqa: PLC0415  torch belongs to the worker

    run(config)
