"""One run of Ray Train: workers that are resumed from the last checkpoint.

Beside each worker that trains there are processes that only steer it. They import this module,
and must not import torch: it would take 0.3 GB of the head's memory for each, and seconds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ray.train import (
    BackendConfig,
    CheckpointConfig,
    FailureConfig,
    Result,
    RunConfig,
    ScalingConfig,
)
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from jobs.cluster.join import Resources

MAX_FAILURES = 3  # of a worker, each resumed from the last checkpoint


@dataclass(frozen=True, kw_only=True)
class TrainRun:
    """Where a run's checkpoints go, and what its workers have."""

    name: str  # the same name in the same place resumes
    runs: str  # folder or S3 prefix of checkpoints
    resources: Resources  # of each worker
    num_workers: int = 1

    def fit(self, loop: Callable[[dict[str, Any]], None], config: dict[str, Any]) -> Result:
        """Run ``loop(config)`` on every worker to its end; the config gets its ``threads``."""
        cpus, gpus = self.resources.cpus, self.resources.gpus
        trainer = DataParallelTrainer(
            loop,
            train_loop_config={**config, "threads": cpus},
            backend_config=self._backend(),
            scaling_config=ScalingConfig(
                num_workers=self.num_workers,
                use_gpu=bool(gpus),
                resources_per_worker={"CPU": cpus, "GPU": gpus},
            ),
            run_config=RunConfig(
                name=self.name,
                storage_path=self.runs,
                failure_config=FailureConfig(max_failures=MAX_FAILURES),
                checkpoint_config=CheckpointConfig(num_to_keep=1),
            ),
        )
        return trainer.fit()

    def _backend(self) -> BackendConfig:
        """Return what lets several workers add up; one has nobody to talk to."""
        if self.num_workers == 1:
            return BackendConfig()
        from ray.train.torch import TorchConfig  # noqa: PLC0415  imports torch

        return TorchConfig()
