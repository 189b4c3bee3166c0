"""One run, of Ray Train or a task of Ray: its workers are started anew when one of them dies."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Thread
from typing import Any

import ray
from ray.train import CheckpointConfig, FailureConfig, Result, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from jobs.cluster.join import Resources

MAX_FAILURES = 3  # of a worker, each followed by another start


Loop = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class TrainRun:
    """Where a run keeps its files, and what its workers have."""

    name: str  # the same name in the same place resumes
    runs: str  # folder or S3 prefix, which every node reaches
    resources: Resources  # of each worker
    num_workers: int = 1

    def start(self, loop: Loop, config: dict[str, Any]) -> Future[Result]:
        """Run ``loop(config)`` on every worker to its end; the config gets its ``threads``.

        Ray Train's controllers are actors of this process's node; a thread waits for them. It ends
        with the process, so that an interrupted command does not wait for its trainings.
        """
        future: Future[Result] = Future()

        def work() -> None:
            try:
                future.set_result(self._trainer(loop, config).fit())
            except BaseException as error:  # noqa: BLE001  whoever asks for the result gets it
                future.set_exception(error)

        Thread(target=work, name=self.name, daemon=True).start()
        return future

    def _trainer(self, loop: Loop, config: dict[str, Any]) -> TorchTrainer:
        cpus, gpus = self.resources.cpus, self.resources.gpus
        return TorchTrainer(
            loop,
            train_loop_config={**config, "threads": cpus},
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


def start_task(loop: Loop, config: dict[str, Any], resources: Resources) -> Future[Any]:
    """Run ``loop(config)`` in one process, without Ray Train; the config gets its ``threads``."""
    task = ray.remote(max_retries=MAX_FAILURES, retry_exceptions=True)(loop)
    task = task.options(num_cpus=resources.cpus, num_gpus=resources.gpus)
    future: Future[Any] = task.remote({**config, "threads": resources.cpus}).future()
    return future
