"""One scoring worker: a process that scores the shards it is given.

No MLflow and nothing of the report: every worker imports this module.
"""

import torch

from jobs.night.feeders import Feeding, fed
from jobs.night.prometheus import NightMetrics
from pipeline.backbones import own_device
from pipeline.night.fleet.fleet import Fleet
from pipeline.night.folder import NightFolder
from pipeline.night.scoring.scorer import ShardScorer
from pipeline.night.scoring.task import Task, Written
from pipeline.storage.retry import Retry


class ScoringWorker:
    """A ``ShardScorer`` in a process of its own; it reads the night's fleet once."""

    def __init__(
        self,
        folder: NightFolder,
        threads: int,
        heads_bytes: int,
        feeding: Feeding | None = None,
        *,
        compiles: bool = False,
    ) -> None:
        torch.set_num_threads(threads)
        self.scorer = ShardScorer(
            Retry().call(lambda: Fleet.read(folder.fleet)),
            folder,
            device=own_device(),
            heads_bytes=heads_bytes,
            observer=NightMetrics(),
            compiles=compiles,
        )
        if feeding is not None:
            self.scorer.source = fed(self.scorer, feeding)

    def write(self, tasks: list[Task]) -> list[Written]:
        """Score a bundle of shards and store their rows."""
        return self.scorer.write(tasks)

    def is_ready(self) -> bool:
        """Answer at all."""
        return True
