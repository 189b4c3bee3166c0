"""What runs on the cluster for a study: trials of the search, and the stages around it.

Apart from ``jobs/study/tune.py`` because every worker imports this module: no MLflow here.
"""

from typing import Any

import torch
from ray import tune

from jobs.cluster.slot_worker import OUTAGE, work_through
from pipeline import storage
from pipeline.backbones import LoadedBackbone, own_device
from pipeline.study.check import keep_head
from pipeline.study.feature_copies import own_copies
from pipeline.study.run import StudyContext, StudyTrial
from pipeline.study.space import decode


class TuneTrial(tune.Trainable):
    """A trial as Ray Tune runs it: a step is a rung. Its process is used for the next one too."""

    def setup(self, config: dict[str, Any], context: StudyContext | None = None) -> None:
        """Begin a trial; ``context`` comes with every process, ``config`` with every trial."""
        assert context is not None
        torch.set_num_threads(context.threads)
        self.context = context
        self.trial = StudyTrial(context, decode(config, context.study.space))

    def step(self) -> dict[str, Any]:
        """Train to the next rung, after pauses where the storage is away."""
        return OUTAGE.call(self._advance)

    def _advance(self) -> dict[str, Any]:
        told = self.trial.advance(self.iteration)
        for name, run in self.trial.runs.items():
            uri = storage.join(self.context.heads, self.trial_id, f"{name}.safetensors")
            keep_head(run.folded(), uri)
        return told

    def cleanup(self) -> None:
        """Give the copies of features back; Ray may kill this process before it ends by itself."""
        own_copies().close()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial in this process."""
        self.trial = StudyTrial(self.context, decode(new_config, self.context.study.space))
        return True


def run(config: dict[str, Any]) -> None:
    """Work through the queue: what a slot's task does.

    The config's ``work`` has a function for each job; those that embed are called with what gives
    the backbone, which stays loaded from one to the next.
    """
    torch.set_num_threads(config["threads"])
    given = [LoadedBackbone(own_device())] if config.get("embeds") else []
    work_through(config["queue"], config["slot"], lambda job, _: config["work"][job.name](*given))
