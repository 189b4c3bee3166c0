"""What a slot's worker does: it evaluates category after category, each with all its detectors.

Apart from ``jobs/evaluate/evaluate.py`` because every worker imports this module: no MLflow here.
"""

import gc
import logging
from dataclasses import dataclass, replace
from typing import Any

import torch

from jobs.cluster.join import reason
from jobs.cluster.progress_board import Reporter
from jobs.cluster.slot_worker import work_through
from jobs.cluster.work_queue import Job
from model.errors import NightshiftError, ServiceAway
from pipeline.backbones import LoadedBackbone, own_device
from pipeline.catalogue.catalogue import Category
from pipeline.evaluation.plots import draw
from pipeline.evaluation.protocol import CategoryResult, Protocol
from pipeline.evaluation.tables import scores_csv
from pipeline.feature_store.place import StorePlace

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A category's result and the files that show it."""

    result: CategoryResult
    files: dict[str, bytes]  # by name


@dataclass(kw_only=True)
class EvaluationWorker:
    """One worker, with what it keeps from category to category."""

    num_seeds: int
    features: StorePlace | None
    backbone: LoadedBackbone
    broken: Exception | None = None  # what may have left this process in a bad state

    def measure(self, job: Job, reporter: Reporter) -> dict[str, Measured | str]:
        """Measure a category's variants, which share what they have in common.

        A variant that is no good has the reason in its place and never stops the others. So has, at
        a job's last try, one that breaks down otherwise.

        Raises:
            ServiceAway: the storage does not answer.
            Exception: a variant broke down; another process may do better.
        """
        protocol = Protocol(
            num_seeds=self.num_seeds,
            progress=reporter.tell,
            features=self.features,
            fetch=self.backbone,
        )
        found: dict[str, Measured | str] = {}
        for name, each in job.payload.items():
            try:
                found[name] = _measured(protocol, Category.model_validate(each))
            except ServiceAway:
                raise
            except Exception as error:  # one bad variant never stops the others
                logger.info("evaluating %s failed", job.name, exc_info=True)
                self._judge(error, job)
                found[name] = reason(error)
        return found

    def _judge(self, error: Exception, job: Job) -> None:
        if isinstance(error, NightshiftError):
            return
        if not job.is_last_try:
            raise error
        self.broken = error

    def end_if_broken(self, _num_done: int) -> None:
        """End the process where the next category might suffer from what happened to the last."""
        if self.broken is not None:
            raise self.broken


def run(config: dict[str, Any]) -> None:
    """Work through the queue: what the task does. A job's payload is a category, by detector."""
    torch.set_num_threads(config["threads"])
    worker = EvaluationWorker(
        num_seeds=config["num_seeds"],
        features=config["features"],
        backbone=LoadedBackbone(own_device()),
    )
    work_through(config["queue"], config["slot"], worker.measure, after=worker.end_if_broken)


def _measured(protocol: Protocol, category: Category) -> Measured:
    result = protocol.measure(category)
    files = {**draw(result), "scores.csv": scores_csv(result).encode()}
    gc.collect()  # figures refer to each other; 26 MB of every category would wait for long
    return Measured(result=replace(result, tiles=()), files=files)  # tiles are in the picture
